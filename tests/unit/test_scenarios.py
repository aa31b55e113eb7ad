"""One cell of the study and its tables, on predictions made by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from nbhelpers.errors import DataError, ModelError
from nbhelpers.evaluation.scenarios import COLUMNS, SCENARIOS, degradation, evaluate, macro, results_table, to_rows
from nbhelpers.models.detector import Predictions
from nbhelpers.reporting import tables
from nbhelpers.settings import EvaluationConfig

SETTINGS = EvaluationConfig(bootstrap_draws=200, confidence=0.95)


def predictions(scores, labels, with_masks=True):
    """Maps are the score everywhere, plus 1 on a 2x2 defect in the corner of each anomalous image."""
    scores, labels = np.asarray(scores, np.float32), np.asarray(labels)
    masks = np.zeros((len(labels), 6, 6), np.uint8)
    maps = np.repeat(scores, 36).reshape(-1, 6, 6).copy()
    masks[labels == 1, :2, :2] = int(with_masks)
    maps[labels == 1, :2, :2] += 1
    valid = np.ones(len(labels), bool) if with_masks else labels == 0
    kinds = tuple("crack" if label else "good" for label in labels)
    return Predictions(scores, maps, masks, valid, labels.astype(np.int64), kinds,
                       tuple(f"nut/test/{k}/{i}.png" for i, k in enumerate(kinds)))


VAL = predictions([1, 2, 3, 6, 7], [0, 0, 0, 1, 1])
TEST = predictions([1, 2, 5, 4, 8, 9], [0, 0, 0, 1, 1, 1])


def test_a_cell_by_hand():
    result = evaluate(VAL, TEST, SETTINGS, seed=1)
    values = {name: entry["value"] for name, entry in result["metrics"].items()}
    assert values["threshold"] == 4.5  # the middle between 3 and 6
    # at 4.5: the good 5 is a false alarm, the defect 4 is missed
    assert values["recall"] == pytest.approx(2 / 3) and values["specificity"] == pytest.approx(2 / 3)
    assert values["image_auroc"] == pytest.approx(8 / 9) and values["trivial_f1"] == pytest.approx(6 / 9)
    entry = result["metrics"]["image_auroc"]
    assert entry["ci_low"] <= entry["value"] <= entry["ci_high"] and entry["n_images"] == 6
    assert result["metrics"]["pixel_auroc"]["n_images"] == 6 and result["left_out"] == []


def test_without_masks_pixel_metrics_are_skipped_and_it_says_so():
    result = evaluate(VAL, predictions(TEST.image_scores, TEST.labels, with_masks=False), SETTINGS, seed=1)
    assert not {"pixel_auroc", "aupro"} & set(result["metrics"])
    assert "no test image has a defect mask" in result["pixel_skipped"]
    assert len(result["left_out"]) == 3


def test_calibration_on_one_class_is_refused():
    with pytest.raises(DataError, match="3 good and 0 defect"):
        evaluate(VAL.subset(VAL.labels == 0), TEST, SETTINGS, seed=1)


def test_degradation_of_identical_predictions_is_zero():
    same = degradation((TEST, 4.5), (TEST, 4.5), SETTINGS, seed=1)
    assert all((e["value"], e["ci_low"], e["ci_high"]) == (0, 0, 0) for e in same.values())
    worse = degradation((TEST, 4.5), (predictions(-TEST.image_scores, TEST.labels), 4.5), SETTINGS, seed=1)
    assert worse["image_auroc"]["value"] == pytest.approx(1 / 9 - 8 / 9)


def test_macro_averages_rates_only():
    cells = [evaluate(VAL, TEST, SETTINGS, seed=1), evaluate(VAL, VAL, SETTINGS, seed=1)]
    average = macro(cells, [TEST, VAL], SETTINGS, seed=1)
    assert average["image_auroc"]["value"] == pytest.approx((8 / 9 + 1) / 2)
    assert average["image_auroc"]["n_images"] == 11
    assert not {"threshold", "tp", "regions"} & set(average)
    # one category is perfect in every draw, so the average moves half as much as the other category alone
    alone = cells[0]["metrics"]["image_auroc"]
    assert average["image_auroc"]["ci_low"] == pytest.approx((alone["ci_low"] + 1) / 2, abs=0.02)


def test_macro_leaves_out_what_a_category_lacks():
    unmasked = predictions(TEST.image_scores, TEST.labels, with_masks=False)
    cells = [evaluate(VAL, TEST, SETTINGS, seed=1), evaluate(VAL, unmasked, SETTINGS, seed=1)]
    average = macro(cells, [TEST, unmasked], SETTINGS, seed=1)
    assert "image_auroc" in average and "aupro" not in average


def test_table_in_a_fixed_order():
    rows = to_rows("clean", "patchcore", "macro", 42, {"metrics": macro([evaluate(VAL, TEST, SETTINGS, 1)], [TEST],
                                                                        SETTINGS, 1)})
    rows += to_rows("clean", "patchcore", "b", 42, evaluate(VAL, TEST, SETTINGS, seed=1))
    rows += to_rows("clean", "patchcore", "a", 42, evaluate(VAL, VAL, SETTINGS, seed=1))
    table = results_table(rows)
    assert tuple(table.columns) == COLUMNS
    assert list(dict.fromkeys(table.category)) == ["a", "b", "macro"]
    pd.testing.assert_frame_equal(table, results_table(reversed(rows)))
    assert results_table([]).empty


def test_scenario_files(tmp_path):
    cell = evaluate(VAL, TEST, SETTINGS, seed=1)
    tables.write_scenario(tmp_path, SCENARIOS["clean"], {"patchcore": {"nut": cell}}, {"git": "x"})
    view = json.loads((tmp_path / "clean_results.json").read_text())
    assert view["protocol"] == {"model_fitted_on": "clean", "threshold_from": "val clean", "tested_on": "test clean"}
    assert view["methods"]["patchcore"]["nut"]["metrics"]["f1"]["value"] == cell["metrics"]["f1"]["value"]
    thresholds = json.loads((tmp_path / "thresholds" / "patchcore_clean_thresholds.json").read_text())
    assert thresholds["nut"]["value"] == 4.5 and thresholds["nut"]["n_good"] == 3
    decided = tables.per_image(TEST, 4.5)
    assert decided.decision.tolist() == [0, 0, 1, 0, 1, 1] and decided.margin[2] == 0.5


def test_tables_for_reading():
    table = results_table(to_rows("clean", "patchcore", "nut", 42, evaluate(VAL, TEST, SETTINGS, seed=1)))
    wide = tables.headline_table(table)
    assert wide.loc[("clean", "patchcore", "nut", 42), "image_auroc"] == pytest.approx(8 / 9)
    text = tables.with_intervals(table, ["image_auroc", "trivial_f1"])
    assert text.loc[("patchcore", "nut"), "image_auroc"].startswith("0.89 [")
    areas = pd.DataFrame({"category": "nut", "defect": "crack", "area_percent": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert tables.area_table(areas).iloc[0].tolist() == ["nut", "crack", 1, 2, 3, 4, 5, 5]


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
        Predictions(TEST.image_scores[:3], *(getattr(TEST, n) for n in list(TEST.__dataclass_fields__)[1:]))
    broken = TEST.image_scores.copy()
    broken[2] = np.nan
    with pytest.raises(ModelError, match="expected finite scores"):
        Predictions(broken, *(getattr(TEST, n) for n in list(TEST.__dataclass_fields__)[1:]))
