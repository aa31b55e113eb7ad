"""Figures of the error analysis: recall by defect type and by bin, margins, scores by type, hard
cases.

Each function returns its Figure and does not show it. A panel holds one category, and one method or
scenario where there are several, because the scores of two methods or of two categories have no
common scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nbhelpers.data.layout import GOOD, Sample
from nbhelpers.evaluation.misses import ONE_BIN, PROPERTIES
from nbhelpers.figures.images import (
    load_thumbnail,
    predictions_of,
    shared_limits,
    show_image,
    show_map,
    title_with_decision,
)
from nbhelpers.figures.panels import grid, hide_after, interval_lengths, shared_legend
from nbhelpers.figures.style import DEFECT_COLOR, GOOD_COLOR, WRONG_COLOR, method_colors
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import in_order, label

#: Panels side by side where a figure has one panel per category.
COLUMNS = 3


def _category_panels(
    categories: Sequence[str], others: Sequence[str], width: float, heights: Mapping[str, float]
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """One panel per category and other thing (a method, a scenario or a property).

    Args:
        categories: The categories, one row each. If there is a single other, up to three
            categories stand side by side.
        others: The others, one column each.
        width: Width of one panel, inches.
        heights: Height of each category's panels, inches.

    Returns:
        The figure, and its axes by (category, other).
    """
    columns = len(others) if len(others) > 1 else min(COLUMNS, len(categories))
    keys = [(category, other) for category in categories for other in others]
    rows = [keys[start : start + columns] for start in range(0, len(keys), columns)]
    tallest = [max(heights[category] for category, _ in row) for row in rows]
    figure, axes = grid(len(rows), columns, width, tallest)
    hide_after(axes, len(keys))
    return figure, dict(zip(keys, axes.ravel()[: len(keys)], strict=True))


def _message(text: str) -> Figure:
    """A figure that only says why there is nothing to show."""
    figure, axis = plt.subplots(figsize=(5, 1), layout="constrained")
    axis.text(0.5, 0.5, text, ha="center", va="center")
    axis.set_axis_off()
    return figure


def _title(category: str, other: str, others: Sequence[str]) -> str:
    return category if len(others) == 1 else f"{category}, {label(other)}"


def _recalls(table: pd.DataFrame, detail: str) -> pd.DataFrame:
    """The recalls by this detail in the tidy table; the column ``group`` has the detail's value."""
    rows = table[(table.metric == "recall") & (table.detail == detail)]
    return rows.rename(columns={"detail_value": "group"})


def _methods(table: pd.DataFrame) -> list[str]:
    """The methods of these rows, in the order in which they are told."""
    return in_order(dict.fromkeys(table.method), METHOD_ORDER)


def _counts(rows: pd.DataFrame, groups: Sequence[str]) -> list[str]:
    """The number of images in each group, as text."""
    counts = rows.drop_duplicates("group").set_index("group").n_images.reindex(groups)
    return [f"{count:.0f}" for count in counts]


def plot_recall_by_type(table: pd.DataFrame, scenarios: Sequence[str]) -> Figure:
    """Recall of each defect type with its interval, one panel per category and scenario.

    One colour stands for one method; the number of defect images stands beside the defect type.

    Args:
        table: The tidy table.
        scenarios: The scenarios, one column of panels each.
    """
    recalls = _recalls(table, "defect_type")
    recalls = recalls[recalls.scenario.isin(list(scenarios))]
    categories, methods = list(dict.fromkeys(recalls.category)), _methods(recalls)
    colors, thickness = method_colors(methods), 0.8 / len(methods)
    n_types = recalls.groupby("category").group.nunique()
    heights = {name: 0.75 + n_types[name] * (0.12 + 0.11 * len(methods)) for name in categories}
    width = 3.2 if len(scenarios) <= COLUMNS else 2.5
    figure, axes = _category_panels(categories, scenarios, width, heights)
    for (category, scenario), axis in axes.items():
        rows = recalls[(recalls.category == category) & (recalls.scenario == scenario)]
        types = sorted(recalls.group[recalls.category == category].unique())
        for index, method in enumerate(methods):
            values = rows[rows.method == method].set_index("group").reindex(types)
            positions = np.arange(len(types)) + (index - (len(methods) - 1) / 2) * thickness
            axis.barh(
                positions, values.value, height=thickness, color=colors[method], label=label(method)
            )
            axis.errorbar(
                values.value,
                positions,
                xerr=interval_lengths(values.value, values.ci_low, values.ci_high),
                fmt="none",
                ecolor="black",
                capsize=2,
                linewidth=0.8,
            )
        names = [f"{name} ({n})" for name, n in zip(types, _counts(rows, types), strict=True)]
        axis.set_yticks(range(len(types)), names, fontsize=7)
        axis.set_title(_title(category, scenario, scenarios), fontsize=8)
        axis.set(xlim=(0, 1.03), ylim=(len(types) - 0.5, -0.5))
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("recall", fontsize=7)
        if len(scenarios) > 1 and scenario != scenarios[0]:
            axis.set_yticklabels([])  # the types stand at the first panel of the row
    shared_legend(figure, axes.values())
    return figure


def plot_recall_by_property(table: pd.DataFrame, scenario: str) -> Figure:
    """Recall by size, border distance and contrast of the defect, with intervals.

    There is one row of panels per category and one column per property; one colour stands for one
    method. The number of defect images stands below the bin.

    Args:
        table: The tidy table; without recalls by property the figure says so.
        scenario: The scenario.
    """
    table = table[table.scenario == scenario]
    recalls = {name: _recalls(table, name) for name in PROPERTIES}
    everything = pd.concat(recalls.values())
    if everything.empty:
        return _message(
            "no masks in these data: size, border and contrast of the defects are not known"
        )
    categories, methods = list(dict.fromkeys(everything.category)), _methods(everything)
    colors = method_colors(methods)
    figure, axes = _category_panels(
        categories, list(PROPERTIES), 2.7, dict.fromkeys(categories, 2.1)
    )
    for (category, name), axis in axes.items():
        rows = recalls[name][recalls[name].category == category]
        bins = [group for group in (*PROPERTIES[name][1], ONE_BIN) if group in set(rows.group)]
        for index, method in enumerate(methods):
            values = rows[rows.method == method].set_index("group").reindex(bins)
            axis.errorbar(
                np.arange(len(bins)) + (index - (len(methods) - 1) / 2) * 0.16,
                values.value,
                yerr=interval_lengths(values.value, values.ci_low, values.ci_high),
                fmt="o",
                color=colors[method],
                markersize=4,
                capsize=2,
                linewidth=1,
                label=label(method),
            )
        names = [f"{group}\n({n})" for group, n in zip(bins, _counts(rows, bins), strict=True)]
        axis.set_xticks(range(len(bins)), names, fontsize=7)
        axis.set_title(f"{category}, {name}", fontsize=8)
        axis.set(xlim=(-0.5, len(bins) - 0.5), ylim=(-0.04, 1.04))
        axis.tick_params(axis="y", labelsize=7)
        axis.grid(axis="x", visible=False)
        if name == next(iter(PROPERTIES)):
            axis.set_ylabel("recall", fontsize=7)
    shared_legend(figure, axes.values())
    return figure


def plot_margin_area(defects: pd.DataFrame) -> Figure:
    """Margin (score minus threshold) against the area of the defect on a logarithmic scale.

    Missed defects are crosses. There is one panel per category and method.

    Args:
        defects: One row per defect image and method, with the columns category, method,
            area_percent, margin and detected; without areas the figure says so.
    """
    known = defects[defects.area_percent > 0]
    if known.empty:
        return _message("no masks in these data: the areas of the defects are not known")
    categories, methods = list(dict.fromkeys(known.category)), list(dict.fromkeys(known.method))
    figure, axes = _category_panels(categories, methods, 3.0, dict.fromkeys(categories, 2.4))
    colors = method_colors(methods)
    for (category, method), axis in axes.items():
        rows = known[(known.category == category) & (known.method == method)]
        for detected, marker, color, text in (
            (True, "o", colors[method], f"{label(method)}: detected"),
            (False, "X", WRONG_COLOR, "missed"),
        ):
            points = rows[rows.detected == detected]
            axis.scatter(
                points.area_percent,
                points.margin,
                s=26,
                marker=marker,
                color=color,
                label=text,
                linewidth=0.4,
                edgecolor="white",
            )
        axis.axhline(0, color="black", linestyle="--", linewidth=1)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=8))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(_title(category, method, methods), fontsize=8)
        axis.set_xlabel("area, % of the image", fontsize=7)
        axis.set_ylabel("score minus threshold", fontsize=7)
        axis.tick_params(labelsize=7)
    shared_legend(figure, axes.values())
    return figure


def plot_scores_by_type(decisions: pd.DataFrame) -> Figure:
    """Image scores of good images and of each defect type, with the deployed threshold dashed.

    There is one panel per category and method.

    Args:
        decisions: One row per test image and method, with the columns category, method,
            defect_type, label, score and threshold.
    """
    categories = list(dict.fromkeys(decisions.category))
    methods = list(dict.fromkeys(decisions.method))
    types = {
        category: [GOOD, *sorted(set(rows.defect_type) - {GOOD})]
        for category, rows in decisions.groupby("category")
    }
    heights = {name: 0.8 + 0.21 * len(types[name]) for name in categories}
    figure, axes = _category_panels(categories, methods, 3.4, heights)
    for (category, method), axis in axes.items():
        rows = decisions[(decisions.category == category) & (decisions.method == method)]
        row_of_type = {name: row for row, name in enumerate(types[category])}
        colors = np.where(rows.label == 1, DEFECT_COLOR, GOOD_COLOR)
        axis.scatter(
            rows.score, rows.defect_type.map(row_of_type), marker="|", s=70, linewidth=1.3, c=colors
        )
        axis.axvline(
            rows.threshold.iloc[0], color="black", linestyle="--", linewidth=1, label="threshold"
        )
        counts = rows.defect_type.value_counts()
        names = [f"{name} ({counts[name]})" for name in types[category]]
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_title(_title(category, method, methods), fontsize=8)
        axis.set_xlabel("image score", fontsize=7)
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="x", visible=False)
        if len(methods) > 1 and method != methods[0]:
            axis.set_yticklabels([])
    shared_legend(figure, axes.values())
    return figure


def plot_hard_cases(
    samples: Sequence[Sample],
    predictions: Mapping[str, Mapping[str, Predictions]],
    thresholds: Mapping[str, Mapping[str, float]],
) -> Figure:
    """One column per image: the image with its mask outlined, and each method's map and decision.

    All maps of one method and category have one colour scale, that of its test images.

    Args:
        samples: The images to show; without any the figure says so.
        predictions: Method, then category, to the predictions that hold the samples.
        thresholds: The deployed thresholds on the image scores, by method and category likewise.
    """
    if not samples:
        return _message("no defect image is missed by all methods")
    limits = {
        (method, category): shared_limits(by_category[category])
        for method, by_category in predictions.items()
        for category in {sample.category for sample in samples}
    }
    figure, axes = plt.subplots(
        1 + len(predictions),
        len(samples),
        squeeze=False,
        layout="constrained",
        figsize=(1.5 * len(samples) + 0.3, 1.65 * (1 + len(predictions)) + 0.15),
    )
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[], frame_on=False)
    for column, sample in zip(axes.T, samples, strict=True):
        show_image(column[0], *load_thumbnail(sample), f"{sample.category}\n{sample.defect_type}")
        for axis, (method, by_category) in zip(column[1:], predictions.items(), strict=True):
            shown = predictions_of([sample], by_category[sample.category])
            show_map(axis, shown.anomaly_maps[0], limits[method, sample.category])
            threshold = thresholds[method][sample.category]
            title_with_decision(axis, shown.image_scores[0], threshold, bool(sample.label))
    for axis, method in zip(axes[1:, 0], predictions, strict=True):
        axis.set_ylabel(label(method), fontsize=8)
    return figure
