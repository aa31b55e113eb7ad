"""DeLong's test against its definition, MLstatkit and hand-worked values; where it has no variance;
its level.
"""

import math

import numpy as np
import pytest
from MLstatkit import Delong_test
from scipy import stats
from sklearn.metrics import roc_auc_score

from nbhelpers.errors import DataError
from nbhelpers.evaluation.significance import delong, delong_interval


def two_detectors(seed, good=14, defect=11, digits=None):
    """Correlated scores of two detectors; rounded ones have ties within and between the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[np.zeros(good, int), np.ones(defect, int)])
    shared = rng.standard_normal(labels.size) + labels
    a, b = (
        shared + 0.4 * rng.standard_normal(labels.size),
        shared + 0.9 * rng.standard_normal(labels.size),
    )
    return (labels, a, b) if digits is None else (labels, np.round(a, digits), np.round(b, digits))


def slow_delong(labels, *scores):
    """AUROCs (K,) and their covariance (K, K) by DeLong's definition: each defect image against
    each good one.
    """
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    kernel = np.array(
        [
            [[(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in negative] for i in positive]
            for s in scores
        ]
    )  # (K, m, n)
    of_positive, of_negative = kernel.mean(axis=2), kernel.mean(axis=1)
    return kernel.mean(axis=(1, 2)), np.cov(of_positive) / positive.size + np.cov(
        of_negative
    ) / negative.size


@pytest.mark.parametrize("digits", [None, 0])
@pytest.mark.parametrize("seed", range(4))
def test_delong_equals_its_definition(seed, digits):
    labels, a, b = two_detectors(seed, digits=digits)
    aurocs, covariance = slow_delong(labels, a, b)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    result = delong(labels, a, b, level=0.9)
    assert (result["auroc_a"], result["auroc_b"]) == pytest.approx(aurocs)
    assert result["difference"] == pytest.approx(aurocs[0] - aurocs[1])
    assert result["z"] == pytest.approx((aurocs[0] - aurocs[1]) / error)
    assert result["p_value"] == pytest.approx(math.erfc(abs(result["z"]) / math.sqrt(2)))
    assert result["ci_high"] - result["difference"] == pytest.approx(1.6448536 * error)
    assert result["difference"] - result["ci_low"] == pytest.approx(1.6448536 * error)
    low, high = delong_interval(labels, a, level=0.9)
    reach = 1.6448536 * math.sqrt(covariance[0, 0])
    assert (low, high) == pytest.approx((max(aurocs[0] - reach, 0), min(aurocs[0] + reach, 1)))


@pytest.mark.parametrize("digits", [None, 0])
def test_delong_equals_mlstatkit(digits):
    labels, a, b = two_detectors(7, 40, 30, digits)
    z, p, interval_a, _, auroc_a, auroc_b, _ = Delong_test(labels, a, b)
    result = delong(labels, a, b)
    assert result["auroc_a"] == pytest.approx(auroc_a) == pytest.approx(roc_auc_score(labels, a))
    assert result["auroc_b"] == pytest.approx(auroc_b) == pytest.approx(roc_auc_score(labels, b))
    assert result["z"] == pytest.approx(-z)  # theirs is b - a
    assert result["p_value"] == pytest.approx(p)
    assert delong_interval(labels, a) == pytest.approx(interval_a)


def test_delong_by_hand():
    """Goods 1 2, defects: a 3 4 (perfect), b 0 3 (wins 0 and 2 of 2, so shares 0 and 1; each good
    loses to 1 of 2).
    """
    result = delong([0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 0, 3])
    assert (result["auroc_a"], result["auroc_b"], result["difference"]) == (1, 0.5, 0.5)
    # differences of the shares: defects 1 and 0 (variance 1/2, over 2 images), goods 1/2 and 1/2
    # (no variance)
    assert result["z"] == pytest.approx(0.5 / math.sqrt(0.5 / 2))
    assert result["ci_high"] == 1  # 0.5 + 1.96 * 0.5, and no difference of AUROCs is above 1


def test_delong_is_antisymmetric_and_sees_the_order_only():
    labels, a, b = two_detectors(1)
    forth, back = delong(labels, a, b), delong(labels, b, a)
    assert (back["difference"], back["z"]) == (-forth["difference"], -forth["z"])
    assert back["p_value"] == forth["p_value"]
    assert (back["ci_low"], back["ci_high"]) == (-forth["ci_high"], -forth["ci_low"])
    assert delong(labels, np.exp(3 * a), b - 7) == forth


def test_delong_of_identical_scores():
    labels, a, _ = two_detectors(0)
    for twin in (a, 2 * a + 1):
        result = delong(labels, a, twin)
        assert (result["difference"], result["z"], result["p_value"]) == (0, 0, 1)
        assert (result["ci_low"], result["ci_high"]) == (0, 0)
    both_perfect = delong([0, 0, 1, 1], [1, 2, 3, 4], [2, 1, 8, 9])
    assert (both_perfect["difference"], both_perfect["p_value"]) == (0, 1)


def test_delong_without_variance():
    """Perfect against one score for all: each image says 1/2 more for a, which has no standard
    error.
    """
    labels = np.r_[np.zeros(6), np.ones(4)]
    result = delong(labels, labels, np.ones(10))
    assert (result["difference"], result["ci_low"], result["ci_high"]) == (0.5, 0.5, 0.5)
    assert result["z"] is None
    assert result["p_value"] == 2 / 2**10 == stats.binomtest(10, 10).pvalue


def test_delong_holds_its_level_under_the_null():
    """Two detectors equally good: p is below 0.1 in about a tenth of the samples."""
    rng, small = np.random.default_rng(0), 0
    labels = np.r_[np.zeros(40), np.ones(40)]
    for _ in range(300):
        shared = rng.standard_normal(80) + labels
        small += (
            delong(labels, shared + rng.standard_normal(80), shared + rng.standard_normal(80))[
                "p_value"
            ]
            < 0.1
        )
    assert 0.06 <= small / 300 <= 0.14


def test_delong_finds_a_real_difference():
    labels, a, _ = two_detectors(3, 60, 60)
    worse = a + 3 * np.random.default_rng(0).standard_normal(120)
    result = delong(labels, a, worse)
    assert result["difference"] > 0 and result["ci_low"] > 0 and result["p_value"] < 0.01


def test_interval_of_a_perfect_auroc_is_newcombes():
    """The lower end is the AUROC whose own standard error reaches 1; DeLong alone would say (1, 1)."""
    labels = np.r_[np.zeros(40), np.ones(70)]
    low, high = delong_interval(labels, labels)
    extra = (70 + 40) / 2 - 1
    variance = (
        low * (1 - low) * (1 + extra * (1 - low) / (2 - low) + extra * low / (1 + low)) / (70 * 40)
    )
    assert high == 1 and low == pytest.approx(1 - 1.959964 * math.sqrt(variance))
    assert low == pytest.approx(0.961, abs=5e-4)
    assert delong_interval(labels, -labels) == pytest.approx((0, 1 - low))
    fewer = delong_interval(np.r_[np.zeros(4), np.ones(7)], np.r_[np.zeros(4), np.ones(7)])[0]
    assert fewer < low - 0.1
    tied = delong_interval(labels, np.ones(110))
    assert tied[0] < 0.5 < tied[1] and sum(tied) == pytest.approx(1)


def test_one_image_of_a_class_has_no_variance():
    for call in (lambda y, s: delong(y, s, s), delong_interval):
        with pytest.raises(DataError, match="at least 2 good and 2 defect images, found 3 and 1"):
            call([0, 0, 0, 1], [1, 2, 3, 4])
    with pytest.raises(DataError, match="0 defect"):
        delong([0, 0], [1, 2], [1, 2])
