"""A part of the tidy table: rows that answer one question, computed once and then stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nbhelpers.files import read_json, write_json
from nbhelpers.results.table import as_table
from nbhelpers.study import Artefact, Study

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """Some rows of the tidy table.

    Attributes:
        name: Stem of its file below ``results/rows``.
        stored: Its rows as an artefact.
        optional: Whether the report leaves the rows out unless something else made them.
    """

    name: str
    stored: Artefact[Rows]
    optional: bool = False

    def rows(self) -> pd.DataFrame:
        """Its rows in the columns of the table; they are computed unless they are current."""
        return as_table(self.stored.get())

    def is_made(self) -> bool:
        """Whether its rows are stored and current."""
        return self.stored.is_current()


def make_part(
    study: Study,
    module: str,
    name: str,
    make: Callable[[], Rows],
    *,
    optional: bool = False,
    **inputs: Any,
) -> Part:
    """A part whose rows ``make`` computes.

    Args:
        study: The study that the rows are about.
        module: ``__name__`` of the module that computes them; the rows depend on its code and on
            the code that it imports.
        name: See ``Part``.
        make: Computes the rows.
        optional: See ``Part``.
        inputs: Everything else that the rows depend on, as values that JSON can hold. They are
            compared on every call, so they should be cheap to compute.
    """
    code = module.removeprefix("nbhelpers.")
    recipe = study.recipe("rows", code, part=name, **inputs)
    path = study.config.output_dir / "results" / "rows" / f"{name}.json"
    stored = Artefact(path, recipe, lambda file: write_json(file, make()), read_json)
    return Part(name, stored, optional)
