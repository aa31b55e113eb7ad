"""Conformal calibration: promised and realised false alarms, and how to keep the promise again.

Split conformal (Vovk et al., "Algorithmic Learning in a Random World", 2005; Bates et al., "Testing
for Outliers with Conformal p-values", Annals of Statistics 2023, sec. 2): the threshold lies just
above the k-th smallest of n good calibration scores, k = ceil((n + 1)(1 - alpha)). One more good
image of the same source is then flagged with probability at most alpha, whatever the distribution
of the scores. CV+ (Barber et al., "Predictive Inference with the Jackknife+", Annals of Statistics
2021; for anomaly scores Hennhoefer and Preisach, arXiv:2402.16388) calibrates on the training
images instead, each scored by the fold model that did not see it.

The promise holds on average over calibration sets, and only while calibration and test images are
exchangeable. A domain shift breaks it, so the realised rate should be reported beside it
(``realised_rate``, ``recalibration_curve``).
"""

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.bootstrap import Seed, percentile_interval, share_interval
from nbhelpers.evaluation.metrics import Array


def min_calibration(alpha: float) -> int:
    """The fewest good images that can promise a false-positive rate: ceil(1 / alpha) - 1.

    With fewer, even the highest score seen is exceeded too often by the next image.

    Args:
        alpha: The promised rate, in (0, 1).

    Raises:
        ConfigError: alpha is not inside (0, 1).
    """
    return math.ceil(1 / _exact(alpha)) - 1


def split_threshold(good_scores: ArrayLike, alpha: float) -> float:
    """The split-conformal threshold: good images are flagged at a rate of at most alpha.

    It is the float64 next above the k-th smallest score, k = ceil((n + 1)(1 - alpha)): a score tied
    with the k-th is not flagged, and a higher one is.

    Args:
        good_scores: ``(n,)`` raw image scores of good calibration images.
        alpha: The promised rate, in (0, 1).

    Raises:
        ConfigError: alpha is not inside (0, 1).
        DataError: There are fewer scores than ``min_calibration(alpha)``, or one is not finite.
    """
    scores = _finite(good_scores, "good calibration scores")
    needed = min_calibration(alpha)
    if scores.size < needed:
        raise DataError(
            f"expected at least {needed} good calibration images to promise a false-positive rate "
            f"of {alpha}, found "
            f"{scores.size}; add good images or promise no less than {1 / (scores.size + 1):.3f}"
        )
    return float(_above(np.sort(scores), _rank(scores.size, alpha)))


def p_values(calibration: ArrayLike, scores: ArrayLike) -> Array:
    """Split-conformal p values: p = (1 + #{calibration >= score}) / (n + 1).

    p <= alpha exactly where ``split_threshold`` flags.

    Args:
        calibration: ``(n,)`` raw image scores of good calibration images.
        scores: ``(m,)`` raw image scores.

    Returns:
        ``(m,)``.

    Raises:
        DataError: A score is not finite.
    """
    calibration = np.sort(_finite(calibration, "calibration scores"))
    scores = _finite(scores, "scores")
    return (1 + _at_or_above(calibration, scores)) / (calibration.size + 1)


def cv_plus_p_values(oof_scores: ArrayLike, fold: ArrayLike, test_scores: ArrayLike) -> Array:
    """CV+ p values: p = (1 + #{i: s_i >= s_{-k(i)}(x)}) / (n + 1).

    Flagging p <= alpha errs at about alpha; what is proved is 2 alpha plus a term below
    sqrt(2 / n) (Barber et al., theorem 4).

    Args:
        oof_scores: ``(n,)``, each good training image i, scored by the model that did not see its
            fold k(i).
        fold: ``(n,)``, that fold, 0 to K - 1.
        test_scores: ``(K, m)``, the images x, scored by each fold model.

    Returns:
        ``(m,)``.

    Raises:
        DataError: The arguments do not fit together, or a score is not finite.
    """
    oof, fold = _finite(oof_scores, "out-of-fold scores"), np.asarray(fold)
    test = np.asarray(test_scores, dtype=np.float64)
    if fold.shape != oof.shape or test.ndim != 2 or not np.isfinite(test).all():
        raise DataError(
            f"expected one fold index per score and finite test scores (K, m), found folds "
            f"{fold.shape} for {oof.size} scores and test scores {test.shape}; score the test "
            "images with every fold model"
        )
    if not np.isin(fold, np.arange(len(test))).all():
        raise DataError(
            f"expected fold indices 0 to {len(test) - 1}, one per row of the test scores, found "
            f"{np.unique(fold).tolist()}; number the folds as the rows"
        )
    higher = np.zeros(test.shape[1], dtype=np.int64)
    for k, scores in enumerate(test):
        higher += _at_or_above(np.sort(oof[fold == k]), scores)
    return (1 + higher) / (oof.size + 1)


def realised_rate(flagged_good: ArrayLike, level: float = 0.95) -> dict[str, float]:
    """The share of good images that were flagged.

    Args:
        flagged_good: ``(n,)`` bool, the decisions about good images.
        level: Level of the interval (Clopper and Pearson), which covers with at least this level.

    Returns:
        ``rate``, ``ci_low``, ``ci_high`` and ``n``.

    Raises:
        DataError: There is no image, or the decisions are not bool.
    """
    flagged = np.asarray(flagged_good)
    if flagged.dtype != bool or flagged.ndim != 1 or flagged.size == 0:
        raise DataError(
            f"expected one decision (True or False) per good image, found {flagged.dtype} of "
            f"shape {flagged.shape}; pass decide(scores, threshold) of the good test images"
        )
    rate, low, high = share_interval(int(flagged.sum()), flagged.size, level)
    return {"rate": rate, "ci_low": low, "ci_high": high, "n": flagged.size}


def assign_folds(groups: ArrayLike, folds: int, seed: int) -> NDArray[np.int64]:
    """Assign each image to a fold, so that groups stay together and the sizes are balanced.

    The largest group is assigned first, and each group goes to the smallest fold; the seed orders
    groups of the same size. (scikit-learn's GroupKFold leaves that order to an unstable sort, so
    that it may differ between machines.)

    Args:
        groups: ``(n,)``, the group of each image.
        folds: Number of folds, at least 2.
        seed: Seed of the order of groups of the same size.

    Returns:
        ``(n,)``, 0 to folds - 1.

    Raises:
        ConfigError: There are fewer than two folds.
        DataError: There are fewer groups than folds.
    """
    if folds < 2:
        raise ConfigError(
            f"expected at least 2 folds, found {folds}; a model has to be fitted without each fold"
        )
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if names.size < folds:
        raise DataError(
            f"expected at least {folds} groups for {folds} folds, found {names.size}; use fewer "
            "folds or smaller groups"
        )
    size = np.bincount(member)
    load = np.zeros(folds, dtype=np.int64)
    fold = np.zeros(names.size, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(names.size)
    for group in order[np.argsort(-size[order], kind="stable")]:
        fold[group] = load.argmin()
        load[fold[group]] += size[group]
    return fold[member]


def recalibration_curve(
    before_good: ArrayLike,
    pool_good: ArrayLike,
    test_good: ArrayLike,
    alpha: float,
    sizes: Iterable[int],
    *,
    draws: int = 200,
    seed: Seed,
    level: float = 0.95,
) -> pd.DataFrame:
    """How many good images of the new domain it takes to keep a promise that the shift has broken.

    For each n, n images of the pool are drawn without replacement (nested: the draw of a larger n
    contains that of a smaller one). n = 0 keeps the old threshold, and so does not vary.

    Args:
        before_good: ``(n0,)``, good calibration scores of the old domain.
        pool_good: ``(N,)``, good scores of the new domain to calibrate on.
        test_good: ``(m,)``, good test scores of the new domain.
        alpha: The promised false-positive rate.
        sizes: The numbers n, 0 to N.
        draws: Number of draws.
        seed: Seed of the draws.
        level: Level of the intervals.

    Returns:
        One row per n: n; certifiable, whether n images are enough to promise alpha; promised, the
        rate (n + 1 - k) / (n + 1) that they promise (above alpha where n is too small, with k = n;
        NaN for n = 0); fpr, ci_low and ci_high, the mean and the central interval over the draws of
        the rate that is realised on test_good.

    Raises:
        DataError: A score is not finite, before_good cannot promise alpha, or a size is negative or
            above N.
    """
    old = split_threshold(before_good, alpha)
    pool = _finite(pool_good, "good scores of the new domain")
    test = np.sort(_finite(test_good, "good test scores"))
    sizes = list(sizes)
    if not all(0 <= n <= pool.size for n in sizes):
        raise DataError(
            f"expected sizes from 0 to the {pool.size} images of the pool, found {sizes}; leave "
            "those out"
        )
    shuffled = np.random.default_rng(seed).permuted(np.tile(pool, (draws, 1)), axis=1)  # (draws, N)
    rows = []
    for n in sizes:
        if n:
            rank = min(_rank(n, alpha), n)
            values, promised = (
                _above(np.sort(shuffled[:, :n], axis=1), rank),
                (n + 1 - rank) / (n + 1),
            )
        else:
            values, promised = np.array([old]), np.nan
        rates = _at_or_above(test, values) / test.size
        low, high = percentile_interval(rates, level)
        rows.append(
            {
                "n": n,
                "certifiable": n >= min_calibration(alpha),
                "promised": promised,
                "fpr": float(rates.mean()),
                "ci_low": low,
                "ci_high": high,
            }
        )
    return pd.DataFrame(rows, columns=["n", "certifiable", "promised", "fpr", "ci_low", "ci_high"])


def _exact(alpha: float) -> Fraction:
    """alpha as the decimal that was written.

    In binary 150 * (1 - 0.18) lies just above 123, and its ceil would be one rank too high.
    """
    if not 0 < alpha < 1:
        raise ConfigError(
            f"expected a target false-positive rate inside (0, 1), found {alpha}; 0.05 is usual"
        )
    return Fraction(repr(float(alpha)))


def _rank(n: int, alpha: float) -> int:
    """The rank k of the calibration score that the threshold lies above."""
    return math.ceil((n + 1) * (1 - _exact(alpha)))


def _above(ascending: Array, rank: int) -> Array:
    """The float64 next above the score of this rank (from 1), along the last axis."""
    return np.nextafter(ascending[..., rank - 1], np.inf)


def _at_or_above(ascending: Array, scores: Array) -> NDArray[np.int64]:
    """How many of the ascending values are at least as high as each score."""
    return ascending.size - np.searchsorted(ascending, scores, side="left")


def _finite(scores: ArrayLike, what: str) -> Array:
    """Scores as a float64 array; DataError where there is none or one is not finite."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise DataError(
            f"expected {what} (n,), finite and at least one, found shape {scores.shape} with "
            f"{int((~np.isfinite(scores)).sum())} not finite; look at the images behind them"
        )
    return scores
