"""AUPIMO against the paper's definition, anomalib's own call and hand-worked cases; what it
refuses.
"""

import logging

import numpy as np
import pytest

from nbhelpers.errors import DataError
from nbhelpers.evaluation.aupimo import mean_aupimo_draws, normal_pixels_at_bound, per_image_aupimo
from nbhelpers.evaluation.bootstrap import percentile_interval


def tailed(seed=0, good=10, defect=5, side=100, digits=None):
    """Maps with heavy tails; 10 good ones of 100 x 100 have 1 and 10 pixels at the two bounds."""
    rng = np.random.default_rng(seed)
    maps, masks = (
        rng.lognormal(0, 0.7, (good + defect, side, side)),
        np.zeros((good + defect, side, side), np.uint8),
    )
    for i in range(good, good + defect):
        y, x = rng.integers(0, side - 30, 2)
        h, w = rng.integers(4, 30, 2)
        masks[i, y : y + h, x : x + w] = 1
        maps[i] += masks[i] * rng.uniform(3, 40) * rng.random((side, side))
    if digits is not None:
        maps = np.round(maps, digits)  # ties among normal pixels, and between them and defects
    order = rng.permutation(good + defect)
    return maps[order].astype(np.float32), masks[order]


def slow_aupimo(maps, masks, low=1e-5, high=1e-4):
    """The definition, image by image: recall at the highest threshold whose rate on good images is
    z or more.

    Averaged over log z between the bounds (arXiv 2401.01984), at 4000 places of z.
    """
    good = [m for m, mask in zip(maps, masks, strict=True) if not mask.any()]
    thresholds, rates = [], []
    for threshold in sorted(
        {float(v) for m in good for v in np.sort(m.ravel())[-60:]}, reverse=True
    ):
        thresholds.append(threshold)
        rates.append(
            np.mean([(m >= threshold).mean() for m in good])
        )  # the shared FPR: mean over good images
    edges = np.geomspace(low, high, 4001)
    values = []
    for m, mask in zip(maps, masks, strict=True):
        if not mask.any():
            values.append(np.nan)
            continue
        recall = [(m[mask == 1] >= threshold).mean() for threshold in thresholds]
        values.append(
            np.mean(
                [
                    recall[next(k for k, rate in enumerate(rates) if rate >= z)]
                    for z in np.sqrt(edges[1:] * edges[:-1])
                ]
            )
        )
    return np.array(values)


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed, digits):
    maps, masks = tailed(seed, digits=digits)
    fast, slow = per_image_aupimo(maps, masks), slow_aupimo(maps, masks)
    assert np.isnan(fast).tolist() == np.isnan(slow).tolist() == (~masks.any(axis=(1, 2))).tolist()
    known = ~np.isnan(slow)
    tolerance = (
        1e-4 if digits is None else 0.01
    )  # tied scores jump past a bound, which is rounded then
    assert fast[known] == pytest.approx(slow[known], abs=tolerance)
    assert np.ptp(slow[known]) > 0.3  # the values differ enough for that to mean something


def test_equals_anomalib_with_many_thresholds(caplog):
    """Where both bounds are whole numbers of pixels, its plain call gives the same; ours without a
    warning.
    """
    import torch
    from anomalib.metrics.pimo.functional import aupimo_scores

    maps, masks = tailed(5)
    theirs = aupimo_scores(
        torch.from_numpy(maps), torch.from_numpy(masks).bool(), num_thresholds=60_000
    )[4].numpy()
    with caplog.at_level(logging.WARNING):
        assert per_image_aupimo(maps, masks) == pytest.approx(theirs, abs=1e-3, nan_ok=True)
    assert not caplog.records


def test_rounded_bounds_stay_closer_to_the_definition_than_anomalibs(caplog):
    """14 good images have 1.4 and 14 pixels at the bounds: anomalib integrates from 1 to 14 and
    divides by ln 10.
    """
    import torch
    from anomalib.metrics.pimo.functional import aupimo_scores

    maps, masks = tailed(1, good=14)
    slow = slow_aupimo(maps, masks)
    theirs = aupimo_scores(
        torch.from_numpy(maps), torch.from_numpy(masks).bool(), num_thresholds=60_000
    )[4].numpy()
    assert "not exactly achieved" in caplog.text
    ours = per_image_aupimo(maps, masks)
    assert np.nanmean(np.abs(ours - slow)) < np.nanmean(np.abs(theirs - slow)) / 2


def test_by_hand():
    """Ten normal pixels 1..10 above the rest: rates 1e-5 (at 10) to 1e-4 (at 1). A defect image of
    four pixels.

    Of scores 10.5, 8.5, 0.5 and 0: the first is found at every rate, the second from 9 downwards
    no, from 8 on, which is the third pixel: log(10 / 2) / log(10) of the range; the others never.
    """
    maps, masks = np.full((11, 100, 100), -1.0), np.zeros((11, 100, 100), np.uint8)
    maps[:10] -= np.random.default_rng(0).random((10, 100, 100))
    maps[np.arange(10), 7, 7] = np.arange(1, 11)
    masks[10, 0, :4] = 1
    maps[10, 0, :4] = [10.5, 8.5, 0.5, 0]
    values = per_image_aupimo(maps, masks)
    assert values[10] == pytest.approx((1 + np.log(10 / 2) / np.log(10)) / 4, abs=1e-12)
    assert np.isnan(values[:10]).all()


def test_ends_and_invariances():
    maps, masks = tailed(2)
    defect = masks.any(axis=(1, 2))
    raised = np.where(masks == 1, maps + 1000, maps)
    missed = np.where(masks == 1, 0, maps)
    assert (per_image_aupimo(raised, masks)[defect] == 1).all()
    assert (per_image_aupimo(missed, masks)[defect] == 0).all()
    values = per_image_aupimo(maps, masks)
    assert per_image_aupimo(np.log(maps.astype(np.float64)), masks) == pytest.approx(
        values, abs=1e-9, nan_ok=True
    )
    # the normal pixels of defect images set no rate, and no image sees another defect image
    noisy = np.where((masks == 0) & defect[:, None, None], maps + 500, maps)
    assert per_image_aupimo(noisy, masks) == pytest.approx(values, nan_ok=True)
    fewer = np.flatnonzero(~defect).tolist() + np.flatnonzero(defect)[:1].tolist()
    assert per_image_aupimo(maps[fewer], masks[fewer])[-1] == pytest.approx(values[defect][0])


def test_pixels_at_the_bounds():
    masks = np.zeros((13, 160, 160), np.uint8)
    masks[12, 3, 3] = 1
    assert normal_pixels_at_bound(masks) == pytest.approx(
        {"good_images": 12, "normal_pixels": 307_200, "at_lower": 3.072, "at_upper": 30.72}
    )


def test_refuses_what_it_cannot_answer():
    maps, masks = tailed(0)
    defect = masks.any(axis=(1, 2))
    with pytest.raises(DataError, match="at least one good image, found 5"):
        per_image_aupimo(maps[defect], masks[defect])
    with pytest.raises(DataError, match="0 defect"):
        per_image_aupimo(maps[~defect], masks[~defect])
    with pytest.raises(DataError, match="one shape"):
        per_image_aupimo(maps[:, :50], masks)
    few = np.r_[np.flatnonzero(~defect)[:5], np.flatnonzero(defect)]
    with pytest.raises(
        DataError, match="on 50000 normal pixels of good images; take more good images"
    ):
        per_image_aupimo(maps[few], masks[few])
    with pytest.raises(DataError, match="share one score: use raw maps"):
        per_image_aupimo(np.ones_like(maps), masks)
    with pytest.raises(DataError, match="share one score: use raw maps"):
        per_image_aupimo(maps.clip(max=2), masks)  # saturated: every rate within the bounds is lost


def test_images_with_unknown_masks_are_to_be_left_out():
    """A defect image without a mask must not pass for a good one: its high scores would set the
    rates.
    """
    maps, masks = tailed(3)
    defect = masks.any(axis=(1, 2))
    unknown = np.flatnonzero(defect)[0]
    blank = masks.copy()
    blank[unknown] = 0
    known = np.arange(len(maps)) != unknown
    expected = per_image_aupimo(maps, masks)
    values = per_image_aupimo(maps[known], blank[known])
    assert values == pytest.approx(expected[known], nan_ok=True)
    assert per_image_aupimo(maps, blank)[defect][1:] != pytest.approx(
        expected[defect][1:], abs=0.01
    )


def test_mean_draws_are_the_bootstrap_of_the_defect_images():
    rng = np.random.default_rng(0)
    values = np.where(np.arange(60) % 3 == 0, np.nan, rng.random(60))
    known = values[~np.isnan(values)]
    draws = mean_aupimo_draws(values, draws=4000, seed=1)
    assert draws.shape == (4000,)
    assert draws.mean() == pytest.approx(known.mean(), abs=0.005)
    assert draws.std() == pytest.approx(known.std() / np.sqrt(40), rel=0.06)
    low, high = percentile_interval(draws)
    assert low < known.mean() < high
    # the same images, the same resamples: a constant gain has no interval
    gain = mean_aupimo_draws(values + 0.1, draws=100, seed=2) - mean_aupimo_draws(
        values, draws=100, seed=2
    )
    assert gain == pytest.approx(np.full(100, 0.1))
    assert not np.array_equal(draws, mean_aupimo_draws(values, draws=4000, seed=3))
    assert mean_aupimo_draws([np.nan, 0.25], draws=3, seed=0).tolist() == [0.25] * 3
    with pytest.raises(DataError, match="at least one defect image"):
        mean_aupimo_draws([np.nan, np.nan], seed=0)
