"""Stratified bootstrap intervals of image and pixel metrics, and statistics of scores.

Percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13).
Images are drawn with replacement within good and within defect, so that every resample has the
counts of the data. Pixel metrics draw whole images, because the pixels of one image are not
independent. A resample is a row of weights (how often each image occurs), and all resamples go
through ``metrics.curve_metrics`` at once.

The resamples depend only on the seed and on the labels. Two sets of predictions on the same images
have the same resamples for the same seed, so that the difference of their draws is the paired
bootstrap.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nbhelpers.evaluation.metrics import (
    FPR_LIMITS,
    IMAGE_METRICS,
    PIXEL_METRICS,
    Array,
    check_maps,
    check_scores,
    confusion_rates,
    curve_metrics,
    decide,
    region_shares,
    trivial_f1,
)

Seed = int | tuple[int, ...]

CHUNK_VALUES = 1 << 20  # weights times bins that are held at once: 8 MiB per array


def stratified_weights(strata: ArrayLike, draws: int, seed: Seed) -> Array:
    """How often each image occurs in each resample; every stratum keeps its size.

    Args:
        strata: ``(N,)`` group of each image (its label, or whether it has a defect).
        draws: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        ``(draws, N)`` counts.
    """
    strata, rng = np.asarray(strata), np.random.default_rng(seed)
    weights = np.zeros((draws, strata.size))
    for group in np.unique(strata):
        members = np.flatnonzero(strata == group)
        picks = rng.integers(members.size, size=(draws, members.size))
        picks += members.size * np.arange(draws)[:, None]  # each draw counts in its own row
        counts = np.bincount(picks.ravel(), minlength=draws * members.size)
        weights[:, members] = counts.reshape(draws, members.size)
    return weights


def _chunks(rows: int, row_values: int) -> Iterator[slice]:
    """Slices of ``rows`` rows with ``row_values`` values each, at most ``CHUNK_VALUES`` at once."""
    step = max(1, CHUNK_VALUES // row_values)
    return (slice(start, start + step) for start in range(0, rows, step))


def percentile_interval(draws: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The central interval ``(low, high)`` that holds a share ``level`` of the draws ``(R,)``."""
    low, high = np.quantile(np.asarray(draws), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float, float]:
    """A share of independent images with its exact interval (Clopper and Pearson 1934).

    Args:
        hits: Number of images that count.
        n: Number of all images, at least 1.
        level: Level of the interval.

    Returns:
        The share, and the low and the high end of its interval.
    """
    interval = stats.binomtest(hits, n).proportion_ci(level, method="exact")
    return hits / n, float(interval.low), float(interval.high)


def image_draws(
    labels: ArrayLike, scores: ArrayLike, threshold: ArrayLike, *, draws: int = 1000, seed: Seed
) -> dict[str, Array]:
    """``IMAGE_METRICS`` of each resample of the images.

    The mean of the draws of several categories has the interval of their macro average.
    ``trivial_f1`` depends on the counts alone, so it is constant.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.
        threshold: One for all resamples, or one per resample, ``(draws,)``, as
            ``threshold_draws`` gives them; then the rates vary with the calibration images, too.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Metric to its ``(draws,)`` values.

    Raises:
        DataError: See ``metrics.check_scores``.
    """
    defect, scores = check_scores(labels, scores)
    order = np.argsort(-scores, kind="stable")
    # where each distinct score starts
    ties = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    weights = stratified_weights(defect, draws, seed)
    flagged = decide(scores, np.reshape(threshold, (-1, 1)))  # (1 or draws, N)
    hits = (weights * (flagged & defect)).sum(axis=1)
    alarms = (weights * (flagged & ~defect)).sum(axis=1)
    rates = confusion_rates(tp=hits, fn=defect.sum() - hits, fp=alarms, tn=(~defect).sum() - alarms)
    curves = []
    for rows in _chunks(draws, scores.size):
        ranked = weights[rows][:, order]
        curves.append(
            curve_metrics(
                np.add.reduceat(ranked * defect[order], ties, axis=1),
                np.add.reduceat(ranked * ~defect[order], ties, axis=1),
            )
        )
    curve = {name: np.concatenate([chunk[name] for chunk in curves]) for name in curves[0]}
    values = rates | {
        "image_auroc": curve["auroc"],
        "image_ap": curve["ap"],
        "f1_max": curve["f1"],
        "trivial_f1": np.full(draws, trivial_f1(defect)),
    }
    return {name: values[name] for name in IMAGE_METRICS}


def score_histograms(anomaly_maps: NDArray, masks: NDArray) -> tuple[Array, Array, Array]:
    """Histograms of the pixel scores of each image, the highest scores first.

    There are at most 4097 bins between quantiles of the scores, so that outliers do not use up the
    grid. Half of the edges are quantiles of the defect pixels. The others lie at false-positive
    rates of the normal pixels: an eighth of all edges above 0.3, an eighth down to 0.05, and a
    quarter below that, log-spaced. Metrics of sums over images are right to about 1e-4.

    Args:
        anomaly_maps: ``(N, H, W)`` raw maps.
        masks: ``(N, H, W)``, 0 or 1.

    Returns:
        Three arrays ``(N, B)``: defect pixels, normal pixels, and what each bin adds to the
        overlaps of the image's regions, so that a row sums to the number of its regions.

    Raises:
        DataError: See ``metrics.check_maps``.
    """
    anomaly_maps = np.asarray(anomaly_maps)
    defect = check_maps(anomaly_maps, masks)
    shares = region_shares(defect)[0]
    normal, defective = np.sort(anomaly_maps[~defect]), np.sort(anomaly_maps[defect])
    fine, coarse = FPR_LIMITS["aupro_005"], FPR_LIMITS["aupro"]
    fpr = np.concatenate(
        [
            np.linspace(1, coarse, 512),
            np.linspace(coarse, fine, 512),
            np.geomspace(fine, 1 / normal.size, 1024),
        ]
    )
    edges = np.unique(
        np.concatenate(
            [
                normal[np.clip(np.rint((1 - fpr) * normal.size), 0, normal.size - 1).astype(int)],
                # The lowest defect score is an edge: perfect maps stay perfect on the grid.
                defective[np.rint(np.linspace(0, defective.size - 1, 2048)).astype(int)],
            ]
        )
    )
    size = edges.size + 1
    histograms = np.zeros((3, len(defect), size))
    start = 0
    for i, (image, mask) in enumerate(zip(anomaly_maps, defect, strict=True)):
        bins = edges.size - np.searchsorted(edges, image, side="right")
        stop = start + int(mask.sum())
        histograms[0, i] = np.bincount(bins[mask], minlength=size)
        histograms[1, i] = np.bincount(bins[~mask], minlength=size)
        histograms[2, i] = np.bincount(bins[mask], weights=shares[start:stop], minlength=size)
        start = stop
    return histograms[0], histograms[1], histograms[2]


def pixel_draws(
    anomaly_maps: NDArray, masks: NDArray, *, draws: int = 1000, seed: Seed
) -> dict[str, Array]:
    """``PIXEL_METRICS`` of each resample of whole images.

    The images are stratified by whether their mask has a defect pixel.

    Args:
        anomaly_maps: ``(N, H, W)`` raw maps.
        masks: ``(N, H, W)``, 0 or 1.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Metric to its ``(draws,)`` values.

    Raises:
        DataError: See ``metrics.check_maps``.
    """
    defect, normal, regions = score_histograms(anomaly_maps, masks)
    weights = stratified_weights(defect.any(axis=1), draws, seed)
    chunks = [
        curve_metrics(weights[rows] @ defect, weights[rows] @ normal, weights[rows] @ regions)
        for rows in _chunks(draws, defect.shape[1])
    ]
    return {
        name: np.concatenate([chunk[name.removeprefix("pixel_")] for chunk in chunks])
        for name in PIXEL_METRICS
    }


def score_summary(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Statistics of the raw image scores of each class, and of their separation.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Returns:
        For each class (``good_``, ``defect_``): n, mean, std (n - 1), min, max, skew and excess
        kurtosis, the last two NaN where the class has no spread. ``separation`` is
        d' = (mean_defect - mean_good) / sqrt((var_defect + var_good) / 2), NaN without any spread.
        ``ks`` and ``ks_pvalue`` are the two-sample Kolmogorov-Smirnov test.

    Raises:
        DataError: See ``metrics.check_scores``.
    """
    defect, scores = check_scores(labels, scores)
    groups = {"good": scores[~defect], "defect": scores[defect]}
    summary: dict[str, float] = {}
    for name, values in groups.items():
        spread = bool(np.ptp(values) > 0)
        summary |= {
            f"{name}_n": values.size,
            f"{name}_mean": float(values.mean()),
            f"{name}_std": float(values.std(ddof=1)) if values.size > 1 else float("nan"),
            f"{name}_min": float(values.min()),
            f"{name}_max": float(values.max()),
            f"{name}_skew": float(stats.skew(values)) if spread else float("nan"),
            f"{name}_kurtosis": float(stats.kurtosis(values)) if spread else float("nan"),
        }
    pooled = np.sqrt((summary["good_std"] ** 2 + summary["defect_std"] ** 2) / 2)
    gap = summary["defect_mean"] - summary["good_mean"]
    test = stats.ks_2samp(groups["defect"], groups["good"])
    summary["separation"] = float(gap / pooled) if pooled > 0 else float("nan")
    return summary | {"ks": float(test.statistic), "ks_pvalue": float(test.pvalue)}


def entry(value: float, draws: Array | None, n_images: int, level: float) -> dict[str, Any]:
    """An entry of the tidy table whose interval comes from a bootstrap sample.

    Args:
        value: The value.
        draws: Its bootstrap sample, ``(draws,)``; None gives no interval.
        n_images: Number of images that it was measured on.
        level: Level of the interval.
    """
    if draws is None:
        return stated(value, n_images)
    low, high = percentile_interval(draws, level)
    return stated(value, n_images, low, high)


def stated(
    value: float, n_images: int, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """An entry of the tidy table: a value, the ends of its interval or None, a number of images."""
    return {"value": float(value), "ci_low": low, "ci_high": high, "n_images": int(n_images)}
