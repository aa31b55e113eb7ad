"""The predictions that a method is surest of, right and wrong, with the anomaly map laid over the
image.
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
from nbhelpers.figures.style import WRONG_COLOR
from nbhelpers.predictions import Predictions
from nbhelpers.results.numbers import label

#: Share of the map's colour where it is hottest; the rest is the image.
DENSITY = 0.75


def most_confident(
    predictions: Predictions, threshold: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The decisions with the largest margins (score minus threshold), right and wrong.

    Half of the right ones are defects and half are good images, because one class alone could fill
    the row.

    Args:
        predictions: Scores and labels of N images.
        threshold: The deployed threshold on the image score.
        count: The largest number of right decisions, and of wrong ones.

    Returns:
        Indices of the images that were decided rightly and of those that were decided wrongly; in
        each group (defects, good images, wrong decisions) the largest margin comes first.
    """
    margin = predictions.image_scores.astype(np.float64) - threshold
    order = np.argsort(-np.abs(margin), kind="stable")
    flagged, defect = decide(predictions.image_scores, threshold), predictions.labels == 1
    hits = order[(flagged & defect)[order]][: (count + 1) // 2]
    passes = order[(~flagged & ~defect)[order]][: count // 2]
    wrong = order[(flagged != defect)[order]][:count]
    return np.concatenate([hits, passes]), wrong


def plot_best_and_worst(
    samples: Sequence[Sample],
    predictions: Mapping[str, Predictions],
    thresholds: Mapping[str, float],
    limits: Mapping[str, tuple[float, float]],
    count: int = 10,
) -> Figure:
    """The images that each method decides with the largest margins, with its anomaly map over them.

    Each method has two rows: right decisions above, wrong ones below. The title of an image is its
    defect type and its margin (score minus threshold).

    Args:
        samples: The images of one category; they are looked up by id.
        predictions: Each method's predictions of them.
        thresholds: Each method's deployed threshold on the image score.
        limits: Each method's ends of the colour scale, the same in all its pictures (see
            ``images.shared_limits``).
        count: The largest number of images in a row.
    """
    by_id = {sample.id: sample for sample in samples}
    rows = 2 * len(predictions)
    # placed by hand, since constrained layout takes many seconds to fit forty small panels
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
    for pair, (method, judged) in zip(axes.reshape(-1, 2, count), predictions.items(), strict=True):
        right, wrong = most_confident(judged, thresholds[method], count)
        for row, indices, word in ((pair[0], right, "right"), (pair[1], wrong, "wrong")):
            row[0].text(
                -0.2,
                0.5,
                f"{label(method)}\n{word}",
                transform=row[0].transAxes,
                rotation=90,
                fontsize=8,
                ha="center",
                va="center",
                color="black" if word == "right" else WRONG_COLOR,
            )
            if not len(indices):
                row[0].text(
                    0.5, 0.5, f"none {word}", transform=row[0].transAxes, fontsize=8, ha="center"
                )
            for axis, index in zip(row, indices, strict=False):
                _overlay(axis, by_id[judged.ids[index]], judged.anomaly_maps[index], limits[method])
                margin = float(judged.image_scores[index]) - thresholds[method]
                axis.set_title(f"{judged.defect_types[index]}\n{margin:+.3g}", fontsize=6.5, pad=2)
    return figure


def _overlay(
    axis: Axes, sample: Sample, anomaly_map: np.ndarray, limits: tuple[float, float]
) -> None:
    """Draw an image in grey under its map, the hotter the denser, with the mask's outline."""
    image, mask = load_thumbnail(sample, size=anomaly_map.shape[0])
    heat = np.clip((anomaly_map - limits[0]) / max(limits[1] - limits[0], 1e-12), 0, 1)  # (H, W)
    grey = image.mean(axis=2, keepdims=True) / 255  # (H, W, 1)
    colors = plt.get_cmap(MAP_COLORS)(heat)[..., :3]  # (H, W, 3)
    axis.imshow(grey + DENSITY * heat[..., None] * (colors - grey))
    if mask.any():
        axis.contour(mask, levels=[0.5], colors=[MASK_COLOR], linewidths=1.0)
