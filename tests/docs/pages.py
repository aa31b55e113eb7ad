"""The pages of the documentation as the tests read them: their links, headings, code blocks and files."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^(`{3,})(\{?[\w-]*\}?)[^\n`]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every page that people write, the notebooks not among them."""
    found = [
        *ROOT.glob("*.md"),
        *(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
    ]
    found += [ROOT / folder / "README.md" for folder in ("configs", "data", "notebooks", "outputs")]
    return sorted(found)


def name(path: Path) -> str:
    """A file's name below the project's root, as tests are called."""
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the number of its first line in the page."""

    language: str
    text: str
    line: int


def blocks(text: str, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, in their order."""
    return [
        Block(match[2], match[3], text[: match.start(3)].count("\n") + 1)
        for match in FENCE.finditer(text)
        if match[2] in languages
    ]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a page, and the documents of its tables of contents."""
    outside = re.sub(r"`[^`\n]+`", "", prose(text))  # what stands in backticks is no link
    listed = [
        f"{line.strip()}.md"
        for block in blocks(text, "{toctree}")
        for line in block.text.splitlines()
        if line.strip() and not line.startswith(":")
    ]
    return re.findall(r"\]\(<?([^()<>\s]+)>?\)", outside) + listed


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*$", prose(text), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    }


def broken(links_of: list[str], page: Path) -> list[str]:
    """Those of a page's relative links that lead nowhere."""
    bad = []
    for link in links_of:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):  # another site, or a mail
            continue
        path = (page.parent / target).resolve() if target else page
        # a table of contents names documents without ending
        is_notebook = path.suffix == ".md" and path.with_suffix(".ipynb").exists()
        lost = bool(anchor) and path.suffix == ".md" and path.exists()
        lost = lost and anchor not in anchors(path.read_text("utf-8"))
        if lost or not (path.exists() or is_notebook):
            bad.append(link)
    return bad


def notebook_text(path: Path) -> str:
    """The Markdown of a notebook's cells."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def module(stem: str) -> ModuleType:
    """A script of ``docs/`` as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{stem}", DOCS / f"{stem}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded
