"""The comparative tables of the whole study, each drawn from the tidy table.

A family of rows that was not computed gives no table. What a table is, and how it is written, is
in ``formats``; the tables of rows that have one detail in common are in ``listings``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pandas as pd

from nbhelpers.report.formats import Field, ReportTable, Row, Versus, made_table
from nbhelpers.report.listings import (
    AUTOENCODER_LISTINGS,
    ERROR_LISTINGS,
    THRESHOLD_LISTINGS,
    listed_table,
)
from nbhelpers.results.numbers import Number, Results, label
from nbhelpers.results.table import MACRO
from nbhelpers.scenarios import COMPARISONS

MACRO_METRICS = (
    "image_auroc",
    "aupro",
    "aupimo",
    "f1",
    "trivial_f1",
    "specificity",
    "balanced_accuracy",
)
RESULT_METRICS = (*MACRO_METRICS, "pixel_auroc", "ece")
CHANGE_METRICS = ("image_auroc", "aupro", "aupimo", "f1", "specificity", "balanced_accuracy")
COMPARISON_METRICS = (
    "image_auroc",
    "p_delong",
    "p_delong_holm",
    "aupimo",
    "p_permutation",
    "p_permutation_holm",
    "accuracy",
    "p_mcnemar",
    "p_mcnemar_holm",
)
DATA_COUNTS = ("train_good", "val_good", "val_defect", "test_good", "test_defect", "test_masks")
#: Columns of ``compare_models``.
RANKING_COLUMNS = (
    "scenario",
    "rank",
    "method",
    "image_auroc",
    "ci_low",
    "ci_high",
    "n_images",
    "better_than",
    "worse_than",
)


def _names(cell: str | Versus) -> tuple[str, str]:
    """What a cell names, and what was subtracted from it ("" where nothing was)."""
    return (cell.name, cell.against) if isinstance(cell, Versus) else (cell, "")


def _grid(
    results: Results,
    name: str,
    caption: str,
    scenarios: Sequence[str | Versus],
    methods: Sequence[str | Versus],
    categories: Sequence[str],
    metrics: Iterable[str],
) -> ReportTable | None:
    """One row per scenario, method and category that has any of the metrics.

    There is one column per metric that any row has.
    """
    metrics = list(metrics)
    rows: list[Row] = []
    for scenario, method, category in itertools.product(scenarios, methods, categories):
        (after, before), (first, second) = _names(scenario), _names(method)
        sides = {"against": before, "against_method": second}
        numbers = [results.find(after, first, category, metric, **sides) for metric in metrics]
        if any(number is not None for number in numbers):
            rows.append((scenario, method, category, *numbers))
    return made_table(name, caption, ("scenario", "method", "category", *metrics), rows)


def compare_models(results: Results) -> pd.DataFrame:
    """Rank the methods of each scenario by macro image AUROC, and say what is significant.

    Two methods differ only where DeLong's test, Holm-corrected, has p < 0.05 in a category; the
    rank alone claims nothing.

    Returns:
        One row per scenario and method, the highest first. Columns scenario, rank, method,
        image_auroc, ci_low, ci_high, n_images, better_than and worse_than: the other methods with
        the categories in brackets, ``none shown``, or ``not tested``.
    """
    rows = []
    for scenario in results.scenarios:
        numbers = [
            results.find(scenario, method, MACRO, "image_auroc") for method in results.methods
        ]
        ranked = sorted((n for n in numbers if n is not None), key=lambda number: -number.value)
        for rank, number in enumerate(ranked, 1):
            better_than, worse_than = _better_and_worse(results, scenario, number.method)
            rows.append(
                {
                    "scenario": scenario,
                    "rank": rank,
                    "method": number.method,
                    "image_auroc": number.value,
                    "ci_low": number.ci_low,
                    "ci_high": number.ci_high,
                    "n_images": number.n_images,
                    "better_than": better_than,
                    "worse_than": worse_than,
                }
            )
    return pd.DataFrame(rows, columns=RANKING_COLUMNS)


def _better_and_worse(results: Results, scenario: str, method: str) -> tuple[str, str]:
    """The methods that a method is better than, and those it is worse than, in words."""
    better: list[str] = []
    worse: list[str] = []
    pairs = [pair for pair in results.pairs if method in pair]
    for first, second in pairs:
        other, sign = (second, 1) if method == first else (first, -1)
        differences = results.significant(scenario, (first, second), "image_auroc", "delong")
        ahead = [category for category, by in differences.items() if by.value * sign > 0]
        behind = [category for category, by in differences.items() if by.value * sign < 0]
        for names, categories in ((better, ahead), (worse, behind)):
            if categories:
                names.append(f"{label(other)} ({', '.join(categories)})")
    was_tested = any(results.tested(scenario, pair, "delong") for pair in pairs)
    nothing = "none shown" if was_tested else "not tested"
    return "; ".join(better) or nothing, "; ".join(worse) or nothing


def _ranking(results: Results) -> ReportTable | None:
    """``compare_models`` as a table."""
    rows: list[Row] = []
    for row in compare_models(results).to_dict("records"):
        number = results.find(row["scenario"], row["method"], MACRO, "image_auroc")
        rows.append((row["scenario"], row["method"], number, row["better_than"], row["worse_than"]))
    caption = (
        "Methods by macro image AUROC, the highest first. One is called better than another where "
        "DeLong's test, Holm-corrected, has p below 0.05 in the named categories."
    )
    columns = ("scenario", "method", "image_auroc", "better_than", "worse_than")
    return made_table("ranking", caption, columns, rows)


def _macro(results: Results) -> ReportTable | None:
    """One row per metric and method, one column per scenario."""
    rows: list[Row] = []
    for metric, method in itertools.product(MACRO_METRICS, results.methods):
        numbers = [results.find(scenario, method, MACRO, metric) for scenario in results.scenarios]
        if any(number is not None for number in numbers):
            rows.append((metric, method, *numbers))
    caption = "Macro averages over the categories, with bootstrap intervals, in each scenario."
    return made_table("macro", caption, ("metric", "method", *results.scenarios), rows)


def _recovery(results: Results) -> ReportTable | None:
    """One row per method, category and metric, one column per adaptation."""
    recovering = {number.scenario for number in results.where(metric="recovered_share")}
    adapted = [name for name in results.scenarios if name in recovering]
    rows: list[Row] = []
    for method, category, metric in itertools.product(
        results.methods, (*results.categories, MACRO), RESULT_METRICS
    ):
        numbers = [
            results.find(scenario, method, category, "recovered_share", metric=metric)
            for scenario in adapted
        ]
        if any(number is not None for number in numbers):
            rows.append((metric, method, category, *numbers))
    caption = (
        "The share of the loss under the shift that is won back, where there is a loss: 1 means "
        "all of it, and below 0 the result got worse."
    )
    return made_table("recovery", caption, ("metric", "method", "category", *adapted), rows)


def _seeds(results: Results) -> ReportTable | None:
    """One row per seed, which ``Results.find`` cannot choose."""
    by_seed: dict[tuple[str, str, int], dict[str, Number]] = {}
    for number in results.where(scenario="seeds"):
        key = (number.method, number.category, number.seed)
        by_seed.setdefault(key, {})[number.metric] = number
    metrics = list(dict.fromkeys(metric for numbers in by_seed.values() for metric in numbers))
    rows: list[Row] = []
    for (method, category, _), numbers in by_seed.items():
        seed = Field(next(iter(numbers.values())), "seed")
        rows.append((method, category, seed, *(numbers.get(metric) for metric in metrics)))
    caption = "The detector of the clean scenario, fitted again with other seeds."
    return made_table("seeds", caption, ("method", "category", "seed", *metrics), rows)


def _parameters(results: Results) -> ReportTable | None:
    """One row per autoencoder; the count is the same for every category."""
    by_method = {number.method: number for number in results.where(metric="parameters")}
    rows: list[Row] = [(method, number) for method, number in by_method.items()]
    caption = "Trained parameters of each autoencoder."
    return made_table("parameters", caption, ("method", "parameters"), rows)


def all_tables(results: Results) -> dict[str, ReportTable]:
    """Every table that the tidy table has rows for, by name, in the order of the report."""
    everywhere = [*results.categories, MACRO]
    tables = [
        _grid(
            results,
            "data",
            "The number of images in each category and split.",
            ["data"],
            ["-"],
            results.categories,
            DATA_COUNTS,
        ),
        _macro(results),
        _grid(
            results,
            "results",
            "Every scenario, method and category. Trivial F1 is the F1 of calling every image a "
            "defect.",
            results.scenarios,
            results.methods,
            everywhere,
            RESULT_METRICS,
        ),
        _ranking(results),
        _grid(
            results,
            "differences",
            "Paired differences of two scenarios: the second is subtracted from the first. An "
            "interval that excludes 0 is a change.",
            [Versus(after, before) for before, after in COMPARISONS],
            results.methods,
            everywhere,
            CHANGE_METRICS,
        ),
        _recovery(results),
        _grid(
            results,
            "comparisons",
            "Two methods on the same images: the second is subtracted from the first. The p "
            "values are those of paired tests, plain and Holm-corrected.",
            results.scenarios,
            [Versus(*pair) for pair in results.pairs],
            everywhere,
            COMPARISON_METRICS,
        ),
        *(listed_table(results, listing) for listing in (*THRESHOLD_LISTINGS, *ERROR_LISTINGS)),
        _seeds(results),
        _parameters(results),
        *(listed_table(results, listing) for listing in AUTOENCODER_LISTINGS),
    ]
    return {table.name: table for table in tables if table is not None}
