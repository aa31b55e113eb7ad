"""Metrics against hand-worked values, scikit-learn, anomalib's AUPRO and a slow loop over regions."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from nbhelpers.errors import DataError
from nbhelpers.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    curve_metrics,
    decide,
    image_metrics,
    pixel_metrics,
)


def heavy_tailed(seed=0, images=12, side=40, digits=None):
    """Maps whose defects score up to thousands, some images good, regions of many sizes."""
    rng = np.random.default_rng(seed)
    maps, masks = (
        rng.lognormal(0, 0.7, (images, side, side)),
        np.zeros((images, side, side), np.uint8),
    )
    for i in range(images * 2 // 3):
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, side - 12, 2)
            h, w = rng.integers(1, 12, 2)
            masks[i, y : y + h, x : x + w] = 1
        maps[i] += masks[i] * abs(rng.standard_cauchy()) * rng.lognormal(0, 1, (side, side))
    if digits is not None:
        maps = np.round(maps, digits)  # many ties, also between normal and defect pixels
    return maps.astype(np.float32), masks


def slow_aupro(maps, masks, limit):
    """AUPRO by its definition: each threshold, each region found by flood fill over 8 neighbours."""
    regions = []
    for i, mask in enumerate(masks):
        left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
        while left:
            component, edge = set(), [left.pop()]
            while edge:
                y, x = edge.pop()
                component.add((y, x))
                near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
                left -= near
                edge += near
            regions.append(np.array([maps[i, y, x] for y, x in component]))
    normal = maps[masks == 0]
    thresholds = np.unique(maps)[::-1]
    fpr = np.array([0.0] + [(normal >= t).mean() for t in thresholds])
    pro = np.array(
        [0.0] + [np.mean([(region >= t).mean() for region in regions]) for t in thresholds]
    )
    x = np.unique(np.append(fpr[fpr <= limit], limit))
    area = 0.0
    for a, b in zip(x[:-1], x[1:], strict=True):
        start = pro[fpr <= a][-1]  # the highest overlap that is reached at this rate
        after = np.flatnonzero(fpr > a)[0]
        end = start + (pro[after] - start) * (b - a) / (fpr[after] - a)
        area += (b - a) * (start + end) / 2
    return area / limit, len(regions)


def test_image_metrics_by_hand():
    labels, scores = [0, 0, 0, 1, 1], [0.1, 0.4, 0.6, 0.5, 0.9]
    m = image_metrics(labels, scores, 0.5)
    assert {name: m[name] for name in ("tp", "tn", "fp", "fn")} == {
        "tp": 2,
        "tn": 2,
        "fp": 1,
        "fn": 0,
    }
    assert m["specificity"] == pytest.approx(2 / 3)
    assert m["precision"] == pytest.approx(2 / 3)
    assert m["recall"] == 1
    assert m["f1"] == pytest.approx(0.8)
    assert m["accuracy"] == pytest.approx(0.8)
    assert m["balanced_accuracy"] == pytest.approx(5 / 6)
    assert m["image_auroc"] == pytest.approx(5 / 6)  # of six pairs, only 0.5 against 0.6 is wrong
    assert m["image_ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert m["trivial_f1"] == pytest.approx(4 / 7)
    assert m["f1_max"] == pytest.approx(0.8)
    assert set(IMAGE_METRICS) < set(m)


def test_published_trivial_baselines():
    """Everything anomalous on the reference study's test sets (good, defect) gives .710, .818,
    .840.
    """
    for good, defect, expected in ((40, 49, 0.710), (28, 63, 0.818), (32, 84, 0.840)):
        labels = np.r_[np.zeros(good), np.ones(defect)]
        m = image_metrics(labels, np.arange(labels.size), -1.0)
        assert m["f1"] == m["trivial_f1"] == pytest.approx(expected, abs=5e-4)
        assert m["specificity"] == 0 and m["balanced_accuracy"] == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_kernel_equals_sklearn_on_ties(seed):
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 2, 200), rng.integers(0, 15, 200)
    descending = [(scores == s) for s in np.unique(scores)[::-1]]
    curve = curve_metrics(
        [labels[b].sum() for b in descending], [(1 - labels[b]).sum() for b in descending]
    )
    assert curve["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert curve["ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    m = image_metrics(labels, scores, 7)
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert m["f1_max"] == curve["f1"] == pytest.approx(best, abs=1e-12)


def test_nothing_flagged_has_zero_rates():
    m = image_metrics([0, 1], [0.0, 1.0], 2.0)
    assert (m["precision"], m["recall"], m["f1"], m["specificity"]) == (0, 0, 0, 1)


def test_decision_is_at_or_above_and_in_float64():
    assert decide([1.0, 2.0], 2.0).tolist() == [False, True]
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2))
    middle = (float(low) + float(high)) / 2
    scores = np.array([low, high])
    assert (scores >= middle).tolist() == [
        True,
        True,
    ]  # numpy rounds the threshold onto the lower score
    assert decide(scores, middle).tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([1, 1], [0.1, 0.2], "0 good and 2 defect"),
        ([0, 0, 0], [0.1, 0.2, 0.3], "3 good and 0 defect"),
        ([], [], "one label and one score"),
        ([0, 1], [0.1, np.nan], "position 1"),
        ([0, 1], [np.inf, 0.1], "position 0"),
        ([0, 2], [0.1, 0.2], "labels 0"),
        ([0, 1], [0.1], "one label and one score"),
    ],
)
def test_bad_scores_are_refused(labels, scores, words):
    with pytest.raises(DataError, match=words):
        image_metrics(labels, scores, 0.5)


def test_bad_threshold_is_refused():
    with pytest.raises(DataError, match="finite threshold"):
        image_metrics([0, 1], [0.1, 0.2], float("nan"))


@pytest.mark.parametrize("digits", [None, 1, 0])
def test_pixel_metrics_equal_sklearn(digits):
    maps, masks = heavy_tailed(digits=digits)
    m = pixel_metrics(maps, masks)
    truth, score = masks.ravel(), maps.ravel()
    assert m["pixel_auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-9)
    assert m["pixel_ap"] == pytest.approx(average_precision_score(truth, score), abs=1e-9)
    precision, recall, _ = precision_recall_curve(truth, score)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    assert m["pixel_f1"] == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("seed", "digits"), [(1, None), (2, 1), (3, 0)])
def test_aupro_equals_the_slow_definition(seed, digits):
    maps, masks = heavy_tailed(seed, images=6, side=16, digits=digits)
    m = pixel_metrics(maps, masks)
    for name, limit in (("aupro", 0.3), ("aupro_005", 0.05)):
        expected, regions = slow_aupro(maps, masks, limit)
        assert m[name] == pytest.approx(expected, abs=1e-9)
        assert m["regions"] == regions


@pytest.mark.parametrize("digits", [None, 1])
def test_aupro_equals_anomalib(digits):
    import torch
    from anomalib.metrics.aupro import _AUPRO

    maps, masks = heavy_tailed(5, images=20, side=64, digits=digits)
    m = pixel_metrics(maps, masks)
    for name, limit in (("aupro", 0.3), ("aupro_005", 0.05)):
        metric = _AUPRO(fpr_limit=limit)
        metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
        assert m[name] == pytest.approx(metric.compute().item(), abs=1e-5)


def test_aupro_ramp_by_hand():
    """Ten normal pixels tied with a one-pixel region: PRO rises as FPR does, so the area to 0.3 is
    0.15.
    """
    masks = np.zeros((1, 1, 11), np.uint8)
    masks[0, 0, 4] = 1
    m = pixel_metrics(np.ones((1, 1, 11), np.float32), masks)
    assert m["aupro"] == pytest.approx(0.15)
    assert m["aupro_005"] == pytest.approx(0.025)
    assert m["pixel_auroc"] == 0.5
    assert m["pixel_ap"] == pytest.approx(1 / 11)
    # One of 5 normals above the defect, four below: FPR 0.2 is reached before any overlap, then PRO
    # is 1, so (0.3 - 0.2) / 0.3 of the area is left, and nothing of it below 0.05.
    masks = np.array([[[0, 1, 0, 0, 0, 0]]], np.uint8)
    m = pixel_metrics(np.array([[[9.0, 5.0, 4.0, 3.0, 2.0, 1.0]]], np.float32), masks)
    assert m["aupro"] == pytest.approx(1 / 3)
    assert m["aupro_005"] == 0
    # One of 5 normals tied with the defect: PRO climbs 0 to 1 over FPR 0 to 0.2, then stays:
    # (0.2 / 2 + 0.1) / 0.3 = 2/3; to 0.05 it has climbed to 1/4: mean 1/8.
    m = pixel_metrics(np.array([[[5.0, 5.0, 4.0, 3.0, 2.0, 1.0]]], np.float32), masks)
    assert m["aupro"] == pytest.approx(2 / 3)
    assert m["aupro_005"] == pytest.approx(1 / 8)


def test_regions_count_alike_and_touch_by_corners():
    """A region of 1 pixel weighs as one of 9; pixels that meet at a corner are one region."""
    maps, masks = np.zeros((1, 12, 12), np.float32), np.zeros((1, 12, 12), np.uint8)
    masks[0, 1:4, 1:4] = 1
    masks[0, 8, 8] = 1
    maps[0, 1:4, 1:4] = 1  # the large one found at once, the small one not before everything
    m = pixel_metrics(maps, masks)
    assert m["regions"] == 2
    # At FPR 0 the overlap is 1/2; the rest is tied with the small region, so PRO = 1/2 + FPR / 2.
    assert m["aupro"] == pytest.approx(0.5 + 0.15 / 2)
    masks[0, 4, 4] = 1
    assert pixel_metrics(maps, masks)["regions"] == 2


def test_perfect_maps_are_exactly_one():
    _, masks = heavy_tailed(7)
    m = pixel_metrics(masks + np.float32(0.5), masks)
    assert all(m[name] == 1.0 for name in PIXEL_METRICS)


def test_good_images_count_for_the_false_positive_rate():
    """Dropping the good images changes the metric, so they are part of the protocol."""
    maps, masks = heavy_tailed(3)
    maps[masks.sum(axis=(1, 2)) == 0] *= 3  # false alarms on good images only
    seen = masks.any(axis=(1, 2))
    assert (
        pixel_metrics(maps, masks)["aupro"] < pixel_metrics(maps[seen], masks[seen])["aupro"] - 0.01
    )


def test_rank_metrics_ignore_monotone_rescaling():
    maps, masks = heavy_tailed(4)
    a, b = pixel_metrics(maps, masks), pixel_metrics(np.sqrt(maps.astype(np.float64)), masks)
    assert all(a[name] == pytest.approx(b[name], abs=1e-12) for name in PIXEL_METRICS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda maps, masks: (maps, masks * 0), "0 defect"),
        (lambda maps, masks: (maps, masks * 0 + 1), "0 normal"),
        (lambda maps, masks: (maps, masks[:, :-1]), "one shape"),
        (lambda maps, masks: (maps, masks * 255), "0 and 1"),
        (lambda maps, masks: (np.where(maps == maps[3, 2, 1], np.nan, maps), masks), "map 3"),
    ],
)
def test_bad_maps_are_refused(change, words):
    with pytest.raises(DataError, match=words):
        pixel_metrics(*change(*heavy_tailed()))
