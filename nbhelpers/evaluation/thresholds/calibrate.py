"""Decision thresholds on image scores, calibrated on the validation split only.

An image is anomalous where its score is at least the threshold. The rules (``rules``) find the
value, and this module judges it on the images that it was found on. ``f1_optimal`` tries every
threshold that can make a difference and takes the middle of the best plateau. A grid between the
smallest and the largest score would take the edge of the plateau instead, just above the largest
normal score, where the next normal image is a false alarm.
"""

import warnings
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import ConfigError
from nbhelpers.evaluation.metrics import confusion_rates
from nbhelpers.evaluation.thresholds.rules import RULES, candidates, get_rule, scores_for

CALIBRATION_RATES = ("f1", "precision", "recall", "specificity", "balanced_accuracy")


@dataclass(frozen=True)
class Threshold:
    """A threshold with what is needed to judge it.

    Attributes:
        value: An image is anomalous where its score is at least this, in the unit of the
            detector's raw image scores.
        rule: The rule that found it.
        n_good: Good calibration images, also if the rule did not use them.
        n_defect: Defect calibration images, also if the rule did not use them.
        plateau: ``(low, high)``: every value in the half-open interval (low, high] decides the
            same on the calibration images. An end beyond which no score lies is the value itself.
        calibration: ``CALIBRATION_RATES`` on the calibration images; with one class only the rate
            that exists (specificity or recall).
        degenerate: Whether the value flags all good images, or no defect, or is not better than
            chance (balanced accuracy <= 0.5).
    """

    value: float
    rule: str
    n_good: int
    n_defect: int
    plateau: tuple[float, float]
    calibration: dict[str, float]
    degenerate: bool

    @property
    def plateau_width(self) -> float:
        """How far the value can move without changing a calibration decision, in score units."""
        return self.plateau[1] - self.plateau[0]

    def to_dict(self) -> dict[str, object]:
        """The attributes as JSON values, with ``plateau_width`` added for the reader."""
        return asdict(self) | {"plateau": list(self.plateau), "plateau_width": self.plateau_width}


def calibrate_threshold(
    labels: ArrayLike, scores: ArrayLike, rule: str = "f1_optimal", value: float | None = None
) -> Threshold:
    """The threshold that a rule finds on calibration images.

    Rules that need good images use only those, and also work when there are no defects. Rule
    "fixed" takes ``value`` and warns (UserWarning): it is the last resort where nothing was
    calibrated.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.
        rule: Name of the rule.
        value: The threshold of rule "fixed"; None for every other rule.

    Raises:
        ConfigError: The rule does not exist, "fixed" has no finite value, or another rule has one.
        DataError: The images are not those that the rule needs; see ``rules.scores_for``.
    """
    chosen = get_rule(rule)
    if value is not None and (rule != "fixed" or not np.isfinite(value)):
        raise ConfigError(
            f"expected a finite value for rule 'fixed' alone, found {value} for {rule!r}; leave "
            "it out"
        )
    good, defect = scores_for(chosen, labels, scores)
    if value is None:
        value = chosen.find(good, defect)
    else:
        warnings.warn(
            f"the threshold {value} was not calibrated on any image: a last resort; calibrate a "
            "rule on the val split",
            stacklevel=2,
        )
    return _judge(rule, float(value), good, defect)


def _judge(
    rule: str, value: float, good: NDArray[np.float64], defect: NDArray[np.float64]
) -> Threshold:
    """A threshold with its rates on the good and defect calibration scores."""
    fn, tn = int((defect < value).sum()), int((good < value).sum())
    rates = confusion_rates(tp=defect.size - fn, tn=tn, fp=good.size - tn, fn=fn)
    known: tuple[str, ...] = CALIBRATION_RATES
    if not defect.size:
        known = ("specificity",)
    elif not good.size:
        known = ("recall",)
    calibration = {name: float(rates[name]) for name in known}
    scores = np.concatenate([good, defect])
    below, above = scores[scores < value], scores[scores >= value]
    return Threshold(
        value=value,
        rule=rule,
        n_good=good.size,
        n_defect=defect.size,
        plateau=(
            float(below.max()) if below.size else value,
            float(above.min()) if above.size else value,
        ),
        calibration=calibration,
        degenerate=(
            calibration.get("specificity") == 0
            or calibration.get("recall") == 0
            or calibration.get("balanced_accuracy", 1.0) <= 0.5
        ),
    )


def f1_optimal(labels: ArrayLike, scores: ArrayLike) -> Threshold:
    """The threshold of the best F1: the centre of the widest best plateau.

    See ``rules.best_of``. Where calling every image anomalous is the best, the threshold is marked
    as degenerate.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Raises:
        DataError: There are images of one class only.
    """
    return calibrate_threshold(labels, scores)


def f1_curve(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The F1 of every threshold that ``f1_optimal`` tries.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Returns:
        Thresholds ``(U,)``, ascending, one in each plateau, and the F1 ``(U,)`` there.

    Raises:
        DataError: There are images of one class only.
    """
    values, _, _, rates = candidates(*scores_for(RULES["f1_optimal"], labels, scores))
    return values, rates["f1"]
