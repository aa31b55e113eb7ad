"""Masks of defects from anomaly maps: one threshold for all images, small regions dropped."""

from __future__ import annotations

import cv2
import numpy as np

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import decide


def pixel_threshold(good_maps: np.ndarray, pixel_percentile: float) -> float:
    """The level that ``pixel_percentile`` percent of the pixels of good images stay below.

    Args:
        good_maps: ``(N, H, W)`` maps of good validation images; all images share the level.
        pixel_percentile: In (0, 100).

    Returns:
        The level, in the unit of the maps.

    Raises:
        ConfigError: The percentile is out of range.
        DataError: There is no map.
    """
    if not 0 < pixel_percentile < 100:
        raise ConfigError(
            f"pixel_percentile: expected a number in (0, 100), found {pixel_percentile}; 99.5 is "
            "usual"
        )
    if good_maps.size == 0:
        raise DataError(
            "pixel threshold: expected maps of good validation images, found none; check the split"
        )
    return float(np.percentile(good_maps, pixel_percentile))


def binary_mask(anomaly_map: np.ndarray, threshold: float, min_area: int) -> np.ndarray:
    """The mask of the pixels where an anomaly map reaches its threshold.

    Args:
        anomaly_map: ``(H, W)``.
        threshold: In the unit of the map, from good images (``pixel_threshold``). A threshold that
            is taken from the map itself finds a defect in every image.
        min_area: Regions (8-connected) of fewer pixels are dropped.

    Returns:
        ``(H, W)`` uint8, 0 or 1.
    """
    mask = decide(anomaly_map, threshold).astype(np.uint8)
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = statistics[:, cv2.CC_STAT_AREA] >= min_area
    kept[0] = False  # region 0 lies below the threshold
    return kept[regions].astype(np.uint8)
