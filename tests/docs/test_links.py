"""Every link between README, documentation and notebooks leads somewhere, and no page is left out."""

import re

import pytest

from tests.docs.pages import (
    DOCS,
    ROOT,
    anchors,
    broken,
    links,
    module,
    name,
    notebook_text,
    pages,
    prose,
)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Files that a how-to page tells its reader to make.
TO_BE_MADE = {
    "configs/bottles.yaml",
    "configs/nearest_mean.yaml",
    "nbhelpers/models/nearest_mean.py",
    "nbhelpers/models/autoencoders/networks/shallow.py",
}
#: Folders whose files the study makes, or that are installed.
MADE = ("data/raw", "data/processed", "data/shifted", "outputs/")


@pytest.mark.parametrize("path", pages(), ids=name)
def test_every_link_of_a_page_leads_somewhere(path):
    text = path.read_text("utf-8")
    assert broken(links(text), path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_every_link_of_a_notebook_leads_somewhere(path):
    assert broken(links(notebook_text(path)), path) == []


@pytest.mark.parametrize("path", pages(), ids=name)
def test_every_file_that_a_page_names_is_there(path):
    named = re.findall(
        r"`((?:nbhelpers|configs|scripts|tests|docs|notebooks|data|outputs)/[\w./-]*\w/?)`",
        prose(path.read_text("utf-8")),
    )
    missing = [
        file
        for file in named
        if not (ROOT / file.replace("NN_name", "04_patchcore")).exists()
        and file not in TO_BE_MADE
        and not file.startswith(MADE)
    ]
    assert missing == []


def test_a_broken_link_is_found_and_a_good_one_let_pass():
    page = DOCS / "index.md"
    text = """
# A heading, with `code`: and 2 marks

[good](glossary.md#images) [anchor](#a-heading-with-code-and-2-marks) ![picture](overview.png)
[bad](nowhere.md) [bad anchor](glossary.md#nothing) `[code](is no link.md)` [site](https://mvtec.com)

```text
[fenced](neither.md)
```

```{toctree}
:hidden:

../notebooks/README
missing
```
"""
    assert "a-heading-with-code-and-2-marks" in anchors(text)
    found = broken([link for link in links(text) if not link.startswith("#")], page)
    assert found == ["nowhere.md", "glossary.md#nothing", "missing.md"]


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in pages():
        text = page.read_text("utf-8")
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                if line.strip() and not line.startswith(":"):
                    listed.add((page.parent / line.strip()).resolve())
    stems = {path.with_suffix("") for path in listed}
    left_out = [
        name(p) for p in pages() if p.is_relative_to(DOCS) and p.with_suffix("") not in stems
    ]
    left_out += [name(path) for path in NOTEBOOKS if path.with_suffix("") not in stems]
    assert left_out == []


def test_every_module_is_on_the_page_of_its_room():
    pages_of = module("api_pages").modules_of_pages()
    there = [
        ".".join(path.relative_to(ROOT / "nbhelpers").with_suffix("").parts)
        for path in (ROOT / "nbhelpers").rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    assert sorted(sum(pages_of.values(), [])) == sorted(there)
    rooms = {path.name for path in (ROOT / "nbhelpers").iterdir() if path.is_dir()} - {
        "__pycache__"
    }
    assert set(pages_of) == {*rooms, "ground", "patchcore", "autoencoders"}
    assert pages_of["patchcore"][0] == "models.patchcore.detector"
    assert "data.shift.twins" in pages_of["data"] and "files" in pages_of["ground"]


def test_the_readme_is_short():
    words = (ROOT / "README.md").read_text("utf-8").split()
    assert len(words) <= 1000
