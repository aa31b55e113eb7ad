"""Thresholds per zone: uneven sizes, percentiles and pixel rates by hand, agreement with a
pixel-by-pixel loop.
"""

import numpy as np
import pytest

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.thresholds.zones import (
    apply_zone_thresholds,
    compare_zones,
    zone_index,
    zone_thresholds,
)


@pytest.mark.parametrize(
    ("size", "grid", "zones"),
    [(6, 3, [0, 0, 1, 1, 2, 2]), (7, 3, [0, 0, 0, 1, 1, 2, 2]), (3, 3, [0, 1, 2]), (5, 1, [0] * 5)],
)
def test_zone_of_each_pixel(size, grid, zones):
    assert zone_index(size, grid).tolist() == zones


@pytest.mark.parametrize("size", [3, 64, 100, 224, 227])
def test_zones_differ_by_one_pixel_at_most(size):
    counts = np.bincount(zone_index(size, 3))
    assert counts.size == 3 and counts.max() - counts.min() <= 1


def test_thresholds_by_hand():
    """Two 2x2 maps, four zones of one pixel: the median of two values each."""
    maps = [[[0.0, 1.0], [2.0, 3.0]], [[10.0, 3.0], [2.0, 5.0]]]
    assert zone_thresholds(maps, grid=2, percentile=50).tolist() == [[5.0, 2.0], [2.0, 4.0]]
    assert zone_thresholds(maps, grid=2, percentile=100).tolist() == [[10.0, 3.0], [2.0, 5.0]]
    assert zone_thresholds(maps, grid=1, percentile=50).tolist() == [[2.5]]  # 0 1 2 2 3 3 5 10


def test_uneven_zones_are_those_of_a_slow_loop():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 7, 11)).astype(np.float32)
    results = zone_thresholds(maps, grid=3, percentile=90)
    flagged = apply_zone_thresholds(maps, results)
    assert results.shape == (3, 3) and flagged.shape == maps.shape and flagged.dtype == bool
    for row in range(3):
        for column in range(3):
            pixels = [
                (i, j)
                for i in range(7)
                for j in range(11)
                if i * 3 // 7 == row and j * 3 // 11 == column
            ]
            zone = np.array([maps[:, i, j] for i, j in pixels], dtype=np.float64).T  # (N, pixels)
            assert results[row, column] == pytest.approx(np.percentile(zone, 90), rel=1e-12)
            assert (
                np.array([flagged[:, i, j] for i, j in pixels]).T.tolist()
                == (zone >= results[row, column]).tolist()
            )


def test_a_score_on_the_threshold_is_anomalous():
    assert apply_zone_thresholds([[[1.0, 2.0], [3.0, 4.0]]], [[1.0, 3.0], [2.9, 4.1]]).tolist() == [
        [[True, False], [True, False]]
    ]


def test_equal_zones_are_one_threshold():
    maps = np.random.default_rng(1).normal(size=(3, 10, 8))
    assert (apply_zone_thresholds(maps, np.full((3, 3), 0.4)) == decide(maps, 0.4)).all()


def test_a_quiet_zone_pays():
    """Good pixels at 0 on the left, at 10 on the right; a defect of 5 on the left, which one
    threshold cannot see.
    """
    good = np.tile([0.0, 10.0], (2, 2, 1))  # (2, 2, 2)
    val = np.concatenate([good, good + 0.5])  # medians 0.25 and 10.25, of all pixels 5.25
    test, masks = good.copy(), np.zeros((2, 2, 2), dtype=np.uint8)
    test[0, 0, 0], masks[0, 0, 0] = 5.0, 1
    results = compare_zones(val, test, masks, grid=2, percentile=50)
    assert results["zones"] == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "iou": 1.0}
    assert results["single"] == {
        "f1": 0.0,
        "precision": 0.0,
        "recall": 0.0,
        "iou": 0.0,
    }  # flags the four at 10


def test_rates_by_hand():
    """Threshold 1 everywhere; 3 pixels flagged, 2 of them of the 4 defect pixels: F1 4/7, IoU 2/5."""
    val = np.ones((1, 3, 3))
    test, masks = np.zeros((1, 3, 3)), np.zeros((1, 3, 3), dtype=np.uint8)
    test[0, 0] = 2.0
    masks[0, :2, :2] = 1
    expected = pytest.approx({"f1": 4 / 7, "precision": 2 / 3, "recall": 0.5, "iou": 0.4})
    results = compare_zones(val, test, masks)
    assert results == {"zones": expected, "single": expected}


@pytest.mark.parametrize(
    "maps", [np.zeros((4, 4)), np.zeros((0, 4, 4)), np.full((1, 4, 4), np.nan)]
)
def test_maps_that_do_not_fit_are_refused(maps):
    with pytest.raises(DataError, match="finite anomaly maps"):
        zone_thresholds(maps)
    with pytest.raises(DataError, match="finite anomaly maps"):
        apply_zone_thresholds(maps, np.ones((3, 3)))


def test_settings_that_do_not_fit_are_refused():
    maps = np.zeros((1, 2, 4))
    with pytest.raises(DataError, match="at least 3 pixels .* found 2"):
        zone_thresholds(maps)
    with pytest.raises(ConfigError, match="found 0"):
        zone_thresholds(maps, grid=0)
    with pytest.raises(ConfigError, match="percentile from 0 to 100"):
        zone_thresholds(maps, grid=1, percentile=101)
    with pytest.raises(DataError, match=r"found \(2, 3\)"):
        apply_zone_thresholds(np.zeros((1, 6, 6)), np.ones((2, 3)))
    with pytest.raises(DataError, match="normal and defect pixels"):
        compare_zones(maps, np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), grid=2)
