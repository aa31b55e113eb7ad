"""Permutation, Holm and McNemar by hand and against scipy; the comparison of methods; refusals."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from nbhelpers.errors import DataError
from nbhelpers.evaluation.significance import (
    compare_methods,
    delong,
    holm,
    mcnemar,
    paired_permutation,
)
from nbhelpers.predictions import Predictions


def two_detectors(seed, good=14, defect=11):
    """Correlated scores of two detectors on the same images."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[np.zeros(good, int), np.ones(defect, int)])
    shared = rng.standard_normal(labels.size) + labels
    return labels, *(shared + noise * rng.standard_normal(labels.size) for noise in (0.4, 0.9))


def test_permutation_by_hand():
    """Differences 3, 2, -1: of the 8 sign patterns 4 have a sum of at least 4 or at most -4: 6, 4,
    -4, -6.
    """
    result = paired_permutation([3, 2, 0], [0, 0, 1], seed=0)
    assert result["difference"] == pytest.approx(4 / 3)
    assert result["p_value"] == 4 / 8
    assert result["effect"] == pytest.approx((3 + 2 - 1) / 6)
    assert result["n"] == 3


@pytest.mark.parametrize("seed", range(3))
def test_few_pairs_are_enumerated(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(9), rng.random(9) - 0.1
    sums = np.array([np.dot(signs, a - b) for signs in product((-1, 1), repeat=9)])
    expected = np.mean(np.abs(sums) >= abs((a - b).sum()) - 1e-12)
    assert paired_permutation(a, b, seed=seed)["p_value"] == pytest.approx(expected)
    drawn = paired_permutation(a, b, draws=400, seed=seed)["p_value"]
    assert drawn != expected and drawn == pytest.approx(expected, abs=0.08)


def test_permutation_agrees_with_the_t_test_on_many_pairs():
    rng = np.random.default_rng(0)
    a = rng.standard_normal(60)
    b = a + 0.5 * rng.standard_normal(60) - 0.1
    result = paired_permutation(a, b, seed=1)
    assert result["p_value"] == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)
    assert paired_permutation(b, a, seed=1)["difference"] == -result["difference"]
    assert paired_permutation(a, b, seed=1) == result != paired_permutation(a, b, seed=2)


def test_permutation_of_identical_values_and_effect_signs():
    values = np.random.default_rng(0).random(30)
    assert paired_permutation(values, values, seed=0) == {
        "difference": 0,
        "p_value": 1,
        "effect": 0,
        "n": 30,
    }
    better = paired_permutation(values + 0.1, values, seed=0)
    assert better["effect"] == 1 and better["p_value"] == pytest.approx(
        2 / 10_000
    )  # (1 + 0) / (1 + draws), twice
    assert paired_permutation(values, values + 0.1, seed=0)["effect"] == -1
    # pairs without a difference have no rank: 1 in favour of a of two that differ alike
    assert paired_permutation([1, 5, 2], [0, 5, 3], seed=0)["effect"] == 0


def test_effect_equals_the_wilcoxon_statistic():
    rng = np.random.default_rng(4)
    a, b = rng.random(25), rng.random(25)
    negative = stats.wilcoxon(a, b, alternative="greater", method="exact")
    positive = negative.statistic  # sum of the ranks in favour of a
    assert paired_permutation(a, b, seed=0)["effect"] == pytest.approx(
        2 * positive / (25 * 26 / 2) - 1
    )


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([0.1, np.nan, 0.3], [0.1, 0.2, 0.3], "1 of 3 pairs without, the first at position 1"),
        ([0.1, 0.2], [0.1, np.inf], "position 1"),
        ([0.1, 0.2], [0.1, 0.2, 0.3], "at least 2 images"),
        ([0.1], [0.2], "at least 2 images"),
    ],
)
def test_permutation_refuses(a, b, words):
    with pytest.raises(DataError, match=words):
        paired_permutation(a, b, seed=0)


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04; never below the one before: .04 .06
    .06 .06.
    """
    adjusted = holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.02})
    assert list(adjusted) == ["d", "a", "c", "b"]
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert holm({"x": 0.7, "y": 0.6}) == {"x": 1.0, "y": 1.0}
    assert holm({"alone": 0.3}) == {"alone": 0.3}
    assert holm({}) == {}


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = {str(k): float(p) for k, p in enumerate(rng.random(6) ** 3)}
        adjusted = holm(p_values)
        rejected, left = set(), sorted(p_values, key=p_values.get)
        while left and p_values[left[0]] * len(left) <= 0.05:
            rejected.add(left.pop(0))
        assert {name for name, p in adjusted.items() if p <= 0.05} == rejected


@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.2])
def test_holm_refuses_what_is_no_p_value(wrong):
    with pytest.raises(DataError, match="for second"):
        holm({"first": 0.5, "second": wrong})


def test_mcnemar_by_hand():
    """a alone is right on 6 images, b alone on 2, both on 3, none on 1: P(X <= 2 or X >= 6), X ~
    B(8, 1/2).
    """
    labels = np.tile([0, 1], 6)
    a = np.where(np.arange(12) < 9, labels, 1 - labels)
    b = np.where(np.isin(np.arange(12), [6, 7, 8, 9, 10]), labels, 1 - labels)
    result = mcnemar(labels, a, b)
    assert (result["only_a_right"], result["only_b_right"]) == (6, 2)
    assert result["difference"] == pytest.approx(4 / 12)
    assert result["p_value"] == pytest.approx(2 * (1 + 8 + 28) / 256)
    assert result["odds_ratio"] == 3
    back = mcnemar(labels, b.astype(bool), a.astype(bool))
    assert back["difference"] == -result["difference"] and back["p_value"] == result["p_value"]
    assert back["odds_ratio"] == pytest.approx(1 / 3)


def test_mcnemar_with_zeros():
    labels = np.array([0, 1, 1, 0])
    same = mcnemar(labels, labels, labels)
    assert same == {
        "only_a_right": 0,
        "only_b_right": 0,
        "difference": 0,
        "p_value": 1,
        "odds_ratio": 1,
    }
    result = mcnemar(labels, labels, 1 - labels)
    assert result["p_value"] == 2 / 2**4 and result["odds_ratio"] == (4 + 0.5) / 0.5


@pytest.mark.parametrize(
    ("labels", "a", "b", "words"),
    [
        ([0, 1], [0, 1], [0], "same images"),
        ([], [], [], "same images"),
        ([0, 1], [0.2, 1], [0, 1], "metrics.decide"),
    ],
)
def test_mcnemar_refuses(labels, a, b, words):
    with pytest.raises(DataError, match=words):
        mcnemar(labels, a, b)


def predictions(scores, labels, prefix="image"):
    maps = np.zeros((len(labels), 2, 2), np.float32)
    return Predictions(
        image_scores=np.asarray(scores, np.float32),
        anomaly_maps=maps,
        masks=maps.astype(np.uint8),
        pixel_valid=np.ones(len(labels), bool),
        labels=np.asarray(labels, np.int64),
        defect_types=tuple("cut" if label else "good" for label in labels),
        ids=tuple(f"{prefix}/{i}" for i in range(len(labels))),
    )


def test_compare_methods_puts_the_tests_together():
    labels, a, b = two_detectors(2, 20, 15)
    c = np.random.default_rng(0).standard_normal(35)
    methods = {
        name: predictions(s, labels)
        for name, s in (("padim", a), ("patchcore", b), ("autoencoder", c))
    }
    thresholds = {"autoencoder": 0.0, "patchcore": 0.5, "padim": 0.2}
    rng = np.random.default_rng(1)
    aupimo = {name: np.where(labels == 1, rng.random(35), np.nan) for name in methods}
    for values in aupimo.values():
        values[np.flatnonzero(labels)[0]] = np.nan  # a defect image whose mask is unknown
    table = compare_methods(methods, thresholds, aupimo, seed=5, draws=500)
    assert table[["method", "against_method"]].values.tolist() == [
        ["padim", "patchcore"],
        ["padim", "autoencoder"],
        ["patchcore", "autoencoder"],
    ]
    row = table.iloc[0]
    a, b = a.astype(np.float32), b.astype(np.float32)
    ranking = delong(labels, a, b)
    assert (row.image_auroc, row.ci_low, row.ci_high, row.p_delong) == (
        ranking["difference"],
        ranking["ci_low"],
        ranking["ci_high"],
        ranking["p_value"],
    )
    decisions = mcnemar(labels, a >= 0.2, b >= 0.5)
    assert (row.accuracy, row.p_mcnemar) == (decisions["difference"], decisions["p_value"])
    known = np.flatnonzero(labels)[1:]
    test = paired_permutation(aupimo["padim"][known], aupimo["patchcore"][known], draws=500, seed=5)
    assert (row.aupimo, row.p_permutation, row.rank_biserial, row.n_aupimo) == (
        test["difference"],
        test["p_value"],
        test["effect"],
        14,
    )
    assert (row.n_images, row.n_defect) == (35, 15)
    without = compare_methods(methods, thresholds, seed=5)
    assert set(table) - set(without) == {"aupimo", "p_permutation", "rank_biserial", "n_aupimo"}
    assert without.p_delong.equals(table.p_delong)


def test_a_method_compared_with_itself_is_no_better():
    labels, a, _ = two_detectors(0)
    values = np.where(labels == 1, 0.5, np.nan)
    table = compare_methods(
        {"one": predictions(a, labels), "two": predictions(a, labels)},
        {"one": 0.3, "two": 0.3},
        {"one": values, "two": values},
        seed=0,
    )
    row = table.iloc[0]
    assert (row.p_delong, row.p_permutation, row.p_mcnemar) == (1, 1, 1)
    assert (row.image_auroc, row.aupimo, row.accuracy, row.rank_biserial) == (0, 0, 0, 0)


def test_compare_methods_refuses_what_is_not_paired():
    labels, a, b = two_detectors(0)
    one, other = predictions(a, labels), predictions(b, labels)
    limits = {"one": 0.0, "two": 0.0}
    with pytest.raises(DataError, match="same images in the same order"):
        compare_methods({"one": one, "two": other.subset(np.arange(25)[::-1])}, limits, seed=0)
    with pytest.raises(DataError, match="25 and 24 images"):
        compare_methods({"one": one, "two": other.subset(np.arange(24))}, limits, seed=0)
    with pytest.raises(DataError, match="threshold of every method, found none of two"):
        compare_methods({"one": one, "two": other}, {"one": 0.0}, seed=0)
    values = np.where(labels == 1, 0.5, np.nan)
    with pytest.raises(DataError, match="AUPIMO of every method"):
        compare_methods({"one": one, "two": other}, limits, {"one": values}, seed=0)
    with pytest.raises(DataError, match=r"per image \(25\)"):
        compare_methods(
            {"one": one, "two": other}, limits, {"one": values, "two": values[:-1]}, seed=0
        )
    holed = values.copy()
    holed[np.flatnonzero(labels)[3]] = np.nan
    with pytest.raises(DataError, match="pairs without, the first at position 3"):
        compare_methods({"one": one, "two": other}, limits, {"one": values, "two": holed}, seed=0)
