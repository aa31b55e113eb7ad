"""The detector protocol and `Predictions`, the only thing that evaluation ever sees of a detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbhelpers.errors import ModelError
from nbhelpers.files import replacing


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a detector says of N images, beside their ground truth; raw scores, never normalised.

    Attributes:
        image_scores: ``(N,)`` float32, higher is more anomalous, in the detector's own unit.
        anomaly_maps: ``(N, H, W)`` float32 at input resolution.
        masks: ``(N, H, W)`` uint8, 0 or 1.
        pixel_valid: ``(N,)`` bool; False where pixel labels are unknown (a defect image without a
            mask, or whose defect left the frame): such an image counts for image metrics only.
        labels: ``(N,)`` int64, 0 good, 1 anomalous.
        defect_types: N names, ``good`` or the defect type.
        ids: N sample ids.
        nearest: ``(N, h, w)`` int32 on the feature grid, where the detector keeps training patches:
            the place in its list of training images of the one whose patch is nearest; None for
            other detectors.

    Raises:
        ModelError: the parts differ in length or shape, or a score is not finite.
    """

    image_scores: np.ndarray
    anomaly_maps: np.ndarray
    masks: np.ndarray
    pixel_valid: np.ndarray
    labels: np.ndarray
    defect_types: tuple[str, ...]
    ids: tuple[str, ...]
    nearest: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(value) for name, value in vars(self).items() if value is not None}
        if len(set(lengths.values())) != 1 or self.anomaly_maps.shape != self.masks.shape:
            raise ModelError(
                f"predictions do not fit together: lengths {lengths}, maps {self.anomaly_maps.shape}, "
                f"masks {self.masks.shape}"
            )
        if not (np.isfinite(self.image_scores).all() and np.isfinite(self.anomaly_maps).all()):
            bad = [
                i
                for i, ok in zip(
                    self.ids, np.isfinite(self.anomaly_maps).all(axis=(1, 2)), strict=True
                )
                if not ok
            ]
            raise ModelError(
                f"expected finite scores, found NaN or infinity, first at {(bad or self.ids)[0]}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, index: np.ndarray) -> Predictions:
        """The images that ``index`` (bool or int array) picks, in that order."""
        rows = np.arange(len(self))[index]
        arrays = (self.image_scores, self.anomaly_maps, self.masks, self.pixel_valid, self.labels)
        names = (tuple(self.defect_types[i] for i in rows), tuple(self.ids[i] for i in rows))
        nearest = None if self.nearest is None else self.nearest[rows]
        return Predictions(*(array[rows] for array in arrays), *names, nearest)

    def save(self, path: Path) -> None:
        """Write one ``.npz`` (to a temporary name, then renamed)."""
        with replacing(path) as temporary:
            np.savez_compressed(
                temporary,
                image_scores=self.image_scores,
                anomaly_maps=self.anomaly_maps,
                masks=self.masks,
                pixel_valid=self.pixel_valid,
                labels=self.labels,
                defect_types=np.array(self.defect_types, dtype=np.str_),
                ids=np.array(self.ids, dtype=np.str_),
                **({} if self.nearest is None else {"nearest": self.nearest}),
            )

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what ``save`` wrote."""
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name in ("defect_types", "ids"):
            arrays[name] = tuple(str(text) for text in arrays[name])
        return cls(**arrays)
