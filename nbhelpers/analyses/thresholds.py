"""Thresholds judged on test: all rules, promised and realised false alarms, transfer, zones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.cross_scores import cross_scores, crossed_scores
from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import Evaluated, calibrated_on, cell, tested
from nbhelpers.errors import DataError
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.evaluation.cell import draw_seed
from nbhelpers.evaluation.metrics import decide, image_metrics
from nbhelpers.evaluation.thresholds.calibrate import calibrate_threshold
from nbhelpers.evaluation.thresholds.compare import compare_rules, recommend, transfer_table
from nbhelpers.evaluation.thresholds.conformal import (
    cv_plus_p_values,
    min_calibration,
    realised_rate,
    recalibration_curve,
    split_threshold,
)
from nbhelpers.evaluation.thresholds.zones import compare_zones
from nbhelpers.predictions import Predictions
from nbhelpers.results.table import MACRO, Entry, Metric, detailed, to_rows
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import Artefact, Study

#: Metric of the tidy table to the column of ``compare_rules`` it is read from.
RULE_METRICS = {
    "threshold": "value",
    "f1": "f1",
    "recall": "recall",
    "specificity": "specificity",
    "balanced_accuracy": "balanced_accuracy",
    "degenerate": "degenerate",
}
#: Numbers of good images of the new domain that a threshold is calibrated again on.
RECALIBRATION_SIZES = (0, 5, 10, 20, 30, 50, 100)


def _cells(study: Study, *names: str) -> list[Artefact[Evaluated]]:
    """All cells of the named scenarios."""
    return [
        cell(study, name, method, category) for name in names for method, category in study.cells
    ]


def rule_table(study: Study, scenario: str, method: str, category: str) -> pd.DataFrame:
    """Every rule on a cell's calibration images, judged on its test images.

    See ``compare_rules``.
    """
    vals = calibrated_on(study, scenario, method, category)
    test = tested(study, scenario, method, category)
    labels = np.concatenate([val.labels for val in vals])
    scores = np.concatenate([val.image_scores for val in vals])
    return compare_rules(labels, scores, test.labels, test.image_scores)


def rules_part(study: Study, scenario: str) -> Part:
    """Rows ``RULE_METRICS`` of each ``rule`` of a scenario; a rule that is refused has no rows."""

    def make() -> list[dict[str, Any]]:
        rows = []
        for method in study.config.methods:
            by_category: list[dict[Metric, Entry]] = []
            for category in study.categories:
                table = rule_table(study, scenario, method, category)
                count = len(tested(study, scenario, method, category))
                metrics = {
                    detailed(name, rule=row["rule"]): stated(float(row[column]), count)
                    for row in table[table.refused.isna()].to_dict("records")
                    for name, column in RULE_METRICS.items()
                }
                by_category.append(metrics)
                rows += to_rows(scenario, method, category, study.config.seed, metrics)
            shared = [
                metric
                for metric in by_category[0]
                if metric[0] != "threshold" and all(metric in metrics for metrics in by_category)
            ]
            means = {
                metric: stated(
                    float(np.mean([metrics[metric]["value"] for metrics in by_category])),
                    sum(metrics[metric]["n_images"] for metrics in by_category),
                )
                for metric in shared
            }
            rows += to_rows(scenario, method, MACRO, study.config.seed, means)
        return rows

    return make_part(study, __name__, f"rules_{scenario}", make, cells=_cells(study, scenario))


def _promise(
    rule: str,
    target: float,
    flagged: np.ndarray,
    test: Predictions,
    n_calibration: int,
    level: float,
) -> dict[Metric, Entry]:
    """The entries of one promise on a cell's test images.

    Args:
        rule: Name of the rule that promises.
        target: The promised false positive rate.
        flagged: ``(N,)`` bool, the decisions about the test images.
        test: The test images.
        n_calibration: Number of calibration images.
        level: Level of the interval.
    """
    promise = {"rule": rule, "target": f"{target:g}"}
    good, defect = test.labels == 0, test.labels == 1
    rate = realised_rate(flagged[good], level)
    return {
        detailed("realised_fpr", **promise): stated(
            rate["rate"], int(good.sum()), rate["ci_low"], rate["ci_high"]
        ),
        detailed("recall", **promise): stated(float(flagged[defect].mean()), int(defect.sum())),
        detailed("calibration_n", **promise): stated(n_calibration, n_calibration),
    }


def _split_promises(
    study: Study, scenario: str, method: str, category: str
) -> Iterator[dict[Metric, Entry]]:
    """Split conformal: the good validation images calibrate.

    A target that needs more of them than there are is left out.
    """
    (val,) = calibrated_on(study, scenario, method, category)
    test = tested(study, scenario, method, category)
    good = val.image_scores[val.labels == 0]
    for target in study.config.evaluation.target_fprs:
        if good.size >= min_calibration(target):
            flagged = decide(test.image_scores, split_threshold(good, target))
            yield _promise(
                "conformal_split",
                target,
                flagged,
                test,
                good.size,
                study.config.evaluation.confidence,
            )


def _cross_promises(
    study: Study, scenario: str, method: str, category: str
) -> Iterator[dict[Metric, Entry]]:
    """CV+: every good training and validation image calibrates.

    Each is scored by the refit that did not see it.
    """
    test, table = tested(study, scenario, method, category), cross_scores(study, method, category)
    calibration = table[table.part == "calibration"]
    by_fold = table[table.part == f"test {SCENARIOS[scenario].test_domain}"].pivot(
        index="fold", columns="id", values="score"
    )
    p_values = cv_plus_p_values(
        calibration.score.to_numpy(),
        calibration.fold.to_numpy(),
        by_fold[list(test.ids)].to_numpy(),
    )
    for target in study.config.evaluation.target_fprs:
        if len(calibration) >= min_calibration(target):
            yield _promise(
                "conformal_cv",
                target,
                p_values <= target,
                test,
                len(calibration),
                study.config.evaluation.confidence,
            )


def promises_part(study: Study, scenario: str) -> Part:
    """Rows ``realised_fpr``, ``recall`` and ``calibration_n`` of each rule and target.

    CV+ (``conformal_cv``) has rows only where the model and the threshold are those of the clean
    domain, because it refits the clean model.
    """
    crossed = SCENARIOS[scenario].fitted_on == SCENARIOS[scenario].threshold_domain == "clean"

    def make() -> list[dict[str, Any]]:
        rows = []
        for method, category in study.cells:
            promises = list(_split_promises(study, scenario, method, category))
            if crossed:
                promises += _cross_promises(study, scenario, method, category)
            for metrics in promises:
                rows += to_rows(scenario, method, category, study.config.seed, metrics)
        return rows

    settings = study.config.evaluation
    return make_part(
        study,
        __name__,
        f"promises_{scenario}",
        make,
        cells=_cells(study, scenario),
        targets=settings.target_fprs,
        confidence=settings.confidence,
        folds=[crossed_scores(study, method, category) for method, category in study.cells]
        if crossed
        else [],
    )


def recalibration_part(study: Study) -> Part:
    """Rows ``realised_fpr`` and ``promised_fpr`` of each number ``recalibrated_on``.

    They say how many good images of the shifted domain it takes to keep the largest target again.
    0 images keep the clean threshold. ``promised_fpr`` is what this number of images can promise,
    which is more than the target where they are too few.
    """

    def make() -> list[dict[str, Any]]:
        rows, settings = [], study.config.evaluation
        target = max(settings.target_fprs)
        for method, category in study.cells:
            (clean,) = calibrated_on(study, "no_adaptation", method, category)
            (shifted,) = calibrated_on(study, "threshold_only", method, category)
            test = tested(study, "threshold_only", method, category)
            clean_good, shifted_good, test_good = (
                images.image_scores[images.labels == 0] for images in (clean, shifted, test)
            )
            if clean_good.size < min_calibration(target):
                continue
            sizes = [n for n in RECALIBRATION_SIZES if n < shifted_good.size] + [shifted_good.size]
            curve = recalibration_curve(
                clean_good,
                shifted_good,
                test_good,
                target,
                sizes,
                seed=draw_seed(study.config.seed, category),
                level=settings.confidence,
            )
            metrics = {}
            for row in curve.to_dict("records"):
                details = {"recalibrated_on": row["n"], "target": f"{target:g}"}
                metrics[detailed("realised_fpr", **details)] = stated(
                    row["fpr"], test_good.size, row["ci_low"], row["ci_high"]
                )
                if row["n"]:
                    promised = stated(row["promised"], row["n"])
                    metrics[detailed("promised_fpr", **details)] = promised
            rows += to_rows("threshold_only", method, category, study.config.seed, metrics)
        return rows

    settings = study.config.evaluation
    return make_part(
        study,
        __name__,
        "recalibration",
        make,
        cells=_cells(study, "no_adaptation", "threshold_only"),
        targets=settings.target_fprs,
        confidence=settings.confidence,
    )


def transfer_entries(
    thresholds: dict[str, float], tests: dict[str, Predictions], domains: bool = False
) -> dict[str, dict[Metric, Entry]]:
    """The threshold-transfer matrix as entries.

    Args:
        thresholds: Where a threshold is from, to its value.
        tests: What it is applied to, to the test predictions.
        domains: Whether domains of one category are tested; if not, categories are.

    Returns:
        What is tested, to its entries. Their details say where the threshold is from and, for
        domains, what is tested.
    """
    table = transfer_table(
        thresholds, {name: (test.labels, test.image_scores) for name, test in tests.items()}
    )
    entries: dict[str, dict[Metric, Entry]] = {name: {} for name in tests}
    for row in table.to_dict("records"):
        details = {"threshold_from": row["threshold_from"]}
        if domains:
            details["tested_on"] = row["tested_on"]
        entries[row["tested_on"]] |= {
            detailed("fpr", **details): stated(row["fpr"], row["n_good"]),
            detailed("fnr", **details): stated(row["fnr"], row["n_defect"]),
            detailed("specificity", **details): stated(row["specificity"], row["n_good"]),
        }
    return entries


def transfer_part(study: Study) -> Part:
    """Rows of scenario ``transfer``: the clean model with the threshold of each domain.

    Each threshold is applied to the test images of each domain.
    """

    def make() -> list[dict[str, Any]]:
        rows, rule = [], study.config.evaluation.threshold_rule
        for method, category in study.cells:
            values, tests = {}, {}
            for domain in ("clean", "shift"):
                val, test = (
                    study.predictions(
                        method, category, fitted_on="clean", domain=domain, split=split
                    )
                    for split in ("val", "test")
                )
                values[domain] = calibrate_threshold(val.labels, val.image_scores, rule).value
                tests[domain] = test
            for metrics in transfer_entries(values, tests, domains=True).values():
                rows += to_rows("transfer", method, category, study.config.seed, metrics)
        return rows

    keys = _cells(study, "clean", "threshold_only")
    return make_part(study, __name__, "transfer", make, cells=keys)


def zones_part(study: Study, scenario: str) -> Part:
    """Rows ``pixel_f1`` with the detail ``thresholds``: ``zones`` (3 x 3) against ``single``."""

    def make() -> list[dict[str, Any]]:
        rows = []
        for method, category in study.cells:
            (val,) = calibrated_on(study, scenario, method, category)
            test = tested(study, scenario, method, category)
            seen = test.subset(test.pixel_valid)
            if not seen.masks.any():
                continue
            good_maps = val.anomaly_maps[val.labels == 0]
            compared = compare_zones(good_maps, seen.anomaly_maps, seen.masks)
            metrics = {
                detailed("pixel_f1", thresholds=name): stated(rates["f1"], len(seen))
                for name, rates in compared.items()
            }
            rows += to_rows(scenario, method, category, study.config.seed, metrics)
        return rows

    return make_part(study, __name__, f"zones_{scenario}", make, cells=_cells(study, scenario))


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    names = study.config.scenarios
    per_category = [name for name in names if not SCENARIOS[name].one_threshold]
    all_of_them = [rules_part(study, name) for name in names]
    for name in per_category:
        all_of_them += [promises_part(study, name), zones_part(study, name)]
    if {"no_adaptation", "threshold_only"} <= set(per_category):
        all_of_them.append(recalibration_part(study))
    if {"clean", "threshold_only"} <= set(per_category):
        all_of_them.append(transfer_part(study))
    return all_of_them


def rules(study: Study, scenario: str) -> pd.DataFrame:
    """``rules_part`` as rows of the tidy table."""
    return rules_part(study, scenario).rows()


def promises(study: Study, *scenarios: str) -> pd.DataFrame:
    """``promises_part`` of several scenarios as rows of the tidy table."""
    return pd.concat([promises_part(study, name).rows() for name in scenarios], ignore_index=True)


def recommended(study: Study, scenario: str, method: str, category: str) -> pd.DataFrame:
    """A conservative, a balanced and an aggressive threshold, judged on test.

    They are quantiles of the thresholds of all rules; see ``compare.recommend``.

    Returns:
        One row per choice: choice, threshold, recall, specificity.

    Raises:
        DataError: No rule can be used on the calibration images.
    """
    table = rule_table(study, scenario, method, category)
    test = tested(study, scenario, method, category)
    usable = table[table.refused.isna()]
    if usable.empty:
        raise DataError(
            f"category '{category}': expected at least one usable threshold rule, found none; "
            "put more good images into the val split"
        )
    rows = []
    for name, value in recommend(dict(zip(usable.rule, usable.value, strict=True))).items():
        judged = image_metrics(test.labels, test.image_scores, value)
        rates = {rate: judged[rate] for rate in ("recall", "specificity")}
        rows.append({"choice": name, "threshold": value, **rates})
    return pd.DataFrame(rows)
