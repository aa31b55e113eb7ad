"""Figures of the error analysis: recall by defect type and by bin, margins, scores by type,
pictures of hard cases.

Each returns its Figure, shows nothing. A panel is one category, and one method or scenario where
there are several: scores of two methods, or of two categories, have no common scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nbhelpers.data.layout import GOOD, Sample
from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.misses import ONE_BIN, PROPERTIES
from nbhelpers.figures.images import MAP_COLORS, MASK_COLOR, load_thumbnail, shared_limits
from nbhelpers.figures.style import DEFECT_COLOR, GOOD_COLOR, method_colors
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import in_order, label

WRONG_COLOR = "#c1121f"
COLUMNS = 3  # panels side by side where a figure has one panel a category


def _grid(
    categories: Sequence[str], others: Sequence[str], width: float, heights: Mapping[str, float]
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Axes by (category, other): a row a category, a column an other; with a single other,
    categories side by side.
    """
    columns = len(others) if len(others) > 1 else min(COLUMNS, len(categories))
    panels = [(category, other) for category in categories for other in others]
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    tall = [max(heights[category] for category, _ in row) for row in rows]
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(width * columns, sum(tall)),
        squeeze=False,
        height_ratios=tall,
        layout="constrained",
    )
    for spare in axes.ravel()[len(panels) :]:
        spare.set_visible(False)
    return figure, dict(zip(panels, axes.ravel()[: len(panels)], strict=True))


def _says(text: str) -> Figure:
    figure, axis = plt.subplots(figsize=(5, 1), layout="constrained")
    axis.text(0.5, 0.5, text, ha="center", va="center")
    axis.set_axis_off()
    return figure


def _title(category: str, other: str, others: Sequence[str]) -> str:
    return category if len(others) == 1 else f"{category}, {label(other)}"


def _recalls(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The recalls by this detail in the tidy table, with its value in the column ``group``."""
    own = table[(table.metric == "recall") & (table.detail == name)]
    return own.rename(columns={"detail_value": "group"})


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend above all panels, each label once, what they share last."""
    found: dict[str, object] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            found.pop(name, None)
            found[name] = handle
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside upper left",
        ncols=len(found),
        fontsize=7,
        frameon=False,
    )


def _intervals(part: pd.DataFrame) -> np.ndarray:
    """Lengths ``(2, N)`` below and above each value, as matplotlib's error bars want them."""
    return np.maximum([part.value - part.ci_low, part.ci_high - part.value], 0)


def plot_recall_by_type(table: pd.DataFrame, scenarios: Sequence[str]) -> Figure:
    """Recall of each defect type with its interval, one colour a method; from the tidy table.

    A panel is a category and scenario. The number of defect images stands beside the type.
    """
    own = _recalls(table, "defect_type")
    own = own[own.scenario.isin(list(scenarios))]
    categories, methods = (
        list(dict.fromkeys(own.category)),
        in_order(dict.fromkeys(own.method), METHOD_ORDER),
    )
    colors, thick = method_colors(methods), 0.8 / len(methods)
    counts = own.groupby("category").group.nunique()
    heights = {name: 0.75 + counts[name] * (0.12 + 0.11 * len(methods)) for name in categories}
    figure, axes = _grid(categories, scenarios, 3.2 if len(scenarios) <= COLUMNS else 2.5, heights)
    for (category, scenario), axis in axes.items():
        here = own[(own.category == category) & (own.scenario == scenario)]
        types = sorted(own.group[own.category == category].unique())
        n = here.drop_duplicates("group").set_index("group").n_images.reindex(types)
        for offset, method in enumerate(methods):
            part = here[here.method == method].set_index("group").reindex(types)
            place = np.arange(len(types)) + (offset - (len(methods) - 1) / 2) * thick
            axis.barh(place, part.value, height=thick, color=colors[method], label=label(method))
            axis.errorbar(
                part.value,
                place,
                xerr=_intervals(part),
                fmt="none",
                ecolor="black",
                capsize=2,
                linewidth=0.8,
            )
        axis.set_yticks(
            range(len(types)), [f"{name} ({count:.0f})" for name, count in n.items()], fontsize=7
        )
        axis.set_title(_title(category, scenario, scenarios), fontsize=8)
        axis.set(xlim=(0, 1.03), ylim=(len(types) - 0.5, -0.5))
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("recall", fontsize=7)
        if (
            len(scenarios) > 1 and scenario != scenarios[0]
        ):  # the types stand at the row's first panel
            axis.set_yticklabels([])
    _legend(figure, axes.values())
    return figure


def plot_recall_by_property(table: pd.DataFrame, scenario: str) -> Figure:
    """Recall by size, border and contrast of the defect, with intervals; one colour a method, from
    the tidy table.

    A row is a category, a column a property; the number of defect images stands below the bin.
    """
    parts = {name: _recalls(table[table.scenario == scenario], name) for name in PROPERTIES}
    own = pd.concat(parts.values())
    if own.empty:
        return _says(
            "no masks in these data: size, border and contrast of the defects are not known"
        )
    categories, methods = (
        list(dict.fromkeys(own.category)),
        in_order(dict.fromkeys(own.method), METHOD_ORDER),
    )
    colors = method_colors(methods)
    figure, axes = _grid(categories, list(PROPERTIES), 2.7, dict.fromkeys(categories, 2.1))
    for (category, name), axis in axes.items():
        here = parts[name][parts[name].category == category]
        bins = [group for group in (*PROPERTIES[name][1], ONE_BIN) if group in set(here.group)]
        n = here.drop_duplicates("group").set_index("group").n_images.reindex(bins)
        for offset, method in enumerate(methods):
            part = here[here.method == method].set_index("group").reindex(bins)
            place = np.arange(len(bins)) + (offset - (len(methods) - 1) / 2) * 0.16
            axis.errorbar(
                place,
                part.value,
                yerr=_intervals(part),
                fmt="o",
                color=colors[method],
                markersize=4,
                capsize=2,
                linewidth=1,
                label=label(method),
            )
        axis.set_xticks(
            range(len(bins)), [f"{group}\n({count:.0f})" for group, count in n.items()], fontsize=7
        )
        axis.set_title(f"{category}, {name}", fontsize=8)
        axis.set(xlim=(-0.5, len(bins) - 0.5), ylim=(-0.04, 1.04))
        axis.tick_params(axis="y", labelsize=7)
        axis.grid(axis="x", visible=False)
        if name == next(iter(PROPERTIES)):
            axis.set_ylabel("recall", fontsize=7)
    _legend(figure, axes.values())
    return figure


def plot_margin_area(defects: pd.DataFrame) -> Figure:
    """Margin (score minus threshold) against defect area (log scale), misses crossed; from
    ``errors.defects``.
    """
    known = defects[defects.area_percent > 0]
    if known.empty:
        return _says("no masks in these data: the areas of the defects are not known")
    categories, methods = list(dict.fromkeys(known.category)), list(dict.fromkeys(known.method))
    figure, axes = _grid(categories, methods, 3.0, dict.fromkeys(categories, 2.4))
    colors = method_colors(methods)
    for (category, method), axis in axes.items():
        own = known[(known.category == category) & (known.method == method)]
        for detected, marker, color, text in (
            (True, "o", colors[method], f"{label(method)}: detected"),
            (False, "X", WRONG_COLOR, "missed"),
        ):
            part = own[own.detected == detected]
            axis.scatter(
                part.area_percent,
                part.margin,
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
    _legend(figure, axes.values())
    return figure


def plot_scores_by_type(decisions: pd.DataFrame) -> Figure:
    """Image scores of good images and of each defect type with the deployed threshold; from
    ``errors.decisions``.
    """
    categories, methods = (
        list(dict.fromkeys(decisions.category)),
        list(dict.fromkeys(decisions.method)),
    )
    types = {
        category: [GOOD, *sorted(set(own.defect_type) - {GOOD})]
        for category, own in decisions.groupby("category")
    }
    figure, axes = _grid(
        categories, methods, 3.4, {name: 0.8 + 0.21 * len(types[name]) for name in categories}
    )
    for (category, method), axis in axes.items():
        own = decisions[(decisions.category == category) & (decisions.method == method)]
        place = own.defect_type.map({name: row for row, name in enumerate(types[category])})
        colors = np.where(own.label == 1, DEFECT_COLOR, GOOD_COLOR)
        axis.scatter(own.score, place, marker="|", s=70, linewidth=1.3, c=colors)
        axis.axvline(
            own.threshold.iloc[0], color="black", linestyle="--", linewidth=1, label="threshold"
        )
        counts = own.defect_type.value_counts()
        labels = [f"{name} ({counts[name]})" for name in types[category]]
        axis.set_yticks(range(len(labels)), labels, fontsize=7)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.set_title(_title(category, method, methods), fontsize=8)
        axis.set_xlabel("image score", fontsize=7)
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="x", visible=False)
        if len(methods) > 1 and method != methods[0]:
            axis.set_yticklabels([])
    _legend(figure, axes.values())
    return figure


def plot_hard_cases(
    samples: Sequence[Sample],
    predictions: Mapping[str, Mapping[str, Predictions]],
    thresholds: Mapping[str, Mapping[str, float]],
) -> Figure:
    """Each column one image with its mask outlined; below it each method's anomaly map, score and
    decision.

    All maps of one method and category have one colour scale, that of its test images.

    Args:
        samples: What to show.
        predictions: Method, then category, to the predictions that hold the samples.
        thresholds: The deployed thresholds on their image scores, in the same way.
    """
    if not samples:
        return _says("no defect image is missed by all methods")
    limits = {
        (method, name): shared_limits(own[name])
        for method, own in predictions.items()
        for name in {sample.category for sample in samples}
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
    for column, sample in enumerate(samples):
        image, mask = load_thumbnail(sample)
        axes[0, column].imshow(image)
        if mask.any():
            axes[0, column].contour(mask, levels=[0.5], colors=[MASK_COLOR], linewidths=1.2)
        axes[0, column].set_title(f"{sample.category}\n{sample.defect_type}", fontsize=7, pad=2)
        for row, (method, own) in enumerate(predictions.items(), start=1):
            part, threshold = own[sample.category], thresholds[method][sample.category]
            index = part.ids.index(sample.id)
            low, high = limits[method, sample.category]
            axes[row, column].imshow(part.anomaly_maps[index], cmap=MAP_COLORS, vmin=low, vmax=high)
            score = part.image_scores[index]
            said = bool(decide(score, threshold))
            axes[row, column].set_title(
                f"{score:.2f}: {'defect' if said else 'good'}",
                fontsize=7,
                pad=2,
                color="black" if said == bool(sample.label) else WRONG_COLOR,
            )
            if column == 0:
                axes[row, column].set_ylabel(label(method), fontsize=8)
    return figure
