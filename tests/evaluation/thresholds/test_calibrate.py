"""Thresholds: F1-optimal ones exact and in the middle of the widest best plateau, refused for one
class; all judged.
"""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import decide, image_metrics
from nbhelpers.evaluation.thresholds.calibrate import (
    Threshold,
    calibrate_threshold,
    f1_curve,
    f1_optimal,
)


def test_plateau_centre_of_the_published_case():
    """Hazelnut of the reference study: normals up to 381.33, defects from 403.72; not 382.27."""
    scores = [300.0, 381.33, 403.72, 708.1]
    threshold = f1_optimal([0, 0, 1, 1], scores)
    assert threshold.value == pytest.approx((381.33 + 403.72) / 2)
    assert threshold.plateau == (381.33, 403.72)
    assert threshold.plateau_width == pytest.approx(22.39)
    assert threshold.calibration == dict.fromkeys(threshold.calibration, 1.0)
    assert (threshold.rule, threshold.n_good, threshold.n_defect) == ("f1_optimal", 2, 2)
    assert threshold.degenerate is False


def test_imperfect_case_by_hand():
    """good 1 3 5, defect 4 6: F1 0.8 above 3 (one false alarm); above 5 only 2/3; 4/7 for
    everything.
    """
    threshold = f1_optimal([0, 0, 0, 1, 1], [1, 3, 5, 4, 6])
    assert threshold.value == 3.5
    assert threshold.calibration["f1"] == pytest.approx(0.8)
    assert threshold.calibration["precision"] == pytest.approx(2 / 3)
    assert threshold.calibration["specificity"] == pytest.approx(2 / 3)
    assert threshold.calibration["recall"] == 1.0


def test_widest_of_tied_plateaus():
    """F1 is 2/3 in (1, 2] (two false alarms) and in (4, 14] (one miss): the wider one is taken."""
    labels, scores = [0, 1, 0, 0, 1], [1.0, 2.0, 3.0, 4.0, 14.0]
    assert f1_score(labels, decide(scores, 1.5)) == pytest.approx(
        f1_score(labels, decide(scores, 9.0))
    )
    assert f1_optimal(labels, scores).plateau == (4.0, 14.0)
    scores = [-20.0, 2.0, 3.0, 4.0, 14.0]
    assert f1_optimal(labels, scores).plateau == (-20.0, 2.0)


@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_is_better(seed):
    """Against a fine grid with scikit-learn's F1, on tied and on continuous scores."""
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, 30)]
    scores = rng.integers(0, 8, 32).astype(float) if seed % 2 else rng.normal(labels, 1.0)
    grid = np.r_[np.linspace(scores.min() - 1, scores.max() + 1, 60), scores]
    best = max(f1_score(labels, decide(scores, t), zero_division=0) for t in grid)
    threshold = f1_optimal(labels, scores)
    assert threshold.calibration["f1"] == pytest.approx(best, abs=1e-12)
    measured = image_metrics(labels, scores, threshold.value)
    assert measured["f1"] == measured["f1_max"] == pytest.approx(best, abs=1e-12)
    assert all(measured[name] == value for name, value in threshold.calibration.items())


def test_whole_plateau_decides_alike_and_ends_where_said():
    rng = np.random.default_rng(3)
    labels = np.r_[np.zeros(30), np.ones(20)]
    scores = rng.normal(labels * 2, 1.0)
    threshold = f1_optimal(labels, scores)
    low, high = threshold.plateau
    inside = decide(scores, threshold.value)
    assert (decide(scores, high) == inside).all()
    assert (decide(scores, np.nextafter(low, high)) == inside).all()
    assert (decide(scores, low) != inside).any()
    assert (decide(scores, np.nextafter(high, np.inf)) != inside).any()


def test_neighbouring_floats_are_still_told_apart():
    high = np.nextafter(1.0, 2.0)
    threshold = f1_optimal([0, 1], [1.0, high])
    assert decide([1.0, high], threshold.value).tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 0, 1], [3.0, 2.0, 1.0]),
        ([0, 1, 0, 1], [5.0, 5.0, 5.0, 5.0]),
        ([1, 0, 0, 1], [0.0, 2.0, 1.0, 1.5]),
    ],
)
def test_hopeless_scores_are_degenerate(labels, scores):
    """Everything anomalous is the best that can be done: specificity 0, and said so."""
    threshold = f1_optimal(labels, scores)
    assert threshold.degenerate is True
    assert threshold.value == min(scores) and threshold.plateau_width == 0
    assert threshold.calibration["specificity"] == 0
    assert threshold.calibration["f1"] == pytest.approx(
        2 * sum(labels) / (len(labels) + sum(labels))
    )


@pytest.mark.parametrize(
    ("labels", "words"), [([1, 1, 1], "0 good and 3"), ([0, 0, 0], "3 good and 0")]
)
def test_one_class_is_refused(labels, words):
    """On defects alone any low threshold has precision 1."""
    with pytest.raises(DataError, match=words):
        f1_optimal(labels, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(DataError, match="finite"):
        f1_optimal([0, 1, 1], [0.1, 0.2, bad])


def test_curve_has_every_plateau_and_the_best_f1():
    labels, scores = [0, 0, 0, 1, 1], [1, 3, 5, 4, 6]
    thresholds, f1 = f1_curve(labels, scores)
    assert thresholds.tolist() == [1, 2, 3.5, 4.5, 5.5]
    assert f1 == pytest.approx([4 / 7, 2 / 3, 4 / 5, 1 / 2, 2 / 3])
    assert f1_optimal(labels, scores).calibration["f1"] == f1.max()


def test_order_of_the_images_does_not_matter():
    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(20), np.ones(20)]
    scores = rng.normal(labels, 1.0).astype(np.float32)
    order = rng.permutation(40)
    assert f1_optimal(labels, scores) == f1_optimal(labels[order], scores[order])


def test_survives_json():
    threshold = f1_optimal([0, 0, 1, 1], np.array([1, 2, 1.5, 7], np.float32))
    stored = json.loads(json.dumps(threshold.to_dict()))
    stored["plateau"] = tuple(stored["plateau"])
    assert stored.pop("plateau_width") == threshold.plateau_width
    assert Threshold(**stored) == threshold


def test_rules_by_name():
    labels, scores = [0, 1], [0.0, 1.0]
    assert calibrate_threshold(labels, scores) == f1_optimal(labels, scores)
    with pytest.raises(ConfigError, match="f1_optimal"):
        calibrate_threshold(labels, scores, rule="largest")


def test_good_images_alone_bear_a_rule_for_good_images():
    """mean 2, std 1: 2 + 1 = 3 flags the image at 3; only the specificity exists, and nothing else
    is stored.
    """
    threshold = calibrate_threshold([0, 0, 0], [1.0, 2.0, 3.0], "mean_1std")
    assert (threshold.value, threshold.n_good, threshold.n_defect) == (3.0, 3, 0)
    assert threshold.calibration == {"specificity": pytest.approx(2 / 3)}
    assert threshold.plateau == (2.0, 3.0)
    assert threshold.degenerate is False


def test_rates_count_the_defects_that_the_rule_did_not_look_at():
    """The same 3.0 with defects at 2.5 and 9: one of two is caught, and 2.5 is the plateau's new
    lower end.
    """
    threshold = calibrate_threshold([0, 0, 0, 1, 1], [1.0, 2.0, 3.0, 2.5, 9.0], "mean_1std")
    assert (threshold.value, threshold.n_good, threshold.n_defect) == (3.0, 3, 2)
    assert threshold.plateau == (2.5, 3.0)
    assert threshold.calibration == pytest.approx(
        {
            "f1": 0.5,
            "precision": 0.5,
            "recall": 0.5,
            "specificity": 2 / 3,
            "balanced_accuracy": 7 / 12,
        }
    )


def test_a_plateau_is_finite_where_no_score_lies_beyond_it():
    threshold = calibrate_threshold([0, 0, 0], [1.0, 2.0, 3.0], "mean_3std")
    assert threshold.value == 5.0 and threshold.plateau == (3.0, 5.0)
    json.dumps(threshold.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "scores", "rule"),
    [
        ([0, 0, 0], [4.0, 4.0, 4.0], "percentile_99"),  # all good images are flagged
        ([0, 0, 0, 1], [1.0, 2.0, 3.0, 2.5], "mean_3std"),  # the only defect is missed
        (
            [0, 0, 0, 1, 1, 1],
            [1.0, 2.0, 9.0, 0.0, 7.0, 0.5],
            "mad",
        ),  # 1 of 3 good and 1 of 3 defect: chance
    ],
)
def test_degenerate_whatever_the_rule(labels, scores, rule):
    assert calibrate_threshold(labels, scores, rule).degenerate is True


def test_a_fixed_value_warns_and_is_judged():
    with pytest.warns(UserWarning, match="not calibrated"):
        threshold = calibrate_threshold([0, 0, 1], [0.1, 0.6, 0.7], "fixed", value=0.5)
    assert (threshold.value, threshold.rule, threshold.plateau) == (0.5, "fixed", (0.1, 0.6))
    assert threshold.calibration["specificity"] == 0.5 and threshold.calibration["recall"] == 1.0
    with pytest.warns(UserWarning, match="not calibrated"):
        blind = calibrate_threshold([1, 1], [0.1, 0.2], "fixed", value=0.5)
    assert (
        blind.calibration == {"recall": 0.0}
        and blind.plateau == (0.2, 0.5)
        and blind.degenerate is True
    )


@pytest.mark.parametrize(("rule", "value"), [("fixed", None), ("fixed", np.nan), ("mad", 0.5)])
def test_a_value_belongs_to_the_fixed_rule_alone(rule, value):
    with pytest.raises(ConfigError, match="value"):
        calibrate_threshold([0, 1], [0.0, 1.0], rule, value=value)
