"""``Predictions``: a detector's scores beside the ground truth, all that evaluation sees of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.errors import ModelError
from nbhelpers.files import replacing


@dataclass(frozen=True, eq=False)
class Predictions:
    """A detector's scores of N images, beside their ground truth.

    Scores are raw: they are never normalised.

    Attributes:
        image_scores: ``(N,)`` float32 in the detector's own unit; higher is more anomalous.
        anomaly_maps: ``(N, H, W)`` float32 at the resolution of the input.
        masks: ``(N, H, W)`` uint8, 0 or 1.
        pixel_valid: ``(N,)`` bool; False where the pixel labels are unknown, because a defect image
            has no mask or its defect left the frame. Such an image counts for image metrics only.
        labels: ``(N,)`` int64; 0 is good, 1 is anomalous.
        defect_types: N names, ``good`` or the defect type.
        ids: N sample ids.
        nearest: ``(N, h, w)`` int32 on the feature grid: the index of the training image that holds
            the nearest patch. None for detectors that do not keep training patches.

    Raises:
        ModelError: The arrays differ in length or shape, or a score is not finite.
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
                "predictions do not fit together: expected arrays of one length and maps like masks, found "
                f"lengths {lengths}, maps {self.anomaly_maps.shape}, masks {self.masks.shape}; predict these "
                "images again"
            )
        finite = np.isfinite(self.image_scores) & np.isfinite(self.anomaly_maps).all(axis=(1, 2))
        if not finite.all():
            first = self.ids[int(np.argmin(finite))]
            raise ModelError(
                f"expected finite scores, found NaN or infinity, first for {first}; fit the detector again"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, index: np.ndarray) -> Predictions:
        """The predictions of the images that ``index`` (a bool or int array) picks, in its order."""
        rows = np.arange(len(self))[index]
        return replace(
            self,
            image_scores=self.image_scores[rows],
            anomaly_maps=self.anomaly_maps[rows],
            masks=self.masks[rows],
            pixel_valid=self.pixel_valid[rows],
            labels=self.labels[rows],
            defect_types=tuple(self.defect_types[row] for row in rows),
            ids=tuple(self.ids[row] for row in rows),
            nearest=None if self.nearest is None else self.nearest[rows],
        )

    def save(self, path: Path) -> None:
        """Write all fields to one ``.npz`` file.

        Raises:
            ResourceError: The file cannot be written.
        """
        arrays: dict[str, Any] = {
            name: np.array(value, dtype=np.str_) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value is not None
        }
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read a file that ``save`` wrote.

        Raises:
            ModelError: The arrays do not fit together.
        """
        with np.load(path) as stored:
            fields: dict[str, Any] = {name: stored[name] for name in stored.files}
        for name in ("defect_types", "ids"):
            fields[name] = tuple(str(text) for text in fields[name])
        return cls(**fields)
