"""Rules compared, recommended, redrawn and carried over: by hand and against a plain loop."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.bootstrap import stratified_weights
from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.thresholds.calibrate import calibrate_threshold
from nbhelpers.evaluation.thresholds.compare import (
    compare_rules,
    recommend,
    threshold_draws,
    transfer_table,
)
from nbhelpers.evaluation.thresholds.rules import CALIBRATED_RULES

COLUMNS = [
    "rule",
    "needs",
    "value",
    "n_good",
    "n_defect",
    "degenerate",
    "val_balanced_accuracy",
    "f1",
    "precision",
    "recall",
    "specificity",
    "balanced_accuracy",
    "accuracy",
    "refused",
]


def example(seed, good=40, defect=20):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[np.zeros(good, int), np.ones(defect, int)])
    return labels, rng.normal(1.5 * labels, 1.0)


def test_every_rule_has_a_row_with_scikit_learns_numbers():
    val, test = example(0), example(1)
    table = compare_rules(*val, *test)
    assert list(table.columns) == COLUMNS and table.rule.tolist() == list(CALIBRATED_RULES)
    refused = table[table.refused.notna()]
    assert (
        refused.rule.tolist() == ["conformal_0.01"]
        and "at least 99 good" in refused.refused.iloc[0]
    )
    assert (
        refused[["value", *COLUMNS[6:13]]].isna().all(axis=None) and refused.degenerate.isna().all()
    )
    assert (table.n_good == 40).all() and (table.n_defect == 20).all()
    for row in table[table.refused.isna()].itertuples():
        threshold = calibrate_threshold(*val, row.rule)
        assert row.value == threshold.value and bool(row.degenerate) == threshold.degenerate
        assert row.val_balanced_accuracy == threshold.calibration["balanced_accuracy"]
        flagged = decide(test[1], row.value)
        assert row.f1 == pytest.approx(f1_score(test[0], flagged))
        assert row.precision == pytest.approx(precision_score(test[0], flagged, zero_division=0))
        assert row.recall == pytest.approx(recall_score(test[0], flagged))
        assert row.specificity == pytest.approx(recall_score(test[0], flagged, pos_label=0))
        assert row.balanced_accuracy == pytest.approx((row.recall + row.specificity) / 2)
        assert row.accuracy == pytest.approx(accuracy_score(test[0], flagged))


def test_good_val_images_alone_leave_the_rules_that_need_them():
    scores = np.arange(40.0)
    table = compare_rules(
        np.zeros(40), scores, *example(1), rules=["f1_optimal", "percentile_95", "otsu"]
    )
    assert table.refused.notna().tolist() == [True, False, False]
    assert "40 good and 0 defect" in table.refused[0]
    assert table.value[1] == pytest.approx(37.05) and np.isnan(table.val_balanced_accuracy[1])


def test_the_test_images_do_not_move_a_threshold():
    """Other test images, the same thresholds."""
    val = example(0)
    first, second = compare_rules(*val, *example(1)), compare_rules(*val, *example(2))
    same = ["rule", "value", "degenerate", "val_balanced_accuracy"]
    pd.testing.assert_frame_equal(first[same], second[same])
    assert not first.f1.equals(second.f1)


def test_faults_of_the_call_are_no_refusals():
    with pytest.raises(ConfigError, match="value"):
        compare_rules(*example(0), *example(1), rules=["fixed"])
    with pytest.raises(ConfigError, match="choose one"):
        compare_rules(*example(0), *example(1), rules=["largest"])
    with pytest.raises(DataError, match="2 good and 0 defect"):
        compare_rules(*example(0), [0, 0], [1.0, 2.0])


def test_recommendation_by_hand():
    values = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 9.0}
    assert recommend(values) == {"conservative": 4.0, "balanced": 3.0, "aggressive": 2.0}
    with pytest.raises(DataError, match="at least one rule"):
        recommend({})
    with pytest.raises(DataError, match="leave refused rules out"):
        recommend({"a": 1.0, "b": float("nan")})


@pytest.mark.parametrize(
    "rule", ["f1_optimal", "min_recall_95", "percentile_95", "mad", "conformal_0.05", "otsu"]
)
def test_draws_are_those_of_a_plain_loop(rule):
    labels, scores = example(3)
    scores = scores.astype(np.float32)
    thresholds = threshold_draws(labels, scores, rule, draws=25, seed=7)
    weights = stratified_weights(labels == 1, 25, seed=7).astype(int)
    slow = [
        calibrate_threshold(np.repeat(labels, row), np.repeat(scores, row), rule).value
        for row in weights
    ]
    assert thresholds.tolist() == slow
    assert thresholds.tolist() == threshold_draws(labels, scores, rule, draws=25, seed=7).tolist()
    assert (
        thresholds.std() > 0
        and thresholds.tolist() != threshold_draws(labels, scores, rule, draws=25, seed=8).tolist()
    )


def test_draws_by_hand():
    """good 0 and 4, defect 8 and 10: the threshold is the middle of the highest good and the lowest
    defect drawn.
    """
    thresholds = threshold_draws([0, 0, 1, 1], [0.0, 4.0, 8.0, 10.0], draws=400, seed=0)
    values, counts = np.unique(thresholds, return_counts=True)
    assert values.tolist() == [4.0, 5.0, 6.0, 7.0]  # 0|8, 0|10, 4|8, 4|10
    expected = np.array([3, 1, 9, 3]) / 16  # 0 twice: 1/4; 10 twice: 1/4
    assert counts / 400 == pytest.approx(expected, abs=0.08)  # standard error at most 0.025


def test_draws_of_good_images_alone_and_what_they_refuse():
    thresholds = threshold_draws(np.zeros(10), np.arange(10.0), "percentile_90", draws=50, seed=0)
    assert thresholds.shape == (50,) and (thresholds <= 9).all()
    with pytest.raises(DataError, match="10 good and 0"):
        threshold_draws(np.zeros(10), np.arange(10.0), "f1_optimal", draws=5, seed=0)
    with pytest.raises(ConfigError, match="value"):
        threshold_draws([0, 1], [0.0, 1.0], "fixed", draws=5, seed=0)


def test_transfer_matrix_by_hand():
    """nut good 1 2, defect 3 4; bolt good 5 6 7 only. The nut's 2.5 flags every bolt, the bolt's
    6.5 no nut.
    """
    tests = {"nut": ([0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0]), "bolt": ([0, 0, 0], [5.0, 6.0, 7.0])}
    table = transfer_table({"nut": 2.5, "bolt": 6.5}, tests)
    assert list(table.columns) == [
        "threshold_from",
        "tested_on",
        "fpr",
        "fnr",
        "specificity",
        "n_good",
        "n_defect",
    ]
    assert table.threshold_from.tolist() == ["nut", "nut", "bolt", "bolt"]
    assert table.tested_on.tolist() == ["nut", "bolt", "nut", "bolt"]
    assert table.fpr.tolist() == [0.0, 1.0, 0.0, pytest.approx(1 / 3)]
    assert table.specificity.tolist() == [1.0, 0.0, 1.0, pytest.approx(2 / 3)]
    assert table.fnr[[0, 2]].tolist() == [0.0, 1.0] and table.fnr[[1, 3]].isna().all()
    assert table.n_good.tolist() == [2, 3, 2, 3] and table.n_defect.tolist() == [2, 0, 2, 0]


def test_transfer_refuses_scores_that_are_not_finite():
    with pytest.raises(DataError, match="finite"):
        transfer_table({"a": 1.0}, {"a": ([0, 1], [np.nan, 1.0])})
