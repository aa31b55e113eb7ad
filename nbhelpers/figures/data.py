"""Figures of the data: image counts and sizes, defect areas, splits, parameters of the shift.

Each function returns its Figure and does not show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nbhelpers.figures.panels import panels
from nbhelpers.figures.style import DEFECT_COLOR, DOMAIN_COLORS, GOOD_COLOR

SPLITS = ("train", "val", "test")


def plot_counts(counts: pd.DataFrame) -> Figure:
    """Number of images of each split and defect type, one panel per category.

    Args:
        counts: What ``exploration.count_table`` gives.
    """
    categories = list(dict.fromkeys(counts.category))
    figure, axes = panels(len(categories), height=2.8)
    for axis, category in zip(axes, categories, strict=True):
        rows = counts[counts.category == category]
        names = rows.split + " / " + rows.defect
        colors = [GOOD_COLOR if defect == "good" else DEFECT_COLOR for defect in rows.defect]
        bars = axis.barh(names, rows.images, color=colors)
        axis.bar_label(bars, padding=2, fontsize=7)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set(title=category, xlabel="images")
        axis.grid(axis="y", visible=False)
    return figure


def plot_image_statistics(images: pd.DataFrame) -> Figure:
    """Size and mean intensity of every image, coloured by category and by good or defect.

    Args:
        images: What ``exploration.describe_images`` gives.
    """
    figure, (sizes, means) = panels(2, width=4.4)
    sns.scatterplot(images, x="width", y="height", hue="category", ax=sizes, alpha=0.6, s=25)
    sns.boxplot(
        images.assign(kind=np.where(images.defect == "good", "good", "defect")),
        x="category",
        y="mean",
        hue="kind",
        hue_order=["good", "defect"],
        palette=[GOOD_COLOR, DEFECT_COLOR],
        ax=means,
        fliersize=2,
    )
    sizes.set(title="size of each image", xlabel="width, pixels", ylabel="height, pixels")
    means.set(title="mean intensity of each image", xlabel="", ylabel="grey level, 0 to 255")
    means.tick_params(axis="x", rotation=15)
    means.legend(title="")
    return figure


def plot_defect_areas(defects: pd.DataFrame) -> Figure:
    """Areas of the defects on a logarithmic scale by defect type, one panel per category.

    Args:
        defects: What ``exploration.describe_defects`` gives; without rows the figure says so.
    """
    categories = list(dict.fromkeys(defects.category))
    figure, axes = panels(max(1, len(categories)), height=2.8)
    if not categories:
        axes[0].text(0.5, 0.5, "no masks in these data", ha="center")
    for axis, category in zip(axes, categories, strict=bool(categories)):
        rows = defects[defects.category == category]
        sns.boxplot(
            rows,
            x="area_percent",
            y="defect",
            ax=axis,
            color="#e8b4bc",
            fliersize=0,
            log_scale=True,
        )
        sns.stripplot(
            rows, x="area_percent", y="defect", ax=axis, color=DEFECT_COLOR, size=3, jitter=False
        )
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=8))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(title=category, xlabel="area, % of the image", ylabel="")
    return figure


def plot_split_distribution(counts: pd.DataFrame) -> Figure:
    """Number of good and anomalous images in each split, one panel per category.

    Args:
        counts: What ``splits.split_counts`` gives.
    """
    table = counts.assign(kind=np.where(counts.defect == "good", "good", "anomalous"))
    table = (
        table.groupby(["category", "split", "kind"])["images"].sum().unstack("kind", fill_value=0)
    )
    categories = list(dict.fromkeys(counts.category))
    figure, axes = panels(len(categories), width=3.0, height=2.8)
    for axis, category in zip(axes, categories, strict=True):
        rows = table.loc[category].reindex(list(SPLITS)).fillna(0)
        good = axis.bar(rows.index, rows["good"], color=GOOD_COLOR, label="good")
        anomalous = axis.bar(
            rows.index,
            rows["anomalous"],
            bottom=rows["good"],
            color=DEFECT_COLOR,
            label="anomalous",
        )
        axis.bar_label(good, label_type="center", fontsize=8, color="white")
        axis.bar_label(
            anomalous,
            labels=[f"{n:.0f}" if n else "" for n in rows["anomalous"]],
            label_type="center",
            fontsize=8,
        )
        axis.set(title=category, ylabel="images")
    axes[0].legend(fontsize=7)
    return figure


def plot_shift_parameters(manifest: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Histograms of the shift's sampled parameters, one panel per parameter.

    Args:
        manifest: What ``Study.shifted`` gives, one row per image.
        names: The columns to show.
    """
    figure, axes = panels(len(names), width=2.6, height=2.0, columns=4)
    for axis, name in zip(axes, names, strict=True):
        axis.hist(manifest[name].dropna(), bins=15, color=DOMAIN_COLORS["shift"])
        axis.set(title=name.replace("_", " "))
    return figure
