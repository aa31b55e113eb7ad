"""Thresholds judged on test: all rules, false alarms promised against realised, thresholds carried
elsewhere, zones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.cross_scores import cross_scores, crossed_scores
from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import calibrated_on, cell, tested
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
from nbhelpers.results.table import MACRO, Metric, detailed, to_rows
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import Study

RULE_METRICS = {
    "threshold": "value",
    "f1": "f1",
    "recall": "recall",
    "specificity": "specificity",
    "balanced_accuracy": "balanced_accuracy",
    "degenerate": "degenerate",
}
MENDING_SIZES = (0, 5, 10, 20, 30, 50, 100)  # good images of the new domain that recalibrate
Entry = dict[str, Any]


def _cells(study: Study, *names: str) -> list[str]:
    return [
        cell(study, name, method, category).key
        for name in names
        for method, category in study.cells
    ]


def rule_table(study: Study, scenario: str, method: str, category: str) -> pd.DataFrame:
    """Every rule on a cell's calibration images, judged on its test images; see ``compare_rules``."""
    vals = calibrated_on(study, scenario, method, category)
    test = tested(study, scenario, method, category)
    labels, scores = (
        np.concatenate([getattr(val, name) for val in vals]) for name in ("labels", "image_scores")
    )
    return compare_rules(labels, scores, test.labels, test.image_scores)


def rules_part(study: Study, scenario: str) -> Part:
    """Rows ``f1`` and so on of each ``rule`` of a scenario; a rule that is refused has none."""

    def make() -> list[dict[str, Any]]:
        found = []
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
                found += to_rows(scenario, method, category, study.config.seed, metrics)
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
            found += to_rows(scenario, method, MACRO, study.config.seed, means)
        return found

    return make_part(study, __name__, f"rules_{scenario}", make, cells=_cells(study, scenario))


def _promise(
    rule: str,
    target: float,
    flagged: np.ndarray,
    test: Predictions,
    n_calibration: int,
    level: float,
) -> dict[Metric, Entry]:
    """What a promised false alarm rate became on a cell's test images."""
    promise = {"rule": rule, "target": f"{target:g}"}
    rate, defect = realised_rate(flagged[test.labels == 0], level), test.labels == 1
    return {
        detailed("realised_fpr", **promise): stated(
            rate["rate"], rate["n"], rate["ci_low"], rate["ci_high"]
        ),
        detailed("recall", **promise): stated(float(flagged[defect].mean()), int(defect.sum())),
        detailed("calibration_n", **promise): stated(n_calibration, n_calibration),
    }


def _split_promises(
    study: Study, scenario: str, method: str, category: str
) -> Iterator[dict[Metric, Entry]]:
    """Split conformal: the good validation images calibrate; a target that they are too few for is
    left out.
    """
    (val,), test = (
        calibrated_on(study, scenario, method, category),
        tested(study, scenario, method, category),
    )
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
    """CV+: every good training and validation image calibrates, each scored by a refit that did not
    see it.
    """
    test, table = tested(study, scenario, method, category), cross_scores(study, method, category)
    own = table[table.part == "calibration"]
    by_fold = table[table.part == f"test {SCENARIOS[scenario].test_domain}"].pivot(
        index="fold", columns="id", values="score"
    )
    p_values = cv_plus_p_values(
        own.score.to_numpy(), own.fold.to_numpy(), by_fold[list(test.ids)].to_numpy()
    )
    for target in study.config.evaluation.target_fprs:
        if len(own) >= min_calibration(target):
            yield _promise(
                "conformal_cv",
                target,
                p_values <= target,
                test,
                len(own),
                study.config.evaluation.confidence,
            )


def promises_part(study: Study, scenario: str) -> Part:
    """Rows ``realised_fpr`` of each rule and target, with recall and the calibration's size, of a
    scenario.

    CV+ (``conformal_cv``) is there where the model and the threshold are the clean domain's: it
    refits the clean model, and what it promises is broken by a shift as well.
    """
    crossed = SCENARIOS[scenario].fitted_on == SCENARIOS[scenario].threshold_domain == "clean"

    def make() -> list[dict[str, Any]]:
        found = []
        for method, category in study.cells:
            promises = [*_split_promises(study, scenario, method, category)]
            promises += [*_cross_promises(study, scenario, method, category)] if crossed else []
            for metrics in promises:
                found += to_rows(scenario, method, category, study.config.seed, metrics)
        return found

    settings = study.config.evaluation
    return make_part(
        study,
        __name__,
        f"promises_{scenario}",
        make,
        cells=_cells(study, scenario),
        targets=settings.target_fprs,
        confidence=settings.confidence,
        folds=[crossed_scores(study, *asked).key for asked in study.cells] if crossed else [],
    )


def mending_part(study: Study) -> Part:
    """Rows ``realised_fpr`` of each ``recalibrated_on``: how many shifted good images mend a broken
    promise.

    Of the largest target; 0 keeps the clean threshold. ``promised_fpr`` is what that many images
    can promise: more than the target where they are too few for it.
    """

    def make() -> list[dict[str, Any]]:
        found, settings = [], study.config.evaluation
        for method, category in study.cells:
            (before,), (after,) = (
                calibrated_on(study, name, method, category)
                for name in ("no_adaptation", "threshold_only")
            )
            test = tested(study, "threshold_only", method, category)
            good = [part.image_scores[part.labels == 0] for part in (before, after, test)]
            target = max(settings.target_fprs)
            if good[0].size < min_calibration(target):
                continue
            sizes = [n for n in MENDING_SIZES if n < good[1].size] + [good[1].size]
            curve = recalibration_curve(
                *good,
                target,
                sizes,
                seed=draw_seed(study.config.seed, category),
                level=settings.confidence,
            )
            metrics = {}
            for row in curve.itertuples():
                mending = {"recalibrated_on": row.n, "target": f"{target:g}"}
                metrics[detailed("realised_fpr", **mending)] = stated(
                    row.fpr, good[2].size, row.ci_low, row.ci_high
                )
                if row.n:
                    metrics[detailed("promised_fpr", **mending)] = stated(row.promised, row.n)
            found += to_rows("threshold_only", method, category, study.config.seed, metrics)
        return found

    settings = study.config.evaluation
    return make_part(
        study,
        __name__,
        "mending",
        make,
        cells=_cells(study, "no_adaptation", "threshold_only"),
        targets=settings.target_fprs,
        confidence=settings.confidence,
    )


def transfer_entries(
    thresholds: dict[str, float], tests: dict[str, Predictions], domains: bool = False
) -> dict[str, dict[Metric, Entry]]:
    """The threshold-transfer matrix as entries by what is tested; their details say where the
    threshold is from and, between ``domains`` of one category, what is tested.
    """
    table = transfer_table(
        thresholds, {name: (test.labels, test.image_scores) for name, test in tests.items()}
    )
    found: dict[str, dict[Metric, Entry]] = {name: {} for name in tests}
    for row in table.itertuples():
        tested_on = {"tested_on": row.tested_on} if domains else {}
        where = {"threshold_from": row.threshold_from} | tested_on
        found[row.tested_on] |= {
            detailed("fpr", **where): stated(row.fpr, row.n_good),
            detailed("fnr", **where): stated(row.fnr, row.n_defect),
            detailed("specificity", **where): stated(row.specificity, row.n_good),
        }
    return found


def transfer_part(study: Study) -> Part:
    """Rows of scenario ``transfer``: the clean model's thresholds of each domain applied to each
    domain.
    """

    def make() -> list[dict[str, Any]]:
        found, rule = [], study.config.evaluation.threshold_rule
        for method, category in study.cells:
            vals = {
                name: study.predictions(
                    method, category, fitted_on="clean", domain=name, split="val"
                )
                for name in ("clean", "shift")
            }
            tests = {
                name: study.predictions(
                    method, category, fitted_on="clean", domain=name, split="test"
                )
                for name in ("clean", "shift")
            }
            values = {
                name: calibrate_threshold(val.labels, val.image_scores, rule).value
                for name, val in vals.items()
            }
            for metrics in transfer_entries(values, tests, domains=True).values():
                found += to_rows("transfer", method, category, study.config.seed, metrics)
        return found

    keys = _cells(study, "clean", "threshold_only")
    return make_part(study, __name__, "transfer", make, cells=keys)


def zones_part(study: Study, scenario: str) -> Part:
    """Rows ``pixel_f1`` of ``thresholds`` ``zones`` and ``single``: does a threshold for each of
    3 x 3 zones pay?
    """

    def make() -> list[dict[str, Any]]:
        found = []
        for method, category in study.cells:
            (val,), test = (
                calibrated_on(study, scenario, method, category),
                tested(study, scenario, method, category),
            )
            seen = test.subset(test.pixel_valid)
            if not seen.masks.any():
                continue
            sides = compare_zones(val.anomaly_maps[val.labels == 0], seen.anomaly_maps, seen.masks)
            metrics = {
                detailed("pixel_f1", thresholds=name): stated(rates["f1"], len(seen))
                for name, rates in sides.items()
            }
            found += to_rows(scenario, method, category, study.config.seed, metrics)
        return found

    return make_part(study, __name__, f"zones_{scenario}", make, cells=_cells(study, scenario))


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    own = [name for name in study.config.scenarios if not SCENARIOS[name].one_threshold]
    found = [rules_part(study, name) for name in study.config.scenarios]
    found += [part(study, name) for name in own for part in (promises_part, zones_part)]
    if {"no_adaptation", "threshold_only"} <= set(own):
        found.append(mending_part(study))
    if {"clean", "threshold_only"} <= set(own):
        found.append(transfer_part(study))
    return found


def rules(study: Study, scenario: str) -> pd.DataFrame:
    """``rules_part`` as rows."""
    return rules_part(study, scenario).rows()


def promises(study: Study, *scenarios: str) -> pd.DataFrame:
    """``promises_part`` of several scenarios as rows."""
    return pd.concat([promises_part(study, name).rows() for name in scenarios], ignore_index=True)


def recommended(study: Study, scenario: str, method: str, category: str) -> pd.DataFrame:
    """Conservative, balanced and aggressive: quantiles of all rules' thresholds (F123), judged on
    test.
    """
    table, test = (
        rule_table(study, scenario, method, category),
        tested(study, scenario, method, category),
    )
    usable = table[table.refused.isna()]
    if usable.empty:
        raise DataError(
            f"category '{category}': expected at least one usable threshold rule, found none"
        )
    values = recommend(dict(zip(usable.rule, usable.value, strict=True)))
    judged = {
        name: image_metrics(test.labels, test.image_scores, value) for name, value in values.items()
    }
    return pd.DataFrame(
        [
            {
                "choice": name,
                "threshold": values[name],
                **{m: found[m] for m in ("recall", "specificity")},
            }
            for name, found in judged.items()
        ]
    )
