"""Figures made of images: examples, masks, shifted twins, anomaly maps.

Each function returns its Figure and does not show it. The anomaly maps of one detector share one
colour scale within a figure: if each map had its own scale, a good image would look as hot as a
defect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from nbhelpers.data.images import read_sample
from nbhelpers.data.layout import Sample
from nbhelpers.data.resize import resize_image, resize_mask
from nbhelpers.evaluation.metrics import decide
from nbhelpers.figures.panels import grid, rows_for
from nbhelpers.figures.style import WRONG_COLOR
from nbhelpers.predictions import Predictions

MASK_COLOR = "#00e5a0"
MAP_COLORS = "inferno"


def load_thumbnail(sample: Sample, size: int = 192) -> tuple[np.ndarray, np.ndarray]:
    """A sample's image and mask, resized as for a network.

    Args:
        sample: The sample.
        size: Side of the square, pixels.

    Returns:
        The image ``(size, size, 3)`` uint8 and the mask ``(size, size)``, 0 or 1.

    Raises:
        DataError: A file cannot be read.
    """
    image, mask = read_sample(sample)
    return resize_image(image, size), resize_mask(mask, size)


def spread(items: Sequence[Sample], count: int) -> list[Sample]:
    """Choose ``count`` items spread evenly over a sequence, the first and the last included."""
    index = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in index]


def one_of_each(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose up to ``count`` defect samples: one of each defect type before a second of any."""
    queues: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.label:
            queues.setdefault(sample.defect_type, []).append(sample)
    rounds = max((len(queue) for queue in queues.values()), default=0)
    return [queue[i] for i in range(rounds) for queue in queues.values() if i < len(queue)][:count]


def predictions_of(samples: Sequence[Sample], predictions: Predictions) -> Predictions:
    """The predictions of these samples, in their order."""
    index = {identity: row for row, identity in enumerate(predictions.ids)}
    return predictions.subset(np.array([index[sample.id] for sample in samples], int))


def image_grid(rows: int, columns: int, cell: float = 1.5) -> tuple[Figure, np.ndarray]:
    """Make a figure of square panels without ticks or frames.

    Args:
        rows: How many rows of panels there are.
        columns: How many columns of panels there are.
        cell: Side of a panel, inches.

    Returns:
        The figure and its axes, an array ``(rows, columns)``.
    """
    figure, axes = grid(rows, columns, cell, cell + 0.12)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    return figure, axes


def show_image(
    axis: Axes, image: np.ndarray, mask: np.ndarray | None = None, title: str = ""
) -> None:
    """Draw an image ``(H, W, 3)`` and, if its mask ``(H, W)`` has a defect, the defect's outline."""
    axis.imshow(image)
    if mask is not None and mask.any():
        axis.contour(mask, levels=[0.5], colors=[MASK_COLOR], linewidths=1.2)
    axis.set_title(title, fontsize=7, pad=2)


def show_map(
    axis: Axes, anomaly_map: np.ndarray, limits: tuple[float, float], title: str = ""
) -> AxesImage:
    """Draw an anomaly map ``(H, W)`` on the colour scale from ``limits[0]`` to ``limits[1]``."""
    axis.set_title(title, fontsize=7, pad=2)
    return axis.imshow(anomaly_map, cmap=MAP_COLORS, vmin=limits[0], vmax=limits[1])


def title_with_decision(axis: Axes, score: float, threshold: float, is_defect: bool) -> None:
    """Title a panel with an image's score and the decision; a wrong decision is red."""
    flagged = bool(decide(score, threshold))
    axis.set_title(
        f"{score:.2f}: {'defect' if flagged else 'good'}",
        fontsize=7,
        pad=2,
        color="black" if flagged == is_defect else WRONG_COLOR,
    )


def plot_samples(rows: Mapping[str, Sequence[Sample]], masks: bool = True) -> Figure:
    """Show samples in named rows, titled with their defect types.

    Args:
        rows: Name of each row to its samples.
        masks: Whether to outline the defects.
    """
    figure, axes = image_grid(len(rows), max(len(samples) for samples in rows.values()))
    for row, (name, samples) in zip(axes, rows.items(), strict=True):
        for axis, sample in zip(row, samples, strict=False):
            image, mask = load_thumbnail(sample)
            show_image(axis, image, mask if masks else None, sample.defect_type)
        row[0].set_ylabel(name, fontsize=8)
    return figure


def plot_pairs(clean: Sequence[Sample], shifted: Sequence[Sample], masks: bool = True) -> Figure:
    """Clean images above, their shifted twins below; the outlines show whether the masks moved too.

    Args:
        clean: The clean samples.
        shifted: Their shifted twins, in the same order.
        masks: Whether to outline the defects.
    """
    return plot_samples({"clean": clean, "shift": shifted}, masks)


def plot_images(images: Mapping[str, np.ndarray], columns: int = 6) -> Figure:
    """Show named images ``(H, W, 3)`` uint8, at most ``columns`` in each row."""
    figure, axes = image_grid(rows_for(len(images), columns), min(columns, len(images)))
    for axis, (name, image) in zip(axes.ravel(), images.items(), strict=False):
        show_image(axis, image, title=name)
    return figure


def shared_limits(*predictions: Predictions) -> tuple[float, float]:
    """Ends of one colour scale for the anomaly maps of one detector.

    Args:
        predictions: The detector's predictions, good images among them.

    Returns:
        The median of the pixels of good images, and the 99.5th percentile of all pixels.
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
    """Images with their masks outlined above, anomaly maps with score and decision below.

    Args:
        samples: The images to show; their ids are looked up in ``predictions``.
        predictions: Scores and maps of these samples.
        limits: Ends of the colour scale of all maps (see ``shared_limits``).
        threshold: The deployed threshold on the image score.
    """
    shown = predictions_of(samples, predictions)
    figure, axes = image_grid(2, len(samples))
    for column, sample in enumerate(samples):
        anomaly_map = shown.anomaly_maps[column]
        image, mask = load_thumbnail(sample, size=anomaly_map.shape[0])
        show_image(axes[0, column], image, mask, sample.defect_type)
        drawn = show_map(axes[1, column], anomaly_map, limits)
        title_with_decision(
            axes[1, column], shown.image_scores[column], threshold, bool(sample.label)
        )
    bar = figure.colorbar(drawn, ax=axes[1].tolist(), shrink=0.9, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    return figure


def hardest(
    samples: Sequence[Sample], predictions: Predictions, threshold: float, count: int, label: int
) -> list[Sample]:
    """Choose the images of one class that are hardest to decide rightly.

    Args:
        samples: The images; their ids are looked up.
        predictions: Scores of these samples.
        threshold: The deployed threshold on the image score.
        count: How many to choose.
        label: 0 for good images, the highest scores first; 1 for defect images, the lowest first.

    Returns:
        The chosen samples, those farthest beyond the wrong side of the threshold first.
    """
    by_id = {sample.id: sample for sample in samples}
    index = np.flatnonzero(predictions.labels == label)
    margin = (predictions.image_scores[index] - threshold) * (1 if label else -1)
    return [by_id[predictions.ids[i]] for i in index[np.argsort(margin, kind="stable")[:count]]]


def plot_memory_bank(points: np.ndarray, chosen: np.ndarray) -> Figure:
    """Patch features projected to two dimensions; those kept in the memory bank are dark.

    Args:
        points: ``(N, 2)`` projected patch features.
        chosen: ``(M,)`` indices of the patches in the memory bank.
    """
    figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
    kept = points[chosen]
    axis.scatter(
        points[:, 0],
        points[:, 1],
        s=3,
        color="#c9d6df",
        label=f"{len(points)} training patches",
        rasterized=True,
    )
    axis.scatter(
        kept[:, 0], kept[:, 1], s=7, color="#26547c", label=f"{len(chosen)} in the memory bank"
    )
    axis.set(xlabel="first principal component", ylabel="second principal component")
    axis.legend(fontsize=8)
    return figure


def plot_worlds(
    columns: Sequence[tuple[Sample, Predictions, Sample, Predictions, tuple[float, float]]],
) -> Figure:
    """One column per image: the clean image, its anomaly map, its shifted twin, the twin's map.

    Args:
        columns: For each column the clean sample, predictions that hold it, the shifted twin,
            predictions that hold the twin, and the ends of the colour scale of both maps.
    """
    figure, axes = image_grid(4, len(columns))
    for column, (clean, of_clean, twin, of_twin, limits) in zip(axes.T, columns, strict=True):
        title = f"{clean.category}: {clean.defect_type}"
        show_image(column[0], *load_thumbnail(clean), title)
        show_map(column[1], predictions_of([clean], of_clean).anomaly_maps[0], limits)
        show_image(column[2], *load_thumbnail(twin), "shifted")
        show_map(column[3], predictions_of([twin], of_twin).anomaly_maps[0], limits)
    return figure


def plot_locations(samples: Sequence[Sample], spread: np.ndarray) -> Figure:
    """Some images, and beside them one number per location of the feature grid.

    Args:
        samples: The images to show.
        spread: ``(h, w)``, the standard deviation of the normal features at each location.
    """
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
    """One column per image: the image, and its anomaly maps by two detectors.

    Args:
        columns: For each column the sample; predictions that hold it and the ends of their colour
            scale; the other detector's predictions and the ends of theirs.
    """
    figure, axes = image_grid(3, len(columns))
    for column, (sample, before, before_limits, after, after_limits) in zip(
        axes.T, columns, strict=True
    ):
        show_image(column[0], *load_thumbnail(sample), f"{sample.category}: {sample.defect_type}")
        show_map(column[1], predictions_of([sample], before).anomaly_maps[0], before_limits)
        show_map(column[2], predictions_of([sample], after).anomaly_maps[0], after_limits)
    for row, name in enumerate(("image", "before", "after")):
        axes[row, 0].set_ylabel(name, fontsize=8)
    return figure


def plot_matches(
    items: Sequence[tuple[Sample, np.ndarray, float]], categories: Sequence[str]
) -> Figure:
    """Patches whose nearest patch in the memory bank is another category's, coloured by category.

    Args:
        items: For each column the sample, an array ``(h, w)`` that gives for each patch the index
            in ``categories`` of its nearest patch's category, and the share of the defect's
            patches that match another category.
        categories: Names of the categories, in the order of the indices.
    """
    figure, axes = image_grid(2, max(1, len(items)))
    colors = plt.get_cmap("Set1")(np.arange(len(categories)) % 9)
    for column, (sample, owners, share) in enumerate(items):
        image, mask = load_thumbnail(sample)
        show_image(axes[0, column], image, mask, f"{sample.category}: {sample.defect_type}")
        show_image(axes[1, column], image, mask, f"{share:.0%} elsewhere")
        overlay = colors[owners].copy()  # (h, w, 4)
        overlay[..., 3] = np.where(owners == categories.index(sample.category), 0.0, 0.6)
        size = image.shape[0]
        axes[1, column].imshow(
            overlay, extent=(-0.5, size - 0.5, size - 0.5, -0.5), interpolation="nearest"
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
