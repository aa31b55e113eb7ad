"""Bootstrap intervals: agreement with a plain loop, coverage, invariants; score statistics by hand."""

import math

import numpy as np
import pytest

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import (
    image_draws,
    percentile_interval,
    pixel_draws,
    score_histograms,
    score_summary,
    stratified_weights,
)
from nbhelpers.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    curve_metrics,
    image_metrics,
    pixel_metrics,
)


def bootstrap_image(labels, scores, threshold, level=0.95, **size):
    return {
        name: percentile_interval(v, level)
        for name, v in image_draws(labels, scores, threshold, **size).items()
    }


def bootstrap_pixel(maps, masks, level=0.95, **size):
    return {
        name: percentile_interval(v, level) for name, v in pixel_draws(maps, masks, **size).items()
    }


def bootstrap_difference(labels, scores_a, threshold_a, scores_b, threshold_b, seed):
    """b minus a, image by image: the same seed and labels give the same resamples."""
    a, b = (
        image_draws(labels, scores_a, threshold_a, seed=seed),
        image_draws(labels, scores_b, threshold_b, seed=seed),
    )
    return {name: percentile_interval(b[name] - a[name]) for name in a}


def gaussian(seed, good, defect, gap=1.0):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.zeros(good, int), np.ones(defect, int)]
    return labels, rng.standard_normal(labels.size) + gap * labels


def realistic(seed=0, images=40, side=64):
    """Heavy-tailed, smooth maps: each image has its own level, each defect its own (Cauchy)
    strength.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((images, side + 4, side + 4))
    smooth = sum(noise[:, i : i + side, j : j + side] for i in range(5) for j in range(5)) / 5
    maps = np.exp(0.6 * smooth) * rng.lognormal(0, 0.3, (images, 1, 1))
    masks = np.zeros(maps.shape, np.uint8)
    for i in range(0, images, 2):
        for _ in range(rng.integers(1, 3)):
            y, x = rng.integers(0, side - 20, 2)
            h, w = rng.integers(2, 20, 2)
            masks[i, y : y + h, x : x + w] = 1
        maps[i] += masks[i] * abs(rng.standard_cauchy()) * 2 * maps[i]
    return maps.astype(np.float32), masks


def test_every_draw_keeps_both_counts():
    labels = np.array([0, 1, 0, 0, 1, 0, 1])
    weights = stratified_weights(labels, 200, seed=3)
    assert weights.shape == (200, 7)
    assert (weights[:, labels == 1].sum(axis=1) == 3).all()
    assert (weights[:, labels == 0].sum(axis=1) == 4).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.25)
    assert weights.max() > 1  # with replacement
    assert (stratified_weights([0, 1], 5, seed=0) == 1).all()


def test_image_draws_equal_a_plain_loop():
    """Each draw is what image_metrics says of the very resample, ties included."""
    rng = np.random.default_rng(1)
    labels, scores = gaussian(0, 17, 12)
    for values in (scores, rng.integers(0, 5, 29).astype(float)):
        fast = image_draws(labels, values, 0.8, draws=20, seed=4)
        weights = stratified_weights(labels, 20, seed=4).astype(int)
        for row in range(20):
            slow = image_metrics(
                np.repeat(labels, weights[row]), np.repeat(values, weights[row]), 0.8
            )
            for name in IMAGE_METRICS:
                assert fast[name][row] == pytest.approx(slow[name], abs=1e-12), name


def test_pixel_draws_equal_a_plain_loop():
    maps, masks = realistic(2, images=10, side=32)
    fast = pixel_draws(maps, masks, draws=8, seed=5)
    weights = stratified_weights(masks.any(axis=(1, 2)), 8, seed=5).astype(int)
    for row in range(8):
        slow = pixel_metrics(
            np.repeat(maps, weights[row], axis=0), np.repeat(masks, weights[row], axis=0)
        )
        for name in PIXEL_METRICS:
            assert fast[name][row] == pytest.approx(slow[name], abs=1e-3), name


@pytest.mark.parametrize("seed", range(3))
def test_grid_agrees_with_the_exact_metrics(seed):
    maps, masks = realistic(seed)
    exact = pixel_metrics(maps, masks)
    histograms = score_histograms(maps, masks)
    grid = curve_metrics(*(h.sum(axis=0) for h in histograms))
    for name in PIXEL_METRICS:
        assert grid[name.removeprefix("pixel_")] == pytest.approx(exact[name], abs=1e-3), name
    defect, normal, regions = histograms
    assert defect.sum() == masks.sum() and normal.sum() == (1 - masks).sum()
    assert (defect.sum(axis=1) == masks.sum(axis=(1, 2))).all()
    assert regions.sum() == pytest.approx(exact["regions"])


@pytest.mark.parametrize("seed", range(5))
def test_image_interval_contains_the_point(seed):
    labels, scores = gaussian(seed, 25, 20, gap=1.5)
    point, intervals = (
        image_metrics(labels, scores, 0.7),
        bootstrap_image(labels, scores, 0.7, seed=seed),
    )
    assert tuple(intervals) == IMAGE_METRICS
    for name, (low, high) in intervals.items():
        assert 0 <= low <= point[name] <= high <= 1, name
        assert (low < high) == (name != "trivial_f1")  # the trivial F1 hangs on the counts alone


@pytest.mark.parametrize("seed", range(3))
def test_pixel_interval_contains_the_point(seed):
    maps, masks = realistic(seed)
    point, intervals = pixel_metrics(maps, masks), bootstrap_pixel(maps, masks, seed=seed)
    assert tuple(intervals) == PIXEL_METRICS
    for name, (low, high) in intervals.items():
        assert 0 <= low < point[name] < high <= 1, name


def test_perfect_scores_have_no_width():
    labels = np.r_[np.zeros(9), np.ones(6)]
    intervals = bootstrap_image(labels, labels + 0.5, 1.0, seed=0)
    assert intervals["image_auroc"] == intervals["image_ap"] == intervals["f1"] == (1.0, 1.0)
    _, masks = realistic(1)
    noise = np.random.default_rng(0).random(masks.shape)
    intervals = bootstrap_pixel((noise + 2 * masks).astype(np.float32), masks, draws=100, seed=0)
    assert set(intervals.values()) == {(1.0, 1.0)}


def test_width_shrinks_with_the_square_root_of_n():
    def width(n):
        low, high = bootstrap_image(*gaussian(0, n, n), 0.5, seed=0)["image_auroc"]
        return high - low

    assert width(25) / width(400) == pytest.approx(4, rel=0.35)


def test_pixel_intervals_treat_images_as_clusters():
    """Each image twice is no new knowledge about pixels of an image: its width falls by sqrt(2)
    only.

    Drawing pixels instead of images would give intervals narrower by an order.
    """
    maps, masks = realistic(0, images=20)
    low, high = bootstrap_pixel(maps, masks, seed=0)["pixel_auroc"]
    positives, negatives = masks.sum(), (1 - masks).sum()
    independent = (
        2 * 1.96 * np.sqrt(0.25 / min(positives, negatives))
    )  # at most, of pixels drawn alone
    assert high - low > 2 * independent
    twice = bootstrap_pixel(np.repeat(maps, 2, axis=0), np.repeat(masks, 2, axis=0), seed=0)[
        "pixel_auroc"
    ]
    assert (high - low) / (twice[1] - twice[0]) == pytest.approx(math.sqrt(2), rel=0.2)


def test_coverage_of_the_auroc_is_about_nominal():
    truth = 0.5 * (1 + math.erf(0.5))  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt(2))
    hits = 0
    for seed in range(100):
        labels, scores = gaussian(seed, 40, 40)
        low, high = bootstrap_image(labels, scores, 0.5, draws=400, seed=seed)["image_auroc"]
        hits += low <= truth <= high
    assert 88 <= hits <= 99


def test_same_seed_same_interval():
    labels, scores = gaussian(0, 20, 20)
    a, b, c = (bootstrap_image(labels, scores, 0.5, seed=seed) for seed in (7, 7, 8))
    assert a == b != c
    maps, masks = realistic(0, images=8)
    a, b, c = (bootstrap_pixel(maps, masks, draws=50, seed=seed) for seed in (7, 7, 8))
    assert a == b != c


def test_chunks_do_not_change_the_draws(monkeypatch):
    labels, scores = gaussian(0, 20, 20)
    maps, masks = realistic(0, images=8)
    whole = (
        image_draws(labels, scores, 0.5, draws=30, seed=0),
        pixel_draws(maps, masks, draws=30, seed=0),
    )
    monkeypatch.setattr("nbhelpers.evaluation.bootstrap.CHUNK_VALUES", 7)
    parts = (
        image_draws(labels, scores, 0.5, draws=30, seed=0),
        pixel_draws(maps, masks, draws=30, seed=0),
    )
    for a, b in zip(whole, parts, strict=True):
        assert all(a[name] == pytest.approx(b[name], abs=1e-12) for name in a)


def test_level_and_percentiles_by_hand():
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    labels, scores = gaussian(1, 30, 30)
    wide = bootstrap_image(labels, scores, 0.5, level=0.99, seed=0)["image_auroc"]
    narrow = bootstrap_image(labels, scores, 0.5, level=0.5, seed=0)["image_auroc"]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_two_good_images_by_hand():
    """Good 0 and 1, defects 0.5 twice: a draw's AUROC is the share of draws of the good 0: 0, 1/2
    or 1.
    """
    draws = image_draws([0, 0, 1, 1], [0.0, 1.0, 0.5, 0.5], 0.4, draws=4000, seed=0)["image_auroc"]
    values, counts = np.unique(draws, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_pairing_narrows_the_difference():
    labels, scores = gaussian(0, 40, 40)
    shifted = scores + 0.1 * np.random.default_rng(9).standard_normal(80)
    paired = bootstrap_difference(labels, scores, 0.5, shifted, 0.5, seed=0)["image_auroc"]
    low, high = bootstrap_image(labels, scores, 0.5, seed=0)["image_auroc"]
    assert paired[1] - paired[0] < (high - low) / 3
    same = bootstrap_difference(labels, scores, 0.5, scores, 0.5, seed=0)
    assert set(same.values()) == {(0.0, 0.0)}


def test_difference_is_b_minus_a():
    labels, good = gaussian(0, 60, 60, gap=3.0)
    _, bad = gaussian(1, 60, 60, gap=0.3)
    low, high = bootstrap_difference(labels, good, 1.5, bad, 1.5, seed=0)["image_auroc"]
    point = (
        image_metrics(labels, bad, 1.5)["image_auroc"]
        - image_metrics(labels, good, 1.5)["image_auroc"]
    )
    assert low < point < high < 0


def test_a_threshold_a_resample_by_hand():
    """Good 0 and 1, defects 2 and 3; above 2.5 one defect is missed, or both or none where it is
    drawn twice.
    """
    labels, scores = [0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0]
    fixed = image_draws(labels, scores, 1.5, draws=50, seed=0)
    assert (fixed["recall"] == 1).all() and (fixed["specificity"] == 1).all()
    moved = image_draws(labels, scores, np.where(np.arange(50) < 25, 1.5, 9.0), draws=50, seed=0)
    assert (moved["recall"][:25] == 1).all() and (moved["recall"][25:] == 0).all()
    np.testing.assert_array_equal(moved["image_auroc"], fixed["image_auroc"])  # needs no threshold
    missed = image_draws(labels, scores, np.full(50, 2.5), draws=50, seed=0)
    assert set(missed["recall"]) == {0, 0.5, 1} and (missed["specificity"] == 1).all()


def test_one_class_and_no_masks_are_refused():
    with pytest.raises(DataError, match="0 defect"):
        bootstrap_image([0, 0], [0.1, 0.2], 0.5, seed=0)
    maps, masks = realistic(0, images=4)
    with pytest.raises(DataError, match="0 defect"):
        bootstrap_pixel(maps, masks * 0, seed=0)


def test_only_defect_images_still_have_pixel_intervals():
    maps, masks = realistic(0)
    seen = masks.any(axis=(1, 2))
    low, high = bootstrap_pixel(maps[seen], masks[seen], seed=0)["aupro"]
    assert low < pixel_metrics(maps[seen], masks[seen])["aupro"] < high


def test_score_summary_by_hand():
    summary = score_summary([0, 0, 0, 0, 1, 1, 1], [1.0, 2.0, 3.0, 6.0, 5.0, 7.0, 9.0])
    assert (summary["good_n"], summary["good_mean"], summary["good_min"], summary["good_max"]) == (
        4,
        3,
        1,
        6,
    )
    assert summary["good_std"] == pytest.approx(math.sqrt(14 / 3))
    assert summary["good_skew"] == pytest.approx((18 / 4) / (14 / 4) ** 1.5)  # deviations -2 -1 0 3
    assert summary["good_kurtosis"] == pytest.approx((98 / 4) / (14 / 4) ** 2 - 3)
    assert summary["defect_std"] == 2 and summary["defect_skew"] == 0
    assert summary["separation"] == pytest.approx(4 / math.sqrt((14 / 3 + 4) / 2))
    assert summary["ks"] == pytest.approx(0.75)  # below 5 lie three of four good and no defect
    assert 0 < summary["ks_pvalue"] < 1


def test_score_summary_without_spread():
    summary = score_summary([0, 0, 1], [1.0, 1.0, 4.0])
    assert math.isnan(summary["good_skew"]) and math.isnan(summary["defect_std"])
    assert math.isnan(summary["separation"]) and summary["good_std"] == 0 and summary["ks"] == 1
