"""Figures of scores and metrics: distributions, curves, intervals.

Each function returns its Figure and does not show it. In every figure one colour stands for one
thing: a method, a domain, good or defect images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import precision_recall_curve, roc_curve

from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.thresholds.calibrate import f1_curve
from nbhelpers.figures.panels import grid, interval_lengths, legend_above, legend_entry, panels
from nbhelpers.figures.style import DEFECT_COLOR, GOOD_COLOR, method_colors
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import in_order, label
from nbhelpers.results.views import printed


def plot_scores(
    predictions: Mapping[str, Predictions], threshold: float, former: float | None = None
) -> Figure:
    """Histograms of the image scores of good and defect images with the threshold.

    Args:
        predictions: Named sets of predictions, one row each.
        threshold: The threshold on the image score, dashed.
        former: An earlier threshold, dotted; None if there is none.
    """
    figure, axes = panels(len(predictions), width=7.0, height=1.9, columns=1)
    everything = np.concatenate([p.image_scores for p in predictions.values()])
    low, high = everything.min(), max(everything.max(), threshold)
    if former is not None:
        low, high = min(low, former), max(high, former)
    bins = np.linspace(low, high, 40).tolist()
    for axis, (name, judged) in zip(axes, predictions.items(), strict=True):
        for truth, color, text in ((0, GOOD_COLOR, "good"), (1, DEFECT_COLOR, "defect")):
            axis.hist(
                judged.image_scores[judged.labels == truth],
                bins=bins,
                color=color,
                alpha=0.65,
                label=text,
            )
        axis.axvline(
            threshold,
            color="black",
            linestyle="--",
            linewidth=1.2,
            label=f"threshold {threshold:.2f}",
        )
        if former is not None:
            axis.axvline(
                former, color="black", linestyle=":", linewidth=1.2, label=f"before: {former:.2f}"
            )
        axis.set(title=name, ylabel="images")
    axes[-1].set_xlabel("image score")
    axes[0].legend(fontsize=7)
    return figure


def plot_f1_curve(val: Predictions, threshold: float, method: str) -> Figure:
    """F1 on the calibration images against the threshold, with the chosen threshold dashed.

    Args:
        val: The predictions that calibrate.
        threshold: The chosen threshold, the middle of the best plateau of F1.
        method: The method, for the colour.
    """
    figure, (axis,) = panels(1, width=5.0, height=2.8)
    values, f1 = f1_curve(val.labels, val.image_scores)
    axis.plot(values, f1, drawstyle="steps-mid", color=method_colors([method])[method])
    axis.axvline(threshold, color="black", linestyle="--", label=f"chosen: {threshold:.2f}")
    axis.set(xlabel="threshold on the image score", ylabel="F1 on validation", ylim=(0, 1.03))
    axis.legend()
    return figure


def plot_roc_pr(
    predictions: Mapping[str, Mapping[str, Predictions]],
    thresholds: Mapping[str, Mapping[str, float]],
) -> Figure:
    """ROC (above) and precision-recall curves (below), one column per category, one colour per method.

    The dots are the deployed thresholds.

    Args:
        predictions: Method, then category, to the predictions that are judged.
        thresholds: The deployed thresholds on the image scores, by method and category likewise.
    """
    colors, categories = method_colors(predictions), _categories(predictions)
    figure, axes = grid(2, len(categories), 2.9, 2.7)
    for (roc, pr), category in zip(axes.T, categories, strict=True):
        roc.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        for method, by_category in predictions.items():
            if category in by_category:
                _draw_roc_pr(
                    roc,
                    pr,
                    by_category[category],
                    thresholds[method][category],
                    colors[method],
                    label(method),
                )
        roc.set(
            title=category, xlabel="false positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03)
        )
        pr.set(xlabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
    axes[0, 0].set_ylabel("true positive rate")
    axes[1, 0].set_ylabel("precision")
    if len(predictions) > 1:
        axes[0, 0].legend(fontsize=7, loc="lower right")
    return figure


def _categories(by_method: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All categories of a mapping from method and category, in its order."""
    return list(dict.fromkeys(name for categories in by_method.values() for name in categories))


def _draw_roc_pr(
    roc: Axes, pr: Axes, judged: Predictions, threshold: float, color: str, name: str
) -> None:
    fpr, tpr, _ = roc_curve(judged.labels, judged.image_scores)
    precision, recall, _ = precision_recall_curve(judged.labels, judged.image_scores)
    flagged, defect = decide(judged.image_scores, threshold), judged.labels == 1
    hits, alarms = (flagged & defect).sum(), (flagged & ~defect).sum()
    roc.plot(fpr, tpr, color=color, label=name)
    _draw_dot(roc, alarms / (~defect).sum(), hits / defect.sum(), color)
    pr.plot(recall, precision, color=color)
    pr.axhline(defect.mean(), color="grey", linewidth=0.8, linestyle=":")
    if hits + alarms:
        _draw_dot(pr, hits / defect.sum(), hits / (hits + alarms), color)


def _draw_dot(axis: Axes, x: float, y: float, color: str) -> None:
    axis.plot(x, y, marker="o", color=color, markersize=6, markeredgecolor="black")


def plot_reliability(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Observed share of defects against the predicted probability, with intervals.

    There is one panel per category; one colour stands for one method. On the dotted line the
    probabilities are right.

    Args:
        tables: Method, then category, to what ``calibration.reliability_table`` gives.
    """
    colors, categories = method_colors(tables), _categories(tables)
    figure, axes = panels(len(categories), width=2.8, height=2.8)
    for axis, category in zip(axes, categories, strict=True):
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        for index, (method, by_category) in enumerate(tables.items()):
            bins = by_category[category]
            positions = bins.mean_probability + 0.01 * index  # so that no interval hides another
            _draw_intervals(axis, positions, bins.assign(value=bins.observed))
            axis.plot(
                positions,
                bins.observed,
                "o-",
                color=colors[method],
                label=label(method),
                markersize=5,
            )
        axis.set(
            title=category, xlabel="predicted probability", xlim=(-0.03, 1.05), ylim=(-0.03, 1.05)
        )
    axes[0].set_ylabel("share of defects")
    axes[0].legend(fontsize=7)
    return figure


def plot_pooled_scores(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float], shared: float
) -> Figure:
    """Image scores of one model for all categories, one row per category.

    Args:
        predictions: Each category's predictions by the model.
        thresholds: Each category's own threshold on the image score, a black line in its row.
        shared: The one threshold for all categories, dashed.
    """
    figure, (axis,) = panels(1, width=7.0, height=0.9 + 0.6 * len(predictions))
    for row, (name, judged) in enumerate(predictions.items()):
        for truth, color, shift in ((0, GOOD_COLOR, -0.16), (1, DEFECT_COLOR, 0.16)):
            scores = judged.image_scores[judged.labels == truth]
            axis.plot(
                scores,
                np.full(len(scores), row + shift),
                "|",
                color=color,
                markersize=11,
                alpha=0.8,
            )
        axis.plot([thresholds[name]] * 2, [row - 0.38, row + 0.38], color="black", linewidth=2)
    axis.axvline(shared, color="black", linestyle="--", linewidth=1.2)
    axis.set_yticks(range(len(predictions)), list(predictions))
    axis.set(xlabel="image score", ylim=(len(predictions) - 0.5, -0.5))
    entries = [
        legend_entry("good", GOOD_COLOR, marker="|", markersize=9),
        legend_entry("defect", DEFECT_COLOR, marker="|", markersize=9),
        legend_entry("its own threshold", "black", linestyle="-"),
        legend_entry("one threshold for all", "black", linestyle="--"),
    ]
    legend_above(figure, entries)
    return figure


def plot_confusions(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float]
) -> Figure:
    """Decisions at the deployed threshold against the truth, one matrix per category.

    Args:
        predictions: Each category's predictions.
        thresholds: Each category's deployed threshold on the image score.
    """
    figure, axes = panels(len(predictions), width=2.4, height=2.2)
    for axis, (name, judged) in zip(axes, predictions.items(), strict=True):
        flagged = decide(judged.image_scores, thresholds[name])
        table = [
            [int(((judged.labels == truth) & (flagged == decision)).sum()) for decision in (0, 1)]
            for truth in (0, 1)
        ]
        sns.heatmap(
            table,
            annot=True,
            fmt="d",
            cbar=False,
            cmap="Blues",
            vmin=0,
            ax=axis,
            square=True,
            xticklabels=["good", "defect"],
            yticklabels=["good", "defect"],
        )
        axis.set(title=name, xlabel="decision", ylabel="truth")
    return figure


def plot_metric_bars(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Metrics by category with their intervals, one panel per metric, one colour per method.

    Args:
        table: Rows of one scenario of the tidy table.
        metrics: The metrics to show.
    """
    table = printed(table)
    figure, axes = panels(len(metrics), width=2.9, height=2.8, columns=4)
    methods = in_order(dict.fromkeys(table.method), METHOD_ORDER)
    colors = method_colors(methods)
    for axis, metric in zip(axes, metrics, strict=True):
        rows = table[table.metric == metric]
        categories = list(dict.fromkeys(rows.category))
        for index, method in enumerate(methods):
            bars = rows[rows.method == method].set_index("category").reindex(categories)
            aside = (index - (len(methods) - 1) / 2) * 0.8 / len(methods)
            positions = np.arange(len(categories)) + aside
            axis.bar(
                positions,
                bars.value,
                width=0.8 / len(methods),
                color=colors[method],
                label=label(method),
            )
            _draw_intervals(axis, positions, bars)
        axis.set_xticks(range(len(categories)), categories, rotation=20)
        axis.set(title=label(metric), ylim=(0, 1.05))
    if len(methods) > 1:
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(methods),
            fontsize=8,
        )
    return figure


def _draw_intervals(axis: Axes, positions: ArrayLike, rows: pd.DataFrame) -> None:
    """Draw the vertical intervals of N rows with the columns value, ci_low and ci_high."""
    axis.errorbar(
        positions,
        rows.value,
        interval_lengths(rows.value, rows.ci_low, rows.ci_high),
        fmt="none",
        ecolor="black",
        capsize=3,
        linewidth=1,
    )


def plot_scenario_change(
    table: pd.DataFrame, metrics: Sequence[str], scenarios: Sequence[str]
) -> Figure:
    """Metrics of each category from scenario to scenario with their intervals, one panel per metric.

    Args:
        table: Rows of one method of the tidy table; the macro average is black.
        metrics: The metrics to show.
        scenarios: The scenarios from left to right.
    """
    table = printed(table)
    figure, axes = panels(len(metrics), width=2.9, height=2.9, columns=4)
    for axis, metric in zip(axes, metrics, strict=True):
        rows = table[table.metric == metric]
        colors = sns.color_palette("tab10", rows.category.nunique())
        for index, (category, of_category) in enumerate(rows.groupby("category", sort=False)):
            line = of_category.set_index("scenario").reindex(list(scenarios))
            positions = np.arange(len(scenarios)) + 0.04 * index
            macro = of_category.macro.any()
            axis.plot(
                positions,
                line.value,
                "o-",
                color="black" if macro else colors[index],
                label=category,
                linewidth=2 if macro else 1.2,
            )
            _draw_intervals(axis, positions, line)
        axis.set_xticks(range(len(scenarios)), [name.replace("_", " ") for name in scenarios])
        axis.set(title=metric, ylim=(-0.03, 1.05))
        axis.margins(x=0.15)
    axes[0].legend(fontsize=7, loc="lower left")
    return figure
