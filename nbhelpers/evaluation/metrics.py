"""Image-level and pixel-level detection metrics on raw scores, exact and in float64.

One kernel, ``curve_metrics``, turns counts per score bin into AUROC, AP, best F1 and AUPRO. The
exact pixel metrics give it one bin per distinct score that matters, and the bootstrap
(``bootstrap``) gives it a fine grid. AUPRO: Bergmann et al., "The MVTec Anomaly Detection Dataset",
IJCV 2021, sec. 4.1. It equals the exact AUPRO of anomalib 2.7 (a test compares the two), but the
pixels are not sorted once per metric.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from nbhelpers.errors import DataError

Array = NDArray[np.float64]

IMAGE_METRICS = (
    "image_auroc",
    "image_ap",
    "f1",
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "balanced_accuracy",
    "trivial_f1",
    "f1_max",
)
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1", "aupro", "aupro_005")
# The metrics that may be averaged over categories; thresholds and counts may not.
RATE_METRICS = (*IMAGE_METRICS, "ece", *PIXEL_METRICS, "aupimo")

# AUPRO's limits of the false-positive rate: 0.3 as in MVTec AD, 0.05 as in MVTec AD 2.
FPR_LIMITS = {"aupro": 0.3, "aupro_005": 0.05}


def check_images(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Array]:
    """Check labels and scores, and convert them to bool and float64 arrays.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Returns:
        Whether each image is a defect, ``(N,)``, and the scores ``(N,)``.

    Raises:
        DataError: The two do not match, there is no image, a label is not 0 or 1, or a score is
            not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.size == 0 or labels.shape != scores.shape:
        raise DataError(
            f"expected one label and one score per image, found labels {labels.shape} and scores "
            f"{scores.shape}; pass the labels and image_scores of one Predictions"
        )
    if not np.isin(labels, (0, 1)).all():
        values = np.unique(labels)[:5].tolist()
        raise DataError(
            f"expected labels 0 (good) and 1 (defect), found {values}; map the labels first"
        )
    if not np.isfinite(scores).all():
        bad = np.flatnonzero(~np.isfinite(scores))
        raise DataError(
            f"expected finite scores, found {bad.size} of {scores.size} that are not, the first "
            f"at position {bad[0]} ({scores[bad[0]]}); look at that image and refit the detector"
        )
    return labels.astype(bool), scores


def check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Array]:
    """As ``check_images``, and check that there are images of both classes.

    Without both, ranking metrics and rules that need both classes are not defined.

    Raises:
        DataError: See ``check_images``, or one of the classes is missing.
    """
    defect, scores = check_images(labels, scores)
    n_defect = int(defect.sum())
    if n_defect in (0, defect.size):
        raise DataError(
            f"expected good and defect images, found {defect.size - n_defect} good and {n_defect} "
            "defect; put both classes into this split"
        )
    return defect, scores


def decide(scores: ArrayLike, threshold: float | NDArray) -> NDArray[np.bool_]:
    """The study's one decision rule: anomalous where score >= threshold.

    The two are compared in float64. numpy would first round a Python float to the precision of
    float32 scores, which can move the threshold onto the score below it.

    Args:
        scores: Raw image scores.
        threshold: One threshold, or an array that broadcasts against the scores.

    Returns:
        Whether each score is anomalous.
    """
    return np.asarray(scores, dtype=np.float64) >= threshold


def confusion_rates(tp: ArrayLike, tn: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> dict[str, Array]:
    """The rates of confusion counts.

    Args:
        tp: True positives, a scalar or an array.
        tn: True negatives, of the same shape.
        fp: False positives, of the same shape.
        fn: False negatives, of the same shape.

    Returns:
        f1, accuracy, precision, recall, specificity and balanced_accuracy, each of that shape; 0
        where a denominator is 0.
    """
    tp, tn, fp, fn = (np.asarray(count, dtype=np.float64) for count in (tp, tn, fp, fn))

    def share(count: Array, total: Array) -> Array:
        return np.divide(count, total, out=np.zeros_like(count), where=total > 0)

    recall, specificity = share(tp, tp + fn), share(tn, tn + fp)
    return {
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "accuracy": share(tp + tn, tp + tn + fp + fn),
        "precision": share(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "balanced_accuracy": (recall + specificity) / 2,
    }


def image_metrics(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, float]:
    """``IMAGE_METRICS`` and the counts tp, tn, fp and fn of raw image scores.

    ``trivial_f1`` is the F1 of calling every image anomalous, which an F1 has to exceed to mean
    anything. ``f1_max`` is an oracle: the best F1 that any threshold could reach on these images.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.
        threshold: The threshold of the decisions.

    Raises:
        DataError: The threshold is not finite, or see ``check_scores``.
    """
    defect, scores = check_scores(labels, scores)
    if not np.isfinite(threshold):
        raise DataError(
            f"expected a finite threshold, found {threshold}; calibrate it on the val split"
        )
    flagged = decide(scores, threshold)
    counts = {
        "tp": int((flagged & defect).sum()),
        "tn": int((~flagged & ~defect).sum()),
        "fp": int((flagged & ~defect).sum()),
        "fn": int((~flagged & defect).sum()),
    }
    order = np.unique(-scores, return_inverse=True)[1]  # bin 0 holds the highest score
    curve = curve_metrics(np.bincount(order, weights=defect), np.bincount(order, weights=~defect))
    values = {
        "image_auroc": roc_auc_score(defect, scores),
        "image_ap": average_precision_score(defect, scores),
        **confusion_rates(**counts),
        "trivial_f1": trivial_f1(defect),
        "f1_max": curve["f1"],
    }
    return {name: float(values[name]) for name in IMAGE_METRICS} | counts


def trivial_f1(labels: ArrayLike) -> float:
    """The F1 of calling every image anomalous: 2P / (N + P) for P defect images among N."""
    labels = np.asarray(labels)
    return float(2 * labels.sum() / (labels.size + labels.sum()))


def curve_metrics(
    defect: ArrayLike, normal: ArrayLike, regions: ArrayLike | None = None
) -> dict[str, Array]:
    """Exact metrics of binned scores.

    The bins run from the highest score to the lowest along the last axis, and the scores within
    one bin count as tied.

    Args:
        defect: ``(..., B)``, the number of positives in each bin (weighted, if resampled).
        normal: ``(..., B)``, the number of negatives in each bin.
        regions: ``(..., B)``, what each bin adds to the sum of all regions' overlaps.

    Returns:
        ``auroc``, ``ap`` (step-wise, as scikit-learn computes it) and ``f1`` (the best one), and
        with regions also ``aupro`` and ``aupro_005``; each of shape ``(...)``.
    """
    defect, normal = np.asarray(defect, dtype=np.float64), np.asarray(normal, dtype=np.float64)
    tp, fp = np.cumsum(defect, axis=-1), np.cumsum(normal, axis=-1)
    n_defect, n_normal = tp[..., -1:], fp[..., -1:]
    flagged = tp + fp
    precision = np.divide(tp, flagged, out=np.zeros_like(tp), where=flagged > 0)
    metrics = {
        # Each normal of a bin is beaten by all defects above the bin and by half of those in it.
        "auroc": (normal * (tp - defect / 2)).sum(-1) / (n_defect * n_normal)[..., 0],
        "ap": (defect * precision).sum(-1) / n_defect[..., 0],
        "f1": (2 * tp / (flagged + n_defect)).max(-1),
    }
    if regions is not None:
        overlap = np.cumsum(regions, axis=-1)
        for name, limit in FPR_LIMITS.items():
            metrics[name] = area_to_limit(fp, overlap / overlap[..., -1:], limit * n_normal)
    return metrics


def area_to_limit(x: Array, y: Array, limit: Array) -> Array:
    """The area under a curve up to a limit, divided by the limit.

    The curve is piecewise linear from (0, 0) through (x, y), also at the limit. x is in counts and
    not in rates, so that a perfect curve gives 1.0 and not 1 - 1e-16.

    Args:
        x: ``(..., B)``, ascending from 0 or more to beyond the limit.
        y: ``(..., B)``.
        limit: ``(..., 1)``, in the unit of x.

    Returns:
        ``(...)``.
    """
    start = np.zeros_like(x[..., :1])
    x0 = np.concatenate([start, x[..., :-1]], axis=-1)
    y0 = np.concatenate([start, y[..., :-1]], axis=-1)
    width = np.minimum(x, limit) - np.minimum(x0, limit)
    # the share of each segment that lies below the limit
    inside = np.divide(width, x - x0, out=np.zeros_like(x), where=x > x0)
    return (width * (y0 + (y - y0) * inside / 2)).sum(-1) / limit[..., 0]


def check_maps(anomaly_maps: ArrayLike, masks: ArrayLike) -> NDArray[np.bool_]:
    """Check that masks fit anomaly maps, and convert the masks to bool.

    Args:
        anomaly_maps: ``(N, H, W)`` raw maps.
        masks: ``(N, H, W)``, 0 or 1.

    Returns:
        ``(N, H, W)``, whether each pixel is a defect.

    Raises:
        DataError: The shapes differ, a mask holds another value than 0 and 1, all pixels are of
            one class, or a map is not finite.
    """
    anomaly_maps, masks = np.asarray(anomaly_maps), np.asarray(masks)
    if anomaly_maps.ndim != 3 or anomaly_maps.shape != masks.shape:
        raise DataError(
            f"expected anomaly maps and masks of one shape (N, H, W), found {anomaly_maps.shape} "
            f"and {masks.shape}; resize the masks to the maps"
        )
    defect = masks.astype(bool)
    if not (masks == defect).all():
        raise DataError(
            "expected masks of 0 and 1, found other values; binarise them without interpolation"
        )
    n_defect = int(defect.sum())
    if n_defect in (0, defect.size):
        raise DataError(
            f"expected normal and defect pixels, found {defect.size - n_defect} normal and "
            f"{n_defect} defect; without masks leave the pixel metrics out and say so"
        )
    if not np.isfinite(anomaly_maps).all():
        image = int(np.flatnonzero(~np.isfinite(anomaly_maps).all(axis=(1, 2)))[0])
        raise DataError(
            f"expected finite anomaly maps, found NaN or inf in map {image}; refit the detector"
        )
    return defect


def region_shares(defect: NDArray[np.bool_]) -> tuple[Array, NDArray[np.int64]]:
    """The share that each defect pixel has of its region, and the number of regions per image.

    A region is an 8-connected component of one image's mask, as in anomalib (OpenCV's default).

    Args:
        defect: ``(N, H, W)``, whether each pixel is a defect.

    Returns:
        1 / size of its region for each defect pixel in C order, ``(n_defect,)``, and the number of
        regions, ``(N,)``.
    """
    shares, n_regions = [np.zeros(0)], np.zeros(len(defect), dtype=np.int64)
    for i in np.flatnonzero(defect.any(axis=(1, 2))):
        count, components = cv2.connectedComponents(defect[i].astype(np.uint8), connectivity=8)
        n_regions[i] = count - 1  # component 0 is the background
        shares.append(1.0 / np.bincount(components.ravel())[components[defect[i]]])
    return np.concatenate(shares), n_regions


def pixel_metrics(anomaly_maps: NDArray, masks: NDArray) -> dict[str, float]:
    """``PIXEL_METRICS`` and ``regions``, the number of defect regions.

    All are exact, ties included. ``pixel_f1`` is the best F1 over all thresholds (an oracle).

    Args:
        anomaly_maps: ``(N, H, W)`` raw maps of *all* test images. Good images belong to them,
            because their pixels count for every false-positive rate.
        masks: ``(N, H, W)``, 0 or 1.

    Raises:
        DataError: See ``check_maps``. Where no pixel is a defect, the caller should leave out pixel
            metrics and say so.
    """
    anomaly_maps = np.asarray(anomaly_maps)
    defect = check_maps(anomaly_maps, masks)
    shares, n_regions = region_shares(defect)
    # Every curve changes its slope only at scores of defect pixels, so that only these (a few
    # percent of all) need an argsort; for the many normal pixels a plain sort and their ranks are
    # enough.
    normal = np.sort(anomaly_maps[~defect])
    scores, score_index, counts = np.unique(
        anomaly_maps[defect], return_inverse=True, return_counts=True
    )
    # There are two bins per distinct defect score s, from the highest: the normal pixels between s
    # and the next higher defect score, then all pixels tied at s. One last bin holds the normal
    # pixels below every defect.
    passed = np.empty(2 * scores.size + 1)  # normals at or above the end of each bin
    passed[0:-1:2] = normal.size - np.searchsorted(normal, scores[::-1], side="right")
    passed[1::2] = normal.size - np.searchsorted(normal, scores[::-1], side="left")
    passed[-1] = normal.size
    tied, overlap = np.zeros_like(passed), np.zeros_like(passed)
    tied[1::2] = counts[::-1]
    overlap[1::2] = np.bincount(score_index, weights=shares)[::-1]
    curve = curve_metrics(tied, np.diff(passed, prepend=0), overlap)
    values = {name: float(curve[name.removeprefix("pixel_")]) for name in PIXEL_METRICS}
    return values | {"regions": int(n_regions.sum())}
