"""What notebooks show and write: tables with their twins in plain text, figures, findings beside
those of the study on real images.
"""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import nbhelpers.notebook as module
from nbhelpers.config import load_config
from nbhelpers.errors import ConfigError, DataError
from nbhelpers.notebook import MAX_ROWS, Notebook
from nbhelpers.report import sentences
from nbhelpers.results.numbers import Results
from nbhelpers.results.summary import (
    METRICS,
    REAL_IMAGES,
    Summary,
    kept_rows,
    read_summary,
    write_summary,
)
from nbhelpers.study import Study
from tests.tables import FAMILIES, table_of

METHODS = ("patchcore", "padim", "ae_cnn")
MINUS = "\N{MINUS SIGN}"


@pytest.fixture
def shown(monkeypatch):
    """The outputs that a notebook's cell would have, as (HTML, plain text)."""
    outputs = []

    def display(data, raw):
        assert raw
        outputs.append((data["text/html"], data["text/plain"]))

    monkeypatch.setattr(module, "display", display)
    return outputs


@pytest.fixture
def note(tmp_path):
    return Notebook("04_patchcore", Study(load_config("tiny", {"workspace": str(tmp_path)})))


@pytest.fixture
def told(note, monkeypatch):
    """A notebook whose run and whose real images are two made-up studies."""
    here, there = (table_of(*FAMILIES, methods=names) for names in (METHODS, METHODS[:2]))
    monkeypatch.setattr(Notebook, "results", Results(here))
    facts = {"categories": ["tile", "bottle"], "image_size": 224}
    note.real = Summary(facts, Results(there))
    return note


# -- tables --


def test_a_table_is_shown_as_html_with_the_same_cells_as_text(note, shown):
    index = pd.MultiIndex.from_tuples([("patchcore", "a"), ("ae_cnn", "b")], names=["method", "x"])
    table = pd.DataFrame({"image_auroc": [0.123, np.nan], "n": [3, 4]}, index=index)
    note.show(table)
    ((html, text),) = shown
    assert [line.split() for line in text.splitlines()] == [
        ["method", "x", "image_auroc", "n"],
        ["patchcore", "a", "0.12", "3"],
        ["ae_cnn", "b", "-", "4"],
    ]
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", html)
    assert cells == ["method", "x", "image AUROC", "n", "PatchCore", "a", "0.12", "3", "CNN AE", "b",
                     "-", "4"]  # fmt: skip
    assert not note.folder.exists(), "a table without a name writes nothing"


def test_methods_are_shown_in_their_order_and_rows_of_one_stay_as_they_are(note, shown):
    methods = ["ae_cnn", "elsewhere", "padim - ae_cnn", "patchcore", "padim - patchcore"]
    note.show(pd.DataFrame({"method": methods}))
    lines = [line.strip() for line in shown[0][1].splitlines()[1:]]
    assert lines == ["patchcore", "padim - ae_cnn", "padim - patchcore", "ae_cnn", "elsewhere"]


def test_column_names_of_two_levels_become_one_line(note, shown):
    columns = pd.MultiIndex.from_tuples([("train", "good"), ("val", "good")])
    note.show(pd.DataFrame([[1, 2]], columns=columns))
    assert shown[0][1].split() == ["train", "good", "val", "good", "1", "2"]


def test_a_long_table_names_the_file_that_has_all_its_rows(note, shown, tmp_path):
    table = pd.DataFrame({"value": np.linspace(0, 1, MAX_ROWS + 3)})
    note.show(table, "long")
    ((html, text),) = shown
    path = "outputs/tiny/results/04_patchcore/long.csv"
    assert text.splitlines()[-1] == f"{MAX_ROWS} of {MAX_ROWS + 3} rows; all of them are in {path}"
    assert len(text.splitlines()) == 1 + MAX_ROWS + 1 and path in html
    assert html.count("<tr") == 1 + MAX_ROWS
    stored = pd.read_csv(tmp_path / path)
    assert len(stored) == MAX_ROWS + 3 and stored.value[1] == pytest.approx(1 / 17, abs=1e-6)


def test_a_long_table_without_a_name_is_refused(note):
    with pytest.raises(ConfigError, match=f"more than {MAX_ROWS} rows, found none for one of 16"):
        note.show(pd.DataFrame({"value": range(16)}))


def test_a_table_without_rows_is_said_in_words(note, shown, capsys):
    note.show(pd.DataFrame({"value": []}), empty="no masks")
    assert capsys.readouterr().out == "no masks\n" and not shown


def test_html_in_a_cell_is_text(note, shown):
    note.show(pd.DataFrame({"category": ["<b>a</b>"]}))
    assert "&lt;b&gt;a&lt;/b&gt;" in shown[0][0] and "<b>a</b>" in shown[0][1]


# -- files --


def test_what_is_written_lies_under_the_notebooks_name(note, tmp_path):
    folder = tmp_path / "outputs" / "tiny" / "results" / "04_patchcore"
    assert note.write(pd.DataFrame({"a": [1]}), "t") == folder / "t.csv"
    assert note.write({"a": 1}, "t") == folder / "t.json"
    assert note.write("a", "t") == folder / "t.txt"
    assert (folder / "t.csv").read_text() == "a\n1\n"
    assert json.loads((folder / "t.json").read_text()) == {"a": 1}


def test_figures_are_saved_one_by_one_or_by_name(note, tmp_path):
    note.save(Figure(), "one")
    note.save({"carpet": Figure(), "zipper": Figure()}, "each")
    folder = tmp_path / "outputs" / "tiny" / "figures" / "04_patchcore"
    names = ["each_carpet.png", "each_zipper.png", "one.png"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_method_that_is_not_studied_gives_way_to_the_first(note):
    assert note.chosen("padim") == "padim" and note.chosen("ae_vit") == "patchcore"


# -- findings --


def test_findings_have_a_sentence_for_each_method_and_study(told, shown):
    told.tell(sentences.change, "clean", "no_adaptation", "image_auroc")
    html, text = shown[0]
    lines = text.splitlines()
    assert lines[0] == "This run (hazelnut, carpet, zipper)"
    assert lines[4] == "Real images (tile, bottle at 224 px)" and len(lines) == 7
    names = ("PatchCore", "PaDiM", "CNN AE", "", "PatchCore", "PaDiM")
    for line, name in zip(lines[1:], names, strict=True):
        if name:
            assert line.startswith(f"  The macro image AUROC falls for {name} (0."), line
            assert "difference -0.250 [-0.290, -0.210]" in line
    assert html.count("<li>") == 5 and "data-row" not in html and f"{MINUS}0.250" in html


def test_a_finding_that_neither_study_has_is_said_to_be_missing(told, shown):
    told.tell(sentences.levels, "elsewhere", "image_auroc", "There,")
    assert shown[0][1].count("no such result") == 2


def test_numbers_of_both_studies_stand_beside_each_other(told, shown):
    told.beside("clean", ["image_auroc", "f1"])
    html, text = shown[0]
    header, *rows = (line.split() for line in text.splitlines())
    assert header == ["method", "images", "of", "image_auroc", "f1"]
    assert [row[:3] for row in rows] == [
        ["patchcore", "this", "run"],
        ["patchcore", "real", "images"],
        ["padim", "this", "run"],
        ["padim", "real", "images"],
        ["ae_cnn", "this", "run"],
    ]
    expected = told.results.find("clean", "patchcore", "", "image_auroc")
    assert " ".join(rows[0][3:6]) == str(expected) and "<td>CNN AE</td>" in html


def test_numbers_can_be_asked_by_category_method_and_detail(told, shown):
    told.beside("clean", ["aupro"], by_category=True, methods=["padim"], this_run=False)
    rows = [line.split() for line in shown[0][1].splitlines()]
    assert rows[0][:3] == ["method", "category", "images"]
    assert [row[:2] for row in rows[1:]] == [["padim", c] for c in ("carpet", "hazelnut", "zipper")]
    told.beside("clean", ["recall"], by_category=True, methods=["padim"], defect_type="")
    assert "defect_type" in shown[1][1] and len(shown[1][1].splitlines()) == 1 + 2 * 3 * 2
    told.beside("clean", ["recall"], by_category=True, methods=["padim"], defect_type="cut")
    assert len(shown[2][1].splitlines()) == 1 + 2 * 3 and "hole" not in shown[2][1]


def test_numbers_that_neither_study_has_are_said_to_be_missing(told, shown, capsys):
    told.beside("reconstruction", ["image_auroc"], by_category=True, head="")
    assert capsys.readouterr().out == "neither study has such results\n"


# -- the summary of a study --


def test_a_summary_reads_back_as_it_was_written(tmp_path):
    table = table_of(*FAMILIES, "reconstruction")
    config = load_config("tiny").model_dump(mode="json", exclude={"workspace"})
    path = tmp_path / "summary.json"
    write_summary(path, Results(table), config)
    summary = read_summary(path)
    assert (
        summary.facts["image_size"] == 160 and summary.facts["backbone"] == "tf_efficientnet_lite0"
    )
    assert summary.title == "carpet, hazelnut, zipper at 160 px"
    kept = kept_rows(Results(table).table).reset_index(drop=True)
    pd.testing.assert_frame_equal(summary.results.table, kept, rtol=1e-5, check_dtype=False)
    assert [str(n) for n in summary.results.numbers] == [str(n) for n in Results(kept).numbers]


def test_a_summary_keeps_macro_averages_and_leaves_the_rest():
    table = Results(table_of(*FAMILIES, "reconstruction")).table
    kept = kept_rows(table)
    assert len(kept) < len(table) / 3
    macro = kept[kept.macro & (kept.against == "")]
    assert set(macro.metric) == {*METRICS} and set(macro.detail) == {""}
    levels = kept[(kept.scenario == "clean") & ~kept.macro & (kept.detail == "")]
    assert set(levels.metric) == {"image_auroc", "aupro"}
    assert set(kept[kept.scenario == "data"].metric) >= {"train_good", "test_defect"}
    assert set(kept[kept.metric == "realised_fpr"].detail_value) == {'["conformal_split", "0.05"]'}
    assert not (kept.against_method != "").any()


def test_a_missing_or_broken_summary_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "summary.json"
    with pytest.raises(DataError, match=r"summary.json: expected .* found no such file; write it"):
        read_summary(path)
    for text in ("{", '{"study": {}}', '{"study": {}, "columns": ["a"], "rows": [[1, 2]]}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"summary.json: expected the summary of a study"):
            read_summary(path)


def test_the_committed_summary_is_of_real_images_and_small():
    summary = read_summary()
    assert summary.facts["profile"] == "folder" and summary.results.scenarios[0] == "clean"
    assert REAL_IMAGES.stat().st_size < 100_000
    for method in ("patchcore", "padim"):
        assert summary.results.find("clean", method, "", "image_auroc").value > 0.5
        assert summary.results.find(
            "no_adaptation", method, "", "image_auroc", against="clean"
        ).has_interval
