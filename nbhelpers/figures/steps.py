"""Figures that show how a method works on one image: framed patches, maps step by step, one
Gaussian. Each returns its Figure and shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from nbhelpers.figures.images import MAP_COLORS, image_grid, show_image
from nbhelpers.figures.style import DEFECT_COLOR, GOOD_COLOR

FRAME_COLOR = "#4cc9f0"
Cell = tuple[int, int]  # row and column in a feature grid


def plot_framed(
    images: Mapping[str, tuple[np.ndarray, Sequence[Cell]]],
    grid: tuple[int, int],
    around: int | None = None,
) -> Figure:
    """Named images with some cells of the feature grid framed.

    Args:
        images: Name to an image ``(H, W, 3)`` uint8 and the cells to frame.
        grid: Height and width of the feature grid.
        around: If given, a second row shows the first framed cell of each image enlarged, with so
            many cells around it.
    """
    figure, axes = image_grid(1 if around is None else 2, len(images), cell=2.0)
    for column, (name, (image, cells)) in enumerate(images.items()):
        height, width = image.shape[0] / grid[0], image.shape[1] / grid[1]
        for line in axes[:, column]:
            show_image(line, image, title=name if line is axes[0, column] else "")
            for row, left in cells:
                corner = (left * width - 0.5, row * height - 0.5)
                line.add_patch(
                    Rectangle(corner, width, height, fill=False, edgecolor=FRAME_COLOR, linewidth=1)
                )
        if around is not None:
            row, left = cells[0]
            zoom = axes[1, column]
            zoom.set_xlim((left - around) * width - 0.5, (left + 1 + around) * width - 0.5)
            zoom.set_ylim((row + 1 + around) * height - 0.5, (row - around) * height - 0.5)
    return figure


def plot_stages(
    stages: Mapping[str, np.ndarray], limits: tuple[float, float] | None = None
) -> Figure:
    """Named images and maps side by side, from left to right in the order of the computation.

    Args:
        stages: Name to an image ``(H, W, 3)`` uint8, or to a map ``(h, w)``, which has a colour
            scale of its own beside it.
        limits: One colour scale for all maps.
    """
    figure, axes = image_grid(1, len(stages), cell=2.1)
    for axis, (name, values) in zip(axes[0], stages.items(), strict=True):
        if values.ndim == 3:
            show_image(axis, values, title=name)
            continue
        low, high = limits or (None, None)
        drawn = axis.imshow(values, cmap=MAP_COLORS, vmin=low, vmax=high)
        axis.set_title(name, fontsize=7, pad=2)
        bar = figure.colorbar(drawn, ax=axis, shrink=0.75, pad=0.02)
        bar.ax.tick_params(labelsize=6)
    return figure


def plot_curves(
    curves: Mapping[str, np.ndarray], xlabel: str, ylabel: str, log: bool = False
) -> Figure:
    """Named curves over 1, 2, 3 and so on.

    Args:
        curves: Name to its values ``(n,)``.
        xlabel: What is counted.
        ylabel: What the values are.
        log: Whether the axis of the values is logarithmic.
    """
    figure, axis = plt.subplots(figsize=(5.2, 3.0), layout="constrained")
    for (name, values), style in zip(curves.items(), ("-", "--", ":", "-."), strict=False):
        axis.plot(np.arange(1, len(values) + 1), values, style, linewidth=1.8, label=name)
    if log:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(fontsize=8)
    return figure


def plot_gaussian(
    points: np.ndarray, mean: np.ndarray, covariance: np.ndarray, tested: np.ndarray
) -> Figure:
    """Two features at one location: the training images, their Gaussian, and a tested image.

    Args:
        points: ``(N, 2)``, one row per training image.
        mean: ``(2,)``.
        covariance: ``(2, 2)``; drawn as ellipses of Mahalanobis distance 1, 2 and 3.
        tested: ``(2,)``, the same two features of the tested image.
    """
    figure, axis = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
    variances, directions = np.linalg.eigh(covariance)
    angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
    for distance in (1, 2, 3):
        height, width = 2 * distance * np.sqrt(variances)
        axis.add_patch(
            Ellipse(
                (mean[0], mean[1]),
                width,
                height,
                angle=angle,
                fill=False,
                edgecolor="grey",
                linewidth=1,
            )
        )
    axis.scatter(
        points[:, 0], points[:, 1], s=16, color=GOOD_COLOR, label=f"{len(points)} training images"
    )
    axis.scatter(mean[0], mean[1], marker="+", s=70, color="black", label="their mean")
    axis.scatter(
        tested[0], tested[1], marker="X", s=60, color=DEFECT_COLOR, label="the tested image"
    )
    axis.set(xlabel="first feature", ylabel="second feature")
    axis.legend(fontsize=8)
    axis.autoscale_view()
    return figure
