"""Figures made of images: examples, masks, shifted twins, anomaly maps. Each returns its Figure,
shows nothing.

Anomaly maps of one figure share one colour scale: scaled each on its own, a clean part looks as hot
as a defect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nbhelpers.data.images import read_sample
from nbhelpers.data.layout import Sample
from nbhelpers.data.resize import resize_image, resize_mask
from nbhelpers.evaluation.metrics import decide
from nbhelpers.predictions import Predictions

MASK_COLOR = "#00e5a0"
MAP_COLORS = "inferno"


def load_thumbnail(sample: Sample, size: int = 192) -> tuple[np.ndarray, np.ndarray]:
    """A sample's image ``(size, size, 3)`` uint8 and mask ``(size, size)`` 0/1, as the network
    would see them.
    """
    image, mask = read_sample(sample)
    return resize_image(image, size), resize_mask(mask, size)


def spread(items: Sequence[Sample], count: int) -> list[Sample]:
    """``count`` items spread evenly over a sequence, the first and last included."""
    index = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in index]


def one_of_each(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Up to ``count`` defect samples, every defect type before a second of any."""
    queues: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.label:
            queues.setdefault(sample.defect_type, []).append(sample)
    rounds = max((len(queue) for queue in queues.values()), default=0)
    return [queue[i] for i in range(rounds) for queue in queues.values() if i < len(queue)][:count]


def image_grid(rows: int, columns: int, cell: float = 1.5) -> tuple[Figure, np.ndarray]:
    """Square axes ``(rows, columns)`` without ticks or frame, ``cell`` inches each."""
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(cell * columns, (cell + 0.12) * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    return figure, axes


def show_image(
    axis: Axes, image: np.ndarray, mask: np.ndarray | None = None, title: str = ""
) -> None:
    """Draw an image, and the outline of its mask if there is any defect in it."""
    axis.imshow(image)
    if mask is not None and mask.any():
        axis.contour(mask, levels=[0.5], colors=[MASK_COLOR], linewidths=1.2)
    axis.set_title(title, fontsize=7, pad=2)


def plot_samples(rows: Mapping[str, Sequence[Sample]], masks: bool = True) -> Figure:
    """One named row of samples each; the outline is the ground-truth mask."""
    figure, axes = image_grid(len(rows), max(len(samples) for samples in rows.values()))
    for line, (name, samples) in zip(axes, rows.items(), strict=True):
        for axis, sample in zip(line, samples, strict=False):
            image, mask = load_thumbnail(sample)
            show_image(axis, image, mask if masks else None, sample.defect_type)
        line[0].set_ylabel(name, fontsize=8)
    return figure


def plot_pairs(clean: Sequence[Sample], shifted: Sequence[Sample], masks: bool = True) -> Figure:
    """Clean images above, their shifted twins below; the outlines show whether the masks moved
    along.
    """
    return plot_samples({"clean": clean, "shift": shifted}, masks)


def plot_images(images: Mapping[str, np.ndarray], columns: int = 6) -> Figure:
    """Named ``(H, W, 3)`` uint8 images in a grid."""
    rows = -(-len(images) // columns)
    figure, axes = image_grid(rows, min(columns, len(images)))
    for axis, (name, image) in zip(axes.ravel(), images.items(), strict=False):
        show_image(axis, image, title=name)
    return figure


def shared_limits(*predictions: Predictions) -> tuple[float, float]:
    """Colour limits for maps of one detector: from the median of good pixels to the 99.5th
    percentile of all.
    """
    good = np.concatenate([p.anomaly_maps[p.labels == 0].ravel() for p in predictions])
    everything = np.concatenate([p.anomaly_maps.ravel() for p in predictions])
    return float(np.median(good)), float(np.percentile(everything, 99.5))


def plot_anomaly_maps(
    samples: Sequence[Sample],
    predictions: Predictions,
    limits: tuple[float, float],
    threshold: float,
) -> Figure:
    """Image with its mask outlined above, anomaly map below; the title is the image score and the
    decision.

    Args:
        samples: What to show; their ids are looked up in ``predictions``.
        predictions: Scores and maps of these samples.
        limits: Colour scale, the same for all (see ``shared_limits``).
        threshold: The deployed threshold on the image score.
    """
    place = {identity: index for index, identity in enumerate(predictions.ids)}
    figure, axes = image_grid(2, len(samples))
    drawn = None
    for column, sample in enumerate(samples):
        index = place[sample.id]
        score, anomaly_map = predictions.image_scores[index], predictions.anomaly_maps[index]
        image, mask = load_thumbnail(sample, size=anomaly_map.shape[0])
        anomalous = bool(decide(score, threshold))
        said = "defect" if anomalous else "good"
        show_image(axes[0, column], image, mask, sample.defect_type)
        drawn = axes[1, column].imshow(anomaly_map, cmap=MAP_COLORS, vmin=limits[0], vmax=limits[1])
        right = anomalous == bool(sample.label)
        axes[1, column].set_title(
            f"{score:.2f}: {said}", fontsize=7, pad=2, color="black" if right else "#c1121f"
        )
    bar = figure.colorbar(drawn, ax=axes[1].tolist(), shrink=0.9, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    return figure


def hardest(
    samples: Sequence[Sample], predictions: Predictions, threshold: float, count: int, label: int
) -> list[Sample]:
    """The ``count`` images of a class that are closest to the wrong side of the threshold, or
    farthest beyond it.

    Good images: highest scores first. Defect images: lowest scores first.
    """
    own = {sample.id: sample for sample in samples}
    index = np.flatnonzero(predictions.labels == label)
    margin = (predictions.image_scores[index] - threshold) * (1 if label else -1)
    return [own[predictions.ids[i]] for i in index[np.argsort(margin, kind="stable")[:count]]]


def plot_memory_bank(points: np.ndarray, chosen: np.ndarray) -> Figure:
    """Patch features projected to two dimensions ``(N, 2)``; ``chosen`` (M indices) are kept in the
    memory bank.
    """
    figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
    axis.scatter(
        *points.T, s=3, color="#c9d6df", label=f"{len(points)} training patches", rasterized=True
    )
    axis.scatter(*points[chosen].T, s=7, color="#26547c", label=f"{len(chosen)} in the memory bank")
    axis.set(xlabel="first principal component", ylabel="second principal component")
    axis.legend(fontsize=8)
    return figure


def plot_worlds(
    columns: Sequence[tuple[Sample, Predictions, Sample, Predictions, tuple[float, float]]],
) -> Figure:
    """Each column one image: clean, its anomaly map, its shifted twin, that one's map.

    Args:
        columns: Clean sample and the predictions that hold it, shifted twin and its predictions,
            colour limits.
    """
    figure, axes = image_grid(4, len(columns))
    for column, (clean, clean_predictions, shifted, shifted_predictions, limits) in enumerate(
        columns
    ):
        for row, sample, predictions in (
            (0, clean, clean_predictions),
            (2, shifted, shifted_predictions),
        ):
            anomaly_map = predictions.anomaly_maps[predictions.ids.index(sample.id)]
            image, mask = load_thumbnail(sample)
            title = f"{sample.category}: {sample.defect_type}" if row == 0 else "shifted"
            show_image(axes[row, column], image, mask, title)
            axes[row + 1, column].imshow(
                anomaly_map, cmap=MAP_COLORS, vmin=limits[0], vmax=limits[1]
            )
    return figure


def plot_locations(samples: Sequence[Sample], spread: np.ndarray) -> Figure:
    """Some images, and beside them a number ``(h, w)`` for each location of the feature grid."""
    figure, axes = image_grid(1, len(samples) + 1, cell=2.0)
    for axis, sample in zip(axes[0], samples, strict=False):
        show_image(axis, load_thumbnail(sample)[0])
    drawn = axes[0, -1].imshow(spread, cmap="cividis")
    axes[0, -1].set_title("standard deviation of normal features", fontsize=7, pad=2)
    bar = figure.colorbar(drawn, ax=axes[0, -1], shrink=0.8)
    bar.ax.tick_params(labelsize=6)
    return figure


def plot_before_and_after(
    columns: Sequence[
        tuple[Sample, Predictions, tuple[float, float], Predictions, tuple[float, float]]
    ],
) -> Figure:
    """Each column one image: itself, the anomaly map of one detector, that of another, each on its
    own colour scale.

    Args:
        columns: Sample, predictions that hold it and their colour limits, other predictions and
            theirs.
    """
    figure, axes = image_grid(3, len(columns))
    for column, (sample, before, before_limits, after, after_limits) in enumerate(columns):
        image, mask = load_thumbnail(sample)
        show_image(axes[0, column], image, mask, f"{sample.category}: {sample.defect_type}")
        for row, predictions, limits in ((1, before, before_limits), (2, after, after_limits)):
            anomaly_map = predictions.anomaly_maps[predictions.ids.index(sample.id)]
            axes[row, column].imshow(anomaly_map, cmap=MAP_COLORS, vmin=limits[0], vmax=limits[1])
    for row, name in ((0, "image"), (1, "before"), (2, "after")):
        axes[row, 0].set_ylabel(name, fontsize=8)
    return figure


def plot_matches(
    items: Sequence[tuple[Sample, np.ndarray, float]], categories: Sequence[str]
) -> Figure:
    """Patches whose nearest bank patch is another category's, coloured by which; the outline is the
    defect.

    Args:
        items: Sample, ``(h, w)`` place in ``categories`` of each patch's nearest bank patch, and
            the share of the defect patches that match another category.
        categories: Names, in the order of the places.
    """
    columns = max(1, len(items))
    figure, axes = image_grid(2, columns)
    colors = plt.get_cmap("Set1")(np.arange(len(categories)) % 9)
    for column, (sample, owners, share) in enumerate(items):
        image, mask = load_thumbnail(sample)
        show_image(axes[0, column], image, mask, f"{sample.category}: {sample.defect_type}")
        show_image(axes[1, column], image, mask, f"{share:.0%} elsewhere")
        cells = colors[owners].copy()  # (h, w, 4)
        cells[..., 3] = np.where(owners == categories.index(sample.category), 0.0, 0.6)
        size = image.shape[0]
        axes[1, column].imshow(
            cells, extent=(-0.5, size - 0.5, size - 0.5, -0.5), interpolation="nearest"
        )
    if not items:
        axes[0, 0].text(
            0.5, 0.5, "no memory bank or no masks", ha="center", transform=axes[0, 0].transAxes
        )
    handles = [
        Patch(color=color, alpha=0.6, label=name)
        for name, color in zip(categories, colors, strict=True)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7, frameon=False
    )
    return figure
