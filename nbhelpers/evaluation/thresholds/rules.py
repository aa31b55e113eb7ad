"""Threshold rules by name: what each needs, and the value it finds in image scores; anomalous is
score >= value.

Rules for good images look at those alone, so that the share of defects among the calibration images
does not matter; that of `f1_optimal` does (F1 depends on it). Rules for both classes try every
threshold that can make a difference and take the centre of the widest best plateau. `youden` and
`balanced_accuracy` are one rule under two names: J = recall + specificity - 1 and balanced accuracy
= (J + 1) / 2 rank all thresholds alike, so that they never differ. `otsu` and `fixed` are last
resorts: Otsu splits any set of scores in two, good ones too, and a fixed value knows nothing of the
detector's unit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import median_abs_deviation
from skimage.filters import threshold_otsu

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import check_images, check_scores, confusion_rates
from nbhelpers.evaluation.thresholds.conformal import min_calibration, split_threshold

Array = NDArray[np.float64]
Find = Callable[[Array, Array], float]

PERCENTILES = (90, 95, 97, 98, 99, 99.5, 99.9)
SIGMAS = (1, 2, 3)
TARGETS = (0.01, 0.05, 0.1)  # false-positive rates that the conformal rules promise
MIN_RECALL = 0.95


@dataclass(frozen=True)
class Rule:
    """A way to choose a threshold.

    name: as in every table; needs: "good" images alone, "both" classes, "unlabelled" images, or
    "nothing"; description: one line; find: good and defect scores, each ascending in float64, to
    the value; min_good: the good images that it needs at least.
    """

    name: str
    needs: Literal["good", "both", "unlabelled", "nothing"]
    description: str
    find: Find
    min_good: int = 1


def candidates(good: Array, defect: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
    """Every distinct decision on ascending scores: thresholds, plateau starts, plateau ends, rates;
    (U,) each.

    Between two neighbouring distinct scores all thresholds decide alike: U - 1 plateaus (low,
    high], met at their midpoint. Below them lies "everything is anomalous", met at the smallest
    score itself. "Nothing is anomalous" is no candidate: its F1 is 0, its balanced accuracy that of
    "everything", its recall 0.
    """
    distinct = np.unique(np.concatenate([good, defect]))
    low, high = np.concatenate([distinct[:1], distinct[:-1]]), distinct
    value = low + (high - low) / 2
    value = np.where(value > low, value, high)  # neighbours in float64 have no number between them
    fn, tn = np.searchsorted(defect, value, side="left"), np.searchsorted(good, value, side="left")
    return value, low, high, confusion_rates(tp=defect.size - fn, tn=tn, fp=good.size - tn, fn=fn)


def best_of(rate: str, good: Array, defect: Array) -> float:
    """The threshold of the highest `rate` (of `confusion_rates`): centre of the best plateau.

    Of several plateaus with the same best rate the widest is taken: its centre is the farthest from
    any seen score, so it bears the most drift before a decision changes; of equally wide ones the
    lowest, which misses fewest defects. "Everything is anomalous" has no width and wins only where
    its rate alone is the best.
    """
    value, low, high, rates = candidates(good, defect)
    width = np.where(rates[rate] >= rates[rate].max() - 1e-12, high - low, -1.0)
    return float(value[np.argmax(width)])


def highest_with_recall(recall: float, good: Array, defect: Array) -> float:
    """Centre of the highest plateau on which at least a share `recall` of the defect images is
    flagged.
    """
    value, _, _, rates = candidates(good, defect)
    return float(
        value[np.flatnonzero(rates["recall"] >= recall)[-1]]
    )  # recall falls as the threshold rises


def percentile(percent: float, good: Array, defect: Array) -> float:
    """Percentile of the good scores, linear between neighbours; few images cannot tell the highest
    ones apart.
    """
    return float(np.percentile(good, percent))


def mean_std(k: float, good: Array, defect: Array) -> float:
    """Mean + k standard deviations (n - 1) of the good scores."""
    return float(good.mean() + k * good.std(ddof=1))


def iqr(good: Array, defect: Array) -> float:
    """Q3 + 1.5 (Q3 - Q1) of the good scores: the upper whisker of Tukey's box plot."""
    q1, q3 = np.percentile(good, [25, 75])
    return float(q3 + 1.5 * (q3 - q1))


def mad(good: Array, defect: Array) -> float:
    """Median + 3 * 1.4826 * median absolute deviation of the good scores; the factor makes it 3
    sigma for normal ones.

    Half of the images may be outliers without moving it far.
    """
    return float(np.median(good) + 3 * median_abs_deviation(good, scale="normal"))


def otsu(good: Array, defect: Array) -> float:
    """Otsu's split of all scores, labels unused: the greatest variance between the two sides,
    centre of the gap.

    Of one distinct score it is that score, and everything is anomalous.
    """
    scores, counts = np.unique(np.concatenate([good, defect]), return_counts=True)
    if scores.size == 1:
        return float(scores[0])
    low = threshold_otsu(
        hist=(counts, scores)
    )  # exact: a bin a distinct score; the highest of the lower side
    high = scores[np.searchsorted(scores, low, side="right")]
    middle = low + (high - low) / 2
    return float(middle if middle > low else high)


def conformal(alpha: float, good: Array, defect: Array) -> float:
    """Split-conformal threshold for a false-positive rate of at most alpha; see
    `conformal.split_threshold`.

    It sits just above a good score, on the edge of its plateau: that is what the promise is made
    of.
    """
    return split_threshold(good, alpha)


def no_value(good: Array, defect: Array) -> float:
    """What `fixed` finds by itself: nothing; raises ConfigError."""
    raise ConfigError(
        "expected the value of a fixed threshold, found none; pass value=... or calibrate a rule"
    )


def _rules() -> dict[str, Rule]:
    youden = "recall + specificity - 1 is highest: the same thresholds as balanced_accuracy, always"
    rules = [
        Rule(
            "f1_optimal",
            "both",
            "F1 is highest; depends on the share of defects",
            partial(best_of, "f1"),
        ),
        Rule("youden", "both", youden, partial(best_of, "balanced_accuracy")),
        Rule(
            "balanced_accuracy",
            "both",
            "mean of recall and specificity is highest; free of the share of defects",
            partial(best_of, "balanced_accuracy"),
        ),
        Rule(
            f"min_recall_{MIN_RECALL * 100:g}",
            "both",
            f"highest threshold with recall >= {MIN_RECALL:g}",
            partial(highest_with_recall, MIN_RECALL),
        ),
        *(
            Rule(
                f"percentile_{q:g}",
                "good",
                f"percentile {q:g} of the good scores",
                partial(percentile, q),
            )
            for q in PERCENTILES
        ),
        *(
            Rule(
                f"mean_{k}std",
                "good",
                f"mean + {k} std of the good scores",
                partial(mean_std, k),
                min_good=2,
            )
            for k in SIGMAS
        ),
        Rule("iqr", "good", "Q3 + 1.5 IQR of the good scores", iqr),
        Rule("mad", "good", "median + 3 * 1.4826 * MAD of the good scores", mad),
        *(
            Rule(
                f"conformal_{alpha:g}",
                "good",
                f"promises a false-positive rate of at most {alpha:g}",
                partial(conformal, alpha),
                min_good=min_calibration(alpha),
            )
            for alpha in TARGETS
        ),
        Rule(
            "otsu",
            "unlabelled",
            "last resort: best split of all scores in two, also where all are good",
            otsu,
        ),
        Rule("fixed", "nothing", "last resort: a given value", no_value, min_good=0),
    ]
    return {rule.name: rule for rule in rules}


RULES = _rules()
#: The rules that find a value themselves: all but `fixed`.
CALIBRATED_RULES = tuple(name for name, rule in RULES.items() if rule.needs != "nothing")


def get_rule(name: str) -> Rule:
    """The named rule: one of RULES, or ``percentile_`` and any number in (0, 100).

    Raises:
        ConfigError: another name.
    """
    found = re.fullmatch(r"percentile_(\d+(?:\.\d+)?)", name)
    if name not in RULES and found and 0 < float(found[1]) < 100:
        return Rule(
            name,
            "good",
            f"percentile {found[1]} of the good scores",
            partial(percentile, float(found[1])),
        )
    if name not in RULES:
        raise ConfigError(
            f"expected a rule of {', '.join(RULES)}, found {name!r}; choose one of them"
        )
    return RULES[name]


def scores_for(rule: Rule, labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Good and defect scores, each ascending in float64, after a check that they are what the rule
    needs.

    Raises DataError: one class only for a rule that needs both (on defect images alone every low
    threshold has precision 1, on good ones alone F1 is 0 everywhere), or fewer good images than it
    needs.
    """
    defect, scores = (check_scores if rule.needs == "both" else check_images)(labels, scores)
    good = np.sort(scores[~defect])
    if rule.needs == "good" and good.size < rule.min_good:
        raise DataError(
            f"expected at least {rule.min_good} good calibration image(s) for rule {rule.name}, found {good.size}; "
            "put more good images into the val split or choose another rule"
        )
    return good, np.sort(scores[defect])
