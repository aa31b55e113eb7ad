"""AUPIMO: one number per defect image, its recall at the strictest false-positive rates; anomalib
computes it.

Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", arXiv 2401.01984: the share of the image's defect that is found, averaged over the
logarithm of the false-positive rate from 1e-5 to 1e-4. The good images alone set that rate. One
number per image permits paired tests (significance.py) and means per defect type, which one AUPRO
of all images does not.

What it can resolve: 1e-5 of the normal pixels must be at least about one pixel. 40 good images of
224 x 224 have 20 pixels there, 12 of 160 x 160 have 3: see `normal_pixels_at_bound`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import Seed, stratified_weights
from nbhelpers.evaluation.metrics import Array, check_maps

FPR_BOUNDS = (1e-5, 1e-4)

# anomalib lays its thresholds evenly between the lowest and the highest score of the good images,
# so that of its default 300,000 only a few percent fall within the bounds: 8 s and 1.2 GB for 36
# maps of 160 x 160. Here all do (see `per_image_aupimo`), and four for each distinct normal score
# meet all there is: 0.2 s and 70 MB, about 1 s and 210 MB for 80 maps of 224 x 224. Below 300
# anomalib warns.
THRESHOLDS_PER_LEVEL, MIN_THRESHOLDS = 4, 1000

# A rate is a whole number of pixels. From 71,000 normal pixels on, rounding moves a bound by
# sqrt(2) at most.
MAX_BOUND_RATIO = 1.5


def normal_pixels_at_bound(masks: ArrayLike) -> dict[str, float | int]:
    """How many normal pixels the bounds stand for; masks (N, H, W) 0/1 whose pixel labels are
    known.

    Returns good_images, normal_pixels (theirs), at_lower and at_upper (pixels at a rate of 1e-5 and
    1e-4, not rounded). With k pixels at the lower bound, one false pixel more or less moves that
    bound by about 1/k. Raises DataError without a good image.
    """
    masks = np.asarray(masks)
    good = ~masks.any(axis=(1, 2))
    if not good.any():
        raise DataError(
            f"expected at least one good image, found {len(masks)} images with a defect each; AUPIMO takes its "
            "false-positive rate from good images: add them to this split"
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
    """The distinct normal scores within the bounds, ascending (L,), and the rates that stand for
    the bounds.

    At the first score the upper rate is met, at the last the lower one. normal: the pixels of all
    good images. Raises DataError where no rate is near a bound.
    """
    levels, counts = np.unique(normal, return_counts=True)
    rates = (
        np.cumsum(counts[::-1])[::-1] / normal.size
    )  # share of the normal pixels at or above each level
    lower, upper = (int(np.argmin(np.abs(np.log(rates / bound)))) for bound in FPR_BOUNDS)
    ratios = [
        max(rates[index] / bound, bound / rates[index])
        for index, bound in zip((lower, upper), FPR_BOUNDS, strict=True)
    ]
    if max(ratios) > MAX_BOUND_RATIO:
        few = normal.size * FPR_BOUNDS[0] * MAX_BOUND_RATIO < 1
        raise DataError(
            f"expected false-positive rates near {FPR_BOUNDS[0]:g} and {FPR_BOUNDS[1]:g}, found {rates[lower]:.2g} "
            f"and {rates[upper]:.2g} on {normal.size} normal pixels of good images; "
            + (
                "take more good images or larger maps (100,000 pixels are enough), or leave AUPIMO out and say so"
                if few
                else "too many of them share one score: use raw maps, neither clipped, rounded nor constant"
            )
        )
    return levels[upper : lower + 1], (float(rates[lower]), float(rates[upper]))


def per_image_aupimo(anomaly_maps: NDArray, masks: NDArray) -> Array:
    """AUPIMO of each image (N,), in [0, 1], of raw maps and 0/1 masks (N, H, W); NaN for good
    images.

    By anomalib 2.7, with two preparations that follow from the definition. AUPIMO sees the order of
    the scores alone, so each score is replaced by its place among the normal scores within the
    bounds (i + 1/2 at the i-th, i between two): anomalib's even thresholds then meet every one of
    them. And the bounds are rounded to rates that occur: anomalib would integrate over whole pixels
    but divide by the width of the bounds as given, which with 3 pixels at 1e-5 makes a value up to
    1.4 percent too high (and is what it warns of).

    An image without a defect pixel counts as good: leave out the images whose pixel labels are
    unknown. Raises DataError as `metrics.check_maps` does, without a good image, for too few normal
    pixels, and for maps whose normal scores are constant or tied at the bounds.
    """
    # here: takes seconds, and brings Lightning
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
    # A hair above the lower rate: anomalib averages rates over images and may land one rounding
    # above ours.
    *_, values, _ = aupimo_scores(
        from_numpy(ranks),
        from_numpy(defect),
        fpr_bounds=(lower * (1 + 1e-12), upper),
        num_thresholds=max(THRESHOLDS_PER_LEVEL * levels.size, MIN_THRESHOLDS),
    )
    return values.numpy()


def mean_aupimo_draws(values: ArrayLike, *, draws: int = 1000, seed: Seed) -> Array:
    """Mean AUPIMO of each resample of the images that have one, (draws,); values (N,) with NaN for
    the others.

    For `statistics.percentile_interval`. The resamples depend on the seed and on which values are
    NaN, so that two detectors on the same images get the same ones: the difference of their draws
    is the paired bootstrap. The good images are not redrawn, so the false-positive rates are taken
    as they are. Raises DataError without any value.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise DataError(
            "expected the AUPIMO of at least one defect image, found none; pass images with masks"
        )
    return stratified_weights(np.ones(known.size), draws, seed) @ known / known.size
