"""What the shift costs and what each adaptation gives back: paired differences between scenarios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.scenarios import cell, cell_draws, evaluate_cell, tested
from nbhelpers.evaluation import cell as evaluation
from nbhelpers.evaluation.bootstrap import entry
from nbhelpers.evaluation.cell import Draws, draw_seed
from nbhelpers.evaluation.metrics import RATE_METRICS
from nbhelpers.results.table import MACRO, detailed, to_rows
from nbhelpers.scenarios import COMPARISONS
from nbhelpers.study import Study

RECOVERED = ("image_auroc", "aupro", "f1", "specificity", "balanced_accuracy")


def _sides(
    study: Study, method: str, category: str, *names: str
) -> list[tuple[dict[str, float], Draws, dict]]:
    """Values, samples and image counts of the same test images in several scenarios.

    The pixel metrics of twins are paired only on images whose pixel labels are known in all of
    them: where the shift pushed a defect out of its frame they are measured again, without it.
    """
    cells = [evaluate_cell(study, name, method, category) for name in names]
    tests = [tested(study, name, method, category) for name in names]
    twins = [study.source_ids(category, test.ids) for test in tests]
    for other in twins[1:]:
        evaluation.check_twins(twins[0], other)
    sides = []
    valid = np.logical_and.reduce([test.pixel_valid for test in tests])
    for name, result, test in zip(names, cells, tests, strict=True):
        values = {metric: found["value"] for metric, found in result["metrics"].items()}
        counts = {metric: found["n_images"] for metric, found in result["metrics"].items()}
        draws = cell_draws(study, name, method, category)
        if not np.array_equal(test.pixel_valid, valid) and test.masks[valid].any():
            seed = draw_seed(study.config.seed, category)
            seen = test.subset(valid)
            again, sample, _ = evaluation.evaluate_pixels(seen, study.config.evaluation, seed)
            values, draws = values | again, draws | sample
            counts |= dict.fromkeys(again, len(seen)) | {"aupimo": int(seen.labels.sum())}
        sides.append((values, draws, counts))
    return sides


def _inputs(study: Study, method: str, *names: str) -> list[str]:
    return [
        cell(study, name, method, category).key for name in names for category in study.categories
    ]


def difference_part(study: Study, before: str, after: str, method: str) -> Part:
    """Rows of ``after`` minus ``before`` for one method: every category and their macro average."""

    def make() -> list[dict[str, Any]]:
        level, found, macros = study.config.evaluation.confidence, [], []
        for category in study.categories:
            (*a, counts), (*b, _) = _sides(study, method, category, before, after)
            counts = {metric: counts[metric] for metric in RATE_METRICS if metric in counts}
            metrics, draws = evaluation.difference(tuple(a), tuple(b), counts, level)
            found += to_rows(after, method, category, study.config.seed, metrics, against=before)
            macros.append(({"metrics": metrics}, draws))
        metrics = evaluation.macro(macros, level)
        return found + to_rows(after, method, MACRO, study.config.seed, metrics, against=before)

    return make_part(
        study,
        __name__,
        f"difference_{before}_{after}_{method}",
        make,
        cells=_inputs(study, method, before, after),
    )


def recovered_part(study: Study, method: str) -> Part:
    """Rows ``recovered_share`` of a ``metric``: the share of what the shift cost that an adaptation
    gives back.

    Given only where the loss is one: its paired interval lies below 0. A share of a loss that may
    be none at all means nothing.
    """
    adapted_by = [
        name for name in ("threshold_only", "full_adaptation") if name in study.config.scenarios
    ]
    names = ["clean", "no_adaptation", *adapted_by]

    def make() -> list[dict[str, Any]]:
        level, found = study.config.evaluation.confidence, []
        sides: dict[str, list[tuple[dict[str, float], Draws, dict]]] = {name: [] for name in names}
        for category in study.categories:
            for name, side in zip(names, _sides(study, method, category, *names), strict=True):
                sides[name].append(side)
        for category, pick in [
            *((c, [i]) for i, c in enumerate(study.categories)),
            (MACRO, range(len(study.categories))),
        ]:
            for name in adapted_by:
                shares = {}
                for metric in RECOVERED:
                    parts = [[sides[s][i] for i in pick] for s in ("clean", "no_adaptation", name)]
                    if not all(metric in side[1] for part in parts for side in part):
                        continue
                    clean, none, adapted = (
                        np.mean([side[0][metric] for side in part]) for part in parts
                    )
                    sample = [np.mean([side[1][metric] for side in part], axis=0) for part in parts]
                    loss = entry(none - clean, sample[1] - sample[0], 0, level)
                    if loss["ci_high"] >= 0:
                        continue
                    usable = (
                        sample[0] > sample[1]
                    )  # nearly all of them, since the interval lies below 0
                    draws = (sample[2] - sample[1])[usable] / (sample[0] - sample[1])[usable]
                    count = sum(side[2][metric] for side in parts[0])
                    shares[detailed("recovered_share", metric=metric)] = entry(
                        (adapted - none) / (clean - none), draws, count, level
                    )
                found += to_rows(name, method, category, study.config.seed, shares)
        return found

    return make_part(
        study, __name__, f"recovered_{method}", make, cells=_inputs(study, method, *names)
    )


def comparisons(study: Study) -> list[tuple[str, str]]:
    """The comparisons whose two scenarios are configured."""
    return [pair for pair in COMPARISONS if set(pair) <= set(study.config.scenarios)]


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    found = [
        difference_part(study, *pair, method)
        for pair in comparisons(study)
        for method in study.config.methods
    ]
    if {"clean", "no_adaptation"} <= set(study.config.scenarios):
        found += [recovered_part(study, method) for method in study.config.methods]
    return found


def difference(study: Study, before: str, after: str) -> pd.DataFrame:
    """``after`` minus ``before`` of every rate, all methods and categories, with paired intervals,
    as tidy rows.

    Raises:
        DataError: the two scenarios' test images are not twins in the same order.
    """
    return pd.concat(
        [difference_part(study, before, after, method).rows() for method in study.config.methods],
        ignore_index=True,
    )


def recovered(study: Study) -> pd.DataFrame:
    """Shares of the loss that each adaptation gives back, as tidy rows."""
    return pd.concat(
        [recovered_part(study, method).rows() for method in study.config.methods], ignore_index=True
    )
