"""The whole study as tables, figures and one page, from stored results.

No network is run and nothing is fitted. Everything is written to ``outputs/<profile>/report``:
``tables/`` (CSV, Markdown, LaTeX), ``figures/`` (PNG, PDF) and ``report.html``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from nbhelpers.analyses.all import all_parts, run_scenario, write_metrics
from nbhelpers.analyses.scenarios import cells_hash
from nbhelpers.errors import DataError
from nbhelpers.figures import comparisons as plots
from nbhelpers.figures.images import shared_limits
from nbhelpers.figures.scores import plot_metric_bars, plot_roc_pr
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.figures.surest import plot_best_and_worst
from nbhelpers.files import hash_file, read_json, write_text
from nbhelpers.predictions import Predictions
from nbhelpers.report.formats import ReportTable
from nbhelpers.report.page import Picture, build_report
from nbhelpers.report.tables import all_tables
from nbhelpers.results.numbers import Results, label, read_metrics
from nbhelpers.results.table import plain
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import Artefact, Study

BARS = ("image_auroc", "aupro", "f1", "specificity")
LINES = ("image_auroc", "aupro", "balanced_accuracy")
CHANGES = ("image_auroc", "aupro", "balanced_accuracy")
#: Ends of the colour scales of the heatmaps, the same in every study.
HEATMAPS = {"image_auroc": (0.5, 1.0), "aupro": (0.0, 1.0)}
#: Scenarios whose surest predictions are drawn, and how many of each kind.
PICTURED, PICTURES = ("no_adaptation",), 10
FIX = "run make study (with the same profile and settings), then this again"


@dataclass(frozen=True)
class Stored:
    """The stored results of a finished study.

    Attributes:
        results: The stored tidy table, brought up to date with all rows that are current.
        tables: The report's tables by name.
        views: The stored JSON view of each scenario.
    """

    results: Results
    tables: dict[str, ReportTable]
    views: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the report before it is drawn.

    Attributes:
        name: Stem of its files.
        caption: What is shown and how to read it, in whole sentences.
        alt: What a reader who cannot see the figure should know.
        draw: Makes the figure.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[[], Figure]


def report_folder(study: Study) -> Path:
    """The folder of the report, ``outputs/<profile>/report``."""
    return study.config.output_dir / "report"


def complete(study: Study) -> None:
    """Make all rows of the tidy table and all stored views that are missing or out of date."""
    for name in study.config.scenarios:
        if _view_fault(study, name) or _predictions_fault(study, name):
            run_scenario(study, name)
    for part in all_parts(study):
        if not part.optional:
            part.rows()


def stored_results(study: Study) -> Stored:
    """The results of every configured scenario, checked against the configuration and the data.

    Raises:
        DataError: A result or a prediction is missing or was made from other settings, images or
            code; the message names it.
    """
    # The views come first, because checking them needs nothing but the files.
    for fault_of in (_view_fault, _predictions_fault):
        for name in study.config.scenarios:
            fault = fault_of(study, name)
            if fault:
                raise DataError(f"{fault}; {FIX}")
    path = study.config.output_dir / "results" / "metrics.csv"
    write_metrics(study)
    # The file is read back, so that what is printed is what is stored.
    results = Results(read_metrics(path))
    for name in study.config.scenarios:
        if name not in results.scenarios:
            raise DataError(
                f"{path}: expected current rows of scenario '{name}', found none; {FIX}"
            )
    views = {name: read_json(_view_path(study, name)) for name in study.config.scenarios}
    return Stored(results, all_tables(results), views)


def _view_path(study: Study, scenario: str) -> Path:
    return study.config.output_dir / "results" / SCENARIOS[scenario].results_file


def _view_fault(study: Study, scenario: str) -> str | None:
    """What is wrong with a scenario's stored view, or None."""
    path = _view_path(study, scenario)
    if not path.is_file():
        return f"{path}: expected the results of scenario '{scenario}', found no such file"
    stored, current = read_json(path)["provenance"]["config_hash"], study.config.digest()
    if stored != current:
        return (
            f"{path}: expected results of the present configuration ({current}), found those of "
            f"{stored}"
        )
    return None


def _predictions_fault(study: Study, scenario: str) -> str | None:
    """What is wrong with the first of a scenario's predictions that is not current, or None."""
    for method, category in study.cells:
        for asked in (SCENARIOS[scenario].calibrates, SCENARIOS[scenario].tests):
            stored = study.predicted(method, category, **asked)
            why = stored.why_stale()
            if why:
                return (
                    f"{stored.path}: expected current predictions of {method} on {category}, found "
                    f"them out of date ({why})"
                )
    return _cells_fault(study, scenario)


def _cells_fault(study: Study, scenario: str) -> str | None:
    """What is wrong with a scenario's stored view if its numbers are older than the code."""
    path = _view_path(study, scenario)
    if read_json(path)["provenance"].get("cells_hash") != cells_hash(study, scenario):
        return (
            f"{path}: expected results of the present predictions and code, found those of "
            "earlier ones"
        )
    return None


def tested(
    study: Study, scenario: str, categories: Iterable[str] | None = None
) -> tuple[dict[str, dict[str, Predictions]], dict[str, dict[str, float]]]:
    """Stored test predictions and deployed thresholds of a scenario, by method and category.

    Args:
        study: The study.
        scenario: Name of the scenario.
        categories: All of the study's by default.
    """
    view = read_json(_view_path(study, scenario))["methods"]
    predictions: dict[str, dict[str, Predictions]] = {method: {} for method in study.config.methods}
    thresholds: dict[str, dict[str, float]] = {method: {} for method in study.config.methods}
    asked = SCENARIOS[scenario].tests
    for method, category in itertools.product(study.config.methods, categories or study.categories):
        predictions[method][category] = Predictions.load(
            study.predicted(method, category, **asked).path
        )
        thresholds[method][category] = view[method][category]["threshold"]["value"]
    return predictions, thresholds


def write_tables(study: Study, stored: Stored) -> dict[str, ReportTable]:
    """Write every table as CSV, Markdown and LaTeX, and return the tables by name."""
    for table in stored.tables.values():
        table.write(report_folder(study) / "tables")
    return stored.tables


def write_figures(study: Study, stored: Stored) -> dict[str, Picture]:
    """Write every figure as PNG and PDF, and return them as the page's pictures, by name.

    Drawing takes a second or two per figure, so it is repeated only where a number, a prediction
    or the drawing code changed.
    """
    figures = list(_figures(study, stored))

    def make(folder: Path) -> None:
        for spec in figures:
            figure = spec.draw()
            save_figure(figure, folder / f"{spec.name}.png", pdf=True)
            plt.close(figure)

    predictions = [
        study.predicted(method, category, **SCENARIOS[name].tests).key
        for name in study.config.scenarios
        for method, category in study.cells
    ]
    recipe = study.recipe(
        "figures",
        "report.build",
        metrics=hash_file(study.config.output_dir / "results" / "metrics.csv"),
        predictions=predictions,
    )
    folder = Artefact(report_folder(study) / "figures", recipe, make, lambda path: path).get()
    return {
        spec.name: Picture((folder / f"{spec.name}.png").read_bytes(), spec.caption, spec.alt)
        for spec in figures
    }


def write_report(study: Study, date: str | None = None) -> Path:
    """Make all tables, figures and the page from stored results.

    Args:
        study: The study.
        date: When the report is written; today by default.

    Returns:
        The path of the page.

    Raises:
        DataError: See ``stored_results``.
    """
    use_style()
    stored = stored_results(study)
    write_tables(study, stored)
    page = build_report(
        stored.results,
        stored.tables,
        stored.views,
        write_figures(study, stored),
        date or time.strftime("%Y-%m-%d"),
    )
    path = report_folder(study) / "report.html"
    write_text(path, page)
    return path


def _figures(study: Study, stored: Stored) -> Iterator[FigureSpec]:
    """Every figure that there are rows for."""
    results = stored.results
    metrics = set(plain(results.table).metric)
    for metric, limits in HEATMAPS.items():
        if metric in metrics:
            yield FigureSpec(
                f"heatmap_{metric}",
                f"{_upper(metric)} of every method on every category, with one panel per scenario.",
                f"Heatmaps of {label(metric)}; the values are in the table of all results.",
                partial(plots.plot_heatmaps, results, metric, limits),
            )
    if "aupro" in metrics:
        yield FigureSpec(
            "scatter",
            "Ranking against localisation: does a method that ranks images well also find the "
            "defect? Thin crosses are intervals.",
            "Scatter of image AUROC against AUPRO 0.3, with one panel per scenario and one point "
            "for each method and category.",
            partial(plots.plot_image_against_pixel, results),
        )
    lines = [metric for metric in LINES if metric in metrics]
    yield FigureSpec(
        "scenario_lines",
        "From scenario to scenario. Bands are the intervals of each value, not of the changes.",
        f"Lines of {', '.join(map(label, lines))} over the scenarios, with one panel per category "
        "and one for the macro average.",
        partial(plots.plot_scenario_lines, results, lines),
    )
    if "differences" in stored.tables:
        for metric in CHANGES:
            if any(number.against for number in results.where(metric=metric)):
                yield _difference_figure(results, metric)
    yield from _threshold_figures(results, stored.tables)
    for scenario in study.config.scenarios:
        yield from _scenario_figures(study, stored, scenario)


def _difference_figure(results: Results, metric: str) -> FigureSpec:
    return FigureSpec(
        f"differences_{metric}",
        f"Paired differences in {label(metric)} with their intervals. Right of the line the "
        "metric rises, and left of it the metric falls.",
        f"Forest plot of differences in {label(metric)} between scenarios; the values are in the "
        "table of differences.",
        partial(plots.plot_differences, results, metric),
    )


def _threshold_figures(results: Results, tables: dict[str, ReportTable]) -> Iterator[FigureSpec]:
    """The figures about thresholds."""
    if "threshold_rules" in tables:
        yield FigureSpec(
            "threshold_rules",
            "Macro average of the balanced accuracy on test with every threshold rule. A field is "
            "empty where the validation images are too few for a rule.",
            "Heatmap of threshold rules against scenarios; the values are in the table of rules.",
            partial(plots.plot_rules, results),
        )
    if "conformal" in tables:
        yield FigureSpec(
            "promised",
            "The false alarm rates that conformal calibration promised (dashed) and those that "
            "were realised.",
            "Realised against promised false alarm rates, clean and under the shift, with one "
            "panel for each method and category.",
            partial(plots.plot_promised_and_realised, results),
        )
    if "recalibration" in tables:
        yield FigureSpec(
            "recalibration",
            "How many good images of the new domain it takes to keep the promise again.",
            "Realised false alarm rate against the number of images that recalibrate.",
            partial(plots.plot_recalibration, results),
        )
    for name, scenario, between in (
        ("transfer_domains", "transfer", "between domains, with one model per category"),
        ("transfer_categories", "global", "between categories, with one model for all"),
    ):
        if name in tables:
            yield FigureSpec(
                name,
                f"Thresholds carried {between}: the share of good images that are flagged, and of "
                "defects that are missed.",
                f"Heatmaps of false alarms and misses with thresholds carried {between}.",
                partial(plots.plot_threshold_transfer, results, scenario),
            )


def _scenario_figures(study: Study, stored: Stored, scenario: str) -> Iterator[FigureSpec]:
    """Bars, curves and the surest predictions of one scenario."""
    rows = plain(stored.results.table)
    rows = rows[(rows.scenario == scenario) & rows.method.isin(study.config.methods)]
    bars = [metric for metric in BARS if metric in set(rows.metric)]
    yield FigureSpec(
        f"bars_{scenario}",
        f"Scenario {label(scenario)}: metrics with their intervals.",
        f"Bars of {', '.join(map(label, bars))} by category and method.",
        partial(plot_metric_bars, rows, bars),
    )
    yield FigureSpec(
        f"roc_pr_{scenario}",
        f"Scenario {label(scenario)}: ROC and precision-recall curves; the dots are the "
        "deployed thresholds.",
        "ROC and precision-recall curves by category, with one curve per method.",
        partial(_curves, study, scenario),
    )
    if scenario in PICTURED:
        for category in study.categories:
            yield FigureSpec(
                f"best_and_worst_{scenario}_{category}",
                f"{category}, scenario {label(scenario)}: the right and the wrong decisions with "
                "the largest margins. The number is the score minus the threshold, and green "
                "outlines the true defect. There is one colour scale per method.",
                f"Images of {category} with anomaly maps laid over them.",
                partial(_surest, study, scenario, category),
            )


def _curves(study: Study, scenario: str) -> Figure:
    """ROC and precision-recall curves of a scenario, whose predictions are loaded to draw them."""
    return plot_roc_pr(*tested(study, scenario))


def _surest(study: Study, scenario: str, category: str) -> Figure:
    """The decisions of every method on a category's test images that have the largest margins."""
    predictions, thresholds = tested(study, scenario, [category])
    by_method = {method: of_category[category] for method, of_category in predictions.items()}
    return plot_best_and_worst(
        study.split(category, SCENARIOS[scenario].test_domain)["test"],
        by_method,
        {method: of_category[category] for method, of_category in thresholds.items()},
        {method: shared_limits(each) for method, each in by_method.items()},
        PICTURES,
    )


def _upper(metric: str) -> str:
    """The label of a metric at the start of a sentence."""
    text = label(metric)
    return text[0].upper() + text[1:]
