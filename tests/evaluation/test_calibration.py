"""The calibrator against Platt's likelihood; tables and errors by hand; change of
prior by Bayes.
"""

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.calibration import calibration_curve

from nbhelpers.errors import DataError
from nbhelpers.evaluation.calibration import (
    expected_calibration_error,
    platt,
    prior_shift,
    reliability_table,
)


def scored(seed, good, defect, gap=2.0, scale=50.0):
    """Raw scores in the unit of a distance, far from [0, 1]."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[np.zeros(good, int), np.ones(defect, int)])
    return labels, 300 + scale * (rng.standard_normal(labels.size) + gap * labels)


def calibrated(seed, n):
    rng = np.random.default_rng(seed)
    probabilities = rng.random(n)
    return (rng.random(n) < probabilities).astype(int), probabilities


def test_calibrated_toy_has_no_error():
    labels, probabilities = calibrated(0, 20_000)
    assert expected_calibration_error(labels, probabilities) < 0.02
    table = reliability_table(labels, probabilities)
    assert (table.observed - table.mean_probability).abs().max() < 0.04
    # said 0.9 where 0.5 is seen: 0.4 off, and the table's interval does not reach what was said
    assert expected_calibration_error([0, 1] * 500, np.full(1000, 0.9)) == pytest.approx(0.4)
    row = reliability_table([0, 1] * 500, np.full(1000, 0.9)).iloc[0]
    assert row.ci_low < 0.5 < row.ci_high < 0.6


def test_table_by_hand():
    """Of five bins: 0 and 0.2 in the first (closed above), 0.21 and 0.4 in the second, 1 in the
    last.
    """
    table = reliability_table([0, 1, 0, 0, 1], [0.0, 0.2, 0.21, 0.4, 1.0], bins=5)
    assert table.bin.tolist() == [0, 1, 4]
    assert table.n.tolist() == [2, 2, 1]
    assert table.mean_probability.tolist() == pytest.approx([0.1, 0.305, 1.0])
    assert table.observed.tolist() == [0.5, 0, 1]
    # Clopper-Pearson: no hit of 2 has the upper end 1 - 0.025^(1/2), one of one the lower end 0.025
    assert table.ci_high[1] == pytest.approx(1 - 0.025**0.5) and table.ci_low[1] == 0
    assert table.ci_low[2] == pytest.approx(0.025) and table.ci_high[2] == 1
    error = (2 * abs(0.5 - 0.1) + 2 * 0.305 + 0) / 5
    assert expected_calibration_error(
        [0, 1, 0, 0, 1], [0.0, 0.2, 0.21, 0.4, 1.0], bins=5
    ) == pytest.approx(error)


@pytest.mark.parametrize("bins", [5, 10])
def test_table_equals_sklearn(bins):
    labels, probabilities = calibrated(3, 150)
    probabilities = (
        np.round(probabilities, 1) if bins == 10 else probabilities
    )  # on the edges of the bins
    observed, predicted = calibration_curve(labels, probabilities, n_bins=bins, strategy="uniform")
    table = reliability_table(labels, probabilities, bins)
    assert table.observed.to_numpy() == pytest.approx(observed)
    assert table.mean_probability.to_numpy() == pytest.approx(predicted)
    assert table.n.sum() == 150
    for row in table.itertuples():
        hits = round(row.observed * row.n)
        expected = stats.beta.ppf(
            [0.025, 0.975], [hits, hits + 1], [row.n - hits + 1, row.n - hits]
        )
        assert (row.ci_low, row.ci_high) == pytest.approx(
            np.nan_to_num(expected, nan=float(hits > 0))
        )


def test_chance_alone_makes_an_error():
    """What the docstring says of 80 images."""
    errors = [expected_calibration_error(*calibrated(seed, 80)) for seed in range(60)]
    assert np.mean(errors) == pytest.approx(0.3 * np.sqrt(10 / 80), rel=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_platt_maximises_platts_likelihood(seed):
    labels, scores = scored(seed, 40, 18)
    target = np.where(labels == 1, 19 / 20, 1 / 42)

    def loss(line):
        logit = line[0] + line[1] * (scores - 300) / 50
        return np.sum(np.logaddexp(0, logit) - target * logit)

    line = optimize.minimize(loss, [0.0, 0.0], tol=1e-12).x
    expected = 1 / (1 + np.exp(-line[0] - line[1] * (scores - 300) / 50))
    calibrator = platt(labels, scores)
    assert calibrator.probabilities(scores) == pytest.approx(expected, abs=1e-5)
    assert calibrator.prior == 18 / 58
    # another unit of the scores changes nothing
    assert platt(labels, scores * 1e-6 - 5).probabilities(scores * 1e-6 - 5) == pytest.approx(
        expected, abs=1e-5
    )


def test_platt_is_certain_of_nothing():
    """Perfectly separated val: no slope is the best without Platt's targets."""
    labels = np.r_[np.zeros(30), np.ones(12)]
    scores = 10 * labels + np.linspace(0, 1, 42)
    p = platt(labels, scores).probabilities(scores)
    assert p.min() > 0.005 and p.max() < 0.99
    assert (np.diff(p[np.argsort(scores)]) > 0).all()
    assert p[labels == 1].mean() == pytest.approx(13 / 14, abs=0.02)
    assert p[labels == 0].mean() == pytest.approx(1 / 32, abs=0.02)


def test_prior_shift_is_bayes():
    """Densities 1 and 3 at a score: at a share of 0.25 the odds are 3 * 1/3 = 1, at 0.6 they are 3
    * 1.5.
    """
    assert prior_shift([0.5], 0.25, 0.6) == pytest.approx([4.5 / 5.5])
    p = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    assert prior_shift(p, 0.3, 0.3) == pytest.approx(p)
    assert prior_shift(prior_shift(p, 0.3, 0.7), 0.7, 0.3) == pytest.approx(p)
    assert prior_shift(p, 0.3, 0.7)[[0, 4]].tolist() == [0, 1]


def test_prior_of_the_test_split_corrects_the_probabilities():
    """Val has a fifth of defects, test two thirds, both drawn from the same two distributions."""
    val, test = scored(0, 4000, 1000), scored(1, 1000, 2000)
    calibrator = platt(*val)
    assert calibrator.prior == 0.2
    naive, corrected = (
        calibrator.probabilities(test[1]),
        calibrator.probabilities(test[1], prior=2 / 3),
    )
    assert expected_calibration_error(test[0], naive) > 0.08
    assert expected_calibration_error(test[0], corrected) < 0.03
    assert np.mean((corrected - test[0]) ** 2) < np.mean((naive - test[0]) ** 2)
    assert corrected == pytest.approx(prior_shift(naive, 0.2, 2 / 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: expected_calibration_error([0, 1], [3.0, 250.0]),
            "found 3 to 250; raw scores are not probabilities: fit `platt`",
        ),
        (lambda: reliability_table([0, 1], [0.1, np.nan]), "finite scores"),
        (lambda: reliability_table([0, 0], [0.1, 0.2]), "0 defect"),
        (lambda: reliability_table([0, 1], [-0.1, 0.2]), "probabilities in"),
        (lambda: platt([0, 0], [1.0, 2.0]), "0 defect"),
        (lambda: platt([0, 1], [2.0, 2.0]), "scores that differ, found 2 for all 2 images"),
        (lambda: prior_shift([0.5], 0.0, 0.5), "shares of defects between 0 and 1"),
        (lambda: prior_shift([0.5], 0.5, 1.0), "shares of defects between 0 and 1"),
        (lambda: prior_shift([1.5], 0.5, 0.4), "probabilities in"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(DataError, match=words):
        call()
