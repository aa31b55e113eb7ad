"""Building blocks that the figures share: grids of panels, error bars, matrices and legends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

Shared = bool | Literal["none", "all", "row", "col"]
LineStyle = Literal["", "-", "--"]


def grid(
    rows: int,
    columns: int,
    width: float,
    height: float | Sequence[float],
    *,
    sharex: Shared = False,
    sharey: Shared = False,
) -> tuple[Figure, np.ndarray]:
    """Make a figure of panels in rows and columns.

    Args:
        rows: How many rows of panels there are.
        columns: How many columns of panels there are.
        width: Width of one panel, inches.
        height: Height of one panel, inches; or one height per row.
        sharex: Which panels share their x axis, as for ``plt.subplots``.
        sharey: Which panels share their y axis, as for ``plt.subplots``.

    Returns:
        The figure and its axes, an array ``(rows, columns)``.
    """
    heights = None if isinstance(height, int | float) else list(height)
    total = height * rows if isinstance(height, int | float) else sum(height)
    return plt.subplots(
        rows,
        columns,
        figsize=(width * columns, total),
        squeeze=False,
        sharex=sharex,
        sharey=sharey,
        height_ratios=heights,
        layout="constrained",
    )


def panels(
    count: int, width: float = 3.6, height: float = 3.0, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``count`` panels, at most ``columns`` in each row.

    Args:
        count: How many panels there are, at least one.
        width: Width of one panel, inches.
        height: Height of one panel, inches.
        columns: The largest number of panels in one row.

    Returns:
        The figure and its ``count`` axes, row by row. The rest of the last row stays empty.
    """
    columns = min(count, columns)
    figure, axes = grid(rows_for(count, columns), columns, width, height)
    hide_after(axes, count)
    return figure, list(axes.ravel()[:count])


def rows_for(count: int, columns: int) -> int:
    """How many rows of ``columns`` panels hold ``count`` panels."""
    return (count + columns - 1) // columns


def hide_after(axes: np.ndarray, count: int) -> None:
    """Hide all panels of a grid but the first ``count``."""
    for spare in axes.ravel()[count:]:
        spare.set_visible(False)


def thin_lines(axes: np.ndarray) -> None:
    """Draw the grids and frames of small panels with thin lines."""
    for axis in axes.ravel():
        axis.grid(True, linewidth=0.6)
        axis.spines[:].set_linewidth(0.8)


def interval_lengths(values: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Lengths of the error bars of N values, below and above.

    A bootstrap interval of a value at its bound may lie on one side of the value; the length on
    the other side is then 0.

    Args:
        values: ``(N,)``.
        low: ``(N,)`` lower ends of the intervals, NaN or None where there is no interval.
        high: ``(N,)`` upper ends, likewise.

    Returns:
        ``(2, N)``, NaN where there is no interval.
    """
    middle, below, above = (np.asarray(ends, float) for ends in (values, low, high))
    return np.clip([middle - below, above - middle], 0, None)


def draw_matrix(
    axis: Axes,
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    colors: str,
) -> None:
    """Draw a heatmap with its numbers; a missing value is an empty square.

    (Seaborn's heatmap would draw the whole figure once for each panel.)

    Args:
        axis: The panel.
        values: One sequence per row, None where there is no value.
        rows: Names of the rows.
        columns: Names of the columns.
        limits: Ends of the colour scale.
        colors: Name of the colour map.
    """
    matrix = np.array(values, float)
    drawn = axis.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap=colors, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
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


def legend_entry(
    label: str,
    color: str,
    marker: str = "",
    linestyle: LineStyle = "",
    markersize: float | None = None,
) -> Line2D:
    """One entry of a legend: a mark, a line, or a line with a mark."""
    return Line2D(
        [], [], color=color, marker=marker, linestyle=linestyle, markersize=markersize, label=label
    )


def legend_above(figure: Figure, entries: Sequence[Line2D]) -> None:
    """One legend above all panels, at most six entries in a row."""
    figure.legend(
        handles=entries,
        loc="outside upper center",
        ncols=min(len(entries), 6),
        fontsize=8,
        frameon=False,
    )


def shared_legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend above all panels with each label of the panels once.

    A label that several panels have stands where its last panel has it, so that labels of single
    panels come before those that all panels share.
    """
    entries: dict[str, Artist] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.pop(name, None)
            entries[name] = handle
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=len(entries),
        fontsize=7,
        frameon=False,
    )
