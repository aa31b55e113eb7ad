"""The tidy table as readable tables, with one column per metric."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from nbhelpers.results.table import macro_name

#: What a results table shows unless asked for more.
HEADLINES = ("image_auroc", "pixel_auroc", "aupro", "f1", "trivial_f1", "specificity")


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with their names as they are printed.

    A difference is called ``after - before`` or ``one method - other method``, and the category
    of a macro average is called ``macro``.
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
    """One row per scenario, method and category of the tidy table, and one column per metric.

    A metric that was skipped is NaN.
    """
    chosen = printed(table[table.metric.isin(list(metrics)) & (table.detail == "")])
    return _wide(chosen, ["scenario", "method", "category", "seed"], metrics)


def with_intervals(table: pd.DataFrame, metrics: Iterable[str], digits: int = 2) -> pd.DataFrame:
    """As ``headline_table`` of one scenario, with each number as text: value [low, high]."""
    chosen = printed(table[table.metric.isin(list(metrics)) & (table.detail == "")])
    columns = [name for name in metrics if name in set(chosen.metric)]
    return _wide(_with_interval(chosen, digits), ["method", "category"], columns)


def qualified(
    table: pd.DataFrame, detail: str, metrics: Iterable[str], interval: bool = False
) -> pd.DataFrame:
    """The rows that have a detail as a wide table.

    Args:
        table: Rows of the tidy table.
        detail: Name of the detail, such as ``rule``.
        metrics: Names of the metrics.
        interval: Whether each number is a text, value [low, high].

    Returns:
        Columns scenario (left out where there is one scenario and ``interval`` is False), method,
        category, the detail, and one per metric.
    """
    chosen = printed(table[table.metric.isin(list(metrics)) & (table.detail == detail)])
    columns = [name for name in metrics if name in set(chosen.metric)]
    chosen = _with_interval(chosen) if interval else chosen
    wide = _wide(chosen, ["scenario", "method", "category", "detail_value"], columns)
    wide = wide.rename_axis(columns=None).reset_index().rename(columns={"detail_value": detail})
    return wide if wide.scenario.nunique() > 1 or interval else wide.drop(columns="scenario")
