"""Which modules stand on which page of the API reference.

A page of ``docs/api`` holds one line such as ``<!-- modules of models.patchcore: detector -->``: the
folder of ``nbhelpers`` that it is about, and the modules that come first. While the site is built,
the line is replaced by a section for each module of that folder, except those of a folder within it
that has a page of its own. So a new module is on its page by itself.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "nbhelpers"
MARKER = re.compile(r"<!-- modules of ([\w.]+)(?:: ([\w. ]+))? -->")


def modules_of_pages() -> dict[str, list[str]]:
    """Modules below ``nbhelpers`` by the stem of their page, in the order in which they stand."""
    folders: dict[str, str] = {}  # folder -> page
    first: dict[str, list[str]] = {}
    for page in sorted((DOCS / "api").glob("*.md")):
        for folder, names in MARKER.findall(page.read_text(encoding="utf-8")):
            place = "" if folder == "nbhelpers" else f"{folder}."
            folders[place] = page.stem
            first[page.stem] = [place + name for name in names.split()]
    found: dict[str, list[str]] = {page: [] for page in first}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        owner = max((place for place in folders if module.startswith(place)), key=len)
        found[folders[owner]].append(module)
    return {
        page: sorted(modules, key=lambda module: (_place(module, first[page]), module))
        for page, modules in found.items()
    }


def _place(module: str, first: list[str]) -> int:
    return first.index(module) if module in first else len(first)


def sections(page: str) -> str:
    """The sections of a page, one per module, as MyST Markdown."""
    folder = MARKER.findall((DOCS / "api" / f"{page}.md").read_text(encoding="utf-8"))[0][0]
    lines = []
    for module in modules_of_pages()[page]:
        lines += [f"## {module.removeprefix(f'{folder}.')}", "", "```{eval-rst}"]
        lines += [f".. automodule:: nbhelpers.{module}", "```", ""]
    return "\n".join(lines)
