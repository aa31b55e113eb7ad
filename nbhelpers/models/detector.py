"""The abstract detectors: the loop over images, the smoothing, the image score, saving and loading.

A subclass only learns from good samples and scores one batch. Everything else is written here once
(one source of weights, one smoothing, one way to an image score), so that two detectors differ in
their idea and in nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from nbhelpers.data.decode import upright_shape
from nbhelpers.data.images import Batch, make_loader
from nbhelpers.data.layout import Sample
from nbhelpers.data.reading import Reading
from nbhelpers.data.resize import fill_square
from nbhelpers.errors import ConfigError, DataError, ModelError
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.storage import load_detector, save_detector
from nbhelpers.models.threads import map_blocks, single_threaded
from nbhelpers.predictions import Predictions

AGGREGATIONS = ("max", "mean", "topk")
#: For each setting of test-time augmentation its views: the axes along which an image
#: ``(..., H, W)`` is flipped.
VIEWS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "flips": ((), (-1,), (-2,), (-2, -1)),
}
#: What one batch gets: anomaly maps ``(B, H, W)``, image scores ``(B,)``, and the nearest training
#: images ``(B, h, w)`` or None.
Scores = tuple[np.ndarray, np.ndarray, np.ndarray | None]
Prepared = TypeVar("Prepared")
IMAGES_AT_ONCE = 4  # per thread of a CPU: more of them need more memory and save no time


class Detector(ABC):
    """A detector that gives each image an anomaly map and a score.

    A detector is fitted on good images only. Afterwards ``predict`` scores any image: the higher
    the score, the more anomalous the image.

    Args:
        image_size: Side of the square that the network sees, in pixels.
        aggregation: How the many scores of an image become one: ``max`` takes the largest,
            ``mean`` the mean of all, and ``topk`` the mean of those above the quantile
            ``topk_percentile``.
        topk_percentile: The quantile of ``topk``, in (0, 1); 0.95 averages the highest 5 %.
        smoothing_sigma: Standard deviation of the Gaussian that smooths the anomaly map, in
            pixels. The papers use 4; 0 switches the smoothing off.
        tta: Test-time augmentation. ``none`` scores each image once. ``flips`` scores it four
            times (as it is, flipped left to right, upside down, and both), flips the maps back,
            and averages maps and image scores. It is meant for objects that may lie either way.
            A detector that learned what is normal at each location, as PaDiM does, takes a
            flipped object for a defect.
        seed: Seed of the detector's own random generator.
        device: ``cpu``, ``cuda`` or another torch device.
        loader: Arguments of ``make_loader`` (``batch_size``, ``num_workers``, ...). No score
            depends on them.

    Attributes:
        stats: Fit statistics by name (sizes, counts, seconds); empty before ``fit``.
        readings: How the training images of each category were read, by category; empty before
            ``fit``. Every later image of a category is read in the same way, whatever its own
            values are.

    Raises:
        ConfigError: If a setting is out of range.
    """

    name: str
    #: Name and version of the layout on disk, e.g. ``patchcore 2``.
    kind: ClassVar[str]
    #: How pixels become the network's input (see ``data.preprocess``).
    normalization: ClassVar[str] = "imagenet"
    #: Names of the attributes that ``save`` stores and ``load`` hands to the constructor again.
    settings: ClassVar[tuple[str, ...]] = (
        "image_size",
        "aggregation",
        "topk_percentile",
        "smoothing_sigma",
        "tta",
        "seed",
    )

    def __init__(
        self,
        image_size: int = 224,
        aggregation: str = "max",
        topk_percentile: float = 0.95,
        smoothing_sigma: float = 4.0,
        tta: str = "none",
        seed: int = 42,
        device: str | torch.device = "cpu",
        loader: Mapping[str, Any] | None = None,
    ) -> None:
        self.image_size = image_size
        self.aggregation = aggregation
        self.topk_percentile = topk_percentile
        self.smoothing_sigma = smoothing_sigma
        self.tta = tta
        self.seed = seed
        self.device = torch.device(device)
        self.loader = dict(loader or {})
        self.stats: dict[str, float] = {}
        self.readings: dict[str, Reading] = {}
        self.require(
            "aggregation", aggregation in AGGREGATIONS, "one of " + ", ".join(AGGREGATIONS)
        )
        self.require("topk_percentile", 0 < topk_percentile < 1, "a share in (0, 1)")
        self.require("smoothing_sigma", smoothing_sigma >= 0, "0 or more")
        self.require("tta", tta in VIEWS, "one of " + ", ".join(VIEWS))

    def require(self, setting: str, fits: bool, expected: str) -> None:
        """Refuse a setting that is out of range.

        Args:
            setting: Name of the attribute that holds it.
            fits: Whether its value is allowed.
            expected: The allowed values, in words, for the error message.

        Raises:
            ConfigError: If ``fits`` is False.
        """
        if not fits:
            raise ConfigError(
                f"{self.name} {setting}: expected {expected}, found {getattr(self, setting)!r}; "
                "change the setting"
            )

    # -- what a subclass writes --

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the fitted detector to the folder ``path``."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Detector:
        """Read what ``save`` wrote: the same settings, identical scores."""

    @abstractmethod
    def fit(self, samples: Sequence[Sample]) -> Detector:
        """Learn from good samples what is normal, and return the detector itself."""

    @abstractmethod
    def score(self, images: Tensor) -> Scores:
        """Score one batch of images, without test-time augmentation.

        Args:
            images: ``(B, 3, H, W)``, normalised as ``normalization`` says.

        Returns:
            The anomaly maps ``(B, H, W)`` float32; the image scores ``(B,)`` float32; and for each
            location of the feature grid the index of the training image that is nearest,
            ``(B, h, w)`` int32, or None if the detector does not know it.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what ``fit`` learned, by name.

        Raises:
            ModelError: If the detector is not fitted.
        """

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Take over what ``tensors`` of a fitted detector gave.

        Args:
            tensors: What was learned, by name.
            path: Where it was stored, for the error message.

        Raises:
            ModelError: If the tensors do not fit this detector's network and settings.
        """

    # -- predict --

    def batches(self, samples: Sequence[Sample], label: str, phase: str) -> Iterator[Batch]:
        """Read the samples batch by batch, in their order, behind a progress bar.

        Args:
            samples: The images to read.
            label: What the progress bar is called.
            phase: ``train``, ``val`` or ``test``; an anomalous sample in ``train`` is refused.

        Raises:
            DataError: If there is no sample, or an image cannot be read.
        """
        if not samples:
            raise DataError(
                f"{self.name}: expected at least one image, found none; check the split"
            )
        if phase == "train":
            self.readings = {sample.category: sample.reading for sample in samples}
        else:
            samples = [self._read_as_fitted(sample) for sample in samples]
        loader = make_loader(
            samples, self.image_size, phase=phase, normalization=self.normalization, **self.loader
        )
        return iter(tqdm(loader, desc=label))

    def _read_as_fitted(self, sample: Sample) -> Sample:
        """Return the sample with the reading of its category's training images.

        Only the way in which its mask is painted stays its own.
        """
        fitted = self.readings.get(sample.category, sample.reading)
        return replace(
            sample, reading=replace(fitted, inverted_masks=sample.reading.inverted_masks)
        )

    def in_blocks(self, work: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Apply ``work`` to ``(B, ...)`` images on the detector's device.

        On a CPU each thread works on a block of a few images. That is faster than letting all
        threads share the work on each image.
        """
        if self.device.type != "cpu" or len(images) == 1:
            return work(images.to(self.device))
        with single_threaded() as n_threads:
            blocks = images.split(min(IMAGES_AT_ONCE, -(-len(images) // n_threads)))
            return torch.cat(list(map_blocks(work, blocks, n_threads)))

    def predict(self, samples: Sequence[Sample]) -> Predictions:
        """Score images; the score of one image does not depend on the others.

        Args:
            samples: The images, good or anomalous.

        Returns:
            Raw image scores and anomaly maps, with the samples' masks, labels and names.

        Raises:
            ModelError: If the detector is not fitted, or was fitted with a backbone of other
                channels.
            DataError: If there is no sample, or an image or a mask cannot be read.
        """
        return self.predict_by(lambda images: images, {"score": self.score}, samples)["score"]

    def predict_by(
        self,
        prepare: Callable[[Tensor], Prepared],
        scorers: Mapping[str, Callable[[Prepared], Scores]],
        samples: Sequence[Sample],
    ) -> dict[str, Predictions]:
        """Score images by several scorers; each image is read and prepared once for all of them.

        Args:
            prepare: Turns ``(B, 3, H, W)`` normalised images into what the scorers take.
            scorers: Functions that return what ``score`` returns, by name.
            samples: The images.

        Returns:
            One ``Predictions`` per scorer, by name.

        Raises:
            ModelError: If the detector is not fitted; see ``predict``.
            DataError: If there is no sample, or a file cannot be read.
        """
        self.tensors()
        n_images, size = len(samples), (len(samples), self.image_size, self.image_size)
        maps = {name: np.empty(size, np.float32) for name in scorers}
        scores = {name: np.empty(n_images, np.float32) for name in scorers}
        nearest: dict[str, list[np.ndarray]] = {name: [] for name in scorers}
        masks, labels = np.empty(size, np.uint8), np.empty(n_images, np.int64)
        valid = np.empty(n_images, bool)
        first = 0
        for batch in self.batches(samples, "predict", "test"):
            rows = slice(first, first + len(batch.samples))
            first = rows.stop
            for name, scored in self._scores_of_views(prepare, scorers, batch.images).items():
                maps[name][rows], scores[name][rows], batch_nearest = scored
                if batch_nearest is not None:
                    nearest[name].append(batch_nearest)
            for row, sample in enumerate(batch.samples, rows.start):
                if sample.reading.letterbox:
                    shape = upright_shape(sample.image)
                    for name, anomaly_maps in maps.items():
                        anomaly_maps[row] = fill_square(anomaly_maps[row], shape)
                        if nearest[name]:
                            cells = nearest[name][-1][row - rows.start]
                            cells[:] = fill_square(cells, shape)
            masks[rows], labels[rows] = batch.masks.numpy(), batch.labels.numpy()
            # an anomalous image without any defect pixel has no valid mask: its defect lies
            # outside the frame
            shows_defect = batch.masks.flatten(1).any(dim=1)
            valid[rows] = (batch.has_mask & ((batch.labels == 0) | shows_defect)).numpy()
        defect_types, ids = tuple(s.defect_type for s in samples), tuple(s.id for s in samples)
        return {
            name: Predictions(
                scores[name],
                maps[name],
                masks,
                valid,
                labels,
                defect_types,
                ids,
                np.concatenate(nearest[name]) if nearest[name] else None,
            )
            for name in scorers
        }

    def _scores_of_views(
        self,
        prepare: Callable[[Tensor], Prepared],
        scorers: Mapping[str, Callable[[Prepared], Scores]],
        images: Tensor,
    ) -> dict[str, Scores]:
        """Score ``(B, 3, H, W)`` images by each scorer and average over the views of ``tta``.

        The nearest training images are not averaged: they are those of the first view, which shows
        the images as they are.
        """
        by_view: dict[str, list[Scores]] = {name: [] for name in scorers}
        for axes in VIEWS[self.tta]:
            prepared = prepare(images.flip(axes) if axes else images)
            for name, score in scorers.items():
                maps, scores, nearest = score(prepared)
                # the maps' last two axes are the images' last two, so the same flip goes back
                by_view[name].append((np.flip(maps, axes), scores, nearest))
        averaged = {}
        for name, views in by_view.items():
            view_maps, view_scores, view_nearest = zip(*views, strict=True)
            averaged[name] = (
                np.mean(view_maps, axis=0),
                np.mean(view_scores, axis=0),
                view_nearest[0],
            )
        return averaged

    def aggregate(self, scores: Tensor) -> Tensor:
        """Turn ``(B, n)`` scores into image scores ``(B,)``, as ``aggregation`` says."""
        if self.aggregation == "max":
            return scores.amax(dim=1)
        share = 1.0 if self.aggregation == "mean" else 1 - self.topk_percentile
        return scores.topk(max(1, round(share * scores.shape[1])), dim=1).values.mean(dim=1)

    def anomaly_maps(self, patch_scores: Tensor) -> np.ndarray:
        """Enlarge patch scores ``(B, h, w)`` to anomaly maps ``(B, image_size, image_size)``.

        The maps are interpolated bilinearly, then smoothed; they are float32.
        """
        size = (self.image_size, self.image_size)
        return self.smooth(
            F.interpolate(patch_scores[:, None], size=size, mode="bilinear")[:, 0].cpu().numpy()
        )

    def smooth(self, maps: np.ndarray) -> np.ndarray:
        """Smooth ``(B, H, W)`` float32 maps by a Gaussian of ``smoothing_sigma`` pixels."""
        if self.smoothing_sigma == 0:
            return maps
        width = 2 * int(4 * self.smoothing_sigma + 0.5) + 1
        return np.stack(
            [
                cv2.GaussianBlur(
                    m, (width, width), self.smoothing_sigma, borderType=cv2.BORDER_REFLECT_101
                )
                for m in maps
            ]
        )


class FeatureDetector(Detector):
    """A detector that scores images by the features of a frozen backbone.

    Args:
        backbone: The frozen network, with the layers whose feature maps it returns.
        image_size: Side of the square that the network sees, in pixels.
        **options: See ``Detector``.
    """

    def __init__(self, backbone: Backbone, image_size: int = 224, **options: Any) -> None:
        super().__init__(image_size, **options)
        self.backbone = backbone.to(self.device)

    def save(self, path: Path) -> None:
        """Write what was learned, the settings and the backbone's name to the folder ``path``.

        Raises:
            ModelError: If the detector is not fitted.
            ResourceError: If the folder cannot be written.
        """
        backbone = self.backbone
        save_detector(
            path,
            self.kind,
            self.tensors(),
            {
                "backbone": {
                    "name": backbone.name,
                    "layers": list(backbone.layers),
                    "weights": backbone.weights,
                    "seed": backbone.seed,
                },
                "fingerprint": backbone.fingerprint(),
                "settings": {name: getattr(self, name) for name in self.settings},
                "loader": self.loader,
                "stats": self.stats,
                "readings": {name: asdict(reading) for name, reading in self.readings.items()},
            },
        )

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> FeatureDetector:
        """Read what ``save`` wrote; the detector has the same settings and gives identical scores.

        Args:
            path: The folder that ``save`` wrote.
            device: Where the detector works.

        Raises:
            ModelError: If a file is missing, damaged or of another version, or the files do not
                fit together or this machine's backbone.
        """
        keys = ("backbone", "fingerprint", "settings", "loader", "stats", "readings")
        tensors, stored = load_detector(path, cls.kind, keys, device)
        backbone = Backbone(**stored["backbone"])
        if backbone.fingerprint() != stored["fingerprint"]:
            raise ModelError(
                f"{path}: expected backbone {stored['fingerprint']}, with which it was fitted, "
                f"found {backbone.fingerprint()}; fit it again"
            )
        model = cls(backbone, device=device, loader=stored["loader"], **stored["settings"])
        model.restore(tensors, path)
        model.stats = stored["stats"]
        model.readings = {
            name: Reading.from_json(reading) for name, reading in stored["readings"].items()
        }
        return model
