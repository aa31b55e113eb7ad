"""Thresholds per image zone: does a grid of pixel thresholds find defects better than one for the
whole image?

Normal pixels of a seam or a border score higher than those of a plain field. A threshold for each
zone of a grid, from the good val images, is blind to none of them; whether it pays is measured
against one threshold of the same percentile.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import check_maps, confusion_rates

Array = NDArray[np.float64]
ZONE_RATES = ("f1", "precision", "recall")


def zone_index(size: int, grid: int) -> NDArray[np.int64]:
    """The zone (size,), 0 to grid - 1, of each pixel along one side; sizes differ by one where grid
    does not divide.

    Raises DataError for fewer pixels than zones, ConfigError for a grid below 1.
    """
    if grid < 1:
        raise ConfigError(f"expected a grid of at least 1 zone a side, found {grid}; 3 is usual")
    if size < grid:
        raise DataError(
            f"expected at least {grid} pixels a side for {grid} zones, found {size}; use a smaller grid"
        )
    return np.arange(size) * grid // size


def zone_thresholds(anomaly_maps: ArrayLike, grid: int = 3, percentile: float = 99.5) -> Array:
    """The percentile of the pixel scores in each zone, (grid, grid), over maps (N, H, W) of good
    val images.

    In the unit of the maps. Raises DataError for maps that are empty, of another shape or not
    finite, or smaller than the grid; ConfigError for a percentile outside [0, 100] or a grid below
    1.
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
    """Anomalous pixels (N, H, W) of maps (N, H, W): score >= the threshold (grid, grid) of the
    pixel's zone.
    """
    maps, thresholds = _check(anomaly_maps), np.asarray(thresholds, dtype=np.float64)
    if thresholds.ndim != 2 or thresholds.shape[0] != thresholds.shape[1]:
        raise DataError(
            f"expected thresholds (grid, grid), found {thresholds.shape}; take those of zone_thresholds"
        )
    rows, columns = (
        zone_index(maps.shape[1], len(thresholds)),
        zone_index(maps.shape[2], len(thresholds)),
    )
    return maps >= thresholds[rows[:, None], columns]  # (H, W), the same for each image


def compare_zones(
    val_maps_good: ArrayLike,
    test_maps: ArrayLike,
    test_masks: ArrayLike,
    *,
    grid: int = 3,
    percentile: float = 99.5,
) -> dict[str, dict[str, float]]:
    """Pixel f1, precision, recall and iou on test maps and 0/1 masks (M, H, W), by `zones` and by
    `single`.

    `zones`: grid x grid thresholds from the maps (N, H, W) of good val images; `single`: one
    threshold, the same percentile of the same pixels. Unlike `pixel_f1` of the metrics neither has
    seen the test images. Raises as `zone_thresholds` and `metrics.check_maps` do.
    """
    defect = check_maps(test_maps, test_masks)
    found = {}
    for name, side in (("zones", grid), ("single", 1)):
        flagged = apply_zone_thresholds(test_maps, zone_thresholds(val_maps_good, side, percentile))
        tp, fp, fn = (
            int((flagged & defect).sum()),
            int((flagged & ~defect).sum()),
            int((~flagged & defect).sum()),
        )
        rates = confusion_rates(tp=tp, tn=0, fp=fp, fn=fn)
        found[name] = {rate: float(rates[rate]) for rate in ZONE_RATES} | {
            "iou": tp / (tp + fp + fn)
        }
    return found


def _check(anomaly_maps: ArrayLike) -> Array:
    maps = np.asarray(anomaly_maps, dtype=np.float64)
    if maps.ndim != 3 or maps.size == 0 or not np.isfinite(maps).all():
        raise DataError(
            f"expected finite anomaly maps (N, H, W), found shape {maps.shape} with "
            f"{int((~np.isfinite(maps)).sum())} values that are not finite; pass the anomaly_maps of one Predictions"
        )
    return maps
