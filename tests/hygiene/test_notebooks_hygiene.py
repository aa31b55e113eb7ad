"""Rules that every notebook keeps; no cell is run."""

import ast
import itertools
from pathlib import Path

import jupytext
import nbformat
import pytest

from nbhelpers.runner.graph import NOTEBOOKS, ROOT

pytestmark = pytest.mark.hygiene
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
ROWS = {row.stem: row for row in NOTEBOOKS}
TAGS = {
    "parameters",
    "bootstrap",
    "trained",
    "nbval-ignore-output",
    "nbval-check-output",
    "nbval-skip",
}
MAX_LINES = 30
MAX_NAMES = 15
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda path: path.stem)
def script(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def notebook(script):
    """The cells of the edited ``.py``."""
    return jupytext.read(script)


@pytest.fixture(scope="module")
def twin(script):
    """The committed, executed ``.ipynb``."""
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    """Give the one code cell with this tag, and its position among the code cells."""
    cells = [
        (n, cell)
        for n, cell in enumerate(code_cells(notebook))
        if tag in cell.metadata.get("tags", ())
    ]
    assert len(cells) == 1, f"expected one cell with the tag {tag}, found {len(cells)}"
    return cells[0]


def parameters(notebook) -> dict:
    """Name and value of each parameter; fails for anything that is not ``name = literal``."""
    _, cell = tagged(notebook, "parameters")
    values = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1, (
            f"not name = literal: {ast.unparse(node)}"
        )
        values[node.targets[0].id] = ast.literal_eval(node.value)
    return values


def test_the_table_names_exactly_the_notebooks_that_are_there():
    assert [path.stem for path in SCRIPTS] == [row.stem for row in NOTEBOOKS]
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == [
        path.stem for path in SCRIPTS
    ]


def test_numbers_are_unique_and_come_before_those_that_need_them():
    numbers = [row.number for row in NOTEBOOKS]
    assert numbers == sorted(set(numbers))
    assert all(
        other in numbers[:index] for index, row in enumerate(NOTEBOOKS) for other in row.after
    )


def test_parameters_are_literals_with_a_comment_each(notebook):
    index, cell = tagged(notebook, "parameters")
    assert index == 0
    parameters(notebook)
    for line in cell.source.splitlines():
        assert "  # " in line, f"what is it? {line}"


def test_parameters_are_those_that_the_runner_gives(script, notebook):
    given = parameters(notebook)
    assert given["profile"] == "tiny" and given["overrides"] == {}
    assert set(ROWS[script.stem].per) <= given.keys()


def test_bootstrap_is_the_same_everywhere(notebook):
    index, cell = tagged(notebook, "bootstrap")
    assert index == 1
    assert cell.source == tagged(jupytext.read(SCRIPTS[0]), "bootstrap")[1].source


def test_badge_opens_this_notebook_at_the_tag_that_is_cloned(script, notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and BADGE in first.source
    values = {}
    for node in ast.walk(ast.parse(tagged(notebook, "bootstrap")[1].source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            values[node.targets[0].id] = node.value.value
    assert f"/blob/{values['REPO_REF']}/notebooks/{script.stem}.ipynb)" in first.source


def test_opening_says_question_reads_writes_and_time(notebook):
    for word in ("**Question.**", "**Reads**", "**Writes**", "**Takes**"):
        assert word in notebook.cells[0].source, f"the first cell lacks {word}"


def test_study_is_opened_once_under_its_name_and_so_seeded(script, notebook):
    calls = [
        node
        for cell in code_cells(notebook)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open_notebook"
    ]
    expected = f"open_notebook({script.stem!r}, profile, overrides)"
    assert [ast.unparse(call) for call in calls] == [expected]


def test_cells_are_short_plain_python_that_defines_nothing(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= MAX_LINES, f"over {MAX_LINES} lines:\n{cell.source}"
        for node in ast.walk(ast.parse(cell.source)):  # a magic or a ! does not parse
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            assert not isinstance(node, kinds), f"{node.name} belongs into nbhelpers"
            wild = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
            assert not wild, f"import * from {node.module}"


def test_no_cell_loops_or_dumps_a_table(notebook):
    for cell in code_cells(notebook):
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, ast.For | ast.While) for node in tree.body), (
            f"a loop belongs into nbhelpers:\n{cell.source}"
        )
        assert "to_string" not in cell.source, f"note.show shows a table:\n{cell.source}"


def test_few_names_are_imported(notebook):
    tags = {"bootstrap", "parameters"}
    names = [
        alias.name
        for cell in code_cells(notebook)
        if not tags & set(cell.metadata.get("tags", ()))
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert len(names) <= MAX_NAMES, f"{len(names)} names: {', '.join(names)}"


def test_what_a_cell_shows_is_read_in_a_sentence(twin):
    cells = twin.cells
    for place, cell in enumerate(cells):
        if cell.cell_type != "code" or not cell.outputs or place < 4:  # the set-up comes first
            continue
        after = cells[place + 1 :]
        assert after and after[0].cell_type == "markdown", f"nobody reads it:\n{cell.source}"
        assert not after[0].source.startswith("#"), f"a heading follows:\n{cell.source}"


def test_tags_are_known(notebook):
    assert (
        set(itertools.chain.from_iterable(cell.metadata.get("tags", ()) for cell in notebook.cells))
        <= TAGS
    )


def test_kernel_is_python3(notebook, twin):
    assert notebook.metadata.kernelspec.name == twin.metadata.kernelspec.name == "python3"


def test_round_trip_through_jupytext_keeps_every_cell(notebook):
    again = jupytext.reads(jupytext.writes(notebook, fmt="py:percent"), fmt="py:percent")
    assert [(c.cell_type, c.source) for c in again.cells] == [
        (c.cell_type, c.source) for c in notebook.cells
    ]


def test_twin_has_the_same_cells(notebook, twin):
    assert [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in twin.cells] == [
        (c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells
    ], "run make sync"


def test_twin_was_executed_from_top_to_bottom(twin):
    # nbval compares nothing in a cell without a count
    cells = [cell for cell in code_cells(twin) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_twin_has_no_widget_error_or_vector_figure(twin):
    assert "widgets" not in twin.metadata
    for cell in code_cells(twin):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not {"image/svg+xml", "application/pdf"} & output.get("data", {}).keys(), (
                "nbval compares these"
            )
            assert not any("widget" in kind for kind in output.get("data", {}))


def test_every_figure_is_in_the_twin(twin):
    # a helper that leaves matplotlib's interactive state changed would take them out without a word
    for cell in code_cells(twin):
        saved = sum(
            isinstance(node, ast.Call) and ast.unparse(node.func) == "note.save"
            for node in ast.walk(ast.parse(cell.source))
        )
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(images) >= saved, f"{saved} figures saved, {len(images)} shown:\n{cell.source}"
