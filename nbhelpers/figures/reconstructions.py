"""Figures of autoencoders: training, reconstructions, heads, masks, attention. Each returns its
Figure, shows nothing.

Anomaly maps that are compared share one colour scale, and masks one threshold, both given by the
caller: taken from each map alone, they would show a defect in every good image.
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
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from nbhelpers.data.layout import Sample
from nbhelpers.errors import ModelError
from nbhelpers.figures.images import (
    MAP_COLORS,
    image_grid,
    load_thumbnail,
    shared_limits,
    show_image,
)
from nbhelpers.figures.style import method_colors, panels
from nbhelpers.methods import METHOD_ORDER
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import in_order, label
from nbhelpers.results.table import HEAD_METRICS, OWN_HEAD

TRAIN_COLOR, VAL_COLOR = "#9aa5b1", "#1b1f23"
QUERY_COLOR = "#4cc9f0"
RATE = "learning rate"
#: Panel of a training to its curves: key in the history to colour and name.
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


def _said(predictions: Predictions, samples: Sequence[Sample]) -> Predictions:
    """The predictions of these samples, in their order."""
    place = {identity: index for index, identity in enumerate(predictions.ids)}
    return predictions.subset(np.array([place[sample.id] for sample in samples], int))


def _heat(
    axis: Axes, values: np.ndarray, limits: tuple[float, float], title: str = ""
) -> AxesImage:
    axis.set_title(title, fontsize=7, pad=2)
    return axis.imshow(values, cmap=MAP_COLORS, vmin=limits[0], vmax=limits[1])


def _bar(figure: Figure, drawn: AxesImage, axes: np.ndarray, name: str = "") -> Axes:
    """The colour scale of a row, beside it."""
    bar = figure.colorbar(drawn, ax=axes.tolist(), shrink=0.9, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(name, fontsize=6)
    return bar.ax


def _name_rows(axes: np.ndarray, names: Iterable[str]) -> None:
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=8)


def plot_history(history: Sequence[Mapping[str, float]]) -> Figure:
    """A training, epoch by epoch: losses with the best epoch marked, learning rate, norm of the
    gradient.

    Args:
        history: A row an epoch, as ``Autoencoder.history``: epoch, and what is known of the names
            in ``CURVES``. A panel for which no row knows anything is left out.
    """
    shown = [
        name
        for name, curves in CURVES.items()
        if any(key in row for row in history for key in curves)
    ]
    figure, axes = panels(len(shown), width=3.6, height=2.6)
    for axis, name in zip(axes, shown, strict=True):
        for key, (color, text) in CURVES[name].items():
            known = _known(history, key)
            if known:
                axis.plot(
                    [row["epoch"] for row in known],
                    [row[key] for row in known],
                    ".-",
                    color=color,
                    linewidth=1.4,
                    markersize=4,
                    label=text,
                )
        values = [value for line in axis.lines for value in line.get_ydata()]
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
    """Each column one image with its mask outlined, what the network made of it, and the anomaly
    map with its score.

    Args:
        samples: What to show; their ids are looked up in ``predictions``.
        images: ``(N, H, W, 3)`` uint8, as the network saw these samples.
        reconstructions: ``(N, H, W, 3)`` uint8.
        predictions: Scores and maps that hold the samples.
        limits: Colour scale of all maps (see ``gallery.shared_limits``).
    """
    own = _said(predictions, samples)
    figure, axes = image_grid(3, len(samples))
    for i, (column, image, found) in enumerate(zip(axes.T, images, reconstructions, strict=True)):
        show_image(column[0], image, own.masks[i], own.defect_types[i])
        show_image(column[1], found)
        drawn = _heat(column[2], own.anomaly_maps[i], limits, f"{own.image_scores[i]:.3g}")
    _bar(figure, drawn, axes[2])
    _name_rows(axes, ("image", "reconstruction", "anomaly map"))
    return figure


def plot_heads(samples: Sequence[Sample], predictions: Mapping[str, Predictions]) -> Figure:
    """Each column one image, below it a row of anomaly maps for each head, with the score.

    A row has one colour scale, that of all predictions by its head: units of different heads cannot
    be compared.

    Args:
        samples: What to show; their ids are looked up.
        predictions: Each head's predictions, of these samples and others, good ones among them.
    """
    figure, axes = image_grid(1 + len(predictions), len(samples))
    size = next(iter(predictions.values())).anomaly_maps.shape[1]
    for axis, sample in zip(axes[0], samples, strict=True):
        show_image(axis, *load_thumbnail(sample, size), sample.defect_type)
    for line, part in zip(axes[1:], predictions.values(), strict=True):
        own, limits = _said(part, samples), shared_limits(part)
        for axis, anomaly_map, score in zip(line, own.anomaly_maps, own.image_scores, strict=True):
            drawn = _heat(axis, anomaly_map, limits, f"{score:.3g}")
        _bar(figure, drawn, line)
    _name_rows(axes, ("image", *map(label, predictions)))
    return figure


def plot_triplets(
    samples: Sequence[Sample],
    predictions: Predictions,
    threshold: float,
    limits: tuple[float, float],
    min_area: int,
) -> Figure:
    """Each column one image, its anomaly map, and the mask of the pixels at the threshold or above;
    truth outlined.

    Args:
        samples: What to show; their ids are looked up in ``predictions``.
        predictions: Maps that hold the samples.
        threshold: On the maps, one for all, from good validation images (see
            ``residuals.pixel_threshold``).
        limits: Colour scale of all maps (see ``gallery.shared_limits``).
        min_area: Regions of fewer pixels are no part of the mask.
    """
    from nbhelpers.evaluation.pixel_masks import (
        binary_mask,  # here, since it takes the network libraries seconds to import
    )

    own = _said(predictions, samples)
    figure, axes = image_grid(3, len(samples))
    for i, (column, sample) in enumerate(zip(axes.T, samples, strict=True)):
        image, _ = load_thumbnail(sample, own.masks.shape[1])
        marked = binary_mask(own.anomaly_maps[i], threshold, min_area)
        show_image(column[0], image, own.masks[i], own.defect_types[i])
        drawn = _heat(column[1], own.anomaly_maps[i], limits)
        show_image(
            column[2],
            np.repeat(255 * marked[..., None], 3, axis=2),
            own.masks[i],
            f"{marked.mean():.1%}",
        )
    _bar(figure, drawn, axes[1]).axhline(threshold, color="white", linewidth=1.5)
    _name_rows(axes, ("image", "anomaly map", f"{threshold:.3g} or above"))
    return figure


def plot_attention(samples: Sequence[Sample], images: np.ndarray, weights: np.ndarray) -> Figure:
    """Each column one image; how much attention each patch receives on average; where one patch,
    framed, looks.

    The framed patch lies in the middle of the defect, or of an image without one. Weights are shown
    in multiples of an even share, all images on one scale a row.

    Args:
        samples: What to show, for their masks.
        images: ``(N, H, W, 3)`` uint8, as the network saw these samples.
        weights: ``(N, heads, P, P)``, rows (the patch that looks) sum to 1; P patches, a square
            grid row by row.

    Raises:
        ModelError: P patches are no square grid.
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
    places = [_middle(mask, side) for mask in masks]
    looks = np.stack(
        [
            own[row * side + column].reshape(side, side)
            for own, (row, column) in zip(shares, places, strict=True)
        ]
    )
    figure, axes = image_grid(3, len(samples))
    patch = size / side
    for i, (column, sample) in enumerate(zip(axes.T, samples, strict=True)):
        show_image(column[0], images[i], masks[i], sample.defect_type)
        for axis, maps in zip(column[1:], (received, looks), strict=True):
            drawn = _heat(axis, maps[i], (float(maps.min()), float(maps.max())))
            drawn.set_extent((-0.5, size - 0.5, size - 0.5, -0.5))
        for axis in column[[0, 2]]:
            corner = [place * patch - 0.5 for place in reversed(places[i])]
            axis.add_patch(
                Rectangle(corner, patch, patch, fill=False, edgecolor=QUERY_COLOR, linewidth=1.4)
            )
    for line in axes[1:]:
        _bar(figure, line[-1].images[0], line, "even shares")
    _name_rows(axes, ("image", "attention\nreceived", "attention of\nthe framed patch"))
    return figure


def _middle(mask: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column of the patch that holds the defect's pixel nearest its centre; without a
    defect the image's.
    """
    pixels = np.argwhere(mask)
    if not len(pixels):
        return side // 2, side // 2
    nearest = pixels[
        np.square(pixels - pixels.mean(axis=0)).sum(axis=1).argmin()
    ]  # a bent defect's centre is outside
    row, column = nearest * side // mask.shape[0]
    return int(row), int(column)


def plot_head_scores(table: pd.DataFrame) -> Figure:
    """Scores of an autoencoder's heads as dots, other methods as lines: a row a metric, a panel a
    category.

    Args:
        table: Columns method, category, head, and of ``HEAD_METRICS`` those that are known; head ``own``
            is another method. A metric without any value, as without masks, has no row.
    """
    categories, colors = list(dict.fromkeys(table.category)), method_colors(table.method)
    metrics = [name for name in HEAD_METRICS if name in table and table[name].notna().any()]
    dots, lines = table[table["head"] != OWN_HEAD], table[table["head"] == OWN_HEAD]
    heads, methods = list(dict.fromkeys(dots["head"])), list(dict.fromkeys(dots.method))
    aside = dict(
        zip(methods, 0.12 * (np.arange(len(methods)) - (len(methods) - 1) / 2), strict=True)
    )
    figure, axes = plt.subplots(
        len(metrics),
        len(categories),
        squeeze=False,
        sharex=True,
        sharey="row",
        figsize=(0.8 + 2.3 * len(categories), 0.7 + 1.7 * len(metrics)),
        layout="constrained",
    )
    for line, metric in zip(axes, metrics, strict=True):
        for axis, category in zip(line, categories, strict=True):
            for row in lines[lines.category == category].to_dict("records"):
                axis.axhline(row[metric], color=colors[row["method"]], linewidth=1.6)
            for method, own in dots[dots.category == category].groupby("method", sort=False):
                place = [heads.index(head) + aside[method] for head in own["head"]]
                axis.plot(place, own[metric], "o", color=colors[method], markersize=6)
            axis.grid(axis="x", visible=False)
        line[0].set_ylabel(label(metric))
        line[0].set_ylim(min(0.5, math.floor(10 * table[metric].min()) / 10) - 0.03, 1.03)
    for axis, category in zip(axes[0], categories, strict=True):
        axis.set_title(category, fontsize=10)
    for axis in axes[-1]:
        axis.set_xticks(range(len(heads)), map(label, heads), fontsize=8)
        axis.set_xlim(-0.6, len(heads) - 0.4)
    marks = {**dict.fromkeys(methods, ("o", "")), **dict.fromkeys(lines.method, ("", "-"))}
    figure.legend(
        handles=[
            Line2D(
                [],
                [],
                color=colors[name],
                marker=marks[name][0],
                linestyle=marks[name][1],
                label=label(name),
            )
            for name in in_order(marks, METHOD_ORDER)
        ],
        loc="outside upper center",
        ncols=min(len(marks), 6),
        fontsize=8,
        frameon=False,
    )
    return figure
