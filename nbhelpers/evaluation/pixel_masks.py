"""Masks of defects from anomaly maps: one threshold for all images, small regions dropped."""

from __future__ import annotations

import cv2
import numpy as np

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import decide


def pixel_threshold(good_maps: np.ndarray, pixel_percentile: float) -> float:
    """The level that ``pixel_percentile`` % of the pixels of good images stay below, in the maps'
    unit.

    Args:
        good_maps: ``(N, H, W)`` maps of validation normals; all images share the level (FEATURES
            P31).
        pixel_percentile: In (0, 100).

    Raises:
        ConfigError: a percentile out of range.
        DataError: no map.
    """
    if not 0 < pixel_percentile < 100:
        raise ConfigError(
            f"pixel_percentile: expected a number in (0, 100), found {pixel_percentile}; 99.5 is usual"
        )
    if good_maps.size == 0:
        raise DataError(
            "pixel threshold: expected maps of good validation images, found none; check the split"
        )
    return float(np.percentile(good_maps, pixel_percentile))


def binary_mask(anomaly_map: np.ndarray, threshold: float, min_area: int) -> np.ndarray:
    """Where an anomaly map is at its threshold or above, ``(H, W)`` uint8, 0 or 1.

    Args:
        anomaly_map: ``(H, W)``.
        threshold: In the map's unit, from good images (``pixel_threshold``): one taken from the map
            itself, after scaling it to its own range, finds a defect in every image (FEATURES P31).
        min_area: Regions (8-connected) of fewer pixels are dropped.
    """
    mask = decide(anomaly_map, threshold).astype(np.uint8)
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = statistics[:, cv2.CC_STAT_AREA] >= min_area
    kept[0] = False  # what is below the threshold
    return kept[regions].astype(np.uint8)
