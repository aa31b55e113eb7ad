"""Draw ``docs/architecture.svg`` and write the table of rooms of ``docs/architecture.md``.

    python docs/architecture_picture.py

The floors are the layers of the contract in ``pyproject.toml`` that ``make lint`` checks, and a
room's rule is the first paragraph of its docstring, so neither can say anything else than the code.
"""

from __future__ import annotations

import ast
import html
import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
BEGIN, END = "<!-- rooms -->", "<!-- end of rooms -->"
#: Colours of the floors: what a newcomer reads first is strongest.
GROUND, ROOM, INK = "#eef2f6", "#d8e6f3", "#1d3044"
WIDTH, GAP, LINE = 520, 8, 15  # pixels


def floors() -> list[list[str]]:
    """Names of the rooms of each floor, the top floor first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = text[text.index('type = "layers"') :]
    block = contract[contract.index("layers = [") : contract.index("]")]
    return [
        [name.strip().removeprefix("nbhelpers.") for name in re.split(r"[|:]", line)]
        for line in re.findall(r'"([^"]+)"', block)
    ]


def rule(room: str) -> str:
    """The first paragraph of a room's docstring."""
    base = ROOT / "nbhelpers" / room
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("``", "`")


def table() -> str:
    """All rooms from the bottom to the top, with their rules, as a Markdown table."""
    rows = [
        f"| `{room}` | {rule(room)} |" for floor in reversed(floors()) for room in sorted(floor)
    ]
    return "\n".join(["| room | its rule |", "|---|---|", *rows])


def picture() -> str:
    """The floors as SVG: each room may use only what stands below it."""
    boxes, top = [], 34
    for floor in floors():
        width = (WIDTH - GAP * (len(floor) + 1)) / len(floor)
        columns = max(12, int(width / 6.6))
        texts = [textwrap.wrap(rule(room).replace("`", ""), columns) for room in floor]
        height = 30 + LINE * max(len(lines) for lines in texts)
        for place, (room, lines) in enumerate(zip(floor, texts, strict=True)):
            left = GAP + place * (width + GAP)
            is_folder = (ROOT / "nbhelpers" / room).is_dir()
            boxes.append(
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="6" '
                f'fill="{ROOM if is_folder else GROUND}"/>'
                f'<text x="{left + 9:.0f}" y="{top + 20}" font-weight="bold" font-size="15">'
                f"{room}</text>"
            )
            for number, line in enumerate(lines):
                boxes.append(
                    f'<text x="{left + 9:.0f}" y="{top + 37 + LINE * number}" font-size="12">'
                    f"{html.escape(line)}</text>"
                )
        top += height + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{INK}">\n'
        "<title>The rooms of nbhelpers; each may use only those below it</title>\n"
        f'<rect width="{WIDTH}" height="{top}" fill="white"/>\n'
        f'<text x="{GAP}" y="22" font-size="13">Each room may use only those below it.</text>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def page() -> str:
    """``docs/architecture.md`` with its table of rooms brought up to date."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    (DOCS / "architecture.svg").write_text(picture(), encoding="utf-8")
    (DOCS / "architecture.md").write_text(page(), encoding="utf-8")
    print("docs/architecture.svg, docs/architecture.md")
