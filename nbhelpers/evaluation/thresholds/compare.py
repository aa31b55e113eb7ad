"""Threshold rules against each other, the uncertainty of one, and thresholds carried to images of
another source.

The test images only judge: no function here takes a threshold from them.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import Seed, stratified_weights
from nbhelpers.evaluation.metrics import check_images, decide, image_metrics
from nbhelpers.evaluation.thresholds.calibrate import calibrate_threshold
from nbhelpers.evaluation.thresholds.rules import CALIBRATED_RULES, get_rule, scores_for

TEST_RATES = ("f1", "precision", "recall", "specificity", "balanced_accuracy", "accuracy")
#: How many false alarms a recommendation allows, from few to many, as a quantile of the rules'
#: thresholds.
RECOMMENDATIONS = {"conservative": 0.75, "balanced": 0.5, "aggressive": 0.25}


def compare_rules(
    val_labels: ArrayLike,
    val_scores: ArrayLike,
    test_labels: ArrayLike,
    test_scores: ArrayLike,
    rules: Iterable[str] = CALIBRATED_RULES,
) -> pd.DataFrame:
    """One row a rule: its threshold from the val images (N,), its rates on the test images (M,),
    both classes.

    Returns:
        rule, needs, value, n_good, n_defect (val images), degenerate (nullable bool),
        val_balanced_accuracy (NaN without val defects), then TEST_RATES on test; refused: why the
        rule cannot be used on these val images, its numbers NaN then; missing where it can.

    Raises:
        ConfigError: an unknown rule, or "fixed", which finds no value.
        DataError: the test images lack a class, or labels and scores do not fit.
    """
    defect = check_images(val_labels, val_scores)[0]
    counts = {"n_good": int((~defect).sum()), "n_defect": int(defect.sum())}
    rows = []
    for name in rules:
        row = {"rule": name, "needs": get_rule(name).needs, **counts}
        try:
            threshold = calibrate_threshold(val_labels, val_scores, name)
        except DataError as reason:  # a finding about the rule, not the end of the comparison
            rows.append(row | {"refused": str(reason)})
            continue
        tested = image_metrics(test_labels, test_scores, threshold.value)
        rows.append(
            row
            | {
                "value": threshold.value,
                "degenerate": threshold.degenerate,
                "val_balanced_accuracy": threshold.calibration.get("balanced_accuracy", np.nan),
                **{rate: tested[rate] for rate in TEST_RATES},
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
    """Three thresholds out of the rules' own (name to value): their 75th, 50th and 25th percentile
    (F123).

    `conservative` raises few alarms, `aggressive` many. Raises DataError for no value or one that
    is not finite.
    """
    found = np.asarray(list(values.values()), dtype=np.float64)
    if found.size == 0 or not np.isfinite(found).all():
        raise DataError(
            f"expected the finite thresholds of at least one rule, found {dict(values)}; leave refused rules out"
        )
    return {name: float(np.quantile(found, q)) for name, q in RECOMMENDATIONS.items()}


def threshold_draws(
    labels: ArrayLike, scores: ArrayLike, rule: str = "f1_optimal", *, draws: int = 1000, seed: Seed
) -> NDArray[np.float64]:
    """The rule's value on each resample of the calibration images (N,), (draws,): how uncertain it
    is.

    Images are redrawn within good and within defect, so that each resample has the counts of the
    data; the same seed and labels give the same resamples as `statistics.image_draws`. Raises as
    `calibrate_threshold` does.
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
    """What each threshold does on each set of images: the threshold-transfer matrix, one row a
    pair.

    thresholds: source (category or domain) to value; tests: name to labels (N,) 0/1 and scores
    (N,), of the same detector, or the values mean nothing. Columns: threshold_from, tested_on, fpr,
    fnr, specificity, n_good, n_defect; a rate whose class is missing is NaN. Raises DataError where
    labels and scores do not fit.
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
