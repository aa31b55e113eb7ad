"""The comparative tables of the whole study, each drawn from the tidy table; as CSV, Markdown,
LaTeX, and HTML cells.

A cell is a ``Number`` of the tidy table, another field of its row (``Field``), two names that were
compared (``Versus``), or text that holds no number. A family of rows that was not computed gives no
table.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from nbhelpers.files import write_csv, write_text
from nbhelpers.results.numbers import BLOCKS, Number, Results, label
from nbhelpers.results.table import MACRO, MENDING, PROMISE, TRANSFER, macro_name
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
#: Columns whose names are ours, and printed by their ``label``.
LABELLED = ("scenario", "method", "metric", "rule", "head")
#: What Markdown would take for its own in the cell of a table.
MARKDOWN = re.compile(
    r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|\](?=[(\[])|&(?=#?\w+;)"
)
#: More rows than this go over several pages, more columns than this are scaled down, in LaTeX.
PAGE_ROWS, LINE_COLUMNS = 40, 5
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


@dataclass(frozen=True)
class Field:
    """Another field of a number's row as a cell: ``n_images``, ``seed``, or a detail of its metric."""

    of: Number
    name: str

    def __str__(self) -> str:
        return "-" if getattr(self.of, self.name, "") is None else self.of.text(self.name)


@dataclass(frozen=True)
class Versus:
    """Two scenarios or methods as a cell; the second was subtracted from the first."""

    name: str
    against: str

    def __str__(self) -> str:
        return label(self.name, self.against)


Cell = Number | Field | Versus | str | None


@dataclass(frozen=True)
class ReportTable:
    """A table of the report.

    Attributes:
        name: Stem of its files.
        caption: One sentence: what is in it and how to read it.
        columns: Names as in the tidy table; readers see their ``label``.
        rows: Cells, None where there is no such number.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def frame(self) -> pd.DataFrame:
        """Plain names and numbers, with more columns where they are needed, called as in
        ``metrics.csv``: what was subtracted, ``macro``, and the ends of the intervals as
        ``<column>_low`` and ``<column>_high``.
        """
        data: dict[str, list] = {}
        for place, name in enumerate(self.columns):
            cells = [row[place] for row in self.rows]
            data[name] = [_plain(cell) for cell in cells]
            if any(isinstance(cell, Versus) for cell in cells):
                against = "against" if name == "scenario" else f"against_{name}"
                data[against] = [cell.against for cell in cells]
            if name == "category" and MACRO in cells:
                data["macro"] = [cell == MACRO for cell in cells]
            numbers = [cell if isinstance(cell, Number) else None for cell in cells]
            if any(cell is not None and cell.ci_low is not None for cell in numbers):
                data[f"{name}_low"] = [cell and cell.ci_low for cell in numbers]
                data[f"{name}_high"] = [cell and cell.ci_high for cell in numbers]
        return pd.DataFrame(data)

    def text(self) -> pd.DataFrame:
        """The table as it is printed: labels, rounded numbers with their intervals, a dash where
        there is none.
        """
        rows = [[self.words(place, cell) for place, cell in enumerate(row)] for row in self.rows]
        return pd.DataFrame(rows, columns=[label(name) for name in self.columns])

    def where(self, column: str, value: str) -> ReportTable:
        """The rows with this value in a column, without the column."""
        place = self.columns.index(column)
        rows = tuple(row[:place] + row[place + 1 :] for row in self.rows if row[place] == value)
        return replace(self, columns=self.columns[:place] + self.columns[place + 1 :], rows=rows)

    @cached_property
    def macro(self) -> str:
        """What the macro average is called beside this table's categories."""
        place = self.columns.index("category") if "category" in self.columns else None
        return macro_name({row[place] for row in self.rows} if place is not None else ())

    def words(self, place: int, cell: Cell) -> str:
        """A cell of a column as it is printed; categories and defect types keep their own names."""
        if isinstance(cell, str) and self.columns[place] in LABELLED:
            return label(cell)
        if cell == MACRO and self.columns[place] == "category":
            return self.macro
        return "-" if cell is None else str(cell)

    def write(self, folder: Path) -> None:
        """Write ``<name>.csv`` (plain numbers), ``<name>.md`` and ``<name>.tex`` (as printed;
        booktabs).
        """
        write_csv(folder / f"{self.name}.csv", self.frame())
        escaped = self.text().map(lambda text: MARKDOWN.sub(r"\\\g<0>", text))
        markdown = escaped.to_markdown(index=False, disable_numparse=True)
        write_text(folder / f"{self.name}.md", f"{self.caption}\n\n{markdown}\n")
        write_text(folder / f"{self.name}.tex", self.latex())

    def latex(self) -> str:
        """The table as printed, in LaTeX: over several pages where it is long, scaled to the line
        where it is wide.

        One that is both is set small; the widest of these want a page on its side.
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
        # a name that starts like this would be an option of the \\ that ends the row before it
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
        return getattr(cell.of, cell.name, str(cell))
    if isinstance(cell, Versus):
        return cell.name
    return cell.value if isinstance(cell, Number) else cell


def _names(cell: str | Versus) -> tuple[str, str]:
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
    """One row for each scenario, method and category that has any of the metrics, one column for
    each that any row has.
    """
    metrics = list(metrics)
    rows = []
    for scenario, method, category in itertools.product(scenarios, methods, categories):
        (one, before), (own, other) = map(_names, (scenario, method))
        sides = {"against": before, "against_method": other}
        cells = [results.find(one, own, category, metric, **sides) for metric in metrics]
        if any(cell is not None for cell in cells):
            rows.append((scenario, method, category, *cells))
    return _table(name, caption, ("scenario", "method", "category", *metrics), rows)


def _table(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]]
) -> ReportTable | None:
    """A table without the columns that are empty or say nothing; None without rows."""
    silent = {"scenario": {None, *BLOCKS}, "method": {None, "-"}}
    keep = [
        place
        for place, column in enumerate(columns)
        if any(row[place] not in silent.get(column, {None}) for row in rows)
    ]
    rows = tuple(tuple(row[place] for place in keep) for row in rows)
    return (
        ReportTable(name, caption, tuple(columns[place] for place in keep), rows) if rows else None
    )


def _listing(
    results: Results,
    name: str,
    caption: str,
    detail: str,
    metrics: Sequence[str],
    images: bool = True,
) -> ReportTable | None:
    """One row for each scenario, method, category and value of this detail, one column for each
    metric.
    """
    found: dict[tuple[str, ...], dict[str, Number]] = {}
    for number in results.where(detail=detail, against="", against_method=""):
        if number.metric in metrics:
            key = (number.scenario, number.method, number.category, number.detail_value)
            found.setdefault(key, {})[number.metric] = number
    rows = []
    for key, own in found.items():
        first = next(iter(own.values()))
        names = [
            Field(first, name) if name in ("target", "recalibrated_on") else text
            for name, text in first.details.items()
        ]
        cells = [own.get(metric) for metric in metrics]
        if "degenerate" in own and key[2] != MACRO:  # a truth value; its macro average is a share
            cells[list(metrics).index("degenerate")] = "yes" if own["degenerate"].value else "no"
        rows.append((*key[:3], *names, *cells, Field(first, "n_images") if images else None))
    details = first.details if rows else ()
    return _table(
        name, caption, ("scenario", "method", "category", *details, *metrics, "n_images"), rows
    )


def compare_models(results: Results) -> pd.DataFrame:
    """Methods of each scenario, the highest macro image AUROC first, and which differences are
    significant.

    Two methods are told apart only where DeLong's test, Holm-corrected, has p < 0.05 in a category;
    the rank alone claims nothing.

    Returns:
        Columns scenario, rank, method, image_auroc, ci_low, ci_high, n_images, better_than and
        worse_than: the other methods with the categories in brackets, ``none shown``, or ``not
        tested``.
    """
    rows = []
    for scenario in results.scenarios:
        numbers = [
            results.find(scenario, method, MACRO, "image_auroc") for method in results.methods
        ]
        ranked = sorted((n for n in numbers if n is not None), key=lambda n: -n.value)
        for rank, number in enumerate(ranked, 1):
            better, worse = _told_apart(results, scenario, number.method)
            rows.append(
                (
                    scenario,
                    rank,
                    number.method,
                    number.value,
                    number.ci_low,
                    number.ci_high,
                    number.n_images,
                    better,
                    worse,
                )
            )
    names = [
        "scenario",
        "rank",
        "method",
        "image_auroc",
        "ci_low",
        "ci_high",
        "n_images",
        "better_than",
        "worse_than",
    ]
    return pd.DataFrame(rows, columns=names)


def _told_apart(results: Results, scenario: str, method: str) -> tuple[str, ...]:
    """Those that a method is better than, and worse than, in words."""
    sides: dict[int, list[str]] = {1: [], -1: []}
    own = [pair for pair in results.pairs if method in pair]
    for first, second in own:
        other, sign = (second, 1) if method == first else (first, -1)
        found = results.told_apart(scenario, (first, second), "image_auroc", "delong")
        for side, names in sides.items():
            where = [
                category
                for category, difference in found.items()
                if difference.value * sign * side > 0
            ]
            if where:
                names.append(f"{label(other)} ({', '.join(where)})")
    nothing = (
        "none shown"
        if any(results.tested(scenario, pair, "delong") for pair in own)
        else "not tested"
    )
    return tuple("; ".join(names) or nothing for names in sides.values())


def _ranking(results: Results) -> ReportTable | None:
    rows = []
    for row in compare_models(results).itertuples():
        number = results.find(row.scenario, row.method, MACRO, "image_auroc")
        rows.append((row.scenario, row.method, number, row.better_than, row.worse_than))
    caption = (
        "Methods by macro image AUROC, the highest first; told apart where DeLong's test, Holm-corrected, has "
        "p below 0.05 in the named categories."
    )
    return _table(
        "ranking", caption, ("scenario", "method", "image_auroc", "better_than", "worse_than"), rows
    )


def _macro(results: Results) -> ReportTable | None:
    """One row for each metric and method, one column for each scenario."""
    rows = []
    for metric in MACRO_METRICS:
        for method in results.methods:
            cells = [
                results.find(scenario, method, MACRO, metric) for scenario in results.scenarios
            ]
            if any(cell is not None for cell in cells):
                rows.append((metric, method, *cells))
    caption = (
        "Macro averages over the categories with bootstrap intervals: methods against scenarios."
    )
    return _table("macro", caption, ("metric", "method", *results.scenarios), rows)


def _recovery(results: Results) -> ReportTable | None:
    """One row for each method, category and metric, one column for each adaptation."""
    found = {number.scenario for number in results.where(metric="recovered_share")}
    adapted = [name for name in results.scenarios if name in found]
    rows = []
    for method, category, metric in itertools.product(
        results.methods, (*results.categories, MACRO), RESULT_METRICS
    ):
        cells = [
            results.find(scenario, method, category, "recovered_share", metric=metric)
            for scenario in adapted
        ]
        if any(cell is not None for cell in cells):
            rows.append((metric, method, category, *cells))
    caption = (
        "Share of the loss under the shift that is won back, where there is a loss: 1 is all of it, below 0 it "
        "got worse."
    )
    return _table("recovery", caption, ("metric", "method", "category", *adapted), rows)


def _seeds(results: Results) -> ReportTable | None:
    """One row for each seed, which ``find`` does not tell apart."""
    cells: dict[tuple[str, str, int], dict[str, Number]] = {}
    for number in results.where(scenario="seeds"):
        place = (number.method, number.category, number.seed)
        cells.setdefault(place, {})[number.metric] = number
    metrics = list(dict.fromkeys(metric for own in cells.values() for metric in own))
    rows = [
        (
            *key[:2],
            Field(next(iter(own.values())), "seed"),
            *(own.get(metric) for metric in metrics),
        )
        for key, own in cells.items()
    ]
    return _table(
        "seeds",
        "The clean scenario fitted again with other seeds.",
        ("method", "category", "seed", *metrics),
        rows,
    )


def all_tables(results: Results) -> dict[str, ReportTable]:
    """Every table that the tidy table has rows for, by name, in the order of the report."""
    everywhere = [*results.categories, MACRO]
    made = [
        _grid(
            results,
            "data",
            "Images of each category and split.",
            ["data"],
            ["-"],
            results.categories,
            ("train_good", "val_good", "val_defect", "test_good", "test_defect", "test_masks"),
        ),
        _macro(results),
        _grid(
            results,
            "results",
            "Every scenario, method and category; trivial F1 is the F1 of calling everything "
            "a defect.",
            results.scenarios,
            results.methods,
            everywhere,
            RESULT_METRICS,
        ),
        _ranking(results),
        _grid(
            results,
            "differences",
            "Paired differences of two scenarios, the second taken from the first; an "
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
            "Two methods on the same images, the second taken from the first, with the p "
            "values of paired tests, plain and Holm-corrected.",
            results.scenarios,
            [Versus(*pair) for pair in results.pairs],
            everywhere,
            COMPARISON_METRICS,
        ),
        _listing(
            results,
            "threshold_rules",
            "Rules that set the threshold on validation, judged on test.",
            "rule",
            ("f1", "recall", "specificity", "balanced_accuracy", "threshold", "degenerate"),
        ),
        _listing(
            results,
            "conformal",
            "False alarms promised on validation and realised on good test images, with "
            "Clopper-Pearson intervals.",
            PROMISE,
            ("realised_fpr", "calibration_n", "recall"),
        ),
        _listing(
            results,
            "recalibration",
            "Realised false alarms after calibrating again on that many good images of "
            "the new domain.",
            MENDING,
            ("realised_fpr",),
        ),
        _listing(
            results,
            "zones",
            "Pixel F1 with one threshold for the map, and with one for each of its zones.",
            "thresholds",
            ("pixel_f1",),
        ),
        _listing(
            results,
            "transfer_domains",
            "Thresholds taken to another domain, one model a category.",
            TRANSFER,
            ("fpr", "fnr", "specificity"),
            False,
        ),
        _listing(
            results,
            "transfer_categories",
            "Thresholds of one category used on another, one model for all.",
            "threshold_from",
            ("fpr", "fnr", "specificity"),
            False,
        ),
        _listing(
            results,
            "shortcut",
            "Patches of one model for all whose nearest neighbour in the memory bank comes "
            "from another category.",
            "patches",
            ("other_category_share",),
        ),
        _listing(
            results, "bank", "Each category's share of the common memory bank.", "", ("bank_share",)
        ),
        *(
            _listing(
                results,
                f"errors_{kind}",
                f"Recall by {label(kind)} at the deployed threshold.",
                kind,
                ("recall",),
            )
            for kind in ("defect_type", "size", "border", "contrast")
        ),
        _listing(
            results,
            "errors_shared",
            "Defect images that every method misses.",
            "",
            ("missed_by_all",),
        ),
        _seeds(results),
        _table(
            "parameters",
            "Trained parameters of each autoencoder.",
            ("method", "parameters"),
            [*{n.method: n for n in results.where(metric="parameters")}.items()],
        ),  # the same for every category
        _listing(
            results,
            "heads",
            "Heads of each autoencoder on clean test images; they are judged, nothing is "
            "chosen by these numbers.",
            "head",
            ("image_auroc", "pixel_auroc", "aupro"),
        ),
        _listing(
            results,
            "reconstruction",
            "How close reconstructions come to clean validation images, good and "
            "defect apart: SSIM is high and MSE and L1 are low where they are close; pixels in [-1, 1]. Nothing "
            "is chosen by these numbers.",
            "images",
            ("ssim", "mse", "l1"),
        ),
    ]
    return {table.name: table for table in made if table is not None}
