"""The tidy table: its columns, and how findings become its rows.

A row is one value. Its name is spread over columns, so that no name has to be parsed:

- ``scenario`` and ``method``; in a difference also ``against`` and ``against_method``, what was
  subtracted (the "before"); "" where nothing was.
- ``category``; in a macro average it is "" and ``macro`` is True, so that a category may be called
  "macro".
- ``seed`` and ``metric``.
- ``detail`` and ``detail_value``: what the metric is restricted to, such as ``rule`` and ``mad``;
  both are "" for the plain metric. The few metrics that are restricted by two things at once have a
  detail of ``COMPOUND``, and their ``detail_value`` is a JSON array of two texts:
  ``rule+target`` and ``["conformal_split", "0.05"]``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from nbhelpers.scenarios import SCENARIOS

#: The columns that name a row; no two rows have the same values in all of them.
KEYS = (
    "scenario",
    "against",
    "method",
    "against_method",
    "category",
    "macro",
    "seed",
    "metric",
    "detail",
    "detail_value",
)
#: Those of them that hold text.
TEXTS = tuple(name for name in KEYS if name not in ("macro", "seed"))
NUMBERS = ("value", "ci_low", "ci_high", "n_images")
COLUMNS = (*KEYS, *NUMBERS)
#: The category of a macro average; no folder is called this.
MACRO = ""
#: Details that hold two texts: a promised false positive rate by a rule, the same after
#: recalibration, and a threshold carried from one domain to another.
PROMISE, RECALIBRATED, TRANSFER = (
    "rule+target",
    "recalibrated_on+target",
    "threshold_from+tested_on",
)
COMPOUND = {
    PROMISE: ("rule", "target"),
    RECALIBRATED: ("recalibrated_on", "target"),
    TRANSFER: ("threshold_from", "tested_on"),
}
#: The metrics by which an autoencoder's heads are compared.
HEAD_METRICS = ("image_auroc", "pixel_auroc", "aupro")
#: The head in the rows of a method that has no heads but its own score.
OWN_HEAD = "own"
#: A metric's name, its detail and the detail's value.
Metric = tuple[str, str, str]
#: The columns ``NUMBERS`` of one row: value, ci_low, ci_high, n_images.
Entry = dict[str, Any]


def detailed(metric: str, /, **details: object) -> Metric:
    """A metric with what it is restricted to, such as ``detailed("recall", rule="mad")``.

    Returns:
        The metric, the detail and the detail's value, as they stand in the columns.
    """
    names, values = list(details), [str(value) for value in details.values()]
    if not values:
        return metric, "", ""
    if len(values) == 1:
        return metric, names[0], values[0]
    return metric, "+".join(names), json.dumps(values, ensure_ascii=False)


def details_of(detail: str, value: str) -> dict[str, str]:
    """The details that ``detailed`` was given, from a row's ``detail`` and ``detail_value``."""
    if detail in COMPOUND:
        return dict(zip(COMPOUND[detail], json.loads(value), strict=True))
    return {detail: value} if detail else {}


def macro_name(categories: Collection[str]) -> str:
    """The printed name of the macro average, which is never the name of a category."""
    name = "macro"
    while name in categories:
        name += " average"
    return name


def to_rows(
    scenario: str,
    method: str,
    category: str,
    seed: int,
    metrics: Mapping[str, Entry] | Mapping[Metric, Entry] | Mapping[str | Metric, Entry],
    against: str = "",
    against_method: str = "",
) -> list[dict[str, Any]]:
    """Entries by metric as rows of the tidy table.

    Args:
        scenario: Scenario of all rows.
        method: Method of all rows.
        category: Category of all rows, or ``MACRO``.
        seed: Seed of all rows.
        metrics: A metric's name, or what ``detailed`` gives, to its value, interval and count.
        against: Scenario that was subtracted.
        against_method: Method that was subtracted.
    """
    rows = []
    for metric, entry in metrics.items():
        key = detailed(metric) if isinstance(metric, str) else metric
        names = (scenario, against, method, against_method, category, category == MACRO, seed)
        rows.append(dict(zip(KEYS, (*names, *key), strict=True)) | entry)
    return rows


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are neither differences nor restricted by a detail."""
    return table[(table[["against", "against_method", "detail"]] == "").all(axis=1)]


def as_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the columns of ``COLUMNS``, also where there are no rows."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype({"macro": bool})


def results_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The tidy table in its order: scenarios first, then the differences between them.

    Macro averages come after their categories.
    """
    table = as_table(rows)
    order = {name: index for index, name in enumerate(SCENARIOS)}
    rank = table.scenario.map(order).where(table.against == "").fillna(len(order))
    by = ["scenario", "against", "method", "against_method", "macro", "category"]
    by += ["seed", "metric", "detail", "detail_value"]
    table = table.assign(_rank=rank).sort_values(["_rank", *by], kind="stable")
    return table[list(COLUMNS)].reset_index(drop=True)
