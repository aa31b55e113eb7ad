"""Figures of autoencoders: training, reconstructions, heads, masks, attention.

Each function returns its Figure and does not show it. Anomaly maps that are compared share one
colour scale, and masks share one threshold, both given by the caller: taken from each map alone,
they would show a defect in every good image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from nbhelpers.data.layout import Sample
from nbhelpers.errors import ModelError
from nbhelpers.evaluation.pixel_masks import binary_mask
from nbhelpers.figures.images import (
    image_grid,
    load_thumbnail,
    predictions_of,
    shared_limits,
    show_image,
    show_map,
)
from nbhelpers.figures.panels import legend_above, legend_entry, panels
from nbhelpers.figures.style import method_colors
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import in_order, label
from nbhelpers.results.table import HEAD_METRICS, OWN_HEAD

TRAIN_COLOR, VAL_COLOR = "#9aa5b1", "#1b1f23"
QUERY_COLOR = "#4cc9f0"
RATE = "learning rate"
#: Panels of a training, each with its curves: key in the history to colour and name.
CURVES = {
    "loss": {"train_loss": (TRAIN_COLOR, "training"), "held_out_loss": (VAL_COLOR, "held out")},
    RATE: {"learning_rate": (VAL_COLOR, RATE)},
    "norm of the gradient": {
        "gradient_norm": (TRAIN_COLOR, "as computed"),
        "gradient_norm_clipped": (VAL_COLOR, "as applied"),
    },
}
#: Losses and norms that span more than this factor are drawn on a logarithmic scale.
WIDE_RANGE = 5


def _color_bar(figure: Figure, drawn: AxesImage, axes: np.ndarray, name: str = "") -> Axes:
    """Draw the colour scale of a row of panels beside it; returns the scale's axes."""
    bar = figure.colorbar(drawn, ax=axes.tolist(), shrink=0.9, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(name, fontsize=6)
    return bar.ax


def _name_rows(axes: np.ndarray, names: Iterable[str]) -> None:
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=8)


def plot_history(history: Sequence[Mapping[str, float]]) -> Figure:
    """A training epoch by epoch: losses with the best epoch marked, learning rate, gradient norm.

    Args:
        history: One row per epoch, as ``Autoencoder.history`` has them: the epoch, and those of the
            keys in ``CURVES`` that are known. A panel without any known key is left out.
    """
    names = [
        name
        for name, curves in CURVES.items()
        if any(key in row for row in history for key in curves)
    ]
    figure, axes = panels(len(names), width=3.6, height=2.6)
    for axis, name in zip(axes, names, strict=True):
        values: list[float] = []
        for key, (color, text) in CURVES[name].items():
            known = _known(history, key)
            if known:
                curve = [row[key] for row in known]
                values += curve
                axis.plot(
                    [row["epoch"] for row in known],
                    curve,
                    ".-",
                    color=color,
                    linewidth=1.4,
                    markersize=4,
                    label=text,
                )
        if name == RATE:  # the eye should see its straight rise
            axis.set_ylim(0, None)
            axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
        elif values and 0 < WIDE_RANGE * min(values) < max(values):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        held_out = _known(history, "held_out_loss") if "held_out_loss" in CURVES[name] else []
        if held_out:
            best = min(held_out, key=lambda row: row["held_out_loss"])
            axis.axvline(best["epoch"], color=VAL_COLOR, linestyle=":", linewidth=1)
            axis.plot(
                best["epoch"],
                best["held_out_loss"],
                "o",
                color=VAL_COLOR,
                markersize=6,
                linestyle="",
                label=f"best: epoch {best['epoch']:.0f}, {best['held_out_loss']:.3g}",
            )
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if len(CURVES[name]) > 1:
            axis.legend(fontsize=7)
    return figure


def _known(history: Sequence[Mapping[str, float]], key: str) -> list[Mapping[str, float]]:
    """The rows in which ``key`` is a number."""
    return [row for row in history if np.isfinite(row.get(key, np.nan))]


def plot_reconstructions(
    samples: Sequence[Sample],
    images: np.ndarray,
    reconstructions: np.ndarray,
    predictions: Predictions,
    limits: tuple[float, float],
) -> Figure:
    """One column per image: the image with its mask outlined, its reconstruction, its anomaly map.

    The title of an anomaly map is the image score.

    Args:
        samples: The N images to show; their ids are looked up in ``predictions``.
        images: ``(N, H, W, 3)`` uint8, the images as the network saw them.
        reconstructions: ``(N, H, W, 3)`` uint8, what the network made of them.
        predictions: Predictions that hold these samples.
        limits: Ends of the colour scale of all maps (see ``images.shared_limits``).
    """
    shown = predictions_of(samples, predictions)
    figure, axes = image_grid(3, len(samples))
    for i, (column, image, rebuilt) in enumerate(zip(axes.T, images, reconstructions, strict=True)):
        show_image(column[0], image, shown.masks[i], shown.defect_types[i])
        show_image(column[1], rebuilt)
        score = f"{shown.image_scores[i]:.3g}"
        drawn = show_map(column[2], shown.anomaly_maps[i], limits, score)
    _color_bar(figure, drawn, axes[2])
    _name_rows(axes, ("image", "reconstruction", "anomaly map"))
    return figure


def plot_heads(samples: Sequence[Sample], predictions: Mapping[str, Predictions]) -> Figure:
    """One column per image: the image, and below it one anomaly map per head, with the image score.

    Each row has one colour scale, that of all predictions by its head, because the units of
    different heads cannot be compared.

    Args:
        samples: The images to show; their ids are looked up.
        predictions: Each head's predictions of these samples and others, good images among them.
    """
    figure, axes = image_grid(1 + len(predictions), len(samples))
    size = next(iter(predictions.values())).anomaly_maps.shape[1]
    for axis, sample in zip(axes[0], samples, strict=True):
        show_image(axis, *load_thumbnail(sample, size), sample.defect_type)
    for row, by_head in zip(axes[1:], predictions.values(), strict=True):
        shown, limits = predictions_of(samples, by_head), shared_limits(by_head)
        for axis, anomaly_map, score in zip(
            row, shown.anomaly_maps, shown.image_scores, strict=True
        ):
            drawn = show_map(axis, anomaly_map, limits, f"{score:.3g}")
        _color_bar(figure, drawn, row)
    _name_rows(axes, ("image", *map(label, predictions)))
    return figure


def plot_triplets(
    samples: Sequence[Sample],
    predictions: Predictions,
    threshold: float,
    limits: tuple[float, float],
    min_area: int,
) -> Figure:
    """One column per image: the image, its anomaly map, and the predicted mask; truth is outlined.

    The predicted mask holds the pixels at the threshold or above; its title is its share of the
    image.

    Args:
        samples: The images to show; their ids are looked up in ``predictions``.
        predictions: Predictions that hold these samples.
        threshold: The one threshold on the maps of all images, from good validation images (see
            ``pixel_masks.pixel_threshold``).
        limits: Ends of the colour scale of all maps (see ``images.shared_limits``).
        min_area: Regions of fewer pixels do not belong to the mask.
    """
    shown = predictions_of(samples, predictions)
    figure, axes = image_grid(3, len(samples))
    for i, (column, sample) in enumerate(zip(axes.T, samples, strict=True)):
        image, _ = load_thumbnail(sample, shown.masks.shape[1])
        mask = binary_mask(shown.anomaly_maps[i], threshold, min_area)
        show_image(column[0], image, shown.masks[i], shown.defect_types[i])
        drawn = show_map(column[1], shown.anomaly_maps[i], limits)
        picture = np.repeat(255 * mask[..., None], 3, axis=2)
        show_image(column[2], picture, shown.masks[i], f"{mask.mean():.1%}")
    _color_bar(figure, drawn, axes[1]).axhline(threshold, color="white", linewidth=1.5)
    _name_rows(axes, ("image", "anomaly map", f"{threshold:.3g} or above"))
    return figure


def plot_attention(samples: Sequence[Sample], images: np.ndarray, weights: np.ndarray) -> Figure:
    """One column per image: the image, the attention that each patch receives on average, and the
    attention that one framed patch gives to all others.

    The framed patch lies in the middle of the defect, or of the image if there is no defect.
    Weights are shown in multiples of an even share; each row has one scale for all images.

    Args:
        samples: The N images to show; their masks are outlined.
        images: ``(N, H, W, 3)`` uint8, the images as the network saw them.
        weights: ``(N, heads, P, P)``; each row is the attention that one patch gives, and sums
            to 1. The P patches are a square grid, row by row.

    Raises:
        ModelError: The P patches are not a square grid.
    """
    weights = np.asarray(weights, np.float32)
    count, size = weights.shape[-1], images.shape[1]
    side = math.isqrt(count)
    if weights.ndim != 4 or side**2 != count:
        raise ModelError(
            f"attention: expected weights (N, heads, P, P) of a square grid of P patches, found "
            f"{weights.shape}; leave other tokens than patches out"
        )
    shares = count * weights.mean(axis=1)  # (N, P, P), 1 is an even share
    received = shares.mean(axis=1).reshape(-1, side, side)
    masks = [load_thumbnail(sample, size)[1] for sample in samples]
    framed = [_middle(mask, side) for mask in masks]
    given = np.stack(
        [
            share[row * side + column].reshape(side, side)
            for share, (row, column) in zip(shares, framed, strict=True)
        ]
    )
    figure, axes = image_grid(3, len(samples))
    patch = size / side
    for i, (column, sample) in enumerate(zip(axes.T, samples, strict=True)):
        show_image(column[0], images[i], masks[i], sample.defect_type)
        for axis, maps in zip(column[1:], (received, given), strict=True):
            drawn = show_map(axis, maps[i], (float(maps.min()), float(maps.max())))
            drawn.set_extent((-0.5, size - 0.5, size - 0.5, -0.5))
        patch_row, patch_column = framed[i]
        corner = (patch_column * patch - 0.5, patch_row * patch - 0.5)
        for axis in column[[0, 2]]:
            axis.add_patch(
                Rectangle(corner, patch, patch, fill=False, edgecolor=QUERY_COLOR, linewidth=1.4)
            )
    for row in axes[1:]:
        _color_bar(figure, row[-1].images[0], row, "even shares")
    _name_rows(axes, ("image", "attention\nreceived", "attention of\nthe framed patch"))
    return figure


def _middle(mask: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column of the patch in the middle of the defect, or of the image without one.

    The centre of a bent defect lies outside it, so this is the patch of the defect's pixel that is
    nearest to its centre.
    """
    pixels = np.argwhere(mask)
    if not len(pixels):
        return side // 2, side // 2
    distances = np.square(pixels - pixels.mean(axis=0)).sum(axis=1)
    row, column = pixels[distances.argmin()] * side // mask.shape[0]
    return int(row), int(column)


def plot_head_scores(table: pd.DataFrame) -> Figure:
    """Metrics of an autoencoder's heads as dots, and of other methods as lines.

    There is one row of panels per metric and one column per category.

    Args:
        table: One row per method, category and head, with the columns method, category, head and
            those of ``HEAD_METRICS`` that are known. The head ``own`` marks another method. A metric
            without any value (pixel metrics without masks) has no row of panels.
    """
    categories, colors = list(dict.fromkeys(table.category)), method_colors(table.method)
    metrics = [name for name in HEAD_METRICS if name in table and table[name].notna().any()]
    dots, lines = table[table["head"] != OWN_HEAD], table[table["head"] == OWN_HEAD]
    heads, methods = list(dict.fromkeys(dots["head"])), list(dict.fromkeys(dots.method))
    steps = 0.12 * (np.arange(len(methods)) - (len(methods) - 1) / 2)
    aside = dict(zip(methods, steps, strict=True))
    figure, axes = plt.subplots(
        len(metrics),
        len(categories),
        squeeze=False,
        sharex=True,
        sharey="row",
        figsize=(0.8 + 2.3 * len(categories), 0.7 + 1.7 * len(metrics)),
        layout="constrained",
    )
    for row, metric in zip(axes, metrics, strict=True):
        for axis, category in zip(row, categories, strict=True):
            for other in lines[lines.category == category].to_dict("records"):
                axis.axhline(other[metric], color=colors[other["method"]], linewidth=1.6)
            for method, scores in dots[dots.category == category].groupby("method", sort=False):
                positions = [heads.index(head) + aside[method] for head in scores["head"]]
                axis.plot(positions, scores[metric], "o", color=colors[method], markersize=6)
            axis.grid(axis="x", visible=False)
        row[0].set_ylabel(label(metric))
        row[0].set_ylim(min(0.5, math.floor(10 * table[metric].min()) / 10) - 0.03, 1.03)
    for axis, category in zip(axes[0], categories, strict=True):
        axis.set_title(category, fontsize=10)
    for axis in axes[-1]:
        axis.set_xticks(range(len(heads)), map(label, heads), fontsize=8)
        axis.set_xlim(-0.6, len(heads) - 0.4)
    others = set(lines.method)
    entries = [
        legend_entry(label(name), colors[name], linestyle="-")
        if name in others
        else legend_entry(label(name), colors[name], marker="o")
        for name in in_order(dict.fromkeys([*methods, *lines.method]), METHOD_ORDER)
    ]
    legend_above(figure, entries)
    return figure
