"""A category or a defect type may be called whatever a folder can be called: each name goes through
``metrics.csv``, the tables (CSV, Markdown, LaTeX, HTML) and the figures, and comes out as it was.
"""

import csv
import html
import json
import re

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)

from nbhelpers.evaluation.bootstrap import stated  # noqa: E402
from nbhelpers.figures import comparisons  # noqa: E402
from nbhelpers.figures.misses import plot_recall_by_type  # noqa: E402
from nbhelpers.figures.scores import plot_metric_bars, plot_scenario_change  # noqa: E402
from nbhelpers.figures.style import use_style  # noqa: E402
from nbhelpers.files import write_csv  # noqa: E402
from nbhelpers.report import sentences  # noqa: E402
from nbhelpers.report.formats import MARKDOWN  # noqa: E402
from nbhelpers.report.tables import all_tables  # noqa: E402
from nbhelpers.results.numbers import Results, read_metrics  # noqa: E402
from nbhelpers.results.table import MACRO, detailed, macro_name, plain, results_table, to_rows  # noqa: E402
from nbhelpers.results.views import headline_table, qualified, with_intervals  # noqa: E402

NAMES = (
    "bent,broken",
    "a[b]=c",
    "[1] first",
    'say "x"',
    "it's",
    "macro",
    "macro average",
    "all",
    "NA",
    "nan",
    "None",
    "null",
    "True",
    "007",
    "1e5",
    "-",
    "data",
    "seeds",
    "two  words",
    " space at both ends ",
    "Überhöhung ß",
    "n" * 200,
    "a|b",
    "50 % & more",
    "$x_1$",
    "$\\frac$",
    "<b>bold</b>",
    "&amp;",
    "*star*",
    "__private__",
    "`tick`",
    "back\\slash",
    "{brace}",
    "~tilde^hat#",
    "[link](there)",
    "no_adaptation - clean",
    '["a", "b"]',
    "rule+target",
    "f1[rule=mad,target=0.1]",
)
METHODS, SCENARIOS = ("patchcore", "padim"), ("clean", "no_adaptation")
METRICS = ("image_auroc", "aupro", "f1", "trivial_f1")
PROMISE = {"rule": "conformal_split", "target": "0.1"}


def value(name):
    """A value of its own for each name, so that a mix-up is seen."""
    return round(0.5 + NAMES.index(name) / 100, 2) if name in NAMES else 0.25


def entry(name):
    return stated(value(name), 20, *(round(value(name) + half, 2) for half in (-0.05, 0.05)))


@pytest.fixture(scope="module")
def table():
    """Levels, differences, tests, rules, promises, transfers and recalls of all names together."""
    rows = []
    for name in (*NAMES, MACRO):
        rules = {detailed(metric, rule="mad"): entry(name) for metric in ("f1", "degenerate")}
        for scenario in SCENARIOS:
            for method in METHODS:
                levels = {metric: entry(name) for metric in METRICS}
                rows += to_rows(scenario, method, name, 42, levels | rules)
        change = {"image_auroc": entry(name)}
        rows += to_rows("no_adaptation", "padim", name, 42, change, against="clean")
        rows += to_rows("full_adaptation", "padim", name, 42, change, against="clean")
        if name == MACRO:
            continue
        tests = change | {"p_delong_holm": stated(0.001, 20)}
        rows += to_rows("clean", "patchcore", name, 42, tests, against_method="padim")
        promise = {detailed("realised_fpr", **PROMISE): entry(name)}
        rows += to_rows("clean", "padim", name, 42, promise)
        moved = {
            detailed(metric, threshold_from=other): entry(other)
            for other in (name, *(NAMES if name == "macro" else ()))
            for metric in ("fpr", "fnr")
        }
        rows += to_rows("global", "padim", name, 42, moved)
        rows += to_rows("data", "-", name, 42, {"train_good": stated(NAMES.index(name), 20)})
    types = {detailed("recall", defect_type=name): entry(name) for name in NAMES[::-1]}
    rows += to_rows("clean", "padim", "macro", 42, types)
    return results_table(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


@pytest.fixture(scope="module")
def results(table, folder):
    write_csv(folder / "metrics.csv", table)
    return Results(read_metrics(folder / "metrics.csv"))


@pytest.fixture(scope="module")
def tables(results, folder):
    made = all_tables(results)
    for name in ("data", "results", "comparisons", "errors_defect_type"):
        made[name].write(folder)
    return made


@pytest.fixture(scope="module")
def page(results, report):
    return report(results.table, {})


@pytest.fixture(scope="module")
def cells(page):
    return {html.unescape(text) for text in re.findall(r'<t[hd](?: scope="row")?>(.*?)</t', page)}


@pytest.fixture(scope="module")
def keys(page):
    """What the numbers of the page name as their rows."""
    return [json.loads(html.unescape(key)) for key in set(re.findall(r'data-row="(.*?)"', page))]


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        use_style()
        yield
        plt.close("all")


def test_the_table_comes_back_as_it_was_written(table, results):
    pd.testing.assert_frame_equal(results.table, table, check_dtype=False)
    assert results.table.macro.dtype.kind == "b"
    assert set(results.categories) == set(NAMES) and results.scenarios == [*SCENARIOS, "global"]
    assert results.called(MACRO) == "macro average average"


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_found_by_their_name(results, name):
    assert results.find("clean", "padim", name, "image_auroc").value == value(name)
    names = ("no_adaptation", "padim", name, "image_auroc")
    assert results.find(*names, against="clean").value == value(name)
    assert results.find("clean", "padim", name, "f1", rule="mad").value == value(name)
    assert results.find("clean", "padim", name, "realised_fpr", **PROMISE).value == value(name)
    recall = results.find("clean", "padim", "macro", "recall", defect_type=name)
    assert recall.value == value(name) and recall.text("defect_type") == name
    assert recall.details == {"defect_type": name}
    moved = results.find("global", "padim", "macro", "fpr", threshold_from=name)
    assert moved.value == value(name) and not moved.macro
    assert results.find("clean", "padim", MACRO, "image_auroc").value == 0.25


def test_views_keep_the_average_apart_from_a_category_of_its_name(results):
    clean = plain(results.table)[plain(results.table).scenario == "clean"]
    wide = headline_table(results.table)
    shown = with_intervals(clean, ["image_auroc"])
    rules = qualified(results.table[results.table.scenario == "clean"], "rule", ["f1"])
    assert rules.rule.eq("mad").all()
    for name in (*NAMES, MACRO):
        printed = name or macro_name(NAMES)
        assert wide.image_auroc["no_adaptation - clean", "padim", printed, 42] == value(name)
        assert shown.image_auroc["padim", printed].startswith(f"{value(name):.2f} [")
        chosen = rules[(rules.category == printed) & (rules.method == "padim")]
        assert chosen.f1.tolist() == [value(name)]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", (*NAMES, MACRO))
def test_names_in_the_csv_of_the_report(tables, folder, name):
    chosen = [
        row
        for row in rows_of(folder / "results.csv")
        if (row["category"], row["macro"]) == (name, str(name == MACRO))
    ]
    assert len(chosen) == len(METHODS) * len(SCENARIOS)
    assert {float(row["image_auroc"]) for row in chosen} == {value(name)}
    if name != MACRO:
        types = [r for r in rows_of(folder / "errors_defect_type.csv") if r["category"] == "macro"]
        assert [float(r["recall"]) for r in types if r["defect_type"] == name] == [value(name)]
        (pair,) = [
            row
            for row in rows_of(folder / "comparisons.csv")
            if row["category"] == name and row["scenario"] == "clean"
        ]
        assert (pair["method"], pair["against_method"]) == ("patchcore", "padim")


def rendered(cell):
    """What a reader of Markdown sees of an escaped cell: a backslash before a sign is not shown."""
    return re.sub(r"\\([\\`*~$|_<\]&])", r"\1", cell)


@pytest.mark.parametrize("name", NAMES)
def test_names_in_markdown(tables, folder, name):
    lines = (folder / "data.md").read_text(encoding="utf-8").splitlines()[4:]
    cells = [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == 2 for row in cells) and len(cells) == len(NAMES)
    assert [rendered(row[0]) for row in cells if row[1] == str(NAMES.index(name))] == [name.strip()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a|b", r"a\|b"),
        ("metal_nut", "metal_nut"),  # nothing within a word is marked
        ("__private__", r"\_\_private\_\_"),
        ("<b>", r"\<b>"),
        ("<0.001", "<0.001"),
        ("&amp; &", r"\&amp; &"),
        ("[link](there)", r"[link\](there)"),
        ("0.800 [0.75, 0.85]", "0.800 [0.75, 0.85]"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markdown_by_hand(name, text):
    assert MARKDOWN.sub(r"\\\g<0>", name) == text


LATEX = {
    r"\textbackslash ": "\\",
    r"\textasciitilde ": "~",
    r"\textasciicircum ": "^",
    **{rf"\{sign}": sign for sign in "_%$#{}&"},
}


@pytest.mark.parametrize("name", NAMES)
def test_names_in_latex(tables, folder, name):
    lines = (folder / "data.tex").read_text(encoding="utf-8").splitlines()
    assert not any(
        line.lstrip().startswith(("[", "*")) for line in lines
    )  # options of the \\ before
    rows = [line.removesuffix(r" \\").rsplit(" & ", 1) for line in lines if line.endswith(r" \\")]
    (cell,) = [text for text, count in rows if count == str(NAMES.index(name))]
    pattern = "|".join(map(re.escape, LATEX))
    bare = re.sub(pattern, "", cell.removeprefix("{}"))
    assert not set(bare) & set("\\_%$#{}&~^")
    assert re.sub(pattern, lambda m: LATEX[m[0]], cell.removeprefix("{}")).strip() == name.strip()


@pytest.mark.parametrize("name", NAMES)
def test_names_on_the_page(cells, keys, name):
    assert name in cells
    assert ["clean", "", "padim", "", name, False, 42, "image_auroc", "", ""] in keys


def test_no_name_is_taken_for_html(page):
    assert "<b>bold" not in page and "&lt;b&gt;bold" in page


def test_names_in_sentences(results):
    strong = results.categories[0]
    table = results.table
    low = table.ci_low.mask((table.category == strong) & (table.metric == "f1"), 1.0)
    (text, _) = sentences.not_above_trivial(Results(table.assign(ci_low=low)))
    *others, last = results.categories[1:]
    where = f"{', '.join(others)} and {last}"
    assert html.unescape(text) == f"Clean: PatchCore on {where}; PaDiM on {where}."


def texts(artists):
    return [text.get_text() for text in artists]


def test_names_on_the_axes(results):
    average = "macro average average"
    everywhere = [*results.categories, average]
    clean = plain(results.table)[plain(results.table).scenario == "clean"]
    lines = comparisons.plot_scenario_lines(results, ["image_auroc"])
    assert [axis.get_title() for axis in lines.axes] == everywhere
    changes = comparisons.plot_differences(results, "image_auroc")
    assert [axis.get_title() for axis in changes.axes] == everywhere
    heat = comparisons.plot_heatmaps(results, "image_auroc", (0, 1))
    assert texts(heat.axes[0].get_xticklabels()) == everywhere
    assert texts(heat.axes[0].texts)[-1] == "0.25"
    transfer = comparisons.plot_threshold_transfer(results, "global")
    assert texts(transfer.axes[0].get_xticklabels()) == results.categories
    assert set(texts(transfer.axes[0].get_yticklabels())) == set(NAMES)
    promised = comparisons.plot_promised_and_realised(results)
    assert promised.axes[0].get_title() == f"PaDiM, {results.categories[0]}"
    bars = plot_metric_bars(clean, ["image_auroc"])
    assert texts(bars.axes[0].get_xticklabels()) == everywhere
    change = plot_scenario_change(
        plain(results.table)[plain(results.table).method == "padim"], ["f1"], SCENARIOS
    )
    drawn = {line.get_label(): line for line in change.axes[0].lines}
    assert drawn[average].get_color() == "black" and drawn["macro"].get_color() != "black"
    recall = results.table[results.table.category == "macro"]
    types = plot_recall_by_type(recall, ["clean"])
    assert texts(types.axes[0].get_yticklabels()) == [f"{name} (20)" for name in sorted(NAMES)]
    for figure in (heat, transfer, bars, types):
        figure.draw_without_rendering()  # no name is taken for mathematics
