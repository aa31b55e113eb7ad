"""Decision thresholds on image scores, calibrated on the val split only; anomalous is score >=
value.

The rules (threshold_rules.py) say where the value lies; this file judges it on the images that it
was found on. `f1_optimal` looks at every threshold that can make a difference and takes the middle
of the best plateau. A grid between the smallest and the largest score would take the plateau's edge
instead, just above the largest normal score, where the next normal image is a false alarm.
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
    """A threshold with all that is needed to judge it.

    value: anomalous is score >= value, in the units of the detector's raw image scores; rule: how
    it was found; n_good, n_defect: the calibration images, those that the rule did not look at
    included; plateau: (low, high), every value in the half-open interval (low, high] decides alike
    on those images, and an end beyond which no score lies is the value itself; calibration:
    CALIBRATION_RATES there, of one class alone only the rate that exists (specificity or recall);
    degenerate: the value flags all good images, or no defect, or is no better than chance (balanced
    accuracy <= 0.5).
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
        """How far the value could move without another decision on the calibration images, in score
        units.
        """
        return self.plateau[1] - self.plateau[0]

    def to_dict(self) -> dict[str, object]:
        """As JSON values; `plateau_width` is added for the reader."""
        return asdict(self) | {"plateau": list(self.plateau), "plateau_width": self.plateau_width}


def calibrate_threshold(
    labels: ArrayLike, scores: ArrayLike, rule: str = "f1_optimal", value: float | None = None
) -> Threshold:
    """The threshold that the named rule finds on labels (N,) 0/1 and raw image scores (N,).

    Rules that need good images look at those alone and bear a calibration set without defects. Rule
    "fixed" takes `value` and warns (UserWarning): it is the last resort where nothing was
    calibrated.

    Raises:
        ConfigError: a rule that RULES lacks, "fixed" without a finite value, or a value for another
            rule.
        DataError: the images are not what the rule needs; see `threshold_rules.scores_for`.
    """
    chosen = get_rule(rule)
    if value is not None and (rule != "fixed" or not np.isfinite(value)):
        raise ConfigError(
            f"expected a finite value for rule 'fixed' alone, found {value} for {rule!r}; leave it out"
        )
    good, defect = scores_for(chosen, labels, scores)
    if value is None:
        value = chosen.find(good, defect)
    else:
        warnings.warn(
            f"the threshold {value} was not calibrated on any image: a last resort; calibrate a rule on the val split",
            stacklevel=2,
        )
    return _judge(rule, float(value), good, defect)


def _judge(
    rule: str, value: float, good: NDArray[np.float64], defect: NDArray[np.float64]
) -> Threshold:
    fn, tn = int((defect < value).sum()), int((good < value).sum())
    rates = confusion_rates(tp=defect.size - fn, tn=tn, fp=good.size - tn, fn=fn)
    known = (
        CALIBRATION_RATES
        if good.size and defect.size
        else ("specificity",)
        if good.size
        else ("recall",)
    )
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
    """The threshold of best F1 on labels (N,) 0/1 and raw image scores (N,): centre of the widest
    best plateau.

    See `threshold_rules.best_of`; where "everything is anomalous" is the best, it is flagged as
    degenerate. Raises DataError for one class only.
    """
    return calibrate_threshold(labels, scores)


def f1_curve(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds (U,) ascending, one in each plateau, and the F1 (U,) there: what `f1_optimal`
    sees.
    """
    values, _, _, rates = candidates(*scores_for(RULES["f1_optimal"], labels, scores))
    return values, rates["f1"]
