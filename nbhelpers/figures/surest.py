"""The predictions a method is surest of, right and wrong: its anomaly map laid over the image.
Nothing is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nbhelpers.data.layout import Sample
from nbhelpers.evaluation.metrics import decide
from nbhelpers.figures.images import MAP_COLORS, MASK_COLOR, load_thumbnail
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import label

WRONG_COLOR = "#c1121f"
DENSITY = 0.75  # share of the map's colour where it is hottest; the rest is the image


def most_confident(
    predictions: Predictions, threshold: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the ``count`` images decided rightly, and wrongly, with the largest margins; the
    largest first.

    Of the right ones half are defects and half are good, or one class would fill the row.
    """
    margin = predictions.image_scores.astype(np.float64) - threshold
    order = np.argsort(-np.abs(margin), kind="stable")
    flagged, defect = decide(predictions.image_scores, threshold), predictions.labels == 1
    right = [
        i
        for side in (True, False)
        for i in [k for k in order if flagged[k] == defect[k] == side][: (count + side) // 2]
    ]
    wrong = [k for k in order if flagged[k] != defect[k]][:count]
    return np.array(right, int), np.array(wrong, int)


def plot_best_and_worst(
    samples: Sequence[Sample],
    predictions: Mapping[str, Predictions],
    thresholds: Mapping[str, float],
    limits: Mapping[str, tuple[float, float]],
    count: int = 10,
) -> Figure:
    """Where each method is most surely right (upper row) and wrong (lower row), its anomaly map
    laid over the image.

    Args:
        samples: The images of one category that are looked up by id.
        predictions: Each method's predictions of them.
        thresholds: Each method's deployed threshold.
        limits: Each method's colour scale, the same in all its pictures (see
            ``gallery.shared_limits``).
        count: Pictures a row.
    """
    own = {sample.id: sample for sample in samples}
    rows = 2 * len(predictions)
    # a layout by hand: to fit forty small axes takes constrained layout many seconds
    figure, axes = plt.subplots(
        rows,
        count,
        figsize=(1.05 * count, 1.3 * rows),
        squeeze=False,
        gridspec_kw={
            "left": 0.04,
            "right": 0.995,
            "bottom": 0.01,
            "top": 1 - 0.3 / rows / 1.3,
            "wspace": 0.06,
            "hspace": 0.32,
        },
    )
    for axis in axes.ravel():
        axis.set_axis_off()
        axis.set(xticks=[], yticks=[])
    for row, (method, part) in enumerate(predictions.items()):
        for line, places, word in zip(
            axes[2 * row :],
            most_confident(part, thresholds[method], count),
            ("right", "wrong"),
            strict=False,
        ):
            line[0].text(
                -0.2,
                0.5,
                f"{label(method)}\n{word}",
                transform=line[0].transAxes,
                rotation=90,
                fontsize=8,
                ha="center",
                va="center",
                color="black" if word == "right" else WRONG_COLOR,
            )
            if not len(places):
                line[0].text(
                    0.5, 0.5, f"none {word}", transform=line[0].transAxes, fontsize=8, ha="center"
                )
            for axis, place in zip(line, places, strict=False):
                _overlay(axis, own[part.ids[place]], part.anomaly_maps[place], limits[method])
                margin = float(part.image_scores[place]) - thresholds[method]
                axis.set_title(f"{part.defect_types[place]}\n{margin:+.3g}", fontsize=6.5, pad=2)
    return figure


def _overlay(
    axis: Axes, sample: Sample, anomaly_map: np.ndarray, limits: tuple[float, float]
) -> None:
    """An image in grey with its map on it, the hotter the denser, and the mask's outline."""
    image, mask = load_thumbnail(sample, size=anomaly_map.shape[0])
    heat = np.clip((anomaly_map - limits[0]) / max(limits[1] - limits[0], 1e-12), 0, 1)[
        ..., None
    ]  # (H, W, 1)
    grey, colors = (
        image.mean(axis=2, keepdims=True) / 255,
        plt.get_cmap(MAP_COLORS)(heat[..., 0])[..., :3],
    )
    axis.imshow(grey + DENSITY * heat * (colors - grey))
    if mask.any():
        axis.contour(mask, levels=[0.5], colors=[MASK_COLOR], linewidths=1.0)
