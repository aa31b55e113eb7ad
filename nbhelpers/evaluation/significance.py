"""Is one detector better than another, or is it noise? Paired tests on the same images.

AUROC: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
operating characteristic curves", Biometrics 1988, by the mid-ranks of Sun and Xu, "Fast
implementation of DeLong's algorithm", IEEE SPL 2014. Values per image (AUPIMO): sign-flip
permutation test. Decisions: exact McNemar test.

Every difference is a minus b. A p value is the chance of a difference at least as large if the two
were equally good. Where a family of comparisons is reported, ``holm`` is applied to all of it
(S. Holm, Scand. J. Statist. 1979).
"""

from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, stats

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import Seed
from nbhelpers.evaluation.effects import wins_and_losses
from nbhelpers.evaluation.metrics import Array, check_scores, decide
from nbhelpers.predictions import Predictions

Name = TypeVar("Name", bound=Hashable)


def _delong_variance(wins: Array, losses: Array) -> float:
    """DeLong's variance of an AUROC, or of a difference of AUROCs if the counts are differences."""
    m, n = wins.size, losses.size
    if min(m, n) < 2:
        raise DataError(
            f"expected at least 2 good and 2 defect images, found {n} and {m}: one image has no "
            "variance; put more images into this split"
        )
    return float(wins.var(ddof=1) / (n**2 * m) + losses.var(ddof=1) / (m**2 * n))


def delong(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, level: float = 0.95
) -> dict[str, float | None]:
    """DeLong's paired test of two AUROCs on the same images.

    Only the order of the scores counts, so that the two may have different units.

    DeLong's test has no z where there is no variance (every image favours the same side by the
    same amount). If the AUROCs are equal, z is 0 and p is 1, because nothing distinguishes the
    two. If they differ, as a perfect detector differs from one that gives all images one score, z
    is None, the interval has no width, and p = 2^(1 - N) is that of the exact sign test.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores_a: ``(N,)`` raw image scores of one detector.
        scores_b: ``(N,)`` raw image scores of the other.
        level: Level of the interval.

    Returns:
        auroc_a, auroc_b, difference (a - b) with its Wald interval ci_low and ci_high, z, and the
        two-sided p_value.

    Raises:
        DataError: A class has fewer than 2 images, or see ``metrics.check_scores``.
    """
    defect, scores_a = check_scores(labels, scores_a)
    _, scores_b = check_scores(labels, scores_b)
    (wins_a, losses_a), (wins_b, losses_b) = (
        wins_and_losses(defect, scores_a),
        wins_and_losses(defect, scores_b),
    )
    pairs = wins_a.size * losses_a.size
    difference = float((wins_a - wins_b).sum() / pairs)
    error = _delong_variance(wins_a - wins_b, losses_a - losses_b) ** 0.5
    z: float | None
    if error > 0:
        z = difference / error
        p_value = 2 * stats.norm.sf(abs(z))
    elif difference == 0:
        z, p_value = 0.0, 1.0
    else:
        z, p_value = None, 2.0 ** (1 - defect.size)
    reach = stats.norm.ppf((1 + level) / 2) * error
    return {
        "auroc_a": float(wins_a.sum() / pairs),
        "auroc_b": float(wins_b.sum() / pairs),
        "difference": difference,
        "ci_low": float(max(difference - reach, -1)),
        "ci_high": float(min(difference + reach, 1)),
        "z": z,
        "p_value": float(p_value),
    }


def delong_interval(
    labels: ArrayLike, scores: ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """DeLong's interval of one AUROC.

    Close to 1 it is too narrow, and for a perfect AUROC it would have no width, as if no further
    image could change it. Where the variance is 0 the interval is method 5 of R. G. Newcombe,
    "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statist. Med. 2006: all AUROCs whose own standard error reaches the observed one. That one is
    wide (0.96 to 1 for 40 good and 70 defect images). Neither knows about a kind of defect that the
    split lacks.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.
        level: Level of the interval.

    Returns:
        The low and the high end, within [0, 1].

    Raises:
        DataError: See ``delong``.
    """
    wins, losses = wins_and_losses(*check_scores(labels, scores))
    auroc, quantile = wins.sum() / (wins.size * losses.size), stats.norm.ppf((1 + level) / 2)
    error = _delong_variance(wins, losses) ** 0.5
    if error > 0:
        return float(max(auroc - quantile * error, 0)), float(min(auroc + quantile * error, 1))

    def gap(theta: float, observed: float) -> float:
        spread = 1 + (wins.size + losses.size - 2) / 2 * (
            (1 - theta) / (2 - theta) + theta / (1 + theta)
        )
        return (
            observed
            - theta
            - quantile * (theta * (1 - theta) * spread / (wins.size * losses.size)) ** 0.5
        )

    def lower(observed: float) -> float:
        if observed == 0:
            return 0.0
        # theta = 1 is a root too, but not a bound, so the search ends just below the observed value
        return optimize.brentq(gap, 0, observed * (1 - 1e-12), args=(observed,))

    # the standard error is symmetric about 1/2
    return float(lower(auroc)), float(1 - lower(1 - auroc))


def paired_permutation(
    values_a: ArrayLike, values_b: ArrayLike, *, draws: int = 9999, seed: Seed
) -> dict[str, float | int]:
    """Sign-flip test of the mean of a - b over pairs, such as the AUPIMO of two detectors.

    If the two were equally good, each image's difference could as well have the other sign. All
    2^n sign patterns are tried if they are not more than ``draws``, and else ``draws`` random ones.

    Args:
        values_a: ``(n,)`` values of one detector.
        values_b: ``(n,)`` values of the other, on the same images.
        draws: Largest number of sign patterns.
        seed: Seed of the random patterns.

    Returns:
        difference, the mean of a - b; the two-sided p_value, 1 for identical values; effect, the
        matched-pairs rank-biserial correlation of Kerby 2014 (of the ranks of the differences that
        are not 0, the share in favour of a minus the share in favour of b, in [-1, 1], 0 without
        any difference); and n.

    Raises:
        DataError: The lengths differ, there are fewer than 2 pairs, or a value is not finite.
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size < 2:
        raise DataError(
            f"expected one value of each for at least 2 images, found {a.shape} and {b.shape}; "
            "pass both methods' values of the same images"
        )
    unknown = np.flatnonzero(~(np.isfinite(a) & np.isfinite(b)))
    if unknown.size:
        raise DataError(
            f"expected a finite value of each per pair, found {unknown.size} of {a.size} pairs "
            "without, the "
            f"first at position {unknown[0]}; leave out the images that have no value, such as "
            "good ones"
        )

    def mean_difference(x: Array, y: Array, axis: int) -> Array:
        return np.mean(x - y, axis=axis)

    test = stats.permutation_test(
        (a, b),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    changed = (a - b)[a != b]
    ranks = stats.rankdata(np.abs(changed))
    effect = float((np.sign(changed) * ranks).sum() / ranks.sum()) if changed.size else 0.0
    return {
        "difference": float((a - b).mean()),
        "p_value": float(test.pvalue),
        "effect": effect,
        "n": a.size,
    }


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjusted p values of one family of comparisons.

    The comparisons whose adjusted p value is below a level alpha hold together: the chance that any
    of them is false is at most alpha, whatever their dependence.

    Args:
        p_values: The name of each comparison, to its p value.

    Returns:
        The adjusted values in the same order.

    Raises:
        DataError: A value is outside [0, 1]. Leaving it out would shrink the family.
    """
    values = np.array([*p_values.values()], dtype=np.float64)
    wrong = [name for name, value in p_values.items() if not 0 <= value <= 1]
    if wrong:
        raise DataError(
            f"expected p values in [0, 1], found {p_values[wrong[0]]} for {wrong[0]}; repeat that "
            "test"
        )
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(
        np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1)), 1
    )
    return dict(zip(p_values, adjusted.tolist(), strict=True))


def mcnemar(
    labels: ArrayLike, decisions_a: ArrayLike, decisions_b: ArrayLike
) -> dict[str, float | int]:
    """McNemar's exact test of two sets of decisions on the same images.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        decisions_a: ``(N,)`` decisions of one detector, 0 or 1, or bool.
        decisions_b: ``(N,)`` decisions of the other.

    Returns:
        only_a_right and only_b_right (images); difference (accuracy of a minus that of b); the
        two-sided binomial p_value (1 where no image distinguishes the two); and
        odds_ratio = only_a_right / only_b_right. Where one of the two counts is 0, half an image is
        added to both (Haldane's correction), so that the ratio stays finite.

    Raises:
        DataError: Shapes differ, or a value is not 0 or 1.
    """
    truth, a, b = (np.asarray(values) for values in (labels, decisions_a, decisions_b))
    if truth.ndim != 1 or not truth.shape == a.shape == b.shape or truth.size == 0:
        raise DataError(
            f"expected a label and two decisions per image, found {truth.shape}, {a.shape} and "
            f"{b.shape}; pass the same images in the same order"
        )
    if not all(np.isin(values, (0, 1)).all() for values in (truth, a, b)):
        raise DataError(
            "expected labels and decisions of 0 and 1, found other values; apply metrics.decide "
            "first"
        )
    only_a = int(((a == truth) & (b != truth)).sum())
    only_b = int(((a != truth) & (b == truth)).sum())
    half = 0.5 if min(only_a, only_b) == 0 else 0.0
    p_value = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return {
        "only_a_right": only_a,
        "only_b_right": only_b,
        "difference": (only_a - only_b) / truth.size,
        "p_value": float(p_value),
        "odds_ratio": (only_a + half) / (only_b + half),
    }


def compare_methods(
    predictions_by_method: Mapping[str, Predictions],
    thresholds: Mapping[str, float],
    aupimo_by_method: Mapping[str, Array] | None = None,
    *,
    seed: Seed,
    level: float = 0.95,
    draws: int = 9999,
) -> pd.DataFrame:
    """Compare every pair of methods on the test images of one category and scenario.

    The p values are not adjusted: apply ``holm`` to all categories and pairs together.

    Args:
        predictions_by_method: Test predictions of each method.
        thresholds: The threshold of each method.
        aupimo_by_method: The AUPIMO of each method, ``(N,)``, NaN for an image that has none.
        seed: Seed of the permutation test.
        level: Level of the intervals.
        draws: See ``paired_permutation``.

    Returns:
        One row per pair, in the given order: method, against_method, image_auroc (difference) with
        ci_low, ci_high and p_delong, accuracy (difference, each at its own threshold) with
        p_mcnemar, n_images, n_defect; with AUPIMO also aupimo (mean difference), p_permutation,
        rank_biserial and n_aupimo.

    Raises:
        DataError: Two methods do not have the same images in the same order, or the threshold or
            the AUPIMO of a method is missing.
    """
    for what, values in (("threshold", thresholds), ("AUPIMO", aupimo_by_method)):
        missing = [
            name for name in predictions_by_method if values is not None and name not in values
        ]
        if missing:
            raise DataError(
                f"expected a {what} of every method, found none of {', '.join(missing)}; compute "
                "it first"
            )
    rows = []
    for (name_a, a), (name_b, b) in combinations(predictions_by_method.items(), 2):
        if a.ids != b.ids or not np.array_equal(a.labels, b.labels):
            raise DataError(
                f"expected {name_a} and {name_b} on the same images in the same order, found "
                f"{len(a)} and {len(b)} "
                "images whose ids or labels differ; predict both on the same split"
            )
        ranking = delong(a.labels, a.image_scores, b.image_scores, level)
        decisions = mcnemar(
            a.labels,
            decide(a.image_scores, thresholds[name_a]),
            decide(b.image_scores, thresholds[name_b]),
        )
        row = {
            "method": name_a,
            "against_method": name_b,
            "image_auroc": ranking["difference"],
            "ci_low": ranking["ci_low"],
            "ci_high": ranking["ci_high"],
            "p_delong": ranking["p_value"],
            "accuracy": decisions["difference"],
            "p_mcnemar": decisions["p_value"],
            "n_images": len(a),
            "n_defect": int(np.sum(a.labels)),
        }
        if aupimo_by_method is not None:
            values_a, values_b = (np.asarray(aupimo_by_method[name]) for name in (name_a, name_b))
            if values_a.shape != (len(a),) or values_b.shape != (len(a),):
                raise DataError(
                    f"expected one AUPIMO per image ({len(a)}), found {values_a.shape} and "
                    f"{values_b.shape}; keep NaN for the images that have none"
                )
            # NaN in only one of the two is refused by the test below
            known = ~(np.isnan(values_a) & np.isnan(values_b))
            test = paired_permutation(values_a[known], values_b[known], draws=draws, seed=seed)
            row |= {
                "aupimo": test["difference"],
                "p_permutation": test["p_value"],
                "rank_biserial": test["effect"],
                "n_aupimo": test["n"],
            }
        rows.append(row)
    return pd.DataFrame(rows)
