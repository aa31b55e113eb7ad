"""Effect sizes: how far the scores of defect images stand out from those of good images.

A test says whether a distance can be chance, an effect size says how large it is. All three look
at the raw image scores of one detector on one category, because the scores of different categories
or detectors share no scale.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nbhelpers.evaluation.bootstrap import Seed, stratified_weights
from nbhelpers.evaluation.metrics import Array, check_scores

#: A standard deviation below this share of the range of all scores is a rounding error of the mean.
ROUNDING = 1e-12


def wins_and_losses(defect: NDArray[np.bool_], scores: Array) -> tuple[Array, Array]:
    """Count the comparisons that each image wins or loses against the images of the other class.

    The counts are not divided by the number of images, so that they and their differences are
    exact in float64.

    Args:
        defect: ``(N,)``, True for a defect image.
        scores: ``(N,)`` raw image scores.

    Returns:
        For each of the ``m`` defect images the number of good images below it, ``(m,)``, and for
        each of the ``n`` good images the number of defect images above it, ``(n,)``. A tie counts
        half.
    """
    ranks = stats.rankdata(scores)  # mid-ranks
    wins = ranks[defect] - stats.rankdata(scores[defect])
    return wins, defect.sum() - (ranks[~defect] - stats.rankdata(scores[~defect]))


def cliffs_delta(labels: ArrayLike, scores: ArrayLike) -> float:
    """Cliff's delta: P(defect above good) - P(good above defect).

    It equals 2 AUROC - 1, so that an interval of the AUROC (``significance.delong_interval``)
    gives the interval of delta.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Returns:
        A number in [-1, 1]: 1 where every defect image scores above every good one, 0 at chance.

    Raises:
        DataError: One of the classes is missing, or labels and scores do not fit
            (``metrics.check_scores``).
    """
    wins, losses = wins_and_losses(*check_scores(labels, scores))
    return float(2 * wins.sum() / (wins.size * losses.size) - 1)


def hedges_g(labels: ArrayLike, scores: ArrayLike) -> float:
    """Hedges' g: the distance of the class means in pooled standard deviations.

    It is corrected for small samples (L. V. Hedges, J. Educ. Statist. 1981, eq. 6e). One far
    outlier moves it, while ``cliffs_delta`` does not change.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Returns:
        The distance, positive where defect images score higher; NaN where neither class has any
        spread.

    Raises:
        DataError: See ``cliffs_delta``.
    """
    defect, scores = check_scores(labels, scores)
    return float(_hedges(np.ones((1, scores.size)), defect, scores)[0])


def hedges_g_draws(labels: ArrayLike, scores: ArrayLike, *, draws: int = 1000, seed: Seed) -> Array:
    """Hedges' g of each resample of the images, for ``bootstrap.percentile_interval``.

    Images are redrawn within good and within defect, as ``bootstrap.image_draws`` does.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        ``(draws,)`` values; NaN where a resample has no spread in either class.

    Raises:
        DataError: See ``cliffs_delta``.
    """
    defect, scores = check_scores(labels, scores)
    return _hedges(stratified_weights(defect, draws, seed), defect, scores)


def _hedges(weights: Array, defect: NDArray[np.bool_], scores: Array) -> Array:
    """Hedges' g ``(R,)`` of images that occur ``weights`` ``(R, N)`` times."""
    scores = scores - scores[0]  # scores that are all the same have no spread, without rounding
    means, squares = [], np.zeros(len(weights))
    for chosen in (defect, ~defect):
        values, counts = scores[chosen], weights[:, chosen]
        mean = counts @ values / values.size
        means.append(mean)
        squares += (counts * (values - mean[:, None]) ** 2).sum(axis=1)
    freedom = scores.size - 2  # 0 for one image of each class, which have no spread
    spread = np.sqrt(squares / max(freedom, 1))
    distance = np.full(len(weights), np.nan)
    visible = spread > ROUNDING * np.ptp(scores)
    np.divide(means[0] - means[1], spread, out=distance, where=visible)
    return distance * (1 - 3 / (4 * freedom - 1))


def overlap(labels: ArrayLike, scores: ArrayLike) -> float:
    """Overlap of the good and the defect distribution: 1 - Kolmogorov-Smirnov distance.

    It is the smallest sum of false-positive rate and miss rate that any threshold reaches. Where
    the two densities cross once it is also the overlap coefficient (the area under both
    densities), and an upper bound of it where they cross more often. It needs no bandwidth as a
    kernel estimate does, and it does not change with the unit or scale of the scores.

    In small samples it is too low: with 60 (20) images per class of normal scores by 0.03 (0.05)
    where the truth is 0.13, by 0.06 (0.11) where it is 0.6, and by 0.14 (0.24) where the two
    distributions are the same. A bootstrap adds this error once more, so that no interval is
    given.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Returns:
        A number in [0, 1]: 0 where one threshold separates the two classes, 1 where they are the
        same.

    Raises:
        DataError: See ``cliffs_delta``.
    """
    defect, scores = check_scores(labels, scores)
    return float(1 - stats.ks_2samp(scores[defect], scores[~defect]).statistic)
