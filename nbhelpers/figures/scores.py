"""Figures of scores and metrics: distributions, curves, intervals. Each returns its Figure, shows
nothing.

One colour a thing in every figure: a method, a domain, good against defect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve, roc_curve

from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.thresholds.calibrate import f1_curve
from nbhelpers.figures.style import DEFECT_COLOR, GOOD_COLOR, method_colors, panels
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import in_order, label
from nbhelpers.results.views import printed


def plot_scores(
    predictions: Mapping[str, Predictions], threshold: float, former: float | None = None
) -> Figure:
    """Image scores of good and defect images with the threshold, one row a named set of
    predictions.

    A ``former`` threshold is dotted.
    """
    figure, axes = panels(len(predictions), width=7.0, height=1.9, columns=1)
    everything = np.concatenate([p.image_scores for p in predictions.values()])
    bins = np.linspace(
        min(everything.min(), former or np.inf),
        max(everything.max(), threshold, former or -np.inf),
        40,
    )
    for axis, (name, part) in zip(axes, predictions.items(), strict=True):
        for truth, color, text in ((0, GOOD_COLOR, "good"), (1, DEFECT_COLOR, "defect")):
            axis.hist(
                part.image_scores[part.labels == truth],
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
    """F1 on the calibration images against the threshold; the chosen one is the middle of the best
    plateau.
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
    """ROC (above) and precision-recall (below) per category, all methods; the dots are the deployed
    thresholds.

    Args:
        predictions: Method, then category, to the predictions that are judged.
        thresholds: The deployed thresholds on their image scores, in the same way.
    """
    colors, categories = (
        method_colors(predictions),
        list(dict.fromkeys(c for own in predictions.values() for c in own)),
    )
    figure, axes = plt.subplots(
        2,
        len(categories),
        figsize=(2.9 * len(categories), 5.4),
        squeeze=False,
        layout="constrained",
    )
    for column, category in enumerate(categories):
        roc, pr = axes[:, column]
        roc.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        for method in (name for name, own in predictions.items() if category in own):
            part = predictions[method][category]
            _draw_roc_pr(roc, pr, part, thresholds[method][category], colors[method], label(method))
        roc.set(
            title=category, xlabel="false positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03)
        )
        pr.set(xlabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
    axes[0, 0].set_ylabel("true positive rate")
    axes[1, 0].set_ylabel("precision")
    if len(predictions) > 1:
        axes[0, 0].legend(fontsize=7, loc="lower right")
    return figure


def _draw_roc_pr(
    roc: Axes, pr: Axes, part: Predictions, threshold: float, color: str, name: str
) -> None:
    fpr, tpr, _ = roc_curve(part.labels, part.image_scores)
    precision, recall, _ = precision_recall_curve(part.labels, part.image_scores)
    flagged, defect = decide(part.image_scores, threshold), part.labels == 1
    hits, alarms = (flagged & defect).sum(), (flagged & ~defect).sum()
    dot = {"marker": "o", "color": color, "markersize": 6, "markeredgecolor": "black"}
    roc.plot(fpr, tpr, color=color, label=name)
    roc.plot(alarms / (~defect).sum(), hits / defect.sum(), **dot)
    pr.plot(recall, precision, color=color)
    pr.axhline(defect.mean(), color="grey", linewidth=0.8, linestyle=":")
    if hits + alarms:
        pr.plot(hits / defect.sum(), hits / (hits + alarms), **dot)


def plot_reliability(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Share of defects against the probability that was said, per category, one colour a method,
    with intervals.

    Args:
        tables: Method, then category, to what ``reliability.reliability_table`` gives.
    """
    colors, categories = (
        method_colors(tables),
        list(dict.fromkeys(c for own in tables.values() for c in own)),
    )
    figure, axes = panels(len(categories), width=2.8, height=2.8)
    for axis, category in zip(axes, categories, strict=True):
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        for offset, (method, own) in enumerate(tables.items()):
            part = own[category].assign(value=own[category].observed)
            _draw_intervals(axis, part.mean_probability + 0.01 * offset, part)
            axis.plot(
                part.mean_probability + 0.01 * offset,
                part.observed,
                "o-",
                color=colors[method],
                label=label(method),
                markersize=5,
            )
        axis.set(title=category, xlabel="probability said", xlim=(-0.03, 1.05), ylim=(-0.03, 1.05))
    axes[0].set_ylabel("share of defects")
    axes[0].legend(fontsize=7)
    return figure


def plot_pooled_scores(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float], shared: float
) -> Figure:
    """Scores of one model's images by category: each category's own threshold (black), one for all
    (dashed).
    """
    figure, (axis,) = panels(1, width=7.0, height=0.9 + 0.6 * len(predictions))
    for row, (name, part) in enumerate(predictions.items()):
        for truth, color, shift in ((0, GOOD_COLOR, -0.16), (1, DEFECT_COLOR, 0.16)):
            scores = part.image_scores[part.labels == truth]
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
    kinds = (
        ("good", GOOD_COLOR, "|", ""),
        ("defect", DEFECT_COLOR, "|", ""),
        ("its own threshold", "black", "", "-"),
        ("one threshold for all", "black", "", "--"),
    )
    figure.legend(
        handles=[
            Line2D([], [], color=color, marker=marker, linestyle=line, markersize=9, label=name)
            for name, color, marker, line in kinds
        ],
        loc="outside upper center",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    return figure


def plot_confusions(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float]
) -> Figure:
    """Decisions at the deployed threshold against the truth, one matrix a category."""
    figure, axes = panels(len(predictions), width=2.4, height=2.2)
    for axis, (name, part) in zip(axes, predictions.items(), strict=True):
        flagged = decide(part.image_scores, thresholds[name])
        table = [
            [int(((part.labels == truth) & (flagged == said)).sum()) for said in (0, 1)]
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
        axis.set(title=name, xlabel="said", ylabel="is")
    return figure


def plot_metric_bars(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Metrics with their intervals by category, one panel per metric, one colour per method; from
    the tidy table.
    """
    table = printed(table)
    figure, axes = panels(len(metrics), width=2.9, height=2.8, columns=4)
    methods = in_order(dict.fromkeys(table.method), METHOD_ORDER)
    colors = method_colors(methods)
    for axis, metric in zip(axes, metrics, strict=True):
        own = table[table.metric == metric]
        categories = list(dict.fromkeys(own.category))
        for offset, method in enumerate(methods):
            part = own[own.method == method].set_index("category").reindex(categories)
            place = np.arange(len(categories)) + (offset - (len(methods) - 1) / 2) * 0.8 / len(
                methods
            )
            axis.bar(
                place,
                part.value,
                width=0.8 / len(methods),
                color=colors[method],
                label=label(method),
            )
            _draw_intervals(axis, place, part)
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


def _draw_intervals(axis: Axes, place: np.ndarray, part: pd.DataFrame) -> None:
    below, above = part.value - part.ci_low, part.ci_high - part.value
    # a bootstrap interval of a value at its bound may lie on one side of it
    axis.errorbar(
        place,
        part.value,
        [below.clip(lower=0), above.clip(lower=0)],
        fmt="none",
        ecolor="black",
        capsize=3,
        linewidth=1,
    )


def plot_scenario_change(
    table: pd.DataFrame, metrics: Sequence[str], scenarios: Sequence[str]
) -> Figure:
    """What happens to each category from scenario to scenario, one panel per metric, with intervals."""
    table = printed(table)
    figure, axes = panels(len(metrics), width=2.9, height=2.9, columns=4)
    for axis, metric in zip(axes, metrics, strict=True):
        own = table[table.metric == metric]
        colors = sns.color_palette("tab10", own.category.nunique())
        for index, (category, here) in enumerate(own.groupby("category", sort=False)):
            part = here.set_index("scenario").reindex(list(scenarios))
            place = np.arange(len(scenarios)) + 0.04 * index
            macro = here.macro.any()
            color = "black" if macro else colors[index]
            axis.plot(
                place, part.value, "o-", color=color, label=category, linewidth=2 if macro else 1.2
            )
            _draw_intervals(axis, place, part)
        axis.set_xticks(range(len(scenarios)), [name.replace("_", " ") for name in scenarios])
        axis.set(title=metric, ylim=(-0.03, 1.05))
        axis.margins(x=0.15)
    axes[0].legend(fontsize=7, loc="lower left")
    return figure
