"""AUPIMO: the recall of each defect image at very low false-positive rates.

Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", arXiv 2401.01984. It is the share of the image's defect that is found, averaged over
the logarithm of the false-positive rate from 1e-5 to 1e-4. The rate is that of the good images
alone. There is one number per image, which permits paired tests (``significance``) and means per
defect type; one AUPRO of all images does not. anomalib computes it.

1e-5 of the normal pixels must be at least about one pixel. 40 good images of 224 x 224 pixels have
20 pixels there, and 12 of 160 x 160 have 3: see ``normal_pixels_at_bound``.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import Seed, stratified_weights
from nbhelpers.evaluation.metrics import Array, check_maps

FPR_BOUNDS = (1e-5, 1e-4)

# anomalib spreads its thresholds evenly between the lowest and the highest score of the good
# images, so that only a few percent of its default 300,000 fall within the bounds. That takes 8 s
# and 1.2 GB for 36 maps of 160 x 160. Here all of them do (see ``per_image_aupimo``), and four for
# each distinct normal score are enough: 0.2 s and 70 MB, or about 1 s and 210 MB for 80 maps of
# 224 x 224. anomalib warns below 300.
THRESHOLDS_PER_LEVEL, MIN_THRESHOLDS = 4, 1000

# A rate stands for a whole number of pixels. With at least 71,000 normal pixels, rounding moves a
# bound by a factor of at most sqrt(2).
MAX_BOUND_RATIO = 1.5


def normal_pixels_at_bound(masks: ArrayLike) -> dict[str, float | int]:
    """Count the normal pixels that the bounds of the false-positive rate stand for.

    With k pixels at the lower bound, one false pixel more or less moves that bound by about 1/k.

    Args:
        masks: ``(N, H, W)``, 0 or 1, of images whose pixel labels are known.

    Returns:
        ``good_images``; ``normal_pixels``, the number of their pixels; ``at_lower`` and
        ``at_upper``, the pixels at a rate of 1e-5 and 1e-4, not rounded.

    Raises:
        DataError: There is no good image.
    """
    masks = np.asarray(masks)
    good = ~masks.any(axis=(1, 2))
    if not good.any():
        raise DataError(
            f"expected at least one good image, found {len(masks)} images with a defect each; "
            "AUPIMO takes its false-positive rate from good images: add them to this split"
        )
    normal = int(masks[good].size)
    low, high = FPR_BOUNDS
    return {
        "good_images": int(good.sum()),
        "normal_pixels": normal,
        "at_lower": normal * low,
        "at_upper": normal * high,
    }


def _bounds(normal: NDArray) -> tuple[Array, tuple[float, float]]:
    """The distinct normal scores within the bounds, and the rates that are nearest to the bounds.

    Args:
        normal: The scores of all pixels of the good images.

    Returns:
        The scores, ascending, ``(L,)``: the upper rate is reached at the first and the lower rate
        at the last. Then the lower and the upper rate.

    Raises:
        DataError: No rate is near a bound.
    """
    levels, counts = np.unique(normal, return_counts=True)
    # the share of the normal pixels at or above each level
    rates = np.cumsum(counts[::-1])[::-1] / normal.size
    lower, upper = (int(np.argmin(np.abs(np.log(rates / bound)))) for bound in FPR_BOUNDS)
    ratios = [
        max(rates[index] / bound, bound / rates[index])
        for index, bound in zip((lower, upper), FPR_BOUNDS, strict=True)
    ]
    if max(ratios) > MAX_BOUND_RATIO:
        few = normal.size * FPR_BOUNDS[0] * MAX_BOUND_RATIO < 1
        raise DataError(
            f"expected false-positive rates near {FPR_BOUNDS[0]:g} and {FPR_BOUNDS[1]:g}, found "
            f"{rates[lower]:.2g} "
            f"and {rates[upper]:.2g} on {normal.size} normal pixels of good images; "
            + (
                "take more good images or larger maps (100,000 pixels are enough), or leave "
                "AUPIMO out and say so"
                if few
                else "too many of them share one score: use raw maps, neither clipped, rounded "
                "nor constant"
            )
        )
    return levels[upper : lower + 1], (float(rates[lower]), float(rates[upper]))


def per_image_aupimo(anomaly_maps: NDArray, masks: NDArray) -> Array:
    """AUPIMO of each image.

    anomalib 2.7 computes it, with two preparations that follow from the definition. First, AUPIMO
    depends on the order of the scores only, so each score is replaced by its rank among the normal
    scores within the bounds (i + 1/2 at the i-th, i between two); anomalib's evenly spaced
    thresholds then meet every one of them. Second, the bounds are rounded to rates that occur.
    anomalib would integrate over whole pixels but divide by the width of the bounds as they are
    given, which with 3 pixels at 1e-5 makes a value up to 1.4 percent too high (it warns of this).

    Args:
        anomaly_maps: ``(N, H, W)`` raw maps.
        masks: ``(N, H, W)``, 0 or 1. An image without a defect pixel counts as good, so leave out
            the images whose pixel labels are unknown.

    Returns:
        ``(N,)``, in [0, 1]; NaN for good images.

    Raises:
        DataError: The masks do not fit the maps (``metrics.check_maps``), there is no good image,
            there are too few normal pixels, or the normal scores are constant or tied at the
            bounds.
    """
    # imported here, because it takes seconds and imports Lightning
    from anomalib.metrics.pimo.functional import aupimo_scores
    from torch import from_numpy

    anomaly_maps = np.asarray(anomaly_maps)
    defect = check_maps(anomaly_maps, masks)
    normal_pixels_at_bound(defect)  # refuses masks without a good image
    levels, (lower, upper) = _bounds(anomaly_maps[~defect.any(axis=(1, 2))])
    ranks = (
        np.searchsorted(levels, anomaly_maps, "left")
        + np.searchsorted(levels, anomaly_maps, "right")
    ) / 2
    # Slightly above the lower rate: anomalib averages rates over images, and its rounded mean may
    # lie just above ours.
    *_, values, _ = aupimo_scores(
        from_numpy(ranks),
        from_numpy(defect),
        fpr_bounds=(lower * (1 + 1e-12), upper),
        num_thresholds=max(THRESHOLDS_PER_LEVEL * levels.size, MIN_THRESHOLDS),
    )
    return values.numpy()


def mean_aupimo_draws(values: ArrayLike, *, draws: int = 1000, seed: Seed) -> Array:
    """Mean AUPIMO of each resample of the images, for ``bootstrap.percentile_interval``.

    The resamples depend on the seed and on which values are NaN, so that two detectors on the same
    images have the same ones: the difference of their draws is the paired bootstrap. The good
    images are not redrawn, so that the false-positive rates stay as they are.

    Args:
        values: ``(N,)`` AUPIMO, NaN for images that have none; these are left out.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        ``(draws,)``.

    Raises:
        DataError: All values are NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise DataError(
            "expected the AUPIMO of at least one defect image, found none; pass images with masks"
        )
    return stratified_weights(np.ones(known.size), draws, seed) @ known / known.size
