"""A finished study in one small file: the rows of its tidy table that are shown beside another
study's.

The notebooks run on a small synthetic set. What they find is shown beside what the same code found
on real images, which is read from ``docs/results/real_images.json``. That file is written by
``write_summary`` from a study's ``metrics.csv``, never by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nbhelpers.errors import DataError
from nbhelpers.files import write_text
from nbhelpers.results.numbers import Results
from nbhelpers.results.table import COLUMNS, NUMBERS, PROMISE, as_table, plain
from nbhelpers.runtime import ROOT

#: The study on real images that the notebooks show beside their own numbers.
REAL_IMAGES = ROOT / "docs" / "results" / "real_images.json"
#: Macro averages and paired differences of these are kept, and the first two of each category.
METRICS = ("image_auroc", "aupro", "f1", "recall", "specificity", "balanced_accuracy")
#: The settings that say what was studied.
FACTS = ("profile", "seed", "methods")


@dataclass(frozen=True)
class Summary:
    """What is kept of a finished study.

    Attributes:
        facts: What was studied: profile, seed, methods, categories, image_size, backbone, severity.
        results: The kept rows of its tidy table.
    """

    facts: Mapping[str, Any]
    results: Results

    @property
    def title(self) -> str:
        """The study in a few words: its categories and the size of its images."""
        facts = self.facts
        return f"{', '.join(facts['categories'])} at {facts['image_size']} px"


def kept_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a tidy table that a summary keeps, in their order.

    Args:
        table: The whole tidy table.

    Returns:
        Image counts; macro averages and differences of ``METRICS``; image AUROC and AUPRO by
        category; the seeds of PaDiM; the heads of the autoencoders; the recall of each defect type
        with a new threshold; the defects that all methods miss; the patches that match another
        category; the promise of at most 5 % false alarms on clean and on shifted images.
    """
    is_plain = table.index.isin(plain(table).index)
    is_difference = (table.against != "") & (table.against_method == "") & (table.detail == "")
    of_images = table.metric.isin(METRICS[:2])
    kept = (
        (table.scenario == "data")
        | ((is_plain | is_difference) & table.macro & table.metric.isin(METRICS))
        | (is_plain & of_images & ~table.scenario.isin(["seeds"]))
        | ((table.scenario == "seeds") & (table.metric == "image_auroc"))
        | ((table.detail == "head") & (table.metric == "image_auroc"))
        | ((table.detail == "defect_type") & (table.scenario == "threshold_only"))
        | (table.metric.isin(["missed_by_all"]) & (table.scenario == "threshold_only"))
        | (table.metric == "other_category_share")
    )
    is_promise = (table.metric == "realised_fpr") & (table.detail == PROMISE)
    at_five_percent = table.detail_value == json.dumps(["conformal_split", "0.05"])
    kept |= is_promise & at_five_percent & table.scenario.isin(["clean", "no_adaptation"])
    return table[kept]


def facts_of(config: Mapping[str, Any], categories: list[str]) -> dict[str, Any]:
    """What a summary says of the study itself.

    Args:
        config: The study's configuration, as JSON-able values.
        categories: The categories that were studied.
    """
    return {
        **{name: config[name] for name in FACTS},
        "categories": categories,
        "image_size": config["data"]["image_size"],
        "backbone": config["backbone"]["name"],
        "severity": config["shift"]["severity"],
    }


def write_summary(path: Path, results: Results, config: Mapping[str, Any]) -> None:
    """Write what is kept of a study as JSON, one row of the table on each line.

    Args:
        path: The file.
        results: The study's tidy table as it is stored.
        config: The configuration that it was made with, as JSON-able values.

    Raises:
        ResourceError: The file cannot be written.
    """
    kept = kept_rows(results.table).astype(object)
    rows = [[_value(cell) for cell in row] for row in kept.itertuples(index=False, name=None)]
    parts = {
        "study": json.dumps(facts_of(config, results.categories), ensure_ascii=False),
        "columns": json.dumps(COLUMNS),
        "rows": "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]",
    }
    body = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in parts.items())
    write_text(path, "{\n" + body + "\n}\n")


def _value(cell: Any) -> Any:
    """A cell as JSON: no NaN, six significant digits, as in ``metrics.csv``."""
    if isinstance(cell, float):
        return None if pd.isna(cell) else float(f"{cell:.6g}")
    return cell if isinstance(cell, str | bool) else int(cell)


def read_summary(path: Path = REAL_IMAGES) -> Summary:
    """Read what ``write_summary`` wrote.

    Raises:
        DataError: The file is missing, or is not such a summary.
    """
    remedy = "write it with: python scripts/generate_report_tables.py --summary PATH"
    if not path.is_file():
        raise DataError(f"{path}: expected the summary of a study, found no such file; {remedy}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        facts = stored["study"]
        table = as_table(dict(zip(stored["columns"], row, strict=True)) for row in stored["rows"])
        table = table.astype(dict.fromkeys(NUMBERS, float))
        return Summary(facts, Results(table))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the summary of a study, found {type(error).__name__}: {error}; {remedy}"
        ) from error
