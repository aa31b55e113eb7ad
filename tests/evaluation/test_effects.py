"""Effect sizes by hand, at their ends and against scipy; their bootstrap against explicit resampling."""

import math

import numpy as np
import pytest
from scipy import stats

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import stratified_weights
from nbhelpers.evaluation.effects import cliffs_delta, hedges_g, hedges_g_draws, overlap


def test_effect_sizes_by_hand():
    """Goods 1 3, defects 2 4 6: defect above good in 5 of 6 pairs; means 4 and 2, pooled variance
    (8 + 2) / 3.
    """
    labels, scores = [0, 0, 1, 1, 1], [1, 3, 2, 4, 6]
    assert cliffs_delta(labels, scores) == pytest.approx((5 - 1) / 6)
    assert hedges_g(labels, scores) == pytest.approx(2 / math.sqrt(10 / 3) * (1 - 3 / 11))
    assert overlap(labels, scores) == pytest.approx(
        1 - 2 / 3
    )  # at 3: both goods, one of three defects
    assert math.isnan(hedges_g([0, 1, 1], [1, 2, 2]))


def test_effect_sizes_at_their_ends():
    labels = np.r_[np.zeros(20), np.ones(20)]
    values = np.random.default_rng(0).random(20)
    apart, same = np.r_[values, values + 2], np.r_[values, values]
    assert (cliffs_delta(labels, apart), overlap(labels, apart)) == (1, 0)
    assert (cliffs_delta(labels, -apart), overlap(labels, -apart)) == (-1, 0)
    assert (cliffs_delta(labels, same), overlap(labels, same), hedges_g(labels, same)) == (0, 1, 0)


def test_overlap_is_the_coefficient_of_two_normals():
    """Equal variances, means two deviations apart: the densities cross at 1, and 2 Phi(-1) lies
    under both.
    """
    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(4000), np.ones(4000)]
    scores = rng.standard_normal(8000) + 2 * labels
    assert overlap(labels, scores) == pytest.approx(2 * stats.norm.cdf(-1), abs=0.02)
    assert overlap(labels, np.exp(scores)) == overlap(labels, scores)
    cuts = [(scores[labels == 0] >= t).mean() + (scores[labels == 1] < t).mean() for t in scores]
    assert overlap(labels, scores) == pytest.approx(min(cuts))  # what the best threshold leaves
    assert hedges_g(labels, scores) == pytest.approx(2, abs=0.08)


def test_bootstrap_of_hedges_g_is_hedges_g_of_the_resampled_images():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], (7, 5))
    scores = 1000 + rng.standard_normal(12) + labels
    sample = hedges_g_draws(labels, scores, draws=50, seed=4)
    weights = stratified_weights(labels, 50, 4).astype(int)
    expected = [hedges_g(np.repeat(labels, row), np.repeat(scores, row)) for row in weights]
    assert sample == pytest.approx(expected)
    assert np.array_equal(sample, hedges_g_draws(labels, scores, draws=50, seed=4))


def test_a_resample_without_spread_has_no_hedges_g():
    """Two images per class: a resample that takes one image of each class twice has no spread."""
    labels, scores = [0, 0, 1, 1], [0.1, 0.2, 0.3, 0.7]
    sample = hedges_g_draws(labels, scores, draws=200, seed=0)
    weights = stratified_weights(labels, 200, 0)
    constant = (weights.max(axis=1) == 2) & ((weights == 2).sum(axis=1) == 2)
    assert 20 < constant.sum() < 80  # about a quarter
    assert np.array_equal(np.isnan(sample), constant)
    assert np.isnan(hedges_g_draws([0, 1, 1], [0.1, 0.1, 0.1], draws=3, seed=0)).all()


@pytest.mark.parametrize("effect", [cliffs_delta, hedges_g, overlap])
def test_effect_sizes_need_both_classes(effect):
    with pytest.raises(DataError, match="expected good and defect images"):
        effect([1, 1], [1.0, 2.0])
