"""One cell of the study and its tables, on predictions made by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from nbhelpers.analyses.scenarios import per_image, write_scenario
from nbhelpers.config.sections import EvaluationConfig
from nbhelpers.data.exploration import area_table
from nbhelpers.errors import DataError, ModelError
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.evaluation.cell import check_twins, difference, draw_seed, evaluate, macro
from nbhelpers.predictions import Predictions
from nbhelpers.results import views as tables
from nbhelpers.results.table import COLUMNS, MACRO, as_table, detailed, results_table, to_rows
from nbhelpers.scenarios import SCENARIOS, fit_domains

SETTINGS = EvaluationConfig(
    bootstrap_draws=200,
    confidence=0.95,
    threshold_rule="f1_optimal",
    target_fprs=(0.1,),
    conformal_folds=2,
)


def predictions(scores, labels, with_masks=True):
    """Maps are the score everywhere, plus 1 on a 2x2 defect in the corner of each anomalous image."""
    scores, labels = np.asarray(scores, np.float32), np.asarray(labels)
    masks = np.zeros((len(labels), 6, 6), np.uint8)
    maps = np.repeat(scores, 36).reshape(-1, 6, 6).copy()
    masks[labels == 1, :2, :2] = int(with_masks)
    maps[labels == 1, :2, :2] += 1
    valid = np.ones(len(labels), bool) if with_masks else labels == 0
    kinds = tuple("crack" if label else "good" for label in labels)
    return Predictions(
        scores,
        maps,
        masks,
        valid,
        labels.astype(np.int64),
        kinds,
        tuple(f"nut/test/{k}/{i}.png" for i, k in enumerate(kinds)),
    )


VAL = predictions([1, 2, 3, 6, 7], [0, 0, 0, 1, 1])
TEST = predictions([1, 2, 5, 4, 8, 9], [0, 0, 0, 1, 1, 1])
UNMASKED = predictions([1, 2, 5, 4, 8, 9], [0, 0, 0, 1, 1, 1], with_masks=False)


def cell(val=VAL, test=TEST, seed=(1,)):
    return evaluate([val], test, SETTINGS, seed)


def values(metrics):
    return {name: entry["value"] for name, entry in metrics.items()}


def test_a_cell_by_hand():
    result, draws = cell()
    metrics = values(result["metrics"])
    assert metrics["threshold"] == 4.5  # the middle between 3 and 6
    # at 4.5: the good 5 is a false alarm, the defect 4 is missed
    assert metrics["recall"] == pytest.approx(2 / 3) and metrics["specificity"] == pytest.approx(
        2 / 3
    )
    assert metrics["image_auroc"] == pytest.approx(8 / 9) and metrics[
        "trivial_f1"
    ] == pytest.approx(6 / 9)
    entry = result["metrics"]["image_auroc"]
    assert entry["ci_low"] <= entry["value"] <= entry["ci_high"] and entry["n_images"] == 6
    assert result["metrics"]["pixel_auroc"]["n_images"] == 6 and result["left_out"] == []
    assert result["metrics"]["threshold"]["n_images"] == 5
    assert 0 <= metrics["ece"] <= 1 and result["metrics"]["ece"]["ci_low"] is None
    assert draws["recall"].shape == draws["aupro"].shape == draws["threshold"].shape == (200,)


def test_intervals_redraw_the_calibration_images_too():
    """Val defects 6 and 7: a draw without the 6 calibrates at 5, where the good 5 is still an
    alarm.
    """
    result, draws = cell()
    assert set(np.round(draws["threshold"], 6)) <= {3.5, 4.0, 4.5, 5.0}
    assert (
        result["metrics"]["threshold"]["ci_low"] < 4.5 < result["metrics"]["threshold"]["ci_high"]
    )


def test_several_calibration_sets_give_one_threshold():
    far = predictions([11, 12, 16], [0, 0, 1])
    result, _ = evaluate([VAL, far], TEST, SETTINGS, (1,))
    assert result["threshold"]["n_good"] == 5 and result["threshold"]["n_defect"] == 3
    assert (
        result["threshold"]["value"] == 4.5
    )  # F1 3/4: all defects, the good 11 and 12 with them; above 12 it is 1/2


def test_without_masks_pixel_metrics_are_skipped_and_it_says_so():
    result, draws = cell(test=UNMASKED)
    assert not {"pixel_auroc", "aupro", "aupimo"} & {*result["metrics"], *draws}
    assert "no test image has a defect mask" in result["pixel_skipped"]
    assert len(result["left_out"]) == 3


def test_too_few_good_pixels_for_aupimo_are_said():
    result, draws = cell()  # 3 good images of 6 x 6: 1e-5 of them is far below a pixel
    assert "aupimo" not in result["metrics"] and "aupimo_per_image" not in draws
    assert "on 108 normal pixels of good images" in result["aupimo_skipped"]


def test_calibration_on_one_class_is_refused():
    with pytest.raises(DataError, match="3 good and 0 defect"):
        cell(val=VAL.subset(VAL.labels == 0))


def test_differences_of_twins_are_paired():
    def side(test):
        result, draws = cell(test=test)
        return values(result["metrics"]), draws

    counts = {"image_auroc": 6, "recall": 6}
    same, _ = difference(side(TEST), side(TEST), counts, 0.95)
    assert all((e["value"], e["ci_low"], e["ci_high"]) == (0, 0, 0) for e in same.values())
    worse, draws = difference(
        side(TEST), side(predictions(-TEST.image_scores, TEST.labels)), counts, 0.95
    )
    assert worse["image_auroc"]["value"] == pytest.approx(1 / 9 - 8 / 9)
    assert (
        draws["image_auroc"].mean() == pytest.approx(-7 / 9, abs=0.05)
        and worse["image_auroc"]["n_images"] == 6
    )


def test_other_images_are_no_twins():
    check_twins(TEST.ids, UNMASKED.ids)
    for others in (
        TEST.ids[:5],
        (TEST.ids[1], TEST.ids[0], *TEST.ids[2:]),
    ):  # the swapped two have one label
        with pytest.raises(
            DataError, match=f"same images in the same order, found 6 and {len(others)}"
        ):
            check_twins(TEST.ids, others)


def test_macro_averages_rates_only():
    cells = [cell(), cell(test=VAL, seed=(2,))]
    average = macro(cells, 0.95)
    assert average["image_auroc"]["value"] == pytest.approx((8 / 9 + 1) / 2)
    assert average["image_auroc"]["n_images"] == 11
    assert not {"threshold", "tp", "regions"} & set(average)
    # one category is perfect in every draw, so the average moves half as much as the other category
    # alone
    alone = cells[0][0]["metrics"]["image_auroc"]
    assert average["image_auroc"]["ci_low"] == pytest.approx((alone["ci_low"] + 1) / 2)
    ece = np.mean([result["metrics"]["ece"]["value"] for result, _ in cells])
    assert average["ece"] == {
        "value": pytest.approx(ece),
        "ci_low": None,
        "ci_high": None,
        "n_images": 11,
    }


def test_macro_leaves_out_what_a_category_lacks():
    average = macro([cell(), cell(test=UNMASKED)], 0.95)
    assert "image_auroc" in average and "aupro" not in average


def test_categories_are_redrawn_independently():
    assert draw_seed(1, "a") != draw_seed(1, "b") and draw_seed(1, "a") == draw_seed(
        1, "a"
    ) != draw_seed(2, "a")


def test_scenarios_name_the_domains_that_are_fitted():
    assert fit_domains(SCENARIOS) == ("clean", "shift")
    assert fit_domains(["full_adaptation", "global"]) == ("shift",)
    assert SCENARIOS["global"].calibrates == {
        "fitted_on": "global",
        "domain": "clean",
        "split": "val",
    }
    assert SCENARIOS["global"].tests == {"fitted_on": "global", "domain": "clean", "split": "test"}


def test_table_in_a_fixed_order():
    rows = to_rows("clean", "patchcore", MACRO, 42, macro([cell()], 0.95))
    rows += to_rows("no_adaptation", "patchcore", "b", 42, cell()[0]["metrics"])
    rows += to_rows("clean", "patchcore", "b", 42, cell()[0]["metrics"])
    rows += to_rows("clean", "patchcore", "a", 42, cell(test=VAL)[0]["metrics"])
    difference = cell()[0]["metrics"]
    rows += to_rows("no_adaptation", "patchcore", "b", 42, difference, against="clean")
    rows += to_rows("clean", "patchcore", "macro", 42, {"f1": stated(0.5, 6)})
    rows += to_rows("clean", "patchcore", "b", 42, {detailed("f1", rule="mad"): stated(0.5, 6)})
    table = results_table(rows)
    assert list(dict.fromkeys(zip(table.scenario, table.against, strict=True))) == [
        ("clean", ""),
        ("no_adaptation", ""),
        ("no_adaptation", "clean"),
    ]
    assert tuple(table.columns) == COLUMNS
    assert list(dict.fromkeys(zip(table.category, table.macro, strict=True))) == [
        ("a", False),
        ("b", False),
        ("macro", False),
        ("", True),
    ]
    chosen = table[(table.scenario == "clean") & (table.category == "b") & (table.metric == "f1")]
    assert chosen.detail_value.tolist() == ["", "mad"]
    pd.testing.assert_frame_equal(table, results_table(reversed(rows)))
    assert results_table([]).empty


def test_scenario_files(tmp_path):
    chosen, _ = cell()
    average = {"patchcore": {"metrics": macro([cell()], 0.95)}}
    cells = {"patchcore": {"nut": chosen, "macro": chosen}}
    write_scenario(tmp_path, SCENARIOS["clean"], cells, average, {"git": "x"})
    view = json.loads((tmp_path / "clean_results.json").read_text())
    assert view["protocol"] == {
        "model_fitted_on": "clean",
        "threshold_from": "val clean",
        "tested_on": "test clean",
    }
    assert (
        view["methods"]["patchcore"]["nut"]["metrics"]["f1"]["value"]
        == chosen["metrics"]["f1"]["value"]
    )
    assert set(view["methods"]["patchcore"]) == {"nut", "macro"}
    assert view["macro"]["patchcore"]["metrics"]["f1"] == average["patchcore"]["metrics"]["f1"]
    thresholds = json.loads(
        (tmp_path / "thresholds" / "patchcore_clean_thresholds.json").read_text()
    )
    assert thresholds["nut"]["value"] == 4.5 and thresholds["nut"]["n_good"] == 3
    decided = per_image(TEST, 4.5)
    assert decided.decision.tolist() == [0, 0, 1, 0, 1, 1] and decided.margin[2] == 0.5


def test_tables_for_reading():
    table = results_table(to_rows("clean", "patchcore", "nut", 42, cell()[0]["metrics"]))
    wide = tables.headline_table(table)
    assert wide.loc[("clean", "patchcore", "nut", 42), "image_auroc"] == pytest.approx(8 / 9)
    text = tables.with_intervals(table, ["image_auroc", "trivial_f1"])
    assert text.loc[("patchcore", "nut"), "image_auroc"].startswith("0.89 [")
    rules = pd.DataFrame(
        {
            "scenario": "clean",
            "method": "m",
            "category": "nut",
            "value": [0.5, 0.7, 0.1],
            "macro": False,
            "against": "",
            "against_method": "",
            "metric": ["f1", "recall", "f1"],
            "detail": "rule",
            "detail_value": ["mad", "mad", "iqr"],
            "ci_low": 0.4,
            "ci_high": 0.6,
        }
    )
    wide = tables.qualified(rules, "rule", ["f1", "recall"])
    assert wide.columns.tolist() == ["method", "category", "rule", "f1", "recall"]
    assert (
        wide.set_index("rule").f1.to_dict() == {"mad": 0.5, "iqr": 0.1}
        and wide.recall.tolist()[0] == 0.7
    )
    assert tables.qualified(rules, "rule", ["recall"], interval=True).recall.tolist() == [
        "0.70 [0.40, 0.60]"
    ]
    areas = pd.DataFrame(
        {"category": "nut", "defect": "crack", "area_percent": [1.0, 2.0, 3.0, 4.0, 5.0]}
    )
    assert area_table(areas).iloc[0].tolist() == ["nut", "crack", 1, 2, 3, 4, 5, 5]


def test_names_as_they_are_printed():
    entry = {"f1": stated(0.5, 6)}
    rows = to_rows("clean", "patchcore", "nut", 42, entry)
    rows += to_rows("no_adaptation", "patchcore", MACRO, 42, entry, against="clean")
    rows += to_rows("clean", "patchcore", "nut", 42, entry, against_method="padim")
    shown = tables.printed(as_table(rows))
    assert shown[["scenario", "method", "category"]].values.tolist() == [
        ["clean", "patchcore", "nut"],
        ["no_adaptation - clean", "patchcore", "macro"],
        ["clean", "patchcore - padim", "nut"],
    ]
    rows += to_rows("clean", "patchcore", "macro", 42, entry)
    assert set(tables.printed(as_table(rows)).category) == {"nut", "macro", "macro average"}
    assert tables.printed(as_table([])).empty


def test_predictions_round_trip_and_refuse_nonsense(tmp_path):
    TEST.save(tmp_path / "p.npz")
    back = Predictions.load(tmp_path / "p.npz")
    assert back.ids == TEST.ids and back.defect_types == TEST.defect_types
    for name in ("image_scores", "anomaly_maps", "masks", "pixel_valid", "labels"):
        np.testing.assert_array_equal(getattr(back, name), getattr(TEST, name))
    first = (tmp_path / "p.npz").read_bytes()
    TEST.save(tmp_path / "p.npz")
    assert (tmp_path / "p.npz").read_bytes() == first
    with pytest.raises(ModelError, match="do not fit together"):
        Predictions(
            TEST.image_scores[:3], *(getattr(TEST, n) for n in list(TEST.__dataclass_fields__)[1:])
        )
    with_source = Predictions(
        *(getattr(TEST, n) for n in list(TEST.__dataclass_fields__)[:-1]),
        nearest=np.zeros((6, 2, 2), np.int32),
    )
    assert len(with_source.subset(TEST.labels == 1).nearest) == 3
    broken = TEST.image_scores.copy()
    broken[2] = np.nan
    with pytest.raises(ModelError, match="expected finite scores"):
        Predictions(broken, *(getattr(TEST, n) for n in list(TEST.__dataclass_fields__)[1:]))
