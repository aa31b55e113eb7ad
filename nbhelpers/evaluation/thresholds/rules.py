"""Threshold rules by name: what each needs, and the value that it finds in image scores.

An image is anomalous where its score is at least the value. Rules for good images use only those,
so that the share of defects among the calibration images does not matter; that of ``f1_optimal``
does, because F1 depends on it. Rules for both classes try every threshold that can make a
difference and take the centre of the widest best plateau. ``youden`` and ``balanced_accuracy`` are
one rule under two names: J = recall + specificity - 1 and balanced accuracy = (J + 1) / 2 rank all
thresholds in the same order, so that they never differ. ``otsu`` and ``fixed`` are last resorts:
Otsu's method splits any set of scores in two, also one of good images only, and a fixed value does
not depend on the detector's unit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import median_abs_deviation
from skimage.filters import threshold_otsu

from nbhelpers.errors import ConfigError, DataError
from nbhelpers.evaluation.metrics import Array, check_images, check_scores, confusion_rates
from nbhelpers.evaluation.thresholds.conformal import min_calibration, split_threshold

Find = Callable[[Array, Array], float]

PERCENTILES = (90, 95, 97, 98, 99, 99.5, 99.9)
SIGMAS = (1, 2, 3)
TARGETS = (0.01, 0.05, 0.1)  # false-positive rates that the conformal rules promise
MIN_RECALL = 0.95


@dataclass(frozen=True)
class Rule:
    """A way to choose a threshold.

    Attributes:
        name: As in every table.
        needs: "good" images only, "both" classes, "unlabelled" images, or "nothing".
        description: One line.
        find: Maps good and defect scores, each ascending in float64, to the value.
        min_good: The fewest good images that it can use.
    """

    name: str
    needs: Literal["good", "both", "unlabelled", "nothing"]
    description: str
    find: Find
    min_good: int = 1


def candidates(good: Array, defect: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
    """Every threshold that decides differently, with its rates.

    Between two neighbouring distinct scores all thresholds decide the same: these are U - 1
    plateaus (low, high], each represented by its midpoint. Below them all images are anomalous,
    which the smallest score itself represents. The case in which no image is anomalous is left out:
    its F1 and its recall are 0, and its balanced accuracy is that of calling all images anomalous.

    Args:
        good: Good scores, ascending.
        defect: Defect scores, ascending.

    Returns:
        Thresholds, starts and ends of their plateaus, each ``(U,)``, and ``confusion_rates``.
    """
    distinct = np.unique(np.concatenate([good, defect]))
    low, high = np.concatenate([distinct[:1], distinct[:-1]]), distinct
    value = low + (high - low) / 2
    value = np.where(value > low, value, high)  # neighbours in float64 have no number between them
    fn, tn = np.searchsorted(defect, value, side="left"), np.searchsorted(good, value, side="left")
    return value, low, high, confusion_rates(tp=defect.size - fn, tn=tn, fp=good.size - tn, fn=fn)


def best_of(rate: str, good: Array, defect: Array) -> float:
    """The threshold with the highest rate: the centre of the best plateau.

    If several plateaus have the best rate, the widest is taken: its centre is farthest from any
    score that was seen, so that the scores can drift the most before a decision changes. Of equally
    wide ones it is the lowest, which misses the fewest defects. Calling every image anomalous has
    no width and wins only where no plateau has that rate.

    Args:
        rate: A name in ``confusion_rates``.
        good: Good scores, ascending.
        defect: Defect scores, ascending.
    """
    value, low, high, rates = candidates(good, defect)
    width = np.where(rates[rate] >= rates[rate].max() - 1e-12, high - low, -1.0)
    return float(value[np.argmax(width)])


def highest_with_recall(recall: float, good: Array, defect: Array) -> float:
    """The centre of the highest plateau that flags at least a share ``recall`` of the defects."""
    value, _, _, rates = candidates(good, defect)
    # recall falls as the threshold rises
    return float(value[np.flatnonzero(rates["recall"] >= recall)[-1]])


def percentile(percent: float, good: Array, defect: Array) -> float:
    """A percentile of the good scores, linear between neighbours.

    With few images, the highest percentiles are all close to the highest score.
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
    """Median + 3 * 1.4826 * median absolute deviation of the good scores.

    The factor makes it 3 sigma for normally distributed scores. Half of the images may be outliers
    without moving it far.
    """
    return float(np.median(good) + 3 * median_abs_deviation(good, scale="normal"))


def otsu(good: Array, defect: Array) -> float:
    """Otsu's split of all scores, which does not use the labels.

    The variance between the two sides is the greatest, and the value is the centre of the gap
    between them. With one distinct score it is that score, and every image is anomalous.
    """
    scores, counts = np.unique(np.concatenate([good, defect]), return_counts=True)
    if scores.size == 1:
        return float(scores[0])
    # exact, with one bin per distinct score: the highest score of the lower side
    low = threshold_otsu(hist=(counts, scores))
    high = scores[np.searchsorted(scores, low, side="right")]
    middle = low + (high - low) / 2
    return float(middle if middle > low else high)


def conformal(alpha: float, good: Array, defect: Array) -> float:
    """The split-conformal threshold for a false-positive rate of at most alpha.

    It lies just above a good score, so on the edge of its plateau; the promise needs that. See
    ``conformal.split_threshold``.
    """
    return split_threshold(good, alpha)


def no_value(good: Array, defect: Array) -> float:
    """Refuse to find a value: rule ``fixed`` must be given one.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        "expected the value of a fixed threshold, found none; pass value=... or calibrate a rule"
    )


def _rules() -> dict[str, Rule]:
    """Every rule by name."""
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
#: The rules that find a value themselves: all but ``fixed``.
CALIBRATED_RULES = tuple(name for name, rule in RULES.items() if rule.needs != "nothing")


def get_rule(name: str) -> Rule:
    """The rule of that name.

    Args:
        name: A name in ``RULES``, or ``percentile_`` and any number in (0, 100).

    Raises:
        ConfigError: There is no such rule.
    """
    if name in RULES:
        return RULES[name]
    percent = re.fullmatch(r"percentile_(\d+(?:\.\d+)?)", name)
    if percent and 0 < float(percent[1]) < 100:
        return Rule(
            name,
            "good",
            f"percentile {percent[1]} of the good scores",
            partial(percentile, float(percent[1])),
        )
    raise ConfigError(f"expected a rule of {', '.join(RULES)}, found {name!r}; choose one of them")


def scores_for(rule: Rule, labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Good and defect scores, after a check that they are those that a rule needs.

    A rule that needs both classes is refused with one: on defect images alone every low threshold
    has precision 1, and on good images alone F1 is 0 everywhere.

    Args:
        rule: The rule.
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.

    Returns:
        Good scores and defect scores, each ascending in float64.

    Raises:
        DataError: A class that the rule needs is missing, or there are fewer good images than it
            needs.
    """
    check = check_scores if rule.needs == "both" else check_images
    defect, scores = check(labels, scores)
    good = np.sort(scores[~defect])
    if rule.needs == "good" and good.size < rule.min_good:
        raise DataError(
            f"expected at least {rule.min_good} good calibration image(s) for rule {rule.name}, "
            f"found {good.size}; put more good images into the val split or choose another rule"
        )
    return good, np.sort(scores[defect])
