"""Conformal calibration: the promise by enumeration, p values and folds by hand, intervals in
closed form.
"""

import numpy as np
import pytest

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.thresholds.conformal import (
    assign_folds,
    cv_plus_p_values,
    min_calibration,
    p_values,
    realised_rate,
    recalibration_curve,
    split_threshold,
)


@pytest.mark.parametrize(
    ("alpha", "n"), [(0.01, 99), (0.05, 19), (0.07, 14), (0.1, 9), (0.3, 3), (0.5, 1), (0.9, 1)]
)
def test_fewest_images(alpha, n):
    """n is enough and n - 1 is not: even above all n - 1 scores the next one lies with probability
    1 / n.
    """
    assert min_calibration(alpha) == n
    assert 1 / (n + 1) <= alpha + 1e-12 and (n == 1 or 1 / n > alpha)
    split_threshold(np.arange(n), alpha)
    if n > 1:
        with pytest.raises(DataError, match=f"at least {n} .* found {n - 1};"):
            split_threshold(np.arange(n - 1), alpha)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, np.nan])
def test_a_rate_outside_the_open_interval_is_refused(alpha):
    with pytest.raises(ConfigError, match="inside"):
        min_calibration(alpha)


def test_the_rank_is_taken_in_decimals():
    """k = ceil(150 * 0.82) = 123 and ceil(20 * 0.85) = 17, though the first product in floats is
    above 123 and 0.15 in binary is below 0.15; the scores are 1 to n.
    """
    assert split_threshold(np.arange(1, 150), 0.18) == np.nextafter(123.0, 200)
    assert split_threshold(np.arange(1, 20), np.float64(0.15)) == np.nextafter(17.0, 20)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("ties", [False, True])
def test_the_promise_holds_for_every_exchangeable_sample(alpha, ties):
    """Each of n + 1 images is as likely to be the new one: the share that the other n flag is at
    most alpha.

    That is the whole proof, for any scores; without ties the share is (n + 1 - k) / (n + 1), the
    best possible.
    """
    rng = np.random.default_rng(int(100 * alpha))
    for n in (19, 20, 33, 50):
        pool = rng.standard_cauchy(n + 1).astype(np.float32)
        pool = np.round(pool) if ties else pool
        flagged = [
            decide(pool[i], split_threshold(np.delete(pool, i), alpha)) for i in range(n + 1)
        ]
        assert np.mean(flagged) <= alpha
        if not ties:
            assert np.mean(flagged) > alpha - 1 / (n + 1)


def test_deciding_in_float64_keeps_the_promise_on_float32_scores():
    """The value is one float64 above a float32 score: rounded to float32 it would fall onto it and
    flag it.
    """
    scores = np.linspace(1, 2, 19, dtype=np.float32)
    value = split_threshold(scores, 0.1)
    assert decide(scores, value).sum() == 1
    assert (scores >= np.float32(value)).sum() == 2


def test_p_values_by_hand():
    assert p_values([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 2.5, 4.0, 9.0]).tolist() == [
        1.0,
        0.8,
        0.6,
        0.4,
        0.2,
    ]


@pytest.mark.parametrize("alpha", [0.05, 0.07, 0.1, 0.2])
@pytest.mark.parametrize("n", [19, 40, 99])
def test_p_values_flag_what_the_threshold_flags(n, alpha):
    rng = np.random.default_rng(n)
    calibration, scores = np.round(rng.normal(size=n), 1), np.round(rng.normal(size=300), 1)
    flagged = p_values(calibration, scores) <= alpha
    if n >= min_calibration(alpha):
        assert (
            flagged.any() and (flagged == decide(scores, split_threshold(calibration, alpha))).all()
        )
    else:
        assert not flagged.any()


def test_cv_plus_by_hand():
    """Two folds; x scores 3 by the model without fold 0 and 5 by that without fold 1.

    Of fold 0 (1 and 4) the 4 is at least 3, of fold 1 (5 and 2) the 5 is at least 5: p = (1 + 2) /
    5. The second image (9 and 0) is passed by none of fold 0 and both of fold 1.
    """
    p = cv_plus_p_values([1.0, 5.0, 4.0, 2.0], [0, 1, 0, 1], [[3.0, 9.0], [5.0, 0.0]])
    assert p.tolist() == [0.6, 0.6]
    assert cv_plus_p_values([1.0, 5.0, 4.0, 2.0], [0, 1, 0, 1], [[4.5], [5.5]]).tolist() == [0.2]


def test_cv_plus_is_split_where_all_fold_models_are_one():
    rng = np.random.default_rng(1)
    calibration, scores = rng.normal(size=30), rng.normal(size=50)
    p = cv_plus_p_values(calibration, rng.integers(0, 3, 30), np.tile(scores, (3, 1)))
    assert p.tolist() == p_values(calibration, scores).tolist()


def test_cv_plus_against_the_formula_and_its_rate():
    """Distance to the mean of the training points: p as written in the paper, and about alpha of
    good ones flagged.
    """
    rng = np.random.default_rng(2)
    n, folds, alpha = 40, 5, 0.1
    rates = []
    for _ in range(60):
        train, test = rng.normal(size=n), rng.normal(size=100)
        fold = assign_folds(np.arange(n), folds, seed=0)
        centres = np.array([train[fold != k].mean() for k in range(folds)])
        oof, tested = np.abs(train - centres[fold]), np.abs(test - centres[:, None])
        p = cv_plus_p_values(oof, fold, tested)
        slow = [
            (1 + sum(oof[i] >= tested[fold[i], j] for i in range(n))) / (n + 1) for j in range(5)
        ]
        assert p[:5].tolist() == slow
        rates.append((p <= alpha).mean())
    assert 0.07 < np.mean(rates) < 0.13  # 60 x 100 images: standard error below 0.01


@pytest.mark.parametrize(
    ("oof", "fold", "test", "words"),
    [
        ([1.0, 2.0], [0], [[1.0]], "one fold index per score"),
        ([1.0, 2.0], [0, 1], [1.0, 2.0], "one fold index per score"),
        ([1.0, 2.0], [0, 1], [[1.0], [np.nan]], "one fold index per score"),
        ([1.0, 2.0], [0, 2], [[1.0], [2.0]], "fold indices 0 to 1"),
        ([1.0, np.inf], [0, 1], [[1.0], [2.0]], "1 not finite"),
    ],
)
def test_cv_plus_refuses_parts_that_do_not_fit(oof, fold, test, words):
    with pytest.raises(DataError, match=words):
        cv_plus_p_values(oof, fold, test)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [[1.0, 2.0]]])
def test_scores_that_cannot_calibrate_are_refused(scores):
    with pytest.raises(DataError, match="good calibration scores"):
        split_threshold(scores, 0.5)
    with pytest.raises(DataError, match="calibration scores"):
        p_values(scores, [1.0])


def test_clopper_pearson_in_closed_form():
    """None of n: (0, 1 - 0.025^(1/n)); all of n: the mirror; 5 of 10: the published (0.187, 0.813)."""
    none = realised_rate(np.zeros(20, bool))
    assert none == {
        "rate": 0.0,
        "ci_low": 0.0,
        "ci_high": pytest.approx(1 - 0.025 ** (1 / 20)),
        "n": 20,
    }
    every = realised_rate(np.ones(20, bool), level=0.9)
    assert (every["rate"], every["ci_low"], every["ci_high"]) == (
        1.0,
        pytest.approx(0.05 ** (1 / 20)),
        1.0,
    )
    half = realised_rate(np.arange(10) < 5)
    assert (half["ci_low"], half["ci_high"]) == (
        pytest.approx(0.1871, abs=1e-4),
        pytest.approx(0.8129, abs=1e-4),
    )


@pytest.mark.parametrize(
    "flagged", [np.zeros(0, bool), np.array([0.2, 0.7]), np.zeros((2, 2), bool)]
)
def test_a_rate_needs_decisions(flagged):
    with pytest.raises(DataError, match="one decision"):
        realised_rate(flagged)


def test_folds_keep_groups_whole_and_sizes_level():
    """Groups of 3, 2, 2, 1, 1, 1 over two folds: 5 and 5, the largest first to the smallest."""
    groups = np.array(list("aaabbccdef"))
    for seed in range(5):
        fold = assign_folds(groups, 2, seed)
        assert np.bincount(fold).tolist() == [5, 5]
        assert all(np.unique(fold[groups == name]).size == 1 for name in "abcdef")
        assert fold.tolist() == assign_folds(groups, 2, seed).tolist()


def test_the_seed_changes_the_folds_of_single_images():
    folds = [assign_folds(np.arange(23), 4, seed) for seed in range(4)]
    assert all(sorted(np.bincount(fold)) == [5, 6, 6, 6] for fold in folds)
    assert len({tuple(fold) for fold in folds}) == 4


def test_folds_refuse_too_few_groups():
    with pytest.raises(DataError, match="at least 3 groups for 3 folds, found 2"):
        assign_folds(["a", "a", "b", "b"], 3, seed=0)
    with pytest.raises(ConfigError, match="at least 2 folds"):
        assign_folds(["a", "b"], 1, seed=0)


def test_recalibration_curve_by_hand():
    """Old scores 1 to 9, new ones ten higher, alpha 0.1: the old threshold flags all; nine new
    images are enough to repair it.
    """
    old, pool, test = (
        np.arange(1.0, 10.0),
        np.arange(11.0, 20.0),
        np.array([11.0, 15.0, 19.0, 20.0]),
    )
    curve = recalibration_curve(old, pool, test, 0.1, [0, 1, 9], draws=50, seed=0)
    assert curve.n.tolist() == [0, 1, 9]
    assert curve.certifiable.tolist() == [False, False, True]
    assert curve.promised.tolist()[1:] == [0.5, 0.1] and np.isnan(curve.promised[0])
    assert curve.fpr[0] == curve.ci_low[0] == curve.ci_high[0] == 1.0
    assert curve.fpr[2] == curve.ci_low[2] == curve.ci_high[2] == 0.25  # only the 20 lies above 19
    assert (
        0.25 <= curve.ci_low[1] < curve.fpr[1] < curve.ci_high[1] <= 0.75
    )  # above one score of 11 to 19


def test_recalibration_keeps_its_promise_where_pool_and_test_are_exchangeable():
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=200), rng.normal(2.0, 1.0, size=(2, 4000))
    curve = recalibration_curve(old, new[0], new[1], 0.1, [0, 4, 9, 24, 99], draws=2000, seed=1)
    assert curve.fpr[0] > 0.5  # the shift broke it
    assert curve.promised[1:].tolist() == [
        0.2,
        0.1,
        0.08,
        0.1,
    ]  # 1/5, 1/10, 2/25 (k = 23), 10/100 (k = 90)
    assert curve.fpr[1:].tolist() == pytest.approx(curve.promised[1:].tolist(), abs=0.015)
    assert curve.certifiable.tolist() == [False, False, True, True, True]
    widths = (curve.ci_high - curve.ci_low)[1:].tolist()
    assert widths == sorted(widths, reverse=True)
    again = recalibration_curve(old, new[0], new[1], 0.1, [24], draws=2000, seed=1)
    assert again.iloc[0].tolist() == curve.iloc[3].tolist()


@pytest.mark.parametrize("sizes", [[10], [-1]])
def test_sizes_beyond_the_pool_are_refused(sizes):
    with pytest.raises(DataError, match="0 to the 9 images"):
        recalibration_curve(np.arange(9.0), np.arange(9.0), [1.0], 0.1, sizes, seed=0)
    with pytest.raises(DataError, match="at least 9"):
        recalibration_curve(np.arange(8.0), np.arange(9.0), [1.0], 0.1, [1], seed=0)
