"""Thresholds per image zone: are they better than one threshold for the whole map?

Normal pixels of a seam or a border score higher than those of a plain field. A grid of thresholds
from the good validation images takes that into account. Whether it helps is measured against one
threshold of the same percentile.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import Array, check_maps, confusion_rates

ZONE_RATES = ("f1", "precision", "recall")


def zone_index(size: int, grid: int) -> NDArray[np.int64]:
    """The zone of each pixel along one side of a map.

    The sizes of the zones differ by one where ``grid`` does not divide ``size``.

    Args:
        size: Number of pixels along the side.
        grid: Number of zones along the side.

    Returns:
        ``(size,)``, 0 to grid - 1.

    Raises:
        ConfigError: The grid is below 1.
        DataError: There are fewer pixels than zones.
    """
    if grid < 1:
        raise ConfigError(f"expected a grid of at least 1 zone per side, found {grid}; 3 is usual")
    if size < grid:
        raise DataError(
            f"expected at least {grid} pixels per side for {grid} zones, found {size}; use a "
            "smaller grid"
        )
    return np.arange(size) * grid // size


def zone_thresholds(anomaly_maps: ArrayLike, grid: int = 3, percentile: float = 99.5) -> Array:
    """The percentile of the pixel scores in each zone.

    Args:
        anomaly_maps: ``(N, H, W)`` maps of good validation images.
        grid: Number of zones along each side.
        percentile: In [0, 100].

    Returns:
        ``(grid, grid)``, in the unit of the maps.

    Raises:
        ConfigError: The percentile is outside [0, 100], or the grid is below 1.
        DataError: The maps are empty, of another shape, not finite, or smaller than the grid.
    """
    maps = _check(anomaly_maps)
    if not 0 <= percentile <= 100:
        raise ConfigError(f"expected a percentile from 0 to 100, found {percentile}; 99.5 is usual")
    rows, columns = zone_index(maps.shape[1], grid), zone_index(maps.shape[2], grid)
    return np.array(
        [
            [
                np.percentile(maps[:, rows == row][:, :, columns == column], percentile)
                for column in range(grid)
            ]
            for row in range(grid)
        ]
    )


def apply_zone_thresholds(anomaly_maps: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """The anomalous pixels: those whose score is at least the threshold of their zone.

    Args:
        anomaly_maps: ``(N, H, W)``.
        thresholds: ``(grid, grid)``, see ``zone_thresholds``.

    Returns:
        ``(N, H, W)`` bool.

    Raises:
        DataError: The maps or the thresholds have another shape, or a map is not finite.
    """
    maps, thresholds = _check(anomaly_maps), np.asarray(thresholds, dtype=np.float64)
    if thresholds.ndim != 2 or thresholds.shape[0] != thresholds.shape[1]:
        raise DataError(
            f"expected thresholds (grid, grid), found {thresholds.shape}; take those of "
            "zone_thresholds"
        )
    rows = zone_index(maps.shape[1], len(thresholds))
    columns = zone_index(maps.shape[2], len(thresholds))
    return maps >= thresholds[rows[:, None], columns]  # (H, W), the same for each image


def compare_zones(
    val_maps_good: ArrayLike,
    test_maps: ArrayLike,
    test_masks: ArrayLike,
    *,
    grid: int = 3,
    percentile: float = 99.5,
) -> dict[str, dict[str, float]]:
    """Thresholds per zone against one threshold, on test maps.

    Unlike ``pixel_f1`` of the metrics, neither has seen the test images.

    Args:
        val_maps_good: ``(N, H, W)`` maps of good validation images.
        test_maps: ``(M, H, W)``.
        test_masks: ``(M, H, W)``, 0 or 1.
        grid: Number of zones along each side.
        percentile: Percentile of the validation pixels that becomes the threshold.

    Returns:
        f1, precision, recall and iou of the pixels, by ``zones`` (grid x grid thresholds) and by
        ``single`` (one threshold).

    Raises:
        ConfigError: See ``zone_thresholds``.
        DataError: See ``zone_thresholds`` and ``metrics.check_maps``.
    """
    defect = check_maps(test_maps, test_masks)
    results = {}
    for name, side in (("zones", grid), ("single", 1)):
        flagged = apply_zone_thresholds(test_maps, zone_thresholds(val_maps_good, side, percentile))
        tp = int((flagged & defect).sum())
        fp = int((flagged & ~defect).sum())
        fn = int((~flagged & defect).sum())
        rates = confusion_rates(tp=tp, tn=0, fp=fp, fn=fn)
        results[name] = {rate: float(rates[rate]) for rate in ZONE_RATES}
        results[name]["iou"] = tp / (tp + fp + fn)
    return results


def _check(anomaly_maps: ArrayLike) -> Array:
    """Maps as a float64 array; DataError where they are empty, of another shape or not finite."""
    maps = np.asarray(anomaly_maps, dtype=np.float64)
    if maps.ndim != 3 or maps.size == 0 or not np.isfinite(maps).all():
        raise DataError(
            f"expected finite anomaly maps (N, H, W), found shape {maps.shape} with "
            f"{int((~np.isfinite(maps)).sum())} values that are not finite; pass the anomaly_maps "
            "of one Predictions"
        )
    return maps
