"""What all detectors share: the predict loop, smoothing, the image score; and what those on frozen
features share besides.

A subclass scores one batch. Everything else is here once (one weight source, one smoothing, one way
to an image score), so that two detectors differ in their idea and in nothing else.
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
#: Axes along which an image ``(..., H, W)`` is flipped for each view of test-time augmentation.
VIEWS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "flips": ((), (-1,), (-2,), (-2, -1)),
}
#: Anomaly maps ``(B, H, W)``, image scores ``(B,)``, nearest training images ``(B, h, w)`` or None.
Scores = tuple[np.ndarray, np.ndarray, np.ndarray | None]
Prepared = TypeVar("Prepared")
IMAGES_AT_ONCE = 4  # in one thread of a CPU: more need more memory and are no faster


class Detector(ABC):
    """A detector that gives each image an anomaly map and a score.

    Args:
        image_size: Side of the square that the network sees, pixels.
        aggregation: Image score from many scores: ``max``; ``mean`` of all; ``topk``, the mean of
            those above the ``topk_percentile`` quantile (0.95: the highest 5 %).
        topk_percentile: See ``aggregation``, (0, 1).
        smoothing_sigma: Gaussian smoothing of the anomaly map, pixels; 0 is none, the papers' is 4.
        tta: Test-time augmentation: ``none``, or ``flips``, which scores each image four times (as
            it is, flipped left to right, upside down, and both), flips the maps back, and averages
            maps and image scores. For objects that may lie either way: a detector that learned
            what is normal at each location takes a flipped object for a defect.
        seed: Seeds the detector's own generator.
        device: ``cpu``, ``cuda`` or another torch device.
        loader: Arguments of ``make_loader`` (batch_size, num_workers, ...); no score depends on
            them.

    Attributes:
        stats: After ``fit``: fit statistics (sizes, counts, seconds) by name.
        readings: After ``fit``: how the training images of each category were read. Every later
            image of the category is read in the same way, whatever its own values are.

    Raises:
        ConfigError: a setting out of range.
    """

    name: str
    #: Name and version of the layout on disk.
    kind: ClassVar[str]
    #: How pixels become the network's input (see ``preprocess``).
    normalization: ClassVar[str] = "imagenet"
    #: Names of the attributes that are stored as settings, and handed to the constructor again.
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
        """Refuse a setting that does not fit.

        Args:
            setting: The attribute's name.
            fits: Whether its value is allowed.
            expected: The allowed values, in words.

        Raises:
            ConfigError: it does not fit.
        """
        if not fits:
            raise ConfigError(
                f"{self.name} {setting}: expected {expected}, found {getattr(self, setting)!r}; "
                "change the setting"
            )

    # -- what a subclass writes --

    @abstractmethod
    def fit(self, samples: Sequence[Sample]) -> Detector:
        """Learn what is normal from good samples."""

    @abstractmethod
    def score(self, images: Tensor) -> Scores:
        """Score one batch, without test-time augmentation.

        Args:
            images: ``(B, 3, H, W)``, normalised.

        Returns:
            Anomaly maps ``(B, H, W)`` and image scores ``(B,)``, float32; and for each cell of the
            feature grid the training image that is nearest, ``(B, h, w)`` int32, or None.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What ``fit`` learned, by name; ModelError where nothing was fitted."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Take over what ``tensors`` gave; ModelError, with ``path`` in it, where it does not fit
        the backbone.
        """

    # -- predict --

    def batches(self, samples: Sequence[Sample], label: str, phase: str) -> Iterator[Batch]:
        """Batches of images in order, with a progress bar.

        Raises:
            DataError: no image, or one that cannot be read.
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
        """The sample, to be read as the training images were; its mask as it says itself."""
        fitted = self.readings.get(sample.category, sample.reading)
        return replace(
            sample, reading=replace(fitted, inverted_masks=sample.reading.inverted_masks)
        )

    def in_parts(self, work: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """``work`` on ``(B, ...)`` images; on a CPU each thread takes a few images, which is faster
        than all threads working on each image.
        """
        if self.device.type != "cpu" or len(images) == 1:
            return work(images.to(self.device))
        with single_threaded() as n_threads:
            blocks = images.split(min(IMAGES_AT_ONCE, -(-len(images) // n_threads)))
            return torch.cat(list(map_blocks(work, blocks, n_threads)))

    def predict(self, samples: Sequence[Sample]) -> Predictions:
        """Score images; the score of one does not depend on the others.

        Raises:
            ModelError: not fitted, or fitted with a backbone of other channels.
            DataError: no image, or one that cannot be read.
        """
        return self.predict_by(lambda images: images, {"score": self.score}, samples)["score"]

    def predict_by(
        self,
        prepare: Callable[[Tensor], Prepared],
        scorers: Mapping[str, Callable[[Prepared], Scores]],
        samples: Sequence[Sample],
    ) -> dict[str, Predictions]:
        """Predictions by several scorers, by name; each image is read and prepared once for all.

        Args:
            prepare: Takes ``(B, 3, H, W)`` normalised images, gives what the scorers take.
            scorers: Name to a function that gives what ``score`` gives.
            samples: The images.

        Raises:
            ModelError, DataError: see ``predict``.
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
                    for name, own in maps.items():
                        own[row] = fill_square(own[row], shape)
                        if nearest[name]:
                            cells = nearest[name][-1][row - rows.start]
                            cells[:] = fill_square(cells, shape)
            masks[rows], labels[rows] = batch.masks.numpy(), batch.labels.numpy()
            # an anomalous image without any defect pixel: the defect left the frame
            shows_defect = batch.masks.flatten(1).any(dim=1)
            valid[rows] = (batch.has_mask & ((batch.labels == 0) | shows_defect)).numpy()
        types, ids = tuple(s.defect_type for s in samples), tuple(s.id for s in samples)
        return {
            name: Predictions(
                scores[name],
                maps[name],
                masks,
                valid,
                labels,
                types,
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
        """What each scorer gives for ``(B, 3, H, W)`` images, averaged over the views of ``tta``.

        Nearest training images are those of the images as they are, which are the first view.
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
            maps, scores, nearest = zip(*views, strict=True)
            averaged[name] = (np.mean(maps, axis=0), np.mean(scores, axis=0), nearest[0])
        return averaged

    def aggregate(self, scores: Tensor) -> Tensor:
        """Image scores ``(B,)`` from ``(B, n)`` scores, by ``aggregation``."""
        if self.aggregation == "max":
            return scores.amax(dim=1)
        share = 1.0 if self.aggregation == "mean" else 1 - self.topk_percentile
        return scores.topk(max(1, round(share * scores.shape[1])), dim=1).values.mean(dim=1)

    def anomaly_maps(self, patch_scores: Tensor) -> np.ndarray:
        """Patch scores ``(B, h, w)`` as ``(B, image_size, image_size)`` float32: bilinear, then
        smoothed.
        """
        size = (self.image_size, self.image_size)
        return self.smooth(
            F.interpolate(patch_scores[:, None], size=size, mode="bilinear")[:, 0].cpu().numpy()
        )

    def smooth(self, maps: np.ndarray) -> np.ndarray:
        """``(B, H, W)`` float32 maps, blurred by ``smoothing_sigma``."""
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
        backbone: Frozen network and the layers that are read.
        image_size, **options: See ``Detector``.
    """

    def __init__(self, backbone: Backbone, image_size: int = 224, **options: Any) -> None:
        super().__init__(image_size, **options)
        self.backbone = backbone.to(self.device)

    def save(self, path: Path) -> None:
        """Write the folder ``path``: what was learned, the settings, and the backbone's name."""
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
        """Read what ``save`` wrote: same settings, same backbone, identical scores.

        Raises:
            ModelError: something is missing, damaged, of another version, or does not fit together.
        """
        keys = ("backbone", "fingerprint", "settings", "loader", "stats", "readings")
        tensors, stored = load_detector(path, cls.kind, keys, device)
        backbone = Backbone(**stored["backbone"])
        if backbone.fingerprint() != stored["fingerprint"]:
            raise ModelError(
                f"{path}: fitted with backbone {stored['fingerprint']}, found {backbone.fingerprint()} here; "
                "fit it again"
            )
        model = cls(backbone, device=device, loader=stored["loader"], **stored["settings"])
        model.restore(tensors, path)
        model.stats = stored["stats"]
        model.readings = {
            name: Reading.from_json(reading) for name, reading in stored["readings"].items()
        }
        return model
