"""Paired differences between scenarios: what the shift costs and what each adaptation restores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import Evaluated, cell, tested
from nbhelpers.evaluation import cell as evaluation
from nbhelpers.evaluation.bootstrap import entry
from nbhelpers.evaluation.cell import Draws, draw_seed
from nbhelpers.evaluation.metrics import RATE_METRICS, Array
from nbhelpers.results.table import MACRO, Entry, detailed, to_rows
from nbhelpers.scenarios import COMPARISONS
from nbhelpers.study import Artefact, Study

#: Metrics whose recovered share is computed.
RECOVERED = ("image_auroc", "aupro", "f1", "specificity", "balanced_accuracy")


@dataclass(frozen=True)
class _Side:
    """One category in one scenario: the metrics of the images that are compared.

    Attributes:
        values: Metric to its value.
        draws: Metric to its bootstrap sample, ``(draws,)``.
        counts: Metric to its number of images.
    """

    values: dict[str, float]
    draws: Draws
    counts: dict[str, int]


def _sides(study: Study, method: str, category: str, *names: str) -> list[_Side]:
    """The same test images of a category in several scenarios.

    The pixel metrics of twins are paired only on images whose pixel labels are known in all of
    them. Where the shift moved a defect out of its frame, they are measured again without it.
    """
    cells = [cell(study, name, method, category).get() for name in names]
    tests = [tested(study, name, method, category) for name in names]
    twins = [study.source_ids(category, test.ids) for test in tests]
    for other in twins[1:]:
        evaluation.check_twins(twins[0], other)
    sides = []
    valid = np.logical_and.reduce([test.pixel_valid for test in tests])
    for evaluated, test in zip(cells, tests, strict=True):
        metrics, draws = evaluated.result["metrics"], evaluated.draws
        values = {metric: entry["value"] for metric, entry in metrics.items()}
        counts = {metric: entry["n_images"] for metric, entry in metrics.items()}
        if not np.array_equal(test.pixel_valid, valid) and test.masks[valid].any():
            seed = draw_seed(study.config.seed, category)
            seen = test.subset(valid)
            again, sample, _ = evaluation.evaluate_pixels(seen, study.config.evaluation, seed)
            values, draws = values | again, draws | sample
            counts |= dict.fromkeys(again, len(seen)) | {"aupimo": int(seen.labels.sum())}
        sides.append(_Side(values, draws, counts))
    return sides


def _inputs(study: Study, method: str, *names: str) -> list[Artefact[Evaluated]]:
    """A method's cells in the named scenarios."""
    return [cell(study, name, method, category) for name in names for category in study.categories]


def difference_part(study: Study, before: str, after: str, method: str) -> Part:
    """Rows of ``after`` minus ``before`` for one method: every category and their macro average."""

    def make() -> list[dict[str, Any]]:
        level = study.config.evaluation.confidence
        rows, cells = [], []
        for category in study.categories:
            first, second = _sides(study, method, category, before, after)
            counts = {name: first.counts[name] for name in RATE_METRICS if name in first.counts}
            metrics, draws = evaluation.difference(
                (first.values, first.draws), (second.values, second.draws), counts, level
            )
            rows += to_rows(after, method, category, study.config.seed, metrics, against=before)
            cells.append(({"metrics": metrics}, draws))
        metrics = evaluation.macro(cells, level)
        return rows + to_rows(after, method, MACRO, study.config.seed, metrics, against=before)

    return make_part(
        study,
        __name__,
        f"difference_{before}_{after}_{method}",
        make,
        cells=_inputs(study, method, before, after),
    )


def _mean(sides: Sequence[_Side], metric: str) -> tuple[float, Array] | None:
    """The mean value and mean bootstrap sample of a metric; None where a side has no sample."""
    if not all(metric in side.draws for side in sides):
        return None
    value = np.mean([side.values[metric] for side in sides])
    return float(value), np.mean([side.draws[metric] for side in sides], axis=0)


def _recovered_share(
    clean: Sequence[_Side],
    shifted: Sequence[_Side],
    adapted: Sequence[_Side],
    metric: str,
    level: float,
) -> Entry | None:
    """The share of a loss that an adaptation restores, averaged over categories.

    Args:
        clean: Each category where the model was fitted.
        shifted: The same under the shift.
        adapted: The same after the adaptation.
        metric: The metric.
        level: Level of the interval.

    Returns:
        None where the metric is missing or the loss is not significant.
    """
    means = (_mean(sides, metric) for sides in (clean, shifted, adapted))
    at_first, at_worst, at_last = means
    if at_first is None or at_worst is None or at_last is None:
        return None
    (first, first_draws), (worst, worst_draws), (last, last_draws) = at_first, at_worst, at_last
    loss = entry(worst - first, worst_draws - first_draws, 0, level)
    if loss["ci_high"] >= 0:
        return None
    usable = first_draws > worst_draws  # nearly all resamples, since the interval lies below 0
    regained, lost = last_draws - worst_draws, first_draws - worst_draws
    draws = regained[usable] / lost[usable]
    count = sum(side.counts[metric] for side in clean)
    return entry((last - worst) / (first - worst), draws, count, level)


def recovered_part(study: Study, method: str) -> Part:
    """Rows ``recovered_share``: the share of the shift's loss that each adaptation restores.

    There is a row only where the loss is significant (its paired interval lies below 0), because
    the share of a loss that may be 0 means nothing.
    """
    adapted_by = [
        name for name in ("threshold_only", "full_adaptation") if name in study.config.scenarios
    ]
    names = ["clean", "no_adaptation", *adapted_by]

    def make() -> list[dict[str, Any]]:
        sides = {
            category: dict(zip(names, _sides(study, method, category, *names), strict=True))
            for category in study.categories
        }
        groups: dict[str, Sequence[str]] = {category: [category] for category in study.categories}
        groups[MACRO] = study.categories
        rows = []
        for category, members in groups.items():
            clean, shifted = (
                [sides[member][name] for member in members] for name in ("clean", "no_adaptation")
            )
            for name in adapted_by:
                adapted = [sides[member][name] for member in members]
                shares = {}
                for metric in RECOVERED:
                    share = _recovered_share(
                        clean, shifted, adapted, metric, study.config.evaluation.confidence
                    )
                    if share is not None:
                        shares[detailed("recovered_share", metric=metric)] = share
                rows += to_rows(name, method, category, study.config.seed, shares)
        return rows

    return make_part(
        study, __name__, f"recovered_{method}", make, cells=_inputs(study, method, *names)
    )


def comparisons(study: Study) -> list[tuple[str, str]]:
    """The comparisons whose two scenarios are configured."""
    return [pair for pair in COMPARISONS if set(pair) <= set(study.config.scenarios)]


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    all_of_them = [
        difference_part(study, *pair, method)
        for pair in comparisons(study)
        for method in study.config.methods
    ]
    if {"clean", "no_adaptation"} <= set(study.config.scenarios):
        all_of_them += [recovered_part(study, method) for method in study.config.methods]
    return all_of_them


def difference(study: Study, before: str, after: str) -> pd.DataFrame:
    """``after`` minus ``before`` of every rate, with paired intervals.

    Returns:
        Rows of the tidy table for all methods and categories.

    Raises:
        DataError: The test images of the two scenarios are not twins in the same order.
    """
    return pd.concat(
        [difference_part(study, before, after, method).rows() for method in study.config.methods],
        ignore_index=True,
    )


def recovered(study: Study) -> pd.DataFrame:
    """The shares of the loss that each adaptation restores, as rows of the tidy table."""
    return pd.concat(
        [recovered_part(study, method).rows() for method in study.config.methods], ignore_index=True
    )
