"""Threshold rules: values by hand, agreement with scikit-learn and with plain searches, and what
they refuse.
"""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_curve

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.thresholds.calibrate import calibrate_threshold
from nbhelpers.evaluation.thresholds.rules import (
    CALIBRATED_RULES,
    RULES,
    candidates,
    check_images,
    get_rule,
    highest_with_recall,
    scores_for,
)

NEED_BOTH = ("f1_optimal", "youden", "balanced_accuracy", "min_recall_95")
NEED_GOOD = (
    "percentile_90",
    "percentile_95",
    "percentile_97",
    "percentile_98",
    "percentile_99",
    "percentile_99.5",
    "percentile_99.9",
    "mean_1std",
    "mean_2std",
    "mean_3std",
    "iqr",
    "mad",
    "conformal_0.01",
    "conformal_0.05",
    "conformal_0.1",
)


def example(seed, good=30, defect=20, gap=1.0):
    """Continuous scores for an even seed, tied ones for an odd seed."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[np.zeros(good, int), np.ones(defect, int)])
    scores = rng.normal(gap * labels, 1.0)
    return labels, np.round(scores * 2) / 2 if seed % 2 else scores


def test_the_registry_is_complete_and_says_what_is_needed():
    needs = {name: rule.needs for name, rule in RULES.items()}
    assert needs == {
        **dict.fromkeys(NEED_BOTH, "both"),
        **dict.fromkeys(NEED_GOOD, "good"),
        "otsu": "unlabelled",
        "fixed": "nothing",
    }
    assert set(CALIBRATED_RULES) == set(RULES) - {"fixed"}
    assert all(
        rule.name == name and rule.description and "\n" not in rule.description
        for name, rule in RULES.items()
    )
    assert all("last resort" in RULES[name].description for name in ("otsu", "fixed"))
    assert get_rule("iqr") is RULES["iqr"]


@pytest.mark.parametrize(
    ("rule", "good", "value"),
    [
        ("percentile_90", range(101), 90.0),
        ("percentile_95", [0.0, 10.0], 9.5),  # linear between neighbours
        ("percentile_97", range(101), 97.0),
        ("percentile_98", range(101), 98.0),
        ("percentile_99", range(101), 99.0),
        ("percentile_99.5", range(101), 99.5),
        ("percentile_99.9", range(101), 99.9),
        ("mean_1std", [1.0, 2.0, 3.0], 3.0),  # mean 2, std 1 (n - 1)
        ("mean_2std", [1.0, 2.0, 3.0], 4.0),
        ("mean_3std", [1.0, 2.0, 3.0], 5.0),
        ("iqr", [1.0, 2.0, 3.0, 4.0, 5.0], 7.0),  # Q1 2, Q3 4
        ("mad", [1.0, 2.0, 3.0, 4.0, 100.0], 3 + 3 * 1.482602),  # deviations 2 1 0 1 97: MAD 1
        ("conformal_0.05", range(1, 20), np.nextafter(19.0, 20)),  # k = ceil(20 * 0.95) = 19
        ("conformal_0.1", range(1, 20), np.nextafter(18.0, 20)),  # k = ceil(20 * 0.9) = 18
        ("conformal_0.01", range(1, 200), np.nextafter(198.0, 200)),  # k = ceil(200 * 0.99) = 198
    ],
)
def test_values_by_hand_and_defects_without_influence(rule, good, value):
    good = np.array(list(good), dtype=np.float64)
    alone = calibrate_threshold(np.zeros(good.size), good[::-1], rule)
    assert alone.value == pytest.approx(value, rel=1e-7)
    assert (alone.rule, alone.n_good, alone.n_defect) == (rule, good.size, 0)
    labels, scores = np.r_[np.zeros(good.size), 1, 1], np.r_[good, -500.0, 500.0]
    assert calibrate_threshold(labels, scores, rule).value == alone.value


def test_conformal_lies_above_the_kth_score_by_one_float():
    value = calibrate_threshold(np.zeros(19), np.arange(1.0, 20.0), "conformal_0.1").value
    assert value > 18.0 and np.nextafter(value, 0) == 18.0


@pytest.mark.parametrize("seed", range(8))
def test_youden_and_balanced_accuracy_are_one_rule_and_the_best(seed):
    """J = 2 * balanced accuracy - 1 ranks alike; scikit-learn's ROC has no better J, and the score
    agrees.
    """
    labels, scores = example(seed)
    youden, balanced = (
        calibrate_threshold(labels, scores, rule) for rule in ("youden", "balanced_accuracy")
    )
    assert youden.value == balanced.value and youden.plateau == balanced.plateau
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert 2 * youden.calibration["balanced_accuracy"] - 1 == pytest.approx(
        (tpr - fpr).max(), abs=1e-12
    )
    expected = balanced_accuracy_score(labels, decide(scores, youden.value))
    assert youden.calibration["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)


def test_f1_follows_the_share_of_defects_and_balanced_accuracy_does_not():
    """Scores: good 0 2 3 4, defect 1 5: above 0 recall 1 and specificity 1/4, above 4 recall 1/2 and
    specificity 1.

    Balanced accuracy takes the second (0.75 against 0.625), F1 too (2/3 against 4/7). With every
    defect five times F1 takes the first (20/23 against 2/3); balanced accuracy stays.
    """
    few = ([0, 0, 0, 0, 1, 1], [0.0, 2.0, 3.0, 4.0, 1.0, 5.0])
    many = ([0, 0, 0, 0] + [1] * 10, [0.0, 2.0, 3.0, 4.0] + [1.0, 5.0] * 5)
    assert calibrate_threshold(*few, "f1_optimal").value == 4.5
    assert calibrate_threshold(*many, "f1_optimal").value == 0.5
    assert {calibrate_threshold(*images, "balanced_accuracy").value for images in (few, many)} == {
        4.5
    }


def test_balanced_accuracy_takes_the_widest_of_tied_plateaus():
    """good 0 and 6, defect 5 and 9: 3/4 in (0, 5] and in (6, 9]; the first is wider, its centre
    2.5.
    """
    threshold = calibrate_threshold([0, 0, 1, 1], [0.0, 6.0, 5.0, 9.0], "balanced_accuracy")
    assert (threshold.value, threshold.plateau) == (2.5, (0.0, 5.0))
    threshold = calibrate_threshold([0, 0, 1, 1], [4.0, 6.0, 5.0, 9.0], "youden")
    assert (threshold.value, threshold.plateau) == (7.5, (6.0, 9.0))


def test_minimum_recall_by_hand():
    """20 defects at 1 to 20: 19 of them are 95 %, so that only the one at 1 may be missed: (1.5,
    2], a good at 1.5.
    """
    labels, scores = np.r_[np.ones(20), 0, 0], np.r_[np.arange(1.0, 21.0), 1.5, 0.0]
    threshold = calibrate_threshold(labels, scores, "min_recall_95")
    assert (threshold.value, threshold.plateau) == (1.75, (1.5, 2.0))
    assert threshold.calibration["recall"] == 0.95 and threshold.calibration["specificity"] == 1.0
    labels, scores = np.delete(labels, 0), np.delete(scores, 0)  # of 19 none may be missed
    assert calibrate_threshold(labels, scores, "min_recall_95").calibration["recall"] == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_minimum_recall_is_the_highest_that_keeps_it(seed):
    labels, scores = example(seed)
    threshold = calibrate_threshold(labels, scores, "min_recall_95")
    assert recall_score(labels, decide(scores, threshold.value)) >= 0.95
    assert recall_score(labels, decide(scores, np.nextafter(threshold.plateau[1], np.inf))) < 0.95


def test_full_recall_can_always_be_had():
    good, defect = np.array([5.0, 6.0]), np.array([1.0, 2.0])
    assert highest_with_recall(1.0, good, defect) == 1.0
    assert (
        calibrate_threshold([0, 0, 1, 1], [5.0, 6.0, 1.0, 2.0], "min_recall_95").degenerate is True
    )


def test_candidates_by_hand():
    value, low, high, rates = candidates(np.array([1.0, 3.0]), np.array([3.0, 7.0]))
    assert value.tolist() == [1.0, 2.0, 5.0]
    assert low.tolist() == [1.0, 1.0, 3.0] and high.tolist() == [1.0, 3.0, 7.0]
    assert rates["recall"].tolist() == [1.0, 1.0, 0.5] and rates["specificity"].tolist() == [
        0.0,
        0.5,
        1.0,
    ]


@pytest.mark.parametrize("seed", range(6))
def test_otsu_has_the_smallest_variance_within_the_two_sides(seed):
    labels, scores = example(seed, gap=4.0)
    threshold = calibrate_threshold(labels, scores, "otsu")

    def within(value):
        sides = (scores[scores < value], scores[scores >= value])
        return sum(side.size * side.var() for side in sides)

    distinct = np.unique(scores)
    assert within(threshold.value) == pytest.approx(
        min(within(value) for value in distinct[1:]), rel=1e-9
    )
    assert threshold.value == pytest.approx(np.mean(threshold.plateau))


def test_otsu_ignores_the_labels_and_splits_good_images_too():
    """The scores 0 0 1 and 9 10 split at 5, whatever the labels say; two of five good images are flagged."""
    scores = [0.0, 9.0, 0.0, 1.0, 10.0]
    for labels in ([0] * 5, [0, 1, 0, 1, 0], [1] * 5):
        assert calibrate_threshold(labels, scores, "otsu").value == 5.0
    threshold = calibrate_threshold([0] * 5, scores, "otsu")
    assert threshold.calibration == {"specificity": pytest.approx(0.6)}
    assert calibrate_threshold([1] * 5, scores, "otsu").calibration == {
        "recall": pytest.approx(0.4)
    }
    neighbours = [1.0, np.nextafter(1.0, 2.0)]
    assert decide(neighbours, calibrate_threshold([0, 0], neighbours, "otsu").value).tolist() == [
        False,
        True,
    ]
    constant = calibrate_threshold([0, 0], [3.0, 3.0], "otsu")
    assert constant.value == 3.0 and constant.degenerate is True


@pytest.mark.parametrize("rule", NEED_BOTH)
@pytest.mark.parametrize(
    ("labels", "words"), [([1, 1, 1], "0 good and 3"), ([0, 0, 0], "3 good and 0")]
)
def test_a_rule_for_both_refuses_one_class(rule, labels, words):
    with pytest.raises(DataError, match=words):
        calibrate_threshold(labels, [0.1, 0.2, 0.3], rule)


@pytest.mark.parametrize("rule", NEED_GOOD)
def test_a_rule_for_good_images_refuses_none(rule):
    with pytest.raises(DataError, match=f"{rule}, found 0"):
        calibrate_threshold([1, 1, 1], [0.1, 0.2, 0.3], rule)


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        ("conformal_0.01", 99),
        ("conformal_0.05", 19),
        ("conformal_0.1", 9),
        ("mean_3std", 2),
        ("mad", 1),
    ],
)
def test_too_few_good_images_are_refused_and_the_number_is_named(rule, needed):
    scores = np.arange(needed + 1.0)  # the last one is a defect, and counts for nothing
    calibrate_threshold(np.r_[np.zeros(needed), 1], scores, rule)
    with pytest.raises(DataError, match=f"at least {needed} good .* found {needed - 1};"):
        calibrate_threshold(np.r_[np.zeros(needed - 1), 1, 1], scores, rule)


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([], [], "one score per image"),
        ([0, 0], [1.0], "one score per image"),
        ([[0, 0]], [[1.0, 2.0]], "one score per image"),
        ([2, 2], [1.0, 2.0], r"defect\), found \[2\]"),
        ([0, 0], [1.0, np.nan], "found 1 of 2 that are not"),
        ([0, 1], [1.0, np.inf], "finite"),
    ],
)
def test_images_that_do_not_fit_are_refused(labels, scores, words):
    with pytest.raises(DataError, match=words):
        check_images(labels, scores)


def test_an_unknown_rule_and_a_value_out_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="min_recall_95.*'min_recall'"):
        get_rule("min_recall")
    with pytest.raises(ConfigError, match="pass value"):
        RULES["fixed"].find(np.zeros(1), np.zeros(1))


def test_scores_are_handed_over_by_class_ascending_in_float64():
    good, defect = scores_for(RULES["mad"], [0, 1, 0, 1], np.array([3, 9, 1, 4], np.float32))
    assert good.tolist() == [1.0, 3.0] and defect.tolist() == [4.0, 9.0]
    assert good.dtype == defect.dtype == np.float64


@pytest.mark.parametrize("rule", CALIBRATED_RULES)
def test_calibrating_and_deciding_agree_on_float32_scores(rule):
    """The stored value decides on the float32 scores as the calibration counted, after a trip
    through JSON.
    """
    rng = np.random.default_rng(5)
    labels = np.r_[np.zeros(120, int), np.ones(40, int)]
    scores = (1 + rng.normal(2e-6 * labels, 1e-6)).astype(
        np.float32
    )  # steps of 1.2e-7: full of neighbours and ties
    threshold = calibrate_threshold(labels, scores, rule)
    value = json.loads(json.dumps(threshold.to_dict(), allow_nan=False))["value"]
    flagged = decide(scores, value)
    assert threshold.calibration["specificity"] == pytest.approx(
        (~flagged[labels == 0]).mean(), abs=1e-12
    )
    assert threshold.calibration["recall"] == pytest.approx(flagged[labels == 1].mean(), abs=1e-12)
    low, high = threshold.plateau
    assert low < value <= high
    assert (decide(scores, np.nextafter(low, np.inf)) == flagged).all() and (
        decide(scores, high) == flagged
    ).all()
