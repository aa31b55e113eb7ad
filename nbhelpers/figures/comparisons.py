"""Figures that compare methods and scenarios, drawn from the tidy table. Each returns its Figure,
shows nothing.

A colour is a method, a marker a category, and a panel a scenario or a category; a thin line is an
interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nbhelpers.figures.style import DOMAIN_COLORS, method_colors
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.results.numbers import Number, Results, in_order, label
from nbhelpers.results.table import MACRO, MENDING, PROMISE, TRANSFER
from nbhelpers.scenarios import COMPARISONS

MARKERS = "osD^vP*X<>"
#: The path through the scenarios that tell one story; the global ones are another.
SHIFT_PATH = ("clean", "no_adaptation", "threshold_only", "full_adaptation")
MEASURES = (("fpr", "false alarms", "Reds"), ("fnr", "misses", "Purples"))


def _axes(
    rows: int, columns: int, width: float, height: float, **options: object
) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
        **options,
    )
    for axis in axes.ravel():  # small panels, thin lines
        axis.grid(True, linewidth=0.6)
        axis.spines[:].set_linewidth(0.8)
    return figure, axes


def _floor(numbers: Iterable[Number]) -> float:
    """Where an axis that ends at 1 starts: a tenth below the smallest value or interval, at most
    0.5.
    """
    levels = [n for n in numbers if not n.is_difference]
    return min(
        [
            0.5,
            *(
                np.floor(10 * min(n.value, n.value if n.ci_low is None else n.ci_low)) / 10
                for n in levels
            ),
        ]
    )


def _bars(numbers: Sequence[Number]) -> np.ndarray:
    """Lengths of the error bars ``(2, N)``, below and above; NaN where there is no interval."""
    values = np.array([number.value for number in numbers], float)
    low, high = (
        np.array([getattr(n, end) for n in numbers], float) for end in ("ci_low", "ci_high")
    )
    # an interval of a value at its bound may lie on one side of it
    return np.clip([values - low, high - values], 0, None)


def _matrix(
    axis: Axes,
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    colors: str,
) -> None:
    """A heatmap with its numbers, empty where there is none; seaborn's would draw the whole figure
    for each panel.
    """
    cells = np.array(values, float)
    drawn = axis.imshow(cells, vmin=limits[0], vmax=limits[1], cmap=colors, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            luminance = np.dot(drawn.cmap(drawn.norm(value))[:3], (0.299, 0.587, 0.114))
            axis.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="black" if luminance > 0.5 else "white",
            )
    axis.set_xticks(range(len(columns)), columns, fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.grid(visible=False)
    axis.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axis.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.5)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=min(len(handles), 6),
        fontsize=8,
        frameon=False,
    )


def _methods(numbers: Iterable[Number]) -> list[str]:
    """Methods of these rows, in the order in which they are told."""
    return in_order(dict.fromkeys(number.method for number in numbers), METHOD_ORDER)


def _title(axis: Axes, results: Results, category: str) -> None:
    weight = "bold" if category == MACRO else "normal"
    axis.set_title(results.called(category), fontsize=10, fontweight=weight)


def _method_handles(methods: Sequence[str]) -> list[Line2D]:
    colors = method_colors(methods)
    return [Line2D([], [], color=colors[name], marker="o", label=label(name)) for name in methods]


def plot_image_against_pixel(
    results: Results, pixel: str = "aupro", image: str = "image_auroc"
) -> Figure:
    """Ranking of images against localisation, one panel per scenario; thin crosses are the
    intervals.
    """
    shown = [
        s
        for s in results.scenarios
        if any(results.find(s, m, c, pixel) for m in results.methods for c in results.categories)
    ]
    columns = min(3, max(1, len(shown)))
    figure, axes = _axes(
        -(-max(1, len(shown)) // columns), columns, 3.1, 2.9, sharex=True, sharey=True
    )
    colors = method_colors(results.methods)
    marker = dict(zip(results.categories, MARKERS * len(results.categories), strict=False))
    for axis in axes.ravel()[len(shown) :]:
        axis.set_visible(False)
    for axis, scenario in zip(axes.ravel(), shown, strict=False):
        for method in results.methods:
            for category in results.categories:
                x, y = (
                    results.find(scenario, method, category, metric) for metric in (image, pixel)
                )
                if x and y:
                    axis.errorbar(
                        x.value,
                        y.value,
                        xerr=_bars([x]),
                        yerr=_bars([y]),
                        fmt=marker[category],
                        color=colors[method],
                        markersize=6,
                        elinewidth=0.7,
                        alpha=0.9,
                    )
        axis.set_title(label(scenario), fontsize=10)
        lows = [
            _floor(n for n in results.where(metric=name, detail="") if n.scenario in shown)
            for name in (image, pixel)
        ]
        axis.set(
            xlabel=label(image), ylabel=label(pixel), xlim=(lows[0], 1.03), ylim=(lows[1], 1.03)
        )
        axis.label_outer()
    _legend(
        figure,
        _method_handles(results.methods)
        + [
            Line2D([], [], color="grey", linestyle="", marker=shape, label=name)
            for name, shape in marker.items()
        ],
    )
    return figure


def plot_scenario_lines(
    results: Results, metrics: Sequence[str], scenarios: Sequence[str] = SHIFT_PATH
) -> Figure:
    """Metrics from scenario to scenario: one row per metric, one panel per category and one for the
    macro average; bands are intervals.
    """
    scenarios = [name for name in scenarios if name in results.scenarios]
    panels, colors = [*results.categories, MACRO], method_colors(results.methods)
    figure, axes = _axes(len(metrics), len(panels), 2.5, 2.1, sharex=True, sharey="row")
    for line, metric in zip(axes, metrics, strict=True):
        for axis, category in zip(line, panels, strict=True):
            for method in results.methods:
                found = {
                    i: results.find(s, method, category, metric) for i, s in enumerate(scenarios)
                }
                place = [i for i, number in found.items() if number]
                numbers = [found[i] for i in place]
                axis.plot(
                    place, [n.value for n in numbers], "o-", color=colors[method], markersize=4
                )
                below, above = _bars(numbers) if numbers else ([], [])
                values = np.array([n.value for n in numbers])
                axis.fill_between(
                    place,
                    values - below,
                    values + above,
                    color=colors[method],
                    alpha=0.15,
                    linewidth=0,
                )
        line[0].set_ylim(
            _floor(n for n in results.where(metric=metric, detail="") if n.scenario in scenarios),
            1.03,
        )
        line[0].set_ylabel(label(metric))
    for axis, category in zip(axes[0], panels, strict=True):
        _title(axis, results, category)
    for axis in axes[-1]:
        axis.set_xticks(
            range(len(scenarios)), [label(s).replace(" ", "\n") for s in scenarios], fontsize=7.5
        )
        axis.margins(x=0.12)
    _legend(figure, _method_handles(results.methods))
    return figure


def plot_heatmaps(results: Results, metric: str, limits: tuple[float, float]) -> Figure:
    """Methods against categories, one panel per scenario, all on one colour scale; the numbers are
    the values.
    """
    shown = [
        s
        for s in results.scenarios
        if any(results.find(s, m, MACRO, metric) for m in results.methods)
    ]
    categories, columns = [*results.categories, MACRO], min(3, max(1, len(shown)))
    height = 0.9 + 0.34 * len(results.methods)
    figure, axes = _axes(
        -(-max(1, len(shown)) // columns), columns, 1.0 + 0.62 * len(categories), height
    )
    for axis in axes.ravel()[len(shown) :]:
        axis.set_visible(False)
    for axis, scenario in zip(axes.ravel(), shown, strict=False):
        found = [
            [results.find(scenario, method, category, metric) for category in categories]
            for method in results.methods
        ]
        values = [[number.value if number else None for number in row] for row in found]
        _matrix(
            axis,
            values,
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
    """Paired differences of scenarios with their intervals: one panel per category and one for the
    macro average; zero is marked.
    """
    differences = [number for number in results.where(metric=metric) if number.against]
    known = {(number.against, number.scenario) for number in differences}
    steps = {pair: words for pair, words in COMPARISONS.items() if pair in known}
    there = {number.category for number in differences}
    panels = [category for category in (*results.categories, MACRO) if category in there]
    figure, axes = _axes(
        1, max(1, len(panels)), 2.3, 0.9 + 0.5 * len(steps), sharex=True, sharey=True
    )
    colors = method_colors(results.methods)
    for axis, category in zip(axes[0], panels, strict=False):
        axis.axvline(0, color="black", linewidth=0.8)
        for offset, method in zip(
            np.linspace(-0.2, 0.2, len(colors)), results.methods, strict=True
        ):
            rows = [
                (y, n)
                for y, (before, after) in enumerate(steps)
                if (n := results.find(after, method, category, metric, against=before))
            ]
            if rows:
                axis.errorbar(
                    [n.value for _, n in rows],
                    [y + offset for y, _ in rows],
                    xerr=_bars([n for _, n in rows]),
                    fmt="o",
                    color=colors[method],
                    markersize=4,
                    capsize=2,
                )
        _title(axis, results, category)
    figure.supxlabel(f"difference in {label(metric)}", fontsize=9)
    axes[0, 0].set_yticks(range(len(steps)), list(steps.values()), fontsize=8)
    axes[0, 0].set_ylim(len(steps) - 0.5, -0.5)
    _legend(figure, _method_handles(results.methods))
    return figure


def plot_threshold_transfer(results: Results, scenario: str) -> Figure:
    """False alarms and misses with a threshold from elsewhere: one row per method, thresholds
    against what is tested.

    Args:
        results: Rows ``fpr`` and ``fnr`` that say where the threshold is from.
        scenario: ``global`` (categories against categories) or ``transfer`` (domains, beside each
            other by category).
    """
    cells: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    numbers = [
        number
        for detail in ("threshold_from", TRANSFER)
        for measure, *_ in MEASURES
        for number in results.where(scenario=scenario, metric=measure, detail=detail)
    ]
    for number in numbers:
        details = number.details
        tested = "\n".join([number.category, *filter(None, [details.get("tested_on")])])
        own = cells.setdefault((number.method, number.metric), {})
        own[details["threshold_from"], tested] = number.value
    methods = _methods(numbers)
    rows, columns = (
        list(dict.fromkeys(key[side] for part in cells.values() for key in part)) for side in (0, 1)
    )
    figure, axes = _axes(
        max(1, len(methods)), 2, 1.0 + 0.6 * len(columns), 1.0 + 0.42 * len(rows), sharey=True
    )
    for line, method in zip(axes, methods, strict=False):
        for axis, (measure, word, colours) in zip(line, MEASURES, strict=True):
            values = [
                [cells[method, measure].get((row, column)) for column in columns] for row in rows
            ]
            _matrix(axis, values, rows, columns, (0, 1), colours)
            axis.set_title(f"{label(method)}: {word}", fontsize=9)
    figure.supxlabel("tested on", fontsize=9)
    figure.supylabel("threshold from", fontsize=9)
    return figure


def plot_promised_and_realised(results: Results) -> Figure:
    """False alarms that calibration promised (dashed) and those that came, with their intervals:
    clean and shift.
    """
    numbers = results.where(metric="realised_fpr", detail=PROMISE)
    methods = _methods(numbers)
    categories = list(dict.fromkeys(n.category for n in numbers))
    rules = list(dict.fromkeys(n.details["rule"] for n in numbers))
    figure, axes = _axes(
        max(1, len(methods)), max(1, len(categories)), 2.6, 2.2, sharex=True, sharey=True
    )
    worlds = {"clean": "clean", "no_adaptation": "shift"}
    for line, method in zip(axes, methods, strict=False):
        for axis, category in zip(line, categories, strict=True):
            axis.axline((0, 0), slope=1, color="black", linestyle="--", linewidth=0.8)
            kinds = [
                (shape, rule, s)
                for shape, rule in zip(MARKERS, rules, strict=False)
                for s in worlds
            ]
            for step, (shape, rule, scenario) in enumerate(kinds):
                own = [
                    n
                    for n in numbers
                    if (n.scenario, n.method, n.category, n.details["rule"])
                    == (scenario, method, category, rule)
                ]
                if own:  # side by side, since intervals of one target would hide each other
                    target = np.array([float(n.details["target"]) for n in own])
                    aside = 0.008 * (step - (len(kinds) - 1) / 2)
                    axis.errorbar(
                        target + aside,
                        [n.value for n in own],
                        yerr=_bars(own),
                        fmt=shape,
                        markersize=4,
                        color=DOMAIN_COLORS[worlds[scenario]],
                        capsize=2,
                        elinewidth=1,
                    )
            axis.set(ylim=(-0.03, 1.04))
            axis.set_title(f"{label(method)}, {category}", fontsize=9)
    figure.supxlabel("false alarm rate that was promised", fontsize=9)
    figure.supylabel("realised on good test images", fontsize=9)
    shapes = [
        Line2D([], [], color="grey", linestyle="", marker=shape, label=label(rule))
        for shape, rule in zip(MARKERS, rules, strict=False)
    ]
    _legend(
        figure,
        [
            Line2D([], [], color=DOMAIN_COLORS[d], marker="o", linestyle="", label=label(s))
            for s, d in worlds.items()
        ]
        + (shapes if len(rules) > 1 else []),
    )
    return figure


def plot_recalibration(results: Results) -> Figure:
    """How many good images of the new domain mend a broken promise: one panel per category, the
    promise is dashed.
    """
    numbers = results.where(metric="realised_fpr", detail=MENDING)
    categories = list(dict.fromkeys(n.category for n in numbers))
    methods = _methods(numbers)
    figure, axes = _axes(1, max(1, len(categories)), 2.6, 2.3, sharey=True)
    colors = method_colors(methods)
    for axis, category in zip(axes[0], categories, strict=False):
        for step, method in enumerate(methods):
            own = [n for n in numbers if (n.method, n.category) == (method, category)]
            own.sort(key=lambda n: int(n.details["recalibrated_on"]))  # the table sorts texts
            sizes = np.array([int(n.details["recalibrated_on"]) for n in own])
            axis.errorbar(
                sizes + 0.3 * step,
                [n.value for n in own],
                yerr=_bars(own),
                fmt="o-",
                color=colors[method],
                markersize=4,
                capsize=2,
                elinewidth=0.8,
            )
            for n in own[:1]:
                axis.axhline(
                    float(n.details["target"]), color="black", linestyle="--", linewidth=0.8
                )
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
    _legend(figure, _method_handles(methods))
    return figure


def plot_rules(results: Results, metric: str = "balanced_accuracy") -> Figure:
    """Every threshold rule against the scenarios, macro averages, one panel per method; a cell is
    empty where a rule was refused.
    """
    numbers = results.where(metric=metric, detail="rule", macro=True)
    rules = list(dict.fromkeys(n.detail_value for n in numbers))
    scenarios = [s for s in results.scenarios if any(n.scenario == s for n in numbers)]
    methods = _methods(numbers)
    figure, axes = _axes(
        1, max(1, len(methods)), 1.4 + 0.62 * len(scenarios), 1.3 + 0.24 * len(rules), sharey=True
    )
    for axis, method in zip(axes[0], methods, strict=False):
        found = [
            [results.find(s, method, MACRO, metric, rule=rule) for s in scenarios] for rule in rules
        ]
        _matrix(
            axis,
            [[n.value if n else None for n in row] for row in found],
            [label(rule) for rule in rules],
            [label(s).replace(" ", "\n") for s in scenarios],
            (0.5, 1),
            "viridis",
        )
        axis.set_title(label(method), fontsize=10)
    return figure
