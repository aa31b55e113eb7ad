"""Results as files and as readable tables; every one is a view of the evaluations, nothing is typed
in.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from nbhelpers.results.table import macro_name

#: What a results table shows unless asked for more.
HEADLINES = ("image_auroc", "pixel_auroc", "aupro", "f1", "trivial_f1", "specificity")


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with their names as they are printed: a difference is called ``after - before`` or
    ``one method - other method``, and the category of a macro average ``macro``.
    """

    def difference(name: str, against: str) -> pd.Series:
        minus = " - " + table[against]
        return table[name] + minus.where(table[against] != "", "")

    return table.assign(
        scenario=difference("scenario", "against"),
        method=difference("method", "against_method"),
        category=table.category.mask(table.macro, macro_name(set(table.category))),
    )


def _wide(table: pd.DataFrame, keys: list[str], metrics: Iterable[str]) -> pd.DataFrame:
    """One row per combination of keys, in the order of the table, and one column per metric."""
    order = table[keys].drop_duplicates().itertuples(index=False, name=None)
    wide = table.pivot(index=keys, columns="metric", values="value")
    return wide.reindex(index=list(order), columns=list(metrics))


def _with_interval(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """The table with each value as text: value [low, high], where there is an interval."""

    def text(value: float, low: float, high: float) -> str:
        interval = "" if pd.isna(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
        return f"{value:.{digits}f}{interval}"

    ends = zip(table.value, table.ci_low, table.ci_high, strict=True)
    return table.assign(value=[text(*row) for row in ends])


def headline_table(table: pd.DataFrame, metrics: Iterable[str] = HEADLINES) -> pd.DataFrame:
    """The tidy table with one row per scenario, method and category, in its order, and one column
    per metric; NaN where skipped.
    """
    chosen = printed(table[table.metric.isin(list(metrics)) & (table.detail == "")])
    return _wide(chosen, ["scenario", "method", "category", "seed"], metrics)


def with_intervals(table: pd.DataFrame, metrics: Iterable[str], digits: int = 2) -> pd.DataFrame:
    """As ``headline_table`` of one scenario, each cell as text: value [low, high]."""
    chosen = printed(table[table.metric.isin(list(metrics)) & (table.detail == "")])
    there = [name for name in metrics if name in set(chosen.metric)]
    return _wide(_with_interval(chosen, digits), ["method", "category"], there)


def qualified(
    table: pd.DataFrame, detail: str, metrics: Iterable[str], interval: bool = False
) -> pd.DataFrame:
    """Rows that have a detail as a wide table: scenario, method, category, the detail, and one
    column per metric.

    Args:
        table: Rows of the tidy table.
        detail: The one that is wanted, e.g. ``rule``.
        metrics: Their names.
        interval: Each cell as text, value [low, high].
    """
    chosen = printed(table[table.metric.isin(list(metrics)) & (table.detail == detail)])
    there = [name for name in metrics if name in set(chosen.metric)]
    chosen = _with_interval(chosen) if interval else chosen
    wide = _wide(chosen, ["scenario", "method", "category", "detail_value"], there)
    wide = wide.rename_axis(columns=None).reset_index().rename(columns={"detail_value": detail})
    return wide if wide.scenario.nunique() > 1 or interval else wide.drop(columns="scenario")
