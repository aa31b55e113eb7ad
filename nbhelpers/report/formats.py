"""A table of the report: its cells, and how it is written as CSV, Markdown and LaTeX.

A cell is a ``Number`` of the tidy table, another field of its row (``Field``), two names that were
compared (``Versus``), or text that holds no number. Which tables there are is in ``tables``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from nbhelpers.files import write_csv, write_text
from nbhelpers.results.numbers import BLOCKS, Number, label
from nbhelpers.results.table import MACRO, macro_name

#: Columns whose names this study chose, and which are printed by their ``label``.
LABELLED = ("scenario", "method", "metric", "rule", "head")
#: What Markdown would read as markup in the cell of a table.
MARKDOWN = re.compile(
    r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|\](?=[(\[])|&(?=#?\w+;)"
)
#: In LaTeX, a table with more rows continues over pages, and one with more columns is scaled down.
PAGE_ROWS, LINE_COLUMNS = 40, 5


@dataclass(frozen=True)
class Field:
    """Another field of a number's row as a cell.

    Attributes:
        of: The number.
        name: ``n_images``, ``seed``, or the name of a detail of its metric.
    """

    of: Number
    name: str

    def __str__(self) -> str:
        return "-" if getattr(self.of, self.name, "") is None else self.of.text(self.name)

    @property
    def plain(self) -> float | str:
        """The value as it is stored: a number where the row has a column of that name."""
        value: float | str = getattr(self.of, self.name, str(self))
        return value


@dataclass(frozen=True)
class Versus:
    """Two scenarios or methods as a cell.

    Attributes:
        name: The first.
        against: The second, which was subtracted from the first.
    """

    name: str
    against: str

    def __str__(self) -> str:
        return label(self.name, self.against)


Cell = Number | Field | Versus | str | None
Row = tuple[Cell, ...]


@dataclass(frozen=True)
class ReportTable:
    """A table of the report.

    Attributes:
        name: Stem of its files.
        caption: What is in it and how to read it, in whole sentences.
        columns: Names as in the tidy table; readers see their ``label``.
        rows: Cells, None where there is no such number.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def frame(self) -> pd.DataFrame:
        """The table as plain names and numbers, with the column names of ``metrics.csv``.

        There are more columns where they are needed: what was subtracted (``against``,
        ``against_method``), ``macro``, and the ends of the intervals (``<column>_low`` and
        ``<column>_high``).
        """
        data: dict[str, list] = {}
        for index, name in enumerate(self.columns):
            cells = [row[index] for row in self.rows]
            data[name] = [_plain(cell) for cell in cells]
            if any(isinstance(cell, Versus) for cell in cells):
                against = "against" if name == "scenario" else f"against_{name}"
                data[against] = [cell.against if isinstance(cell, Versus) else "" for cell in cells]
            if name == "category" and MACRO in cells:
                data["macro"] = [cell == MACRO for cell in cells]
            numbers = [cell if isinstance(cell, Number) else None for cell in cells]
            if any(number is not None and number.ci_low is not None for number in numbers):
                data[f"{name}_low"] = [number and number.ci_low for number in numbers]
                data[f"{name}_high"] = [number and number.ci_high for number in numbers]
        return pd.DataFrame(data)

    def text(self) -> pd.DataFrame:
        """The table as it is printed.

        It has labels, rounded numbers with their intervals, and a dash where there is no number.
        """
        rows = [[self.words(index, cell) for index, cell in enumerate(row)] for row in self.rows]
        return pd.DataFrame(rows, columns=[label(name) for name in self.columns])

    def where(self, column: str, value: str) -> ReportTable:
        """The rows that have this value in a column, without the column."""
        index = self.columns.index(column)
        columns = self.columns[:index] + self.columns[index + 1 :]
        rows = tuple(row[:index] + row[index + 1 :] for row in self.rows if row[index] == value)
        return replace(self, columns=columns, rows=rows)

    @cached_property
    def macro(self) -> str:
        """What the macro average is called beside this table's categories."""
        if "category" not in self.columns:
            return macro_name(())
        index = self.columns.index("category")
        return macro_name({str(row[index]) for row in self.rows})

    def words(self, index: int, cell: Cell) -> str:
        """A cell of the column ``index`` as it is printed.

        Categories and defect types keep their own names.
        """
        if isinstance(cell, str) and self.columns[index] in LABELLED:
            return label(cell)
        if cell == MACRO and self.columns[index] == "category":
            return self.macro
        return "-" if cell is None else str(cell)

    def write(self, folder: Path) -> None:
        """Write the table to ``folder`` three times.

        ``<name>.csv`` holds plain numbers; ``<name>.md`` and ``<name>.tex`` (with booktabs) hold
        the table as it is printed.
        """
        write_csv(folder / f"{self.name}.csv", self.frame())
        escaped = self.text().map(lambda text: MARKDOWN.sub(r"\\\g<0>", text))
        markdown = escaped.to_markdown(index=False, disable_numparse=True)
        write_text(folder / f"{self.name}.md", f"{self.caption}\n\n{markdown}\n")
        write_text(folder / f"{self.name}.tex", self.latex())

    def latex(self) -> str:
        """The table as it is printed, in LaTeX.

        A long table continues over several pages, and a wide one is scaled to the width of the
        line. A table that is both is set in small type; the widest of these need a page in
        landscape.
        """
        long = len(self.rows) > PAGE_ROWS
        latex = self.text().to_latex(
            index=False,
            escape=True,
            column_format="l" * len(self.columns),
            caption=self.caption,
            label=f"tab:{self.name}",
            longtable=long,
            position=None if long else "tbp",
        )
        # A row that starts with [ or * would be read as an option of the \\ before it.
        latex = re.sub(r"^(?=[\[*])", "{}", latex, flags=re.MULTILINE)
        if long and len(self.columns) > LINE_COLUMNS:
            latex = (
                f"\\begingroup\\scriptsize\\setlength{{\\tabcolsep}}{{2pt}}\n{latex}\\endgroup\n"
            )
        elif len(self.columns) > LINE_COLUMNS:
            latex = latex.replace(
                r"\begin{tabular}", "\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}"
            )
            latex = latex.replace(r"\end{tabular}", r"\end{tabular}}")
        return f"% needs the packages booktabs, longtable and graphicx\n{latex}"


def _plain(cell: Cell) -> float | int | str | None:
    if isinstance(cell, Field):
        return cell.plain
    if isinstance(cell, Versus):
        return cell.name
    return cell.value if isinstance(cell, Number) else cell


def made_table(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[Row]
) -> ReportTable | None:
    """A table without the columns that are empty or say nothing; None without rows."""
    if not rows:
        return None
    silent: dict[str, set[Cell]] = {"scenario": {None, *BLOCKS}, "method": {None, "-"}}
    kept = [
        index
        for index, column in enumerate(columns)
        if any(row[index] not in silent.get(column, {None}) for row in rows)
    ]
    return ReportTable(
        name,
        caption,
        tuple(columns[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in rows),
    )
