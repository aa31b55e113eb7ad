"""Compare threshold rules, and apply thresholds to images of another source.

The test images only judge: no function here takes a threshold from them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import Seed, stratified_weights
from nbhelpers.evaluation.metrics import check_images, decide, image_metrics
from nbhelpers.evaluation.thresholds.calibrate import calibrate_threshold
from nbhelpers.evaluation.thresholds.rules import CALIBRATED_RULES, get_rule, scores_for

TEST_RATES = ("f1", "precision", "recall", "specificity", "balanced_accuracy", "accuracy")
#: Recommendations from few to many false alarms, each a quantile of the rules' thresholds.
RECOMMENDATIONS = {"conservative": 0.75, "balanced": 0.5, "aggressive": 0.25}


def compare_rules(
    val_labels: ArrayLike,
    val_scores: ArrayLike,
    test_labels: ArrayLike,
    test_scores: ArrayLike,
    rules: Iterable[str] = CALIBRATED_RULES,
) -> pd.DataFrame:
    """Find the threshold of each rule on validation images, and judge it on test images.

    Args:
        val_labels: ``(N,)``, 0 for good and 1 for defect images.
        val_scores: ``(N,)`` raw image scores.
        test_labels: ``(M,)``, with both classes.
        test_scores: ``(M,)`` raw image scores.
        rules: Names of the rules.

    Returns:
        One row per rule: rule, needs, value, n_good and n_defect (validation images), degenerate
        (nullable bool), val_balanced_accuracy (NaN without validation defects), ``TEST_RATES`` on
        test, and refused: why the rule cannot be used on these images (its numbers are NaN then);
        missing where it can be used.

    Raises:
        ConfigError: A rule does not exist, or is "fixed", which finds no value.
        DataError: The test images lack a class, or labels and scores do not fit.
    """
    defect = check_images(val_labels, val_scores)[0]
    counts = {"n_good": int((~defect).sum()), "n_defect": int(defect.sum())}
    rows = []
    for name in rules:
        row: dict[str, Any] = {"rule": name, "needs": get_rule(name).needs, **counts}
        try:
            threshold = calibrate_threshold(val_labels, val_scores, name)
        except DataError as reason:  # a finding about the rule, not the end of the comparison
            rows.append(row | {"refused": str(reason)})
            continue
        judged = image_metrics(test_labels, test_scores, threshold.value)
        rows.append(
            row
            | {
                "value": threshold.value,
                "degenerate": threshold.degenerate,
                "val_balanced_accuracy": threshold.calibration.get("balanced_accuracy", np.nan),
                **{rate: judged[rate] for rate in TEST_RATES},
            }
        )
    numbers = ["value", "val_balanced_accuracy", *TEST_RATES]
    columns = [
        "rule",
        "needs",
        "value",
        "n_good",
        "n_defect",
        "degenerate",
        *numbers[1:],
        "refused",
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype(dict.fromkeys(numbers, "float64") | {"degenerate": "boolean"})


def recommend(values: Mapping[str, float]) -> dict[str, float]:
    """Three thresholds between those of the rules: their 75th, 50th and 25th percentile.

    Args:
        values: The threshold of each rule.

    Returns:
        ``conservative`` (few alarms), ``balanced`` and ``aggressive`` (many alarms).

    Raises:
        DataError: There is no value, or one is not finite.
    """
    thresholds = np.asarray(list(values.values()), dtype=np.float64)
    if thresholds.size == 0 or not np.isfinite(thresholds).all():
        raise DataError(
            f"expected the finite thresholds of at least one rule, found {dict(values)}; leave "
            "refused rules out"
        )
    return {name: float(np.quantile(thresholds, q)) for name, q in RECOMMENDATIONS.items()}


def threshold_draws(
    labels: ArrayLike, scores: ArrayLike, rule: str = "f1_optimal", *, draws: int = 1000, seed: Seed
) -> NDArray[np.float64]:
    """The threshold of a rule on each resample of the calibration images.

    It shows how uncertain the threshold is. Images are redrawn within good and within defect, so
    that each resample has the counts of the data; the same seed and labels give the same resamples
    as ``bootstrap.image_draws``.

    Args:
        labels: ``(N,)``, 0 for good and 1 for defect images.
        scores: ``(N,)`` raw image scores.
        rule: Name of the rule.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        ``(draws,)``.

    Raises:
        ConfigError: The rule does not exist.
        DataError: The images are not those that the rule needs.
    """
    chosen = get_rule(rule)
    scores_for(chosen, labels, scores)
    defect, scores = check_images(labels, scores)
    order = np.argsort(scores, kind="stable")
    weights = stratified_weights(defect, draws, seed).astype(np.int64)[:, order]
    defect, scores = defect[order], scores[order]
    good_weights, defect_weights = weights[:, ~defect], weights[:, defect]
    return np.array(
        [
            chosen.find(np.repeat(scores[~defect], good), np.repeat(scores[defect], bad))
            for good, bad in zip(good_weights, defect_weights, strict=True)
        ]
    )


def transfer_table(
    thresholds: Mapping[str, float], tests: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> pd.DataFrame:
    """The threshold-transfer matrix: each threshold on each set of images.

    Args:
        thresholds: Source (category or domain) to its threshold.
        tests: Name of a set of images to its labels ``(N,)`` and scores ``(N,)``, which must be of
            the same detector.

    Returns:
        One row per pair: threshold_from, tested_on, fpr, fnr, specificity, n_good, n_defect. A rate
        whose class is missing is NaN.

    Raises:
        DataError: Labels and scores do not fit.
    """
    columns = ["threshold_from", "tested_on", "fpr", "fnr", "specificity", "n_good", "n_defect"]
    rows = []
    for source, value in thresholds.items():
        for name, (labels, scores) in tests.items():
            defect, scores = check_images(labels, scores)
            flagged = decide(scores, value)
            n_defect = int(defect.sum())
            n_good = defect.size - n_defect
            fpr = float(flagged[~defect].mean()) if n_good else np.nan
            fnr = float((~flagged[defect]).mean()) if n_defect else np.nan
            rows.append((source, name, fpr, fnr, 1 - fpr, n_good, n_defect))
    return pd.DataFrame(rows, columns=columns)
