"""The tidy table: its columns, and how findings become its rows.

A row is one value. Its name is spread over columns, so that nobody takes a name apart:

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

#: The columns that name a row; no two rows have the same.
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
#: Details of two parts: a promised rate of false alarms by a rule, the same after recalibration,
#: and a threshold carried from one domain to another.
PROMISE, MENDING, TRANSFER = ("rule+target", "recalibrated_on+target", "threshold_from+tested_on")
COMPOUND = {
    PROMISE: ("rule", "target"),
    MENDING: ("recalibrated_on", "target"),
    TRANSFER: ("threshold_from", "tested_on"),
}
#: What an autoencoder's heads are compared by, and the head of those rows that are another method's
#: own score.
HEAD_METRICS, OWN_HEAD = ("image_auroc", "pixel_auroc", "aupro"), "own"
#: A metric's name, its detail and the detail's value.
Metric = tuple[str, str, str]


def detailed(metric: str, /, **details: object) -> Metric:
    """A metric with what it is restricted to: ``detailed("recall", rule="mad")``."""
    values = [str(value) for value in details.values()]
    if len(values) == 1:
        return metric, *details, *values
    return metric, "+".join(details), json.dumps(values, ensure_ascii=False) if values else ""


def details_of(detail: str, value: str) -> dict[str, str]:
    """What ``detailed`` was given, from a row's ``detail`` and ``detail_value``."""
    if detail in COMPOUND:
        return dict(zip(COMPOUND[detail], json.loads(value), strict=True))
    return {detail: value} if detail else {}


def macro_name(categories: Collection[str]) -> str:
    """What a reader is told that the macro average is called; never the name of a category."""
    name = "macro"
    while name in categories:
        name += " average"
    return name


def to_rows(
    scenario: str,
    method: str,
    category: str,
    seed: int,
    metrics: Mapping[str | Metric, dict[str, Any]],
    against: str = "",
    against_method: str = "",
) -> list[dict[str, Any]]:
    """Entries by metric (a name, or what ``detailed`` gives) as rows of the tidy table."""
    rows = []
    for metric, found in metrics.items():
        key = detailed(metric) if isinstance(metric, str) else metric
        place = (scenario, against, method, against_method, category, category == MACRO, seed)
        rows.append(dict(zip(KEYS, (*place, *key), strict=True)) | found)
    return rows


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are neither differences nor restricted by a detail."""
    return table[(table[["against", "against_method", "detail"]] == "").all(axis=1)]


def as_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the columns of ``COLUMNS``, also where there is none."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype({"macro": bool})


def results_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The tidy table with the columns of ``COLUMNS``: scenarios in their order, then what compares
    them.

    Macro averages stand after their categories.
    """
    table = as_table(rows)
    order = {name: index for index, name in enumerate(SCENARIOS)}
    place = table.scenario.map(order).where(table.against == "").fillna(len(order))
    by = ["scenario", "against", "method", "against_method", "macro", "category", *KEYS[6:]]
    table = table.assign(_place=place).sort_values(["_place", *by], kind="stable")
    return table[list(COLUMNS)].reset_index(drop=True)
