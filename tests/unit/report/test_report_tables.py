"""Report tables: what is printed and written is what stands in the tidy table; nothing is claimed untested."""

import numpy as np
import pandas as pd
import pytest

from nbhelpers.errors import DataError
from nbhelpers.evaluation.scenarios import COLUMNS
from nbhelpers.reporting.report_tables import Field, ReportTable, all_tables, compare_models
from nbhelpers.reporting.results import Number, Results, label, read_metrics, split_metric
from nbhelpers.reporting.tables import write_csv


def number(value, low=None, high=None, metric="f1", scenario="clean", method="patchcore", n=20):
    return Number(scenario, method, "nut", 42, metric, value, low, high, n)


def table(*rows):
    """A tidy table of (scenario, method, category, metric, value, low, high)."""
    return pd.DataFrame([(*row[:3], 42, *row[3:], 20) for row in rows], columns=list(COLUMNS))


def auroc(scenario, method, category, value):
    return (scenario, method, category, "image_auroc", value, None, None)


def test_metric_names_and_their_qualifiers():
    assert split_metric("f1") == ("f1", {})
    assert split_metric("fpr[threshold_from=a,tested_on=b]") == ("fpr", {"threshold_from": "a", "tested_on": "b"})


@pytest.mark.parametrize(("of", "text"), [
    (number(0.8014, 0.7349, 0.867), "0.801 [0.73, 0.87]"),
    (number(0.5), "0.500"),
    (number(-0.25, -0.3, -0.2, scenario="no_adaptation - clean"), "-0.250 [-0.300, -0.200]"),
    (number(0.04, 0.01, 0.07, method="patchcore - padim"), "+0.040 [+0.010, +0.070]"),
    (number(-0.004, -0.01, -0.000312, scenario="global - clean"), "-0.004 [-0.010, -0.000312]"),
    (number(1e-17, -1e-17, 1e-17, scenario="global - clean"), "0.000"),
    (number(0.712, 0.712, 0.712, metric="trivial_f1"), "0.712"),
    (number(0.0004, metric="p_delong_holm", method="patchcore - padim"), "<0.001"),
    (number(0.0126, metric="p_delong", method="patchcore - padim"), "0.013"),
    (number(24.0, metric="train_good", scenario="data"), "24"),
    (number(35.4123, metric="threshold"), "35.41"),
    (number(0.00312, metric="threshold[rule=mad]"), "0.00312"),
    (number(13906051.0, metric="parameters", scenario="reconstruction"), "13906051"),
    (number(0.002137, metric="mse[images=good]", scenario="reconstruction"), "0.00214"),
    (number(0.13, metric="l1[images=good]", scenario="reconstruction"), "0.130"),
    (number(0.91449, metric="ssim[images=good]", scenario="reconstruction"), "0.914"),
])
def test_numbers_as_they_are_printed(of, text):
    assert str(of) == text


def test_a_qualifier_is_printed_as_it_stands_in_the_name():
    of = number(0.1, metric="realised_fpr[rule=conformal_split,target=0.05]")
    assert of.text("target") == "0.05" and of.text("n_images") == "20"
    with pytest.raises(DataError, match="'ci_low', found none"):
        of.text("ci_low")


@pytest.mark.parametrize(("low", "high", "sign"), [
    (0.01, 0.1, 1), (-0.1, -0.01, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (1e-17, 0.1, 0), (None, None, None),
])
def test_sign_is_that_of_the_whole_interval(low, high, sign):
    assert number(0.05, low, high).sign == sign


def test_a_damaged_table_is_refused(tidy):
    with pytest.raises(DataError, match="found the row clean.*twice"):
        Results(pd.concat([tidy, tidy.head(1)]))
    with pytest.raises(DataError, match="found no n_images"):
        Results(tidy.drop(columns="n_images"))
    with pytest.raises(DataError, match="value nan"):
        Results(tidy.assign(value=np.where(tidy.index == 3, np.nan, tidy.value)))


def test_names_that_look_like_numbers_or_nothing_keep_their_form(tmp_path):
    rows = [("clean", "padim", name, 42, "f1", 0.5, None, None, 20) for name in ("007", "NA", "None", "1e5")]
    write_csv(tmp_path / "metrics.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
    read = read_metrics(tmp_path / "metrics.csv")
    assert read.category.tolist() == ["007", "NA", "None", "1e5"] and read.value.tolist() == [0.5] * 4
    assert read.ci_low.isna().all() and read.n_images.tolist() == [20] * 4


def test_scenarios_are_told_in_order_and_methods_are_no_pairs(tidy):
    results = Results(tidy.sample(frac=1, random_state=0))
    assert results.scenarios == ["clean", "no_adaptation", "threshold_only", "full_adaptation", "global",
                                 "global_one_threshold"]
    assert set(results.methods) == {"patchcore", "padim"} and results.pairs == ["patchcore - padim"]
    assert set(results.categories) == {"carpet", "hazelnut", "zipper"}


def test_every_family_has_its_tables(tidy):
    assert list(all_tables(tidy)) == [
        "data", "macro", "results", "ranking", "differences", "recovery", "comparisons", "threshold_rules",
        "conformal", "recalibration", "transfer_domains", "transfer_categories", "shortcut", "bank",
        "errors_defect_type", "errors_size", "errors_border", "errors_contrast", "errors_shared", "seeds",
    ]


def test_autoencoders_are_a_block_and_no_scenario(three):
    results = Results(three.sample(frac=1, random_state=0))
    assert "reconstruction" not in results.scenarios and results.methods == ["patchcore", "padim", "ae_cnn"]
    assert results.autoencoders == ["ae_cnn", "ae_vit"]
    assert results.pairs == ["patchcore - padim", "patchcore - ae_cnn", "padim - ae_cnn"]


def test_a_large_count_is_stored_whole(three, tmp_path):
    write_csv(tmp_path / "metrics.csv", three)
    stored = Results(read_metrics(tmp_path / "metrics.csv"))
    assert stored.find("reconstruction", "ae_cnn", "carpet", "parameters").text() == "13906051"
    threshold = three[three.metric == "threshold"].iloc[0]
    found = stored.find(threshold.scenario, threshold.method, threshold.category, "threshold").value
    assert found == float(f"{threshold.value:.6g}")


def test_tables_of_autoencoders(three):
    made = all_tables(three)
    assert list(made)[-3:] == ["parameters", "heads", "reconstruction"]
    assert made["parameters"].text().values.tolist() == [["CNN AE", "13906051"], ["ViT AE", "64"]]
    heads, quality = made["heads"], made["reconstruction"]
    assert heads.columns == ("method", "category", "head", "image_auroc", "pixel_auroc", "aupro", "n_images")
    assert len(heads.rows) == 2 * 3 * 2 and {row[2] for row in heads.text().values} == {"pixel L2", "SSIM"}
    for row in heads.rows:
        assert [cell.key for cell in row[3:6]] == [
            f"reconstruction|{row[0]}|{row[1]}|42|{metric}[head={row[2]}]" for metric in heads.columns[3:6]]
    assert len({*quality.text().columns}) == len(quality.columns)  # images of a kind, and how many there were
    assert quality.text().values.tolist()[:2] == [["CNN AE", "carpet", "good", "0.900", "0.00214", "0.0214", "6"],
                                                  ["CNN AE", "carpet", "defect", "0.900", "0.00413", "0.0413", "6"]]


def test_a_missing_family_leaves_its_table_out(bare):
    assert list(all_tables(bare)) == ["macro", "results", "ranking"]


def test_written_results_are_those_of_the_tidy_table(tidy, tmp_path):
    for made in all_tables(tidy).values():
        made.write(tmp_path)
    read = pd.read_csv(tmp_path / "results.csv").set_index(["scenario", "method", "category"])
    levels = tidy[tidy.scenario.isin(["clean", "global"]) & (tidy.metric == "image_auroc") & (tidy.method == "padim")]
    assert len(levels) == 8
    for row in levels.itertuples():
        found = read.loc[(row.scenario, row.method, row.category)]
        ends = [found.image_auroc, found.image_auroc_low, found.image_auroc_high]
        assert ends == pytest.approx([row.value, row.ci_low, row.ci_high], abs=1e-6)
    # each number of the tidy table that a table is for stands in a CSV: none was lost on the way
    conformal = pd.read_csv(tmp_path / "conformal.csv")
    stored = tidy[tidy.metric.str.startswith("realised_fpr[rule")]
    assert sorted(conformal.realised_fpr) == pytest.approx(sorted(stored.value)) and (conformal.n_images == 12).all()
    assert set(conformal.target) == {0.05, 0.1}


def test_markdown_and_latex_by_hand(tmp_path):
    made = ReportTable("small", "Two cells.", ("category", "f1", "n_images"), (
        ("a_b & 5 %", number(0.8, 0.75, 0.85), Field(number(0.8), "n_images")), ("c", None, None)))
    made.write(tmp_path)
    lines = (tmp_path / "small.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert lines[0] == "Two cells." and cells[0] == ["category", "F1", "images"]
    assert cells[2:] == [["a_b & 5 %", "0.800 [0.75, 0.85]", "20"], ["c", "-", "-"]]
    latex = (tmp_path / "small.tex").read_text()
    assert r"a\_b \& 5 \% & 0.800 [0.75, 0.85] & 20 \\" in latex
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{Two cells.}"))
    assert (tmp_path / "small.csv").read_text() == (
        "category,f1,f1_low,f1_high,n_images\na_b & 5 %,0.8,0.75,0.85,20\nc,,,,\n")


def test_latex_of_long_and_of_wide_tables(tidy):
    tables = all_tables(tidy)
    long = tables["results"].latex()
    assert r"\begin{longtable}" in long and r"\scriptsize" in long and r"\resizebox" not in long
    assert r"\resizebox{\linewidth}{!}{%" in tables["macro"].latex() and r"\end{tabular}}" in tables["macro"].latex()
    assert r"\resizebox" not in tables["ranking"].latex()
    for table in tables.values():  # each brace is closed
        assert table.latex().count("{") == table.latex().count("}")


def test_rows_of_one_value_without_its_column(tidy):
    made = all_tables(tidy)["differences"]
    macro = made.where("category", "macro")
    assert "category" not in macro.columns and len(macro.rows) == len(made.rows) / 4
    assert all(cell.category == "macro" for row in macro.rows for cell in row if isinstance(cell, Number))


def test_a_degenerate_threshold_is_a_word_and_its_average_a_share(tidy):
    made = all_tables(tidy)["threshold_rules"]
    place = made.columns.index("degenerate")
    cells = {(row[1], row[2], row[3]): row[place] for row in made.rows}
    assert cells["padim", "carpet", "mad"] == "yes" and cells["patchcore", "carpet", "mad"] == "no"
    assert isinstance(cells["padim", "macro", "mad"], Number)


def test_seeds_stand_beside_each_other(tidy):
    made = all_tables(tidy)["seeds"]
    assert [str(row[2]) for row in made.rows[:2]] == ["42", "42"] and len(made.rows) == 3 * 2 * 3
    values = {str(row[2]): row[3].value for row in made.rows if row[:2] == ("padim", "zipper")}
    own = tidy[(tidy.scenario == "seeds") & (tidy.method == "padim") & (tidy.category == "zipper")]
    own = own[own.metric == "image_auroc"]
    assert values == {str(row.seed): row.value for row in own.itertuples()}


def test_methods_are_ranked_and_told_apart_only_by_the_corrected_test():
    pair = "patchcore - padim"
    metrics = table(
        auroc("clean", "padim", "macro", 0.8), auroc("clean", "patchcore", "macro", 0.9),
        auroc("clean", "padim", "nut", 0.8), auroc("clean", "padim", "rug", 0.8),
        auroc("clean", pair, "nut", 0.2), ("clean", pair, "nut", "p_delong_holm", 0.04, None, None),
        auroc("clean", pair, "rug", -0.1), ("clean", pair, "rug", "p_delong_holm", 0.06, None, None),
    )
    ranked = compare_models(metrics)
    assert ranked[["rank", "method", "image_auroc"]].values.tolist() == [[1, "patchcore", 0.9], [2, "padim", 0.8]]
    assert ranked.better_than.tolist() == ["PaDiM (nut)", "none shown"]
    assert ranked.worse_than.tolist() == ["none shown", "PatchCore (nut)"]


def test_a_difference_the_other_way_round_is_read_the_other_way_round():
    pair = "padim - patchcore"
    metrics = table(
        auroc("clean", "padim", "macro", 0.9), auroc("clean", "patchcore", "macro", 0.8),
        auroc("clean", "padim", "nut", 0.9), auroc("clean", pair, "nut", -0.2),
        ("clean", pair, "nut", "p_delong_holm", 0.001, None, None),
    )
    ranked = compare_models(metrics).set_index("method")
    assert ranked.better_than.to_dict() == {"padim": "none shown", "patchcore": "PaDiM (nut)"}
    assert ranked["rank"].to_dict() == {"padim": 1, "patchcore": 2}  # the rank is the order of the values alone


def test_untested_methods_are_said_to_be_untested(bare):
    assert set(compare_models(bare).better_than) == {"not tested"}


def test_words_of_the_tables_are_the_readers():
    assert label("patchcore - padim") == "PatchCore - PaDiM" and label("image_auroc") == "image AUROC"
    assert label("no_adaptation") == "no adaptation"
    made = ReportTable("t", "c", ("method", "category"), (("padim", "mvtec_bottle"),))
    assert made.text().values.tolist() == [["PaDiM", "mvtec_bottle"]]  # a folder's name is not changed
