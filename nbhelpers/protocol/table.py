"""The one tidy table: every kind of finding is a part of rows, kept like any artefact; ``metrics.csv`` gathers them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nbhelpers import artefacts
from nbhelpers.evaluation.scenarios import COLUMNS, results_table
from nbhelpers.files import read_json, write_json
from nbhelpers.reporting import tables
from nbhelpers.study import Study

Rows = list[dict[str, Any]]
#: Modules of this package that have a ``parts(study)``.
MODULES = ("cells", "differences", "methods", "thresholds", "pooled", "refits", "errors", "reconstruction")


@dataclass(frozen=True)
class Part:
    """Some rows of the tidy table.

    Attributes:
        name: Its file below ``results/rows``.
        recipe: All that the rows depend on (see ``Study.recipe``); cheap to make.
        make: Computes them.
        optional: They belong into the table if somebody asked for them; the report does not ask.
    """

    name: str
    recipe: dict[str, Any]
    make: Callable[[], Rows]
    optional: bool = False


def _path(study: Study, part: Part) -> Path:
    return study.config.output_dir / "results" / "rows" / f"{part.name}.json"


def rows(study: Study, part: Part) -> pd.DataFrame:
    """A part's rows, computed unless they are there and current, in the columns of the tidy table."""
    path = _path(study, part)
    found = artefacts.ask(path, part.recipe, lambda file: write_json(file, part.make()), read_json)
    return pd.DataFrame(found, columns=list(COLUMNS))


def is_made(study: Study, part: Part) -> bool:
    """Whether a part's rows are there and current."""
    return artefacts.is_current(_path(study, part), part.recipe)


def parts(study: Study) -> list[Part]:
    """Every part that the configured scenarios, methods and categories have."""
    found = (importlib.import_module(f"{__package__}.{name}").parts(study) for name in MODULES)
    return [part for module in found for part in module]


def write_metrics(study: Study) -> pd.DataFrame:
    """Bring ``metrics.csv`` up to date with all parts that are made and still current, whoever made them."""
    target = study.config.output_dir / "results" / "metrics.csv"
    with artefacts.locked(target):  # read and written in one go: two notebooks may be at it
        found = []
        for part in parts(study):
            if is_made(study, part):
                found += read_json(_path(study, part))
        table = results_table(found)
        tables.write_csv(target, table)
    return table
