"""Figures that compare methods and scenarios, drawn from the tidy table.

In every figure one colour stands for one method, one marker for one category, and one panel for
one scenario or one category; thin lines are intervals. Each function returns its Figure and does
not show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nbhelpers.figures.panels import (
    Shared,
    draw_matrix,
    grid,
    hide_after,
    interval_lengths,
    legend_above,
    legend_entry,
    rows_for,
    thin_lines,
)
from nbhelpers.figures.style import DOMAIN_COLORS, method_colors
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.results.numbers import Number, Results, in_order, label
from nbhelpers.results.table import MACRO, PROMISE, RECALIBRATED, TRANSFER
from nbhelpers.scenarios import COMPARISONS

MARKERS = "osD^vP*X<>"
#: The path through the scenarios that tell one story; the global ones are another.
SHIFT_PATH = ("clean", "no_adaptation", "threshold_only", "full_adaptation")
#: Metrics of a transferred threshold, with their names and colour maps in the figure.
TRANSFER_METRICS = (("fpr", "false alarms", "Reds"), ("fnr", "misses", "Purples"))


def _small_panels(
    rows: int,
    columns: int,
    width: float,
    height: float,
    sharex: Shared = False,
    sharey: Shared = False,
) -> tuple[Figure, np.ndarray]:
    """A grid of small panels; one empty panel where there is nothing to show."""
    rows, columns = max(1, rows), max(1, columns)
    figure, axes = grid(rows, columns, width, height, sharex=sharex, sharey=sharey)
    thin_lines(axes)
    return figure, axes


def _lower_limit(numbers: Iterable[Number]) -> float:
    """Where an axis that ends at 1 starts: at 0.5, or at the tenth below the smallest value or
    interval if that is lower.
    """
    limit = 0.5
    for number in numbers:
        if not number.is_difference:
            lowest = number.value if number.ci_low is None else min(number.value, number.ci_low)
            limit = min(limit, float(np.floor(10 * lowest)) / 10)
    return limit


def _error_bars(numbers: Sequence[Number]) -> np.ndarray:
    """Lengths ``(2, N)`` of the error bars of N numbers; NaN where there is no interval."""
    return interval_lengths(
        [number.value for number in numbers],
        [np.nan if number.ci_low is None else number.ci_low for number in numbers],
        [np.nan if number.ci_high is None else number.ci_high for number in numbers],
    )


def _methods(numbers: Iterable[Number]) -> list[str]:
    """The methods of these rows, in the order in which they are told."""
    return in_order(dict.fromkeys(number.method for number in numbers), METHOD_ORDER)


def _category_title(axis: Axes, results: Results, category: str) -> None:
    weight = "bold" if category == MACRO else "normal"
    axis.set_title(results.called(category), fontsize=10, fontweight=weight)


def _method_entries(methods: Sequence[str]) -> list[Line2D]:
    colors = method_colors(methods)
    return [legend_entry(label(name), colors[name], "o", "-") for name in methods]


def plot_image_against_pixel(
    results: Results, pixel: str = "aupro", image: str = "image_auroc"
) -> Figure:
    """Ranking of images against localisation, one panel per scenario; thin crosses show intervals.

    Args:
        results: The tidy table.
        pixel: The metric of the y axis.
        image: The metric of the x axis.
    """
    scenarios = [
        scenario
        for scenario in results.scenarios
        if any(
            results.find(scenario, method, category, pixel)
            for method in results.methods
            for category in results.categories
        )
    ]
    columns = min(3, max(1, len(scenarios)))
    figure, axes = _small_panels(
        rows_for(len(scenarios), columns), columns, 3.1, 2.9, sharex=True, sharey=True
    )
    hide_after(axes, len(scenarios))
    colors = method_colors(results.methods)
    markers = dict(zip(results.categories, MARKERS * len(results.categories), strict=False))
    left, bottom = (
        _lower_limit(
            number
            for number in results.where(metric=metric, detail="")
            if number.scenario in scenarios
        )
        for metric in (image, pixel)
    )
    for axis, scenario in zip(axes.ravel(), scenarios, strict=False):
        for method in results.methods:
            for category in results.categories:
                x = results.find(scenario, method, category, image)
                y = results.find(scenario, method, category, pixel)
                if x and y:
                    axis.errorbar(
                        x.value,
                        y.value,
                        xerr=_error_bars([x]),
                        yerr=_error_bars([y]),
                        fmt=markers[category],
                        color=colors[method],
                        markersize=6,
                        elinewidth=0.7,
                        alpha=0.9,
                    )
        axis.set_title(label(scenario), fontsize=10)
        axis.set(xlabel=label(image), ylabel=label(pixel), xlim=(left, 1.03), ylim=(bottom, 1.03))
        axis.label_outer()
    categories = [legend_entry(name, "grey", marker) for name, marker in markers.items()]
    legend_above(figure, [*_method_entries(results.methods), *categories])
    return figure


def plot_scenario_lines(
    results: Results, metrics: Sequence[str], scenarios: Sequence[str] = SHIFT_PATH
) -> Figure:
    """Metrics from scenario to scenario; bands show the intervals of each value.

    There is one row per metric, and one panel per category plus one for the macro average.

    Args:
        results: The tidy table.
        metrics: The metrics, from top to bottom.
        scenarios: The scenarios from left to right; those without results are left out.
    """
    scenarios = [name for name in scenarios if name in results.scenarios]
    categories, colors = [*results.categories, MACRO], method_colors(results.methods)
    figure, axes = _small_panels(len(metrics), len(categories), 2.5, 2.1, sharex=True, sharey="row")
    for row, metric in zip(axes, metrics, strict=True):
        for axis, category in zip(row, categories, strict=True):
            for method in results.methods:
                _draw_line(axis, results, (method, category, metric), scenarios, colors[method])
        numbers = results.where(metric=metric, detail="")
        row[0].set_ylim(_lower_limit(n for n in numbers if n.scenario in scenarios), 1.03)
        row[0].set_ylabel(label(metric))
    for axis, category in zip(axes[0], categories, strict=True):
        _category_title(axis, results, category)
    for axis in axes[-1]:
        axis.set_xticks(
            range(len(scenarios)), [label(s).replace(" ", "\n") for s in scenarios], fontsize=7.5
        )
        axis.margins(x=0.12)
    legend_above(figure, _method_entries(results.methods))
    return figure


def _draw_line(
    axis: Axes, results: Results, key: tuple[str, str, str], scenarios: Sequence[str], color: str
) -> None:
    """One value from scenario to scenario with a band of its intervals.

    Args:
        axis: The panel.
        results: The tidy table.
        key: Method, category and metric of the value.
        scenarios: The scenarios from left to right; one without this value is a gap.
        color: The colour of the line and the band.
    """
    positions, numbers = [], []
    for position, scenario in enumerate(scenarios):
        number = results.find(scenario, *key)
        if number:
            positions.append(position)
            numbers.append(number)
    values = np.array([number.value for number in numbers])
    below, above = _error_bars(numbers)
    axis.plot(positions, values, "o-", color=color, markersize=4)
    axis.fill_between(
        positions, values - below, values + above, color=color, alpha=0.15, linewidth=0
    )


def plot_heatmaps(results: Results, metric: str, limits: tuple[float, float]) -> Figure:
    """Methods against categories with the values as numbers, one panel per scenario.

    Args:
        results: The tidy table.
        metric: The metric.
        limits: Ends of the one colour scale of all panels.
    """
    scenarios = [
        scenario
        for scenario in results.scenarios
        if any(results.find(scenario, method, MACRO, metric) for method in results.methods)
    ]
    categories, columns = [*results.categories, MACRO], min(3, max(1, len(scenarios)))
    height = 0.9 + 0.34 * len(results.methods)
    figure, axes = _small_panels(
        rows_for(len(scenarios), columns), columns, 1.0 + 0.62 * len(categories), height
    )
    hide_after(axes, len(scenarios))
    for axis, scenario in zip(axes.ravel(), scenarios, strict=False):
        numbers = [
            [results.find(scenario, method, category, metric) for category in categories]
            for method in results.methods
        ]
        draw_matrix(
            axis,
            [[number.value if number else None for number in row] for row in numbers],
            [label(method) for method in results.methods],
            [results.called(category) for category in categories],
            limits,
            "viridis",
        )
        axis.set_title(label(scenario), fontsize=10)
        axis.tick_params(axis="x", rotation=25)
    scale = plt.cm.ScalarMappable(plt.Normalize(*limits), "viridis")
    figure.colorbar(scale, ax=axes.ravel().tolist(), label=label(metric), shrink=0.8)
    return figure


def plot_differences(results: Results, metric: str) -> Figure:
    """Paired differences of scenarios with their intervals; a vertical line marks zero.

    There is one panel per category plus one for the macro average.

    Args:
        results: The tidy table.
        metric: The metric whose differences are shown.
    """
    differences = [number for number in results.where(metric=metric) if number.against]
    pairs = {(number.against, number.scenario) for number in differences}
    steps = {pair: words for pair, words in COMPARISONS.items() if pair in pairs}
    compared = {number.category for number in differences}
    categories = [name for name in (*results.categories, MACRO) if name in compared]
    figure, axes = _small_panels(
        1, len(categories), 2.3, 0.9 + 0.5 * len(steps), sharex=True, sharey=True
    )
    colors = method_colors(results.methods)
    offsets = np.linspace(-0.2, 0.2, len(colors))
    for axis, category in zip(axes[0], categories, strict=False):
        axis.axvline(0, color="black", linewidth=0.8)
        for offset, method in zip(offsets, results.methods, strict=True):
            heights, numbers = [], []
            for height, (before, after) in enumerate(steps):
                number = results.find(after, method, category, metric, against=before)
                if number:
                    heights.append(height + offset)
                    numbers.append(number)
            if numbers:
                axis.errorbar(
                    [number.value for number in numbers],
                    heights,
                    xerr=_error_bars(numbers),
                    fmt="o",
                    color=colors[method],
                    markersize=4,
                    capsize=2,
                )
        _category_title(axis, results, category)
    figure.supxlabel(f"difference in {label(metric)}", fontsize=9)
    axes[0, 0].set_yticks(range(len(steps)), list(steps.values()), fontsize=8)
    axes[0, 0].set_ylim(len(steps) - 0.5, -0.5)
    legend_above(figure, _method_entries(results.methods))
    return figure


def plot_threshold_transfer(results: Results, scenario: str) -> Figure:
    """False alarms and misses with a threshold from elsewhere, one row of panels per method.

    In each panel a row says where the threshold is from, a column what it is tested on.

    Args:
        results: Rows ``fpr`` and ``fnr`` that say where the threshold is from.
        scenario: ``global`` (categories against categories) or ``transfer`` (domains, side by side
            for each category).
    """
    numbers = [
        number
        for detail in ("threshold_from", TRANSFER)
        for metric, *_ in TRANSFER_METRICS
        for number in results.where(scenario=scenario, metric=metric, detail=detail)
    ]
    values: dict[tuple[str, ...], float] = {}
    origins: dict[str, None] = {}
    targets: dict[str, None] = {}
    for number in numbers:
        details = number.details
        origin, target = details["threshold_from"], number.category
        if "tested_on" in details:
            target += f"\n{details['tested_on']}"
        values[number.method, number.metric, origin, target] = number.value
        origins[origin] = targets[target] = None
    methods = _methods(numbers)
    figure, axes = _small_panels(
        len(methods), 2, 1.0 + 0.6 * len(targets), 1.0 + 0.42 * len(origins), sharey=True
    )
    for row, method in zip(axes, methods, strict=False):
        for axis, (metric, words, colors) in zip(row, TRANSFER_METRICS, strict=True):
            matrix = [
                [values.get((method, metric, origin, target)) for target in targets]
                for origin in origins
            ]
            draw_matrix(axis, matrix, list(origins), list(targets), (0, 1), colors)
            axis.set_title(f"{label(method)}: {words}", fontsize=9)
    figure.supxlabel("tested on", fontsize=9)
    figure.supylabel("threshold from", fontsize=9)
    return figure


def plot_promised_and_realised(results: Results) -> Figure:
    """False alarm rates that were realised, with intervals, against those that calibration promised.

    There is one row of panels per method and one column per category. On the dashed line a promise
    is kept. Colours tell the clean from the shifted test images, markers the rules.

    Args:
        results: Rows ``realised_fpr`` with their rule and target.
    """
    numbers = results.where(metric="realised_fpr", detail=PROMISE)
    methods = _methods(numbers)
    categories = list(dict.fromkeys(number.category for number in numbers))
    rules = list(dict.fromkeys(number.details["rule"] for number in numbers))
    figure, axes = _small_panels(len(methods), len(categories), 2.6, 2.2, sharex=True, sharey=True)
    domains = {"clean": "clean", "no_adaptation": "shift"}
    series = [
        (marker, rule, scenario)
        for marker, rule in zip(MARKERS, rules, strict=False)
        for scenario in domains
    ]
    for row, method in zip(axes, methods, strict=False):
        for axis, category in zip(row, categories, strict=True):
            axis.axline((0, 0), slope=1, color="black", linestyle="--", linewidth=0.8)
            for index, (marker, rule, scenario) in enumerate(series):
                realised = [
                    number
                    for number in numbers
                    if (number.scenario, number.method, number.category)
                    == (scenario, method, category)
                    and number.details["rule"] == rule
                ]
                if realised:
                    targets = np.array([float(number.details["target"]) for number in realised])
                    # side by side, since the intervals of one target would hide each other
                    aside = 0.008 * (index - (len(series) - 1) / 2)
                    axis.errorbar(
                        targets + aside,
                        [number.value for number in realised],
                        yerr=_error_bars(realised),
                        fmt=marker,
                        markersize=4,
                        color=DOMAIN_COLORS[domains[scenario]],
                        capsize=2,
                        elinewidth=1,
                    )
            axis.set(ylim=(-0.03, 1.04))
            axis.set_title(f"{label(method)}, {category}", fontsize=9)
    figure.supxlabel("false alarm rate that was promised", fontsize=9)
    figure.supylabel("realised on good test images", fontsize=9)
    entries = [
        legend_entry(label(scenario), DOMAIN_COLORS[domain], "o")
        for scenario, domain in domains.items()
    ]
    if len(rules) > 1:
        entries += [
            legend_entry(label(rule), "grey", marker)
            for marker, rule in zip(MARKERS, rules, strict=False)
        ]
    legend_above(figure, entries)
    return figure


def plot_recalibration(results: Results) -> Figure:
    """How many good images of the new domain restore a broken promise, one panel per category.

    The promise is dashed; 0 images stand for the old threshold.

    Args:
        results: Rows ``realised_fpr`` with the number of images that recalibrated.
    """
    numbers = results.where(metric="realised_fpr", detail=RECALIBRATED)
    categories = list(dict.fromkeys(number.category for number in numbers))
    methods = _methods(numbers)
    figure, axes = _small_panels(1, len(categories), 2.6, 2.3, sharey=True)
    colors = method_colors(methods)
    for axis, category in zip(axes[0], categories, strict=False):
        for index, method in enumerate(methods):
            curve = [n for n in numbers if (n.method, n.category) == (method, category)]
            curve.sort(key=lambda n: int(n.details["recalibrated_on"]))  # the table sorts texts
            sizes = np.array([int(number.details["recalibrated_on"]) for number in curve])
            axis.errorbar(
                sizes + 0.3 * index,
                [number.value for number in curve],
                yerr=_error_bars(curve),
                fmt="o-",
                color=colors[method],
                markersize=4,
                capsize=2,
                elinewidth=0.8,
            )
            if curve:
                promise = float(curve[0].details["target"])
                axis.axhline(promise, color="black", linestyle="--", linewidth=0.8)
        axis.set_ylim(-0.03, 1.04)
        axis.set_title(category, fontsize=10)
    if not numbers:
        axes[0, 0].text(
            0.5,
            0.5,
            "too few good calibration\nimages for any promise",
            ha="center",
            va="center",
            transform=axes[0, 0].transAxes,
            fontsize=9,
        )
    axes[0, 0].set_ylabel("realised false alarm rate", fontsize=9)
    figure.supxlabel(
        "good images of the new domain that recalibrate (0: the old threshold)", fontsize=9
    )
    legend_above(figure, _method_entries(methods))
    return figure


def plot_rules(results: Results, metric: str = "balanced_accuracy") -> Figure:
    """Every threshold rule in every scenario, macro averages, one panel per method.

    A square is empty where a rule refused to give a threshold.

    Args:
        results: Rows of the metric by threshold rule.
        metric: The metric.
    """
    numbers = results.where(metric=metric, detail="rule", macro=True)
    rules = list(dict.fromkeys(number.detail_value for number in numbers))
    scenarios = [s for s in results.scenarios if any(n.scenario == s for n in numbers)]
    methods = _methods(numbers)
    figure, axes = _small_panels(
        1, len(methods), 1.4 + 0.62 * len(scenarios), 1.3 + 0.24 * len(rules), sharey=True
    )
    for axis, method in zip(axes[0], methods, strict=False):
        matrix = [
            [results.find(scenario, method, MACRO, metric, rule=rule) for scenario in scenarios]
            for rule in rules
        ]
        draw_matrix(
            axis,
            [[number.value if number else None for number in row] for row in matrix],
            [label(rule) for rule in rules],
            [label(scenario).replace(" ", "\n") for scenario in scenarios],
            (0.5, 1),
            "viridis",
        )
        axis.set_title(label(method), fontsize=10)
    return figure
