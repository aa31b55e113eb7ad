"""What every notebook does beside its own question: show a table, save a figure, say what it found.

A notebook opens with ``note = open_notebook("04_patchcore", profile, overrides)``. From then on
``note.study`` gives detectors and predictions, ``note.show`` a table, ``note.save`` a figure in a
file of its own, and ``note.tell`` and ``note.beside`` what was found, computed from the results of
this run and of the study on real images.

Everything that is shown has two forms: HTML for the reader, and the same content as lines of plain
text, which the test of the notebooks compares (see ``nbhelpers/runner/stored_outputs.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import display
from markupsafe import Markup
from matplotlib.figure import Figure

from nbhelpers.analyses.all import write_metrics
from nbhelpers.analyses.cross_scores import cross_scores
from nbhelpers.analyses.scenarios import evaluate_cell, tested
from nbhelpers.errors import ConfigError
from nbhelpers.figures.images import hardest, plot_anomaly_maps, shared_limits
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv, write_json, write_text
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import Number, Results, in_order, label, read_metrics
from nbhelpers.results.summary import Summary, read_summary
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import Study, open_study

MAX_ROWS = 15  # of a table on the page; the rest is in its CSV
#: Columns whose cells are names of ours: the HTML has their labels.
NAMED = ("scenario", "method", "metric", "rule", "head")
THIS_RUN, REAL_IMAGES = "this run", "real images"
Sentences = Callable[..., Sequence[str]]
ByCell = dict[str, dict[str, Any]]  # method -> category -> what was asked for


def open_notebook(
    name: str, profile: str = "tiny", overrides: Mapping[str, Any] | None = None
) -> Notebook:
    """Open the study, set the look of all figures, and print what the study is about.

    Args:
        name: The notebook's own name without its ending; names its folders below ``outputs/``.
        profile: A file in ``configs/``.
        overrides: Settings that differ from it, by dotted name.

    Raises:
        ConfigError: See ``open_study``.
    """
    note = Notebook(name, open_study(profile, overrides))
    use_style()
    note.study.describe()
    return note


class Notebook:
    """A notebook at work on a study.

    Attributes:
        name: Its name without the ending.
        study: The open study.
    """

    def __init__(self, name: str, study: Study) -> None:
        self.name = name
        self.study = study

    @property
    def folder(self) -> Path:
        """Where the notebook writes its tables: ``outputs/<profile>/results/<name>``."""
        return self.study.config.output_dir / "results" / self.name

    def chosen(self, method: str) -> str:
        """The method, or the study's first one where it is not among those that are studied."""
        methods = self.study.config.methods
        return method if method in methods else methods[0]

    # -- what is written and shown --

    def write(self, content: pd.DataFrame | Mapping[str, Any] | str, name: str) -> Path:
        """Write a table as CSV, a mapping as JSON, or a text, below ``folder``; returns the path."""
        if isinstance(content, pd.DataFrame):
            path = self.folder / f"{name}.csv"
            write_csv(path, content)
        elif isinstance(content, str):
            path = self.folder / f"{name}.txt"
            write_text(path, content)
        else:
            path = self.folder / f"{name}.json"
            write_json(path, dict(content))
        return path

    def show(
        self, table: pd.DataFrame, name: str = "", digits: int = 2, empty: str = "no rows"
    ) -> None:
        """Show a table: HTML for the reader, lines of text for the comparison.

        Args:
            table: What is shown; an index with names becomes columns, and the rows of a method
                stand where the study's order of methods puts them.
            name: Of the CSV that holds all rows with all digits; "" writes none.
            digits: Of numbers that are not whole.
            empty: Said in place of a table without rows.

        Raises:
            ConfigError: The table has more than ``MAX_ROWS`` rows and no name.
        """
        flat = _by_method_order(_flat(table))
        path = self.write(flat, name) if name else None
        if len(flat) == 0:
            print(empty)
            return
        rest = ""
        if len(flat) > MAX_ROWS:
            if path is None:
                raise ConfigError(
                    f"{self.name}: expected a name for a table of more than {MAX_ROWS} rows, found "
                    f"none for one of {len(flat)}; name the CSV that holds the rest"
                )
            rest = f"{MAX_ROWS} of {len(flat)} rows; all of them are in {self._shown(path)}"
        cells = _texts(flat.head(MAX_ROWS), digits)
        text = cells.to_string(index=False)
        _display(_html_table(cells) + (f"<p>{escape(rest)}</p>" if rest else ""), text, rest)

    def save(self, figure: Figure | Mapping[str, Figure], name: str) -> None:
        """Save a figure as PNG below ``outputs/<profile>/figures/<notebook>``; the cell shows it.

        Args:
            figure: One figure, or several by what tells them apart, such as the category.
            name: Of the file; of several figures each has what tells it apart behind it.
        """
        named = {name: figure} if isinstance(figure, Figure) else {
            f"{name}_{key}": part for key, part in figure.items()
        }  # fmt: skip
        for file, part in named.items():
            save_figure(part, self.study.figure_path(self.name, file))

    def _shown(self, path: Path) -> str:
        """A path as it is printed: relative to the workspace, and so the same on every machine."""
        return path.relative_to(self.study.config.workspace_dir).as_posix()

    # -- what is asked of the study --

    def predict(self, method: str, category: str, *, fitted_on: str) -> dict[str, Predictions]:
        """Everything that any scenario needs of one detector, computed once and stored.

        For a detector fitted on clean images these are also the scores of its refits, each without
        a part of the good images, on which conformal thresholds are calibrated.

        Returns:
            Domain and split, such as ``"clean val"``, to the predictions.
        """
        stored = {
            f"{domain} {split}": self.study.predictions(
                method, category, fitted_on=fitted_on, domain=domain, split=split
            )
            for domain, split in self.study.needed_predictions(fitted_on)
        }
        if fitted_on == "clean":
            cross_scores(self.study, method, category)
        return stored

    def tested(self, scenario: str) -> ByCell:
        """The test predictions of a scenario, by method and category."""
        return self._by_cell(lambda *cell: tested(self.study, scenario, *cell))

    def thresholds(self, scenario: str) -> ByCell:
        """The deployed thresholds of a scenario, by method and category."""
        return self._by_cell(
            lambda *cell: evaluate_cell(self.study, scenario, *cell)["threshold"]["value"]
        )

    def _by_cell(self, of: Callable[[str, str], Any]) -> ByCell:
        methods, categories = self.study.config.methods, self.study.categories
        return {method: {name: of(method, name) for name in categories} for method in methods}

    def limits(self, method: str, *scenarios: str) -> dict[str, tuple[float, float]]:
        """The colour limits of a method's anomaly maps by category, the same in these scenarios."""
        return {
            name: shared_limits(
                *(tested(self.study, scenario, method, name) for scenario in scenarios)
            )
            for name in self.study.categories
        }

    def hardest(
        self, scenario: str, method: str, label: int, count: int = 6, scale: Sequence[str] = ()
    ) -> dict[str, Figure]:
        """The hardest test images of each category with their anomaly maps, one figure per category.

        Args:
            scenario: What is tested, and by which threshold.
            method: Whose maps are drawn.
            label: 1 for the defects with the lowest scores, 0 for the good images with the highest.
            count: How many images.
            scale: The scenarios that share the colour scale; by default this one alone.
        """
        study, limits = self.study, self.limits(method, *(scale or (scenario,)))
        domain, values = SCENARIOS[scenario].test_domain, self.thresholds(scenario)[method]
        figures = {}
        for name, part in self.tested(scenario)[method].items():
            images = hardest(study.split(name, domain)["test"], part, values[name], count, label)
            figures[name] = plot_anomaly_maps(images, part, limits[name], values[name])
        return figures

    # -- what was found --

    @cached_property
    def results(self) -> Results:
        """The tidy table of this run, brought up to date once, when it is first asked for: ask at
        the end, when all is evaluated.
        """
        write_metrics(self.study)
        return Results(read_metrics(self.study.config.output_dir / "results" / "metrics.csv"))

    @cached_property
    def real(self) -> Summary:
        """What the same code found on real images."""
        return read_summary()

    def tell(self, sentences: Sentences, *arguments: Any, **options: Any) -> None:
        """Show what this run and the study on real images found, in computed sentences.

        Args:
            sentences: A function of ``nbhelpers.report.sentences``; it takes results first.
            *arguments: What it takes besides.
            **options: Likewise, by name.
        """
        studies = {
            f"This run ({', '.join(self.study.categories)})": self.results,
            f"Real images ({self.real.title})": self.real.results,
        }
        html, lines = [], []
        for title, results in studies.items():
            texts = [
                Markup(text).striptags()
                for part in _by_method(results)
                for text in sentences(part, *arguments, **options)
            ]
            texts = list(dict.fromkeys(texts)) or ["no such result"]
            items = "".join(f"<li>{escape(text)}</li>" for text in texts)
            html.append(f"<p><b>{escape(title)}</b></p><ul>{items}</ul>")
            # with an ordinary minus sign, so that the comparison knows a number when it sees one
            lines += [title, *(f"  {text}".replace("\N{MINUS SIGN}", "-") for text in texts)]
        _display("".join(html), "\n".join(lines))

    def beside(
        self,
        scenario: str,
        metrics: Sequence[str],
        *,
        against: str = "",
        by_category: bool = False,
        methods: Sequence[str] = (),
        this_run: bool = True,
        **details: str,
    ) -> None:
        """Show metrics of this run beside those of the study on real images.

        Args:
            scenario: Whose rows of the tidy table are shown.
            metrics: Their names, in the order of the columns.
            against: The scenario that was subtracted, in a difference.
            by_category: Each category, not the macro average.
            methods: Those that are shown; all by default.
            this_run: Whether this run's rows are shown; without, those on real images alone.
            **details: What the metrics are restricted to; a value of "" shows every value.
        """
        rows: list[tuple[Any, ...]] = []
        studies = {THIS_RUN: self.results} if this_run else {}
        for title, results in (studies | {REAL_IMAGES: self.real.results}).items():
            values_by_row: dict[tuple[str, ...], dict[str, str]] = {}
            for number in results.where(scenario=scenario, against=against, against_method=""):
                if number.metric in metrics and number.macro != by_category:
                    row = _place(number, methods, details)
                    if row is not None:
                        values_by_row.setdefault(row, {})[number.metric] = str(number)
            rows += [(*row, title, values) for row, values in values_by_row.items()]
        names = ["method", "category", *details, "images of"]
        table = pd.DataFrame([row[:-1] for row in rows], columns=names)
        for metric in metrics:
            table[metric] = [row[-1].get(metric, "-") for row in rows]
        table = _by_method_order(table)
        constant = [
            name
            for name in ("method", "category")
            if set(table[name]) <= {"-"} or (name == "category" and not by_category)
        ]
        name = "_".join(["beside", scenario, *([against] if against else [])])
        self.show(table.drop(columns=constant), name, empty="neither study has such results")


def _by_method(results: Results) -> list[Results]:
    """The results of each method alone, so that each has sentences of its own."""
    table = results.table
    names = in_order(dict.fromkeys(table.method), METHOD_ORDER)
    return [Results(table[table.method == name]) for name in names]


def _place(
    number: Number, methods: Sequence[str], details: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Method, category and details of a row; None where it is not asked for."""
    stated_details = number.details
    asked = stated_details.keys() == details.keys() and all(
        value in ("", stated_details[name]) for name, value in details.items()
    )
    if not asked or (methods and number.method not in methods):
        return None
    return (number.method, number.category, *(stated_details[name] for name in details))


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an index that has names as its first columns, and one line of column names."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    columns = [
        " ".join(filter(None, map(str, name))) if isinstance(name, tuple) else str(name)
        for name in table.columns
    ]
    return table.set_axis(columns, axis=1).rename_axis(columns=None).reset_index(drop=True)


def _by_method_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by their method, or by the first of two that are compared, as methods are told."""
    if "method" not in table:
        return table
    ranks = {name: rank for rank, name in enumerate(METHOD_ORDER)}
    first = table["method"].astype(str).str.split(" - ").str[0]
    order = first.map(ranks).fillna(len(ranks)).argsort(kind="stable")
    return table.iloc[order.to_numpy()].reset_index(drop=True)


def _texts(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Every cell as the text that is shown."""

    def text(value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        if isinstance(value, float | np.floating):
            return "-" if np.isnan(value) else f"{value:.{digits}f}"
        return "-" if value is None else str(value)

    return table.map(text)


def _html_table(cells: pd.DataFrame) -> str:
    """The table as HTML, with the labels of columns and names that are ours."""
    shown = cells.copy()
    for name in NAMED:
        if name in shown:
            shown[name] = shown[name].map(
                lambda text: " - ".join(label(part) for part in text.split(" - "))
            )
    return shown.set_axis([label(name) for name in shown.columns], axis=1).to_html(
        index=False, border=0
    )


def _display(html: str, *texts: str) -> None:
    text = "\n".join(filter(None, texts))
    display({"text/html": html, "text/plain": text}, raw=True)
