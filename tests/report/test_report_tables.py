"""Report tables: what is printed and written is what stands in the tidy table; nothing is claimed
untested.
"""

import numpy as np
import pandas as pd
import pytest

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.files import write_csv
from nbhelpers.report.formats import Field, ReportTable
from nbhelpers.report.tables import all_tables, compare_models
from nbhelpers.results.numbers import Number, Results, label, read_metrics
from nbhelpers.results.table import COMPOUND, MACRO, as_table, detailed, details_of, plain, to_rows

CLEAN, PADIM = {"against": "clean"}, {"against_method": "padim"}


def number(
    value,
    low=None,
    high=None,
    metric="f1",
    scenario="clean",
    n=20,
    against="",
    against_method="",
    **of,
):
    sides = (scenario, against, "patchcore", against_method)
    return Number(*sides, "nut", False, 42, *detailed(metric, **of), value, low, high, n)


def row(scenario, method, category, metric, value, **sides):
    """Rows of the tidy table: one, without an interval."""
    return to_rows(scenario, method, category, 42, {metric: stated(value, 20)}, **sides)


def auroc(scenario, method, category, value, **sides):
    return row(scenario, method, category, "image_auroc", value, **sides)


@pytest.mark.parametrize(
    ("details", "columns"),
    [
        ({}, ("", "")),
        ({"rule": "mad"}, ("rule", "mad")),
        ({"defect_type": 'bent,broken [1] = "x"'}, ("defect_type", 'bent,broken [1] = "x"')),
        ({"defect_type": '["a", "b"]'}, ("defect_type", '["a", "b"]')),
        (
            {"threshold_from": 'a", "b', "tested_on": "\xfc"},
            ("threshold_from+tested_on", '["a\\", \\"b", "\xfc"]'),
        ),
        ({"recalibrated_on": 10, "target": "0.1"}, ("recalibrated_on+target", '["10", "0.1"]')),
    ],
)
def test_details_stand_in_two_columns_and_come_back(details, columns):
    assert detailed("recall", **details) == ("recall", *columns)
    assert details_of(*columns) == {name: str(value) for name, value in details.items()}


def test_a_detail_of_two_parts_is_one_of_those_that_are_known():
    assert all("+".join(parts) == detail for detail, parts in COMPOUND.items())


def test_columns_by_hand():
    (entry,) = to_rows(
        "no_adaptation",
        "padim",
        MACRO,
        42,
        {detailed("recall", rule="mad"): stated(0.5, 20, 0.4, 0.6)},
        against="clean",
        against_method="ae_cnn",
    )
    assert list(entry.items()) == [
        ("scenario", "no_adaptation"),
        ("against", "clean"),
        ("method", "padim"),
        ("against_method", "ae_cnn"),
        ("category", ""),
        ("macro", True),
        ("seed", 42),
        ("metric", "recall"),
        ("detail", "rule"),
        ("detail_value", "mad"),
        ("value", 0.5),
        ("ci_low", 0.4),
        ("ci_high", 0.6),
        ("n_images", 20),
    ]
    (entry,) = to_rows("clean", "padim", "macro", 42, {"f1": stated(0.5, 20)})
    assert entry["category"] == "macro" and entry["macro"] is False
    assert entry["detail"] == entry["detail_value"] == entry["against"] == ""


def test_plain_rows_are_no_differences_and_have_no_detail():
    rows = row("clean", "padim", "nut", "f1", 0.5)
    rows += row("clean", "padim", "nut", "f1", 0.1, **PADIM)
    rows += row("global", "padim", "nut", "f1", 0.1, **CLEAN)
    rows += row("clean", "padim", "nut", detailed("f1", rule="mad"), 0.4)
    assert plain(as_table(rows)).value.tolist() == [0.5]
    assert plain(as_table([])).empty


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (number(0.8014, 0.7349, 0.867), "0.801 [0.73, 0.87]"),
        (number(0.5), "0.500"),
        (number(-0.25, -0.3, -0.2, scenario="no_adaptation", **CLEAN), "-0.250 [-0.300, -0.200]"),
        (number(0.04, 0.01, 0.07, **PADIM), "+0.040 [+0.010, +0.070]"),
        (
            number(-0.004, -0.01, -0.000312, scenario="global", **CLEAN),
            "-0.004 [-0.010, -0.000312]",
        ),
        (number(1e-17, -1e-17, 1e-17, scenario="global", **CLEAN), "0.000"),
        (number(0.712, 0.712, 0.712, metric="trivial_f1"), "0.712"),
        (number(0.0004, metric="p_delong_holm", **PADIM), "<0.001"),
        (number(0.0126, metric="p_delong", **PADIM), "0.013"),
        (number(24.0, metric="train_good", scenario="data"), "24"),
        (number(35.4123, metric="threshold"), "35.41"),
        (number(0.00312, metric="threshold", rule="mad"), "0.00312"),
        (number(13906051.0, metric="parameters", scenario="reconstruction"), "13906051"),
        (number(0.002137, metric="mse", scenario="reconstruction", images="good"), "0.00214"),
        (number(0.13, metric="l1", scenario="reconstruction", images="good"), "0.130"),
        (number(0.91449, metric="ssim", scenario="reconstruction", images="good"), "0.914"),
    ],
)
def test_numbers_as_they_are_printed(of, text):
    assert str(of) == text


def test_a_detail_is_printed_as_it_is_stored():
    of = number(0.1, metric="realised_fpr", rule="conformal_split", target="0.05")
    assert of.text("target") == "0.05" and of.text("n_images") == "20"
    with pytest.raises(DataError, match="'ci_low', found none"):
        of.text("ci_low")


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [
        (0.01, 0.1, 1),
        (-0.1, -0.01, -1),
        (-0.1, 0.1, 0),
        (0.0, 0.1, 0),
        (1e-17, 0.1, 0),
        (None, None, None),
    ],
)
def test_sign_is_that_of_the_whole_interval(low, high, sign):
    assert number(0.05, low, high).sign == sign


def test_a_damaged_table_is_refused(tidy):
    with pytest.raises(DataError, match=r'found \["clean", .* twice'):
        Results(pd.concat([tidy, tidy.head(1)]))
    with pytest.raises(DataError, match="found no n_images; run the notebooks again"):
        Results(tidy.drop(columns="n_images"))
    with pytest.raises(DataError, match="value nan"):
        Results(tidy.assign(value=np.where(tidy.index == 3, np.nan, tidy.value)))


def test_names_that_look_like_numbers_or_nothing_keep_their_form(tmp_path):
    rows = [
        entry
        for name in ("007", "NA", "None", "1e5")
        for entry in row("clean", "padim", name, "f1", 0.5)
    ]
    write_csv(tmp_path / "metrics.csv", as_table(rows))
    read = read_metrics(tmp_path / "metrics.csv")
    assert (
        read.category.tolist() == ["007", "NA", "None", "1e5"] and read.value.tolist() == [0.5] * 4
    )
    assert read.ci_low.isna().all() and read.n_images.tolist() == [20] * 4


def test_scenarios_are_told_in_order_and_methods_are_no_pairs(tidy):
    results = Results(tidy.sample(frac=1, random_state=0))
    assert results.scenarios == [
        "clean",
        "no_adaptation",
        "threshold_only",
        "full_adaptation",
        "global",
        "global_one_threshold",
    ]
    assert set(results.methods) == {"patchcore", "padim"} and results.pairs == [
        ("patchcore", "padim")
    ]
    assert set(results.categories) == {"carpet", "hazelnut", "zipper"}


def test_every_family_has_its_tables(tidy):
    assert list(all_tables(Results(tidy))) == [
        "data",
        "macro",
        "results",
        "ranking",
        "differences",
        "recovery",
        "comparisons",
        "threshold_rules",
        "conformal",
        "recalibration",
        "transfer_domains",
        "transfer_categories",
        "shortcut",
        "bank",
        "errors_defect_type",
        "errors_size",
        "errors_border",
        "errors_contrast",
        "errors_shared",
        "separation",
        "seeds",
    ]


def test_separation_is_told_per_defect_type(tidy):
    table = all_tables(Results(tidy))["separation"]
    names = ("scenario", "method", "category", "defect_type")
    measured = ("cliffs_delta", "hedges_g", "overlap", "p_ks", "p_ks_holm")
    assert table.columns == (*names, *measured, "n_images")
    printed = table.text()
    assert len(printed) == 2 * 2 * 3 * 2  # scenarios, methods, categories, types
    first = printed.iloc[0]
    assert first["Cliff's delta"] == "0.900 [0.80, 1.00]" and first["Hedges' g"] == "2.500"
    assert first["p (KS)"] == "0.002" and first["images"] == "20"


def test_autoencoders_are_a_block_and_no_scenario(three):
    results = Results(three.sample(frac=1, random_state=0))
    assert "reconstruction" not in results.scenarios and results.methods == [
        "patchcore",
        "padim",
        "ae_cnn",
    ]
    assert results.autoencoders == ["ae_cnn", "ae_vit"]
    assert results.pairs == [("patchcore", "padim"), ("patchcore", "ae_cnn"), ("padim", "ae_cnn")]


def test_a_large_count_is_stored_whole(three, tmp_path):
    write_csv(tmp_path / "metrics.csv", three)
    stored = Results(read_metrics(tmp_path / "metrics.csv"))
    assert stored.find("reconstruction", "ae_cnn", "carpet", "parameters").text() == "13906051"
    threshold = plain(three)[plain(three).metric == "threshold"].iloc[0]
    value = stored.find(threshold.scenario, threshold.method, threshold.category, "threshold").value
    assert value == float(f"{threshold.value:.6g}")


def test_tables_of_autoencoders(three):
    made = all_tables(Results(three))
    assert list(made)[-3:] == ["parameters", "heads", "reconstruction"]
    assert made["parameters"].text().values.tolist() == [["CNN AE", "13906051"], ["ViT AE", "64"]]
    heads, quality = made["heads"], made["reconstruction"]
    assert heads.columns == (
        "method",
        "category",
        "head",
        "image_auroc",
        "pixel_auroc",
        "aupro",
        "n_images",
    )
    assert len(heads.rows) == 2 * 3 * 2 and {row[2] for row in heads.text().values} == {
        "pixel L2",
        "SSIM",
    }
    for row in heads.rows:
        assert [cell.key for cell in row[3:6]] == [
            f'["reconstruction", "", "{row[0]}", "", "{row[1]}", false, 42, "{metric}", "head", "{row[2]}"]'
            for metric in heads.columns[3:6]
        ]
    assert len({*quality.text().columns}) == len(
        quality.columns
    )  # images of a kind, and how many there were
    assert quality.text().values.tolist()[:2] == [
        ["CNN AE", "carpet", "good", "0.900", "0.00214", "0.0214", "6"],
        ["CNN AE", "carpet", "defect", "0.900", "0.00413", "0.0413", "6"],
    ]


def test_a_missing_family_leaves_its_table_out(bare):
    assert list(all_tables(Results(bare))) == ["macro", "results", "ranking"]


def test_written_results_are_those_of_the_tidy_table(tidy, tmp_path):
    for made in all_tables(Results(tidy)).values():
        made.write(tmp_path)
    read = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    assert (read.macro == (read.category == "")).all()
    read = read.set_index(["scenario", "method", "category"])
    levels = plain(tidy)
    levels = levels[
        levels.scenario.isin(["clean", "global"])
        & (levels.metric == "image_auroc")
        & (levels.method == "padim")
    ]
    assert len(levels) == 8
    for row in levels.itertuples():
        stored_row = read.loc[(row.scenario, row.method, row.category)]
        ends = [float(stored_row[f"image_auroc{end}"]) for end in ("", "_low", "_high")]
        assert ends == pytest.approx([row.value, row.ci_low, row.ci_high], abs=1e-6)
    # each number of the tidy table that a table is for stands in a CSV: none was lost on the way
    conformal = pd.read_csv(tmp_path / "conformal.csv")
    stored = tidy[(tidy.metric == "realised_fpr") & (tidy.detail == "rule+target")]
    assert (
        sorted(conformal.realised_fpr) == pytest.approx(sorted(stored.value))
        and (conformal.n_images == 12).all()
    )
    assert set(conformal.target) == {0.05, 0.1}
    differences = pd.read_csv(tmp_path / "differences.csv")
    assert list(differences.columns[:4]) == ["scenario", "against", "method", "category"]
    assert (differences.against[0], differences.scenario[0]) == ("clean", "no_adaptation")
    pairs = pd.read_csv(tmp_path / "comparisons.csv")
    assert set(zip(pairs.method, pairs.against_method, strict=True)) == {("patchcore", "padim")}


def test_markdown_and_latex_by_hand(tmp_path):
    made = ReportTable(
        "small",
        "Two cells.",
        ("category", "f1", "n_images"),
        (("a_b & 5 %", number(0.8, 0.75, 0.85), Field(number(0.8), "n_images")), ("c", None, None)),
    )
    made.write(tmp_path)
    lines = (tmp_path / "small.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert lines[0] == "Two cells." and cells[0] == ["category", "F1", "images"]
    assert cells[2:] == [["a_b & 5 %", "0.800 [0.75, 0.85]", "20"], ["c", "-", "-"]]
    latex = (tmp_path / "small.tex").read_text()
    assert r"a\_b \& 5 \% & 0.800 [0.75, 0.85] & 20 \\" in latex
    assert all(
        rule in latex
        for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{Two cells.}")
    )
    assert (tmp_path / "small.csv").read_text() == (
        "category,f1,f1_low,f1_high,n_images\na_b & 5 %,0.8,0.75,0.85,20\nc,,,,\n"
    )


def test_latex_of_long_and_of_wide_tables(tidy):
    tables = all_tables(Results(tidy))
    long = tables["results"].latex()
    assert r"\begin{longtable}" in long and r"\scriptsize" in long and r"\resizebox" not in long
    assert (
        r"\resizebox{\linewidth}{!}{%" in tables["macro"].latex()
        and r"\end{tabular}}" in tables["macro"].latex()
    )
    assert r"\resizebox" not in tables["ranking"].latex()
    for table in tables.values():  # each brace is closed
        assert table.latex().count("{") == table.latex().count("}")


def test_rows_of_one_value_without_its_column(tidy):
    made = all_tables(Results(tidy))["differences"]
    assert made.text().scenario[0] == "no adaptation - clean"
    assert set(made.text().category) == {"carpet", "hazelnut", "zipper", "macro"}
    macro = made.where("category", MACRO)
    assert "category" not in macro.columns and len(macro.rows) == len(made.rows) / 4
    assert all(cell.macro for row in macro.rows for cell in row if isinstance(cell, Number))


def test_a_degenerate_threshold_is_a_word_and_its_average_a_share(tidy):
    made = all_tables(Results(tidy))["threshold_rules"]
    index = made.columns.index("degenerate")
    cells = {(row[1], row[2], row[3]): row[index] for row in made.rows}
    assert cells["padim", "carpet", "mad"] == "yes" and cells["patchcore", "carpet", "mad"] == "no"
    assert isinstance(cells["padim", MACRO, "mad"], Number)


def test_seeds_stand_beside_each_other(tidy):
    made = all_tables(Results(tidy))["seeds"]
    assert [str(row[2]) for row in made.rows[:2]] == ["42", "42"] and len(made.rows) == 3 * 2 * 3
    values = {str(row[2]): row[3].value for row in made.rows if row[:2] == ("padim", "zipper")}
    chosen = tidy[
        (tidy.scenario == "seeds") & (tidy.method == "padim") & (tidy.category == "zipper")
    ]
    chosen = chosen[chosen.metric == "image_auroc"]
    assert values == {str(row.seed): row.value for row in chosen.itertuples()}


def test_methods_are_ranked_and_told_apart_only_by_the_corrected_test():
    rows = [
        *auroc("clean", "padim", MACRO, 0.8),
        *auroc("clean", "patchcore", MACRO, 0.9),
        *auroc("clean", "padim", "nut", 0.8),
        *auroc("clean", "padim", "rug", 0.8),
        *auroc("clean", "patchcore", "nut", 0.2, **PADIM),
        *row("clean", "patchcore", "nut", "p_delong_holm", 0.04, **PADIM),
        *auroc("clean", "patchcore", "rug", -0.1, **PADIM),
        *row("clean", "patchcore", "rug", "p_delong_holm", 0.06, **PADIM),
    ]
    ranked = compare_models(Results(as_table(rows)))
    assert ranked[["rank", "method", "image_auroc"]].values.tolist() == [
        [1, "patchcore", 0.9],
        [2, "padim", 0.8],
    ]
    assert ranked.better_than.tolist() == ["PaDiM (nut)", "none shown"]
    assert ranked.worse_than.tolist() == ["none shown", "PatchCore (nut)"]


def test_a_difference_the_other_way_round_is_read_the_other_way_round():
    other = {"against_method": "patchcore"}
    rows = [
        *auroc("clean", "padim", MACRO, 0.9),
        *auroc("clean", "patchcore", MACRO, 0.8),
        *auroc("clean", "padim", "nut", 0.9),
        *auroc("clean", "padim", "nut", -0.2, **other),
        *row("clean", "padim", "nut", "p_delong_holm", 0.001, **other),
    ]
    ranked = compare_models(Results(as_table(rows))).set_index("method")
    assert ranked.better_than.to_dict() == {"padim": "none shown", "patchcore": "PaDiM (nut)"}
    assert ranked["rank"].to_dict() == {
        "padim": 1,
        "patchcore": 2,
    }  # the rank is the order of the values alone


def test_untested_methods_are_said_to_be_untested(bare):
    assert set(compare_models(Results(bare)).better_than) == {"not tested"}


def test_words_of_the_tables_are_the_readers():
    assert label("patchcore", "padim") == "PatchCore - PaDiM"
    assert label("image_auroc") == "image AUROC"
    assert label("no_adaptation") == "no adaptation"
    made = ReportTable("t", "c", ("method", "category"), (("padim", "mvtec_bottle"),))
    assert made.text().values.tolist() == [
        ["PaDiM", "mvtec_bottle"]
    ]  # a folder's name is not changed
