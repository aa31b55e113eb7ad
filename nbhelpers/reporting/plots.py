"""Figures drawn from numbers: counts, distributions, curves, intervals. Each returns its Figure, shows nothing.

One colour a thing in every figure: a method, a domain, good against defect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from nbhelpers.evaluation.metrics import decide
from nbhelpers.evaluation.thresholds import f1_curve
from nbhelpers.files import replacing
from nbhelpers.models.detector import Predictions

GOOD_COLOR, DEFECT_COLOR = "#3b7ea1", "#d1495b"
DOMAIN_COLORS = {"clean": "#3b7ea1", "shift": "#e07b39"}
SPLIT_COLORS = {"train": "#7a9e7e", "val": "#e9c46a", "test": "#3b7ea1"}
METHOD_COLORS = {"patchcore": "#26547c", "padim": "#ef476f", "autoencoder": "#06a77d"}
DPI = 150


def use_style() -> None:
    """The study's look; called once by each notebook's set-up cell."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    # fonts as they are named, white margins trimmed, and no date in the file: the same bytes for the same figure
    plt.rcParams.update({"figure.dpi": 72, "savefig.dpi": DPI, "savefig.bbox": "tight", "figure.autolayout": False})


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG (temporary name, then renamed) and return its path."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return path


def _panels(count: int, width: float = 3.6, height: float = 3.0, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """``count`` axes in rows of at most ``columns``; what is left of the last row stays empty."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    for spare in axes.ravel()[count:]:
        spare.set_visible(False)
    return figure, list(axes.ravel()[:count])


def plot_counts(counts: pd.DataFrame) -> Figure:
    """Images by defect type, one panel a category; ``counts`` from ``exploration.count_table``."""
    categories = list(dict.fromkeys(counts.category))
    figure, axes = _panels(len(categories), height=2.8)
    for axis, category in zip(axes, categories, strict=True):
        own = counts[counts.category == category]
        names = own.split + " / " + own.defect
        colors = [GOOD_COLOR if defect == "good" else DEFECT_COLOR for defect in own.defect]
        bars = axis.barh(names, own.images, color=colors)
        axis.bar_label(bars, padding=2, fontsize=7)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set(title=category, xlabel="images")
        axis.grid(axis="y", visible=False)
    return figure


def plot_image_statistics(images: pd.DataFrame) -> Figure:
    """Sizes and mean intensities of every image; ``images`` from ``exploration.describe_images``."""
    figure, (sizes, means) = _panels(2, width=4.4)
    sns.scatterplot(images, x="width", y="height", hue="category", ax=sizes, alpha=0.6, s=25)
    sns.boxplot(
        images.assign(kind=np.where(images.defect == "good", "good", "defect")), x="category", y="mean", hue="kind",
        hue_order=["good", "defect"], palette=[GOOD_COLOR, DEFECT_COLOR], ax=means, fliersize=2,
    )
    sizes.set(title="size of each image", xlabel="width, pixels", ylabel="height, pixels")
    means.set(title="mean intensity of each image", xlabel="", ylabel="grey level, 0 to 255")
    means.tick_params(axis="x", rotation=15)
    means.legend(title="")
    return figure


def plot_defect_areas(defects: pd.DataFrame) -> Figure:
    """Defect area (log scale) by type, one panel a category; ``defects`` from ``exploration.describe_defects``."""
    categories = list(dict.fromkeys(defects.category))
    figure, axes = _panels(max(1, len(categories)), height=2.8)
    if not categories:
        axes[0].text(0.5, 0.5, "no masks in these data", ha="center")
    for axis, category in zip(axes, categories, strict=bool(categories)):
        own = defects[defects.category == category]
        sns.boxplot(own, x="area_percent", y="defect", ax=axis, color="#e8b4bc", fliersize=0, log_scale=True)
        sns.stripplot(own, x="area_percent", y="defect", ax=axis, color=DEFECT_COLOR, size=3, jitter=False)
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=8))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(title=category, xlabel="area, % of the image", ylabel="")
    return figure


def plot_split_distribution(counts: pd.DataFrame) -> Figure:
    """Good and anomalous images of each split; ``counts`` from ``splits.split_counts``."""
    table = counts.assign(kind=np.where(counts.defect == "good", "good", "anomalous"))
    table = table.groupby(["category", "split", "kind"])["images"].sum().unstack("kind", fill_value=0)
    categories = list(dict.fromkeys(counts.category))
    figure, axes = _panels(len(categories), width=3.0, height=2.8)
    for axis, category in zip(axes, categories, strict=True):
        own = table.loc[category].reindex(list(SPLIT_COLORS)).fillna(0)
        good = axis.bar(own.index, own["good"], color=GOOD_COLOR, label="good")
        bad = axis.bar(own.index, own["anomalous"], bottom=own["good"], color=DEFECT_COLOR, label="anomalous")
        axis.bar_label(good, label_type="center", fontsize=8, color="white")
        axis.bar_label(bad, labels=[f"{n:.0f}" if n else "" for n in own["anomalous"]], label_type="center", fontsize=8)
        axis.set(title=category, ylabel="images")
    axes[0].legend(fontsize=7)
    return figure


def plot_shift_parameters(manifest: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Histograms of what was sampled; ``manifest`` from ``Study.shifted``."""
    figure, axes = _panels(len(names), width=2.6, height=2.0, columns=4)
    for axis, name in zip(axes, names, strict=True):
        axis.hist(manifest[name].dropna(), bins=15, color=DOMAIN_COLORS["shift"])
        axis.set(title=name.replace("_", " "))
    return figure


def plot_scores(predictions: Mapping[str, Predictions], threshold: float) -> Figure:
    """Image scores of good and defect images with the threshold, one row a named set of predictions."""
    figure, axes = _panels(len(predictions), width=7.0, height=1.9, columns=1)
    everything = np.concatenate([p.image_scores for p in predictions.values()])
    bins = np.linspace(everything.min(), max(everything.max(), threshold), 40)
    for axis, (name, part) in zip(axes, predictions.items(), strict=True):
        for label, color, text in ((0, GOOD_COLOR, "good"), (1, DEFECT_COLOR, "defect")):
            axis.hist(part.image_scores[part.labels == label], bins=bins, color=color, alpha=0.65, label=text)
        axis.axvline(threshold, color="black", linestyle="--", linewidth=1.2, label=f"threshold {threshold:.2f}")
        axis.set(title=name, ylabel="images")
    axes[-1].set_xlabel("image score")
    axes[0].legend(fontsize=7)
    return figure


def plot_f1_curve(val: Predictions, threshold: float) -> Figure:
    """F1 on the calibration images against the threshold; the chosen one is the middle of the best plateau."""
    figure, (axis,) = _panels(1, width=5.0, height=2.8)
    values, f1 = f1_curve(val.labels, val.image_scores)
    axis.plot(values, f1, drawstyle="steps-mid", color=METHOD_COLORS["patchcore"])
    axis.axvline(threshold, color="black", linestyle="--", label=f"chosen: {threshold:.2f}")
    axis.set(xlabel="threshold on the image score", ylabel="F1 on validation", ylim=(0, 1.03))
    axis.legend()
    return figure


def plot_roc_pr(predictions: Mapping[str, Predictions], thresholds: Mapping[str, float], color: str) -> Figure:
    """ROC (above) and precision-recall (below) per category; the dot is the deployed threshold."""
    figure, axes = plt.subplots(
        2, len(predictions), figsize=(2.9 * len(predictions), 5.4), squeeze=False, layout="constrained"
    )
    for column, (name, part) in enumerate(predictions.items()):
        fpr, tpr, _ = roc_curve(part.labels, part.image_scores)
        precision, recall, _ = precision_recall_curve(part.labels, part.image_scores)
        flagged, defect = decide(part.image_scores, thresholds[name]), part.labels == 1
        hits, alarms = (flagged & defect).sum(), (flagged & ~defect).sum()
        roc, pr = axes[0, column], axes[1, column]
        roc.plot(fpr, tpr, color=color)
        roc.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        roc.plot(alarms / (~defect).sum(), hits / defect.sum(), "o", color="black", markersize=5)
        pr.plot(recall, precision, color=color)
        pr.axhline(defect.mean(), color="grey", linewidth=0.8, linestyle=":")
        if hits + alarms:
            pr.plot(hits / defect.sum(), hits / (hits + alarms), "o", color="black", markersize=5)
        roc.set(title=name, xlabel="false positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
        pr.set(xlabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
    axes[0, 0].set_ylabel("true positive rate")
    axes[1, 0].set_ylabel("precision")
    return figure


def plot_confusions(predictions: Mapping[str, Predictions], thresholds: Mapping[str, float]) -> Figure:
    """Decisions at the deployed threshold against the truth, one matrix a category."""
    figure, axes = _panels(len(predictions), width=2.4, height=2.2)
    for axis, (name, part) in zip(axes, predictions.items(), strict=True):
        flagged = decide(part.image_scores, thresholds[name])
        table = [[int(((part.labels == truth) & (flagged == said)).sum()) for said in (0, 1)] for truth in (0, 1)]
        sns.heatmap(
            table, annot=True, fmt="d", cbar=False, cmap="Blues", vmin=0, ax=axis, square=True,
            xticklabels=["good", "defect"], yticklabels=["good", "defect"],
        )
        axis.set(title=name, xlabel="said", ylabel="is")
    return figure


def plot_metric_bars(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Metrics with their intervals by category, one panel a metric, one colour a method; from the tidy table."""
    figure, axes = _panels(len(metrics), width=2.9, height=2.8, columns=4)
    methods = list(dict.fromkeys(table.method))
    for axis, metric in zip(axes, metrics, strict=True):
        own = table[table.metric == metric]
        categories = list(dict.fromkeys(own.category))
        for offset, method in enumerate(methods):
            part = own[own.method == method].set_index("category").reindex(categories)
            place = np.arange(len(categories)) + (offset - (len(methods) - 1) / 2) * 0.8 / len(methods)
            axis.bar(place, part.value, width=0.8 / len(methods), color=METHOD_COLORS[method], label=method)
            _draw_intervals(axis, place, part)
        axis.set_xticks(range(len(categories)), categories, rotation=20)
        axis.set(title=metric, ylim=(0, 1.05))
    axes[0].legend(fontsize=7, loc="lower left")
    return figure


def _draw_intervals(axis: Axes, place: np.ndarray, part: pd.DataFrame) -> None:
    below, above = part.value - part.ci_low, part.ci_high - part.value
    # a bootstrap interval of a value at its bound may lie on one side of it
    axis.errorbar(place, part.value, [below.clip(lower=0), above.clip(lower=0)], fmt="none", ecolor="black",
                  capsize=3, linewidth=1)


def plot_scenario_change(table: pd.DataFrame, metrics: Sequence[str], scenarios: Sequence[str]) -> Figure:
    """What happens to each category from scenario to scenario, one panel a metric, with intervals."""
    figure, axes = _panels(len(metrics), width=2.9, height=2.9, columns=4)
    for axis, metric in zip(axes, metrics, strict=True):
        own = table[table.metric == metric]
        for index, category in enumerate(dict.fromkeys(own.category)):
            part = own[own.category == category].set_index("scenario").reindex(list(scenarios))
            place = np.arange(len(scenarios)) + 0.04 * index
            color = "black" if category == "macro" else sns.color_palette("tab10")[index]
            axis.plot(place, part.value, "o-", color=color, label=category, linewidth=2 if category == "macro" else 1.2)
            _draw_intervals(axis, place, part)
        axis.set_xticks(range(len(scenarios)), [name.replace("_", " ") for name in scenarios])
        axis.set(title=metric, ylim=(-0.03, 1.05))
        axis.margins(x=0.15)
    axes[0].legend(fontsize=7, loc="lower left")
    return figure
