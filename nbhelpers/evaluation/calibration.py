"""Are scores probabilities? A calibrator of raw image scores, reliability tables and the ECE.

A raw score is a distance, not a probability. ``platt`` learns on the validation split how likely a
defect is at a score, and ``reliability_table`` shows whether that holds on the test split. The
splits have different shares of defects (val a fifth to two fifths, test more than half), and a
probability depends on that share. It has to be converted by ``prior_shift``, or the difference of
the two shares looks like miscalibration.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import share_interval
from nbhelpers.evaluation.metrics import Array, check_scores


@dataclass(frozen=True)
class Calibrator:
    """The probability of a defect at a raw image score, as one validation split shows it.

    Attributes:
        prior: Share of defect images in that split.
        predict: Maps raw scores ``(N,)`` to probabilities ``(N,)`` at that prior.
    """

    prior: float
    predict: Callable[[Array], Array]

    def probabilities(self, scores: ArrayLike, prior: float | None = None) -> Array:
        """The probability of a defect at each score.

        Args:
            scores: ``(N,)`` raw image scores.
            prior: Share of the images that have a defect; by default that of the validation split.
                For a test split pass its own share: it follows from how the splits were made and
                tells nothing about a single image.

        Returns:
            ``(N,)``, in [0, 1].
        """
        probabilities = self.predict(np.asarray(scores, dtype=np.float64))
        return probabilities if prior is None else prior_shift(probabilities, self.prior, prior)


def _check_spread(scores: Array) -> None:
    if np.ptp(scores) == 0:
        raise DataError(
            f"expected scores that differ, found {scores[0]:g} for all {scores.size} images; "
            "refit the detector"
        )


def platt(val_labels: ArrayLike, val_scores: ArrayLike) -> Calibrator:
    """Fit a sigmoid of the score, which keeps the order of the scores.

    J. Platt, "Probabilistic outputs for support vector machines", 1999. His targets
    (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) take the place of 1 and 0, so that the slope stays finite
    where the classes are separated perfectly, and no image is called certain after only a few
    dozen were seen.

    Args:
        val_labels: ``(N,)``, 0 for good and 1 for defect images of the validation split.
        val_scores: ``(N,)`` raw image scores.

    Raises:
        DataError: All scores are equal, or see ``metrics.check_scores``.
    """
    defect, scores = check_scores(val_labels, val_scores)
    _check_spread(scores)
    centre, scale = scores.mean(), scores.std()
    target = np.where(defect, (defect.sum() + 1) / (defect.sum() + 2), 1 / ((~defect).sum() + 2))
    # A target between 0 and 1 stands for an image of both classes, with weights. C is inf because
    # Platt's targets regularise already.
    standard = ((scores - centre) / scale)[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.concatenate([standard, standard]),
        np.repeat([1, 0], scores.size),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return Calibrator(
        float(defect.mean()),
        lambda values: model.predict_proba(((values - centre) / scale)[:, None])[:, 1],
    )


def prior_shift(probabilities: ArrayLike, prior_from: float, prior_to: float) -> Array:
    """Convert probabilities from one share of defects to another.

    The odds change as the odds of the shares do, if good and defect images look the same as before
    (Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 2002).

    Args:
        probabilities: ``(N,)``, at the share ``prior_from``.
        prior_from: Share of defects that the probabilities are for.
        prior_to: Share of defects that they are converted to.

    Returns:
        ``(N,)``, in [0, 1].

    Raises:
        DataError: A share is outside (0, 1), or a probability is outside [0, 1].
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not (0 < prior_from < 1 and 0 < prior_to < 1):
        raise DataError(
            f"expected shares of defects between 0 and 1, found {prior_from} and {prior_to}; both "
            "splits need good and defect images"
        )
    _check_range(probabilities)
    defect = probabilities * (prior_to / prior_from)
    good = (1 - probabilities) * ((1 - prior_to) / (1 - prior_from))
    return defect / (defect + good)


def _check_range(probabilities: Array) -> None:
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN is neither
        raise DataError(
            f"expected probabilities in [0, 1], found {np.min(probabilities):g} to "
            f"{np.max(probabilities):g}; "
            "raw scores are not probabilities: fit `platt` on the val split first"
        )


def _check(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], Array]:
    defect, probabilities = check_scores(labels, probabilities)
    _check_range(probabilities)
    return defect, probabilities


def _binned(labels: ArrayLike, probabilities: ArrayLike, bins: int) -> pd.DataFrame:
    """Columns bin, n, mean_probability, observed of the bins that hold an image."""
    defect, probabilities = _check(labels, probabilities)
    bin_of = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)
    images = pd.DataFrame(
        {"bin": bin_of, "probability": probabilities, "defect": defect.astype(np.float64)}
    )
    return images.groupby("bin", as_index=False).agg(
        n=("defect", "size"), mean_probability=("probability", "mean"), observed=("defect", "mean")
    )


def reliability_table(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 10, level: float = 0.95
) -> pd.DataFrame:
    """Compare predicted probabilities with the observed share of defects.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        probabilities: ``(N,)`` predicted probabilities of a defect.
        bins: Number of bins of equal width.
        level: Level of the intervals.

    Returns:
        One row per bin that holds an image. Columns: bin (0 to bins - 1; bin k holds
        k / bins < p <= (k + 1) / bins, and bin 0 also p = 0), n (images), mean_probability
        (predicted), observed (share of defects), ci_low and ci_high (its Clopper-Pearson
        interval).

    Raises:
        DataError: A probability is outside [0, 1], or see ``metrics.check_scores``.
    """
    table = _binned(labels, probabilities, bins)
    intervals = [
        share_interval(round(share * n), n, level)
        for share, n in zip(table.observed, table.n, strict=True)
    ]
    return table.assign(
        ci_low=[low for _, low, _ in intervals], ci_high=[high for *_, high in intervals]
    )


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 10
) -> float:
    """The mean distance of predicted and observed shares, weighted by the images of each bin.

    The bins are those of ``reliability_table``, and another number of bins gives another value.
    Chance alone makes it positive: with N images in B filled bins of calibrated probabilities it is
    about 0.3 sqrt(B / N), so 0.1 for 80 images and 10 bins. Compare it at the same N only.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        probabilities: ``(N,)`` predicted probabilities of a defect.
        bins: Number of bins of equal width.

    Returns:
        A number in [0, 1].

    Raises:
        DataError: See ``reliability_table``.
    """
    table = _binned(labels, probabilities, bins)
    return float(np.average((table.observed - table.mean_probability).abs(), weights=table.n))
