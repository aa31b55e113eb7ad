"""Decision thresholds on image scores, calibrated on the val split only; anomalous is score >= value.

The F1-optimal rule looks at every threshold that can make a difference and takes the middle of the best
plateau. A grid between the smallest and the largest score would take the plateau's edge instead, just above
the largest normal score, where the next normal image is a false alarm.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import check_scores, confusion_rates, decide

CALIBRATION_RATES = ("f1", "precision", "recall", "specificity", "balanced_accuracy")


@dataclass(frozen=True)
class Threshold:
    """A threshold with all that is needed to judge it.

    value: anomalous is score >= value, in the units of the detector's raw image scores; rule: how it was
    found; n_good, n_defect: images it was calibrated on; plateau: (low, high), every value in the half-open
    interval (low, high] decides alike on those images; calibration: CALIBRATION_RATES there; degenerate: the
    value flags all good images, or no defect, or is no better than chance (balanced accuracy <= 0.5).
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
        """How far the value could move without another decision on the calibration images, in score units."""
        return self.plateau[1] - self.plateau[0]

    def to_dict(self) -> dict[str, object]:
        """As JSON values; `plateau_width` is added for the reader."""
        return asdict(self) | {"plateau": list(self.plateau), "plateau_width": self.plateau_width}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Threshold":
        """Back from `to_dict`; raises DataError where a key is missing."""
        missing = [field.name for field in fields(cls) if field.name not in values]
        if missing:
            raise DataError(
                f"expected a stored threshold, found no {', '.join(missing)} in it; calibrate it anew"
            )
        own = {field.name: values[field.name] for field in fields(cls)}
        return cls(**own | {"plateau": tuple(own["plateau"])})


def _candidates(defect: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray, ...]:
    """Every distinct decision: thresholds, plateau starts, plateau ends, F1; each (U,), ascending.

    Between two neighbouring distinct scores all thresholds decide alike: U - 1 plateaus (low, high], met at
    their midpoint. Below them lies "everything is anomalous", met at the smallest score itself. "Nothing is
    anomalous" is no candidate: its F1 is 0, and the one below everything is always better.
    """
    distinct = np.unique(scores)
    low, high = np.concatenate([distinct[:1], distinct[:-1]]), distinct
    value = low + (high - low) / 2
    value = np.where(value > low, value, high)  # neighbours in float64 have no number between them
    n_defect, n_good = defect.sum(), (~defect).sum()
    fn = np.searchsorted(np.sort(scores[defect]), value, side="left")
    tn = np.searchsorted(np.sort(scores[~defect]), value, side="left")
    f1 = confusion_rates(tp=n_defect - fn, tn=tn, fp=n_good - tn, fn=fn)["f1"]
    return value, low, high, f1


def f1_optimal(labels: ArrayLike, scores: ArrayLike) -> Threshold:
    """The threshold of best F1 on labels (N,) 0/1 and raw image scores (N,): centre of the best plateau.

    Of several plateaus with the same best F1 the widest is taken: its centre is the farthest from any seen
    score, so it bears the most drift before a decision changes; of equally wide ones the lowest, which misses
    fewest defects. "Everything is anomalous" has no width and wins only where its F1 alone is the best; it is
    flagged as degenerate then. Raises DataError (see `check_scores`) for one class only: on defect images
    alone every low threshold has precision 1, and on good ones alone F1 is 0 everywhere.
    """
    defect, scores = check_scores(labels, scores)
    values, low, high, f1 = _candidates(defect, scores)
    width = np.where(f1 >= f1.max() - 1e-12, high - low, -1.0)
    best = int(np.argmax(width))
    flagged = decide(scores, values[best])
    rates = confusion_rates(
        tp=(flagged & defect).sum(), tn=(~flagged & ~defect).sum(),
        fp=(flagged & ~defect).sum(), fn=(~flagged & defect).sum(),
    )
    calibration = {name: float(rates[name]) for name in CALIBRATION_RATES}
    return Threshold(
        value=float(values[best]),
        rule="f1_optimal",
        n_good=int((~defect).sum()),
        n_defect=int(defect.sum()),
        plateau=(float(low[best]), float(high[best])),
        calibration=calibration,
        degenerate=(
            calibration["specificity"] == 0
            or calibration["recall"] == 0
            or calibration["balanced_accuracy"] <= 0.5
        ),
    )


def f1_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds (U,) ascending, one in each plateau, and the F1 (U,) there: what `f1_optimal` sees."""
    values, _, _, f1 = _candidates(*check_scores(labels, scores))
    return values, f1


RULES: dict[str, Callable[[ArrayLike, ArrayLike], Threshold]] = {"f1_optimal": f1_optimal}


def calibrate_threshold(labels: ArrayLike, scores: ArrayLike, rule: str = "f1_optimal") -> Threshold:
    """The threshold that the named rule finds; raises ConfigError for a rule that RULES lacks."""
    if rule not in RULES:
        raise ConfigError(f"expected a rule of {', '.join(RULES)}, found {rule!r}; choose one of them")
    return RULES[rule](labels, scores)
