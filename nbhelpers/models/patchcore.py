"""PatchCore: a coreset of normal patch features, and the distance to it as anomaly score.

Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, written from the
paper: locally aware patch features, greedy coreset (exact, see `coreset`), nearest neighbour in plain
Euclidean units (`memory_bank`), image score re-weighted by eq. 7.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from nbhelpers.data.images import Batch, make_loader
from nbhelpers.data.layout import Sample
from nbhelpers.errors import ConfigError, DataError, ModelError
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.coreset import coreset_size, greedy_coreset
from nbhelpers.models.detector import Predictions
from nbhelpers.models.distances import map_blocks, single_threaded
from nbhelpers.models.memory_bank import MemoryBank
from nbhelpers.models.resources import require_memory
from nbhelpers.models.storage import load_detector, save_detector

KIND = "patchcore 1, euclidean distances"
IMAGES_AT_ONCE = 4  # in one thread of a CPU: more need more memory and are no faster
AGGREGATIONS = ("max", "mean", "topk")
SETTINGS = (
    "image_size", "coreset_ratio", "num_neighbors", "reweight", "aggregation", "topk_percentile",
    "smoothing_sigma", "seed",
)


class PatchCore:
    """PatchCore detector.

    Args:
        backbone: Frozen network; its layers' maps are pooled 3x3 (stride 1) and brought to the finest grid.
        image_size: Side of the square that the network sees, pixels.
        coreset_ratio: Share of the training patches that is kept, (0, 1].
        num_neighbors: b of eq. 7; 1 switches the re-weighting off.
        reweight: Weigh the highest patch score by eq. 7 (aggregation ``max`` only).
        aggregation: Image score from the patch scores: ``max``; ``mean`` of all; ``topk``, the mean of those
            above the ``topk_percentile`` quantile (0.95: the highest 5 %).
        topk_percentile: See ``aggregation``, (0, 1).
        smoothing_sigma: Gaussian smoothing of the anomaly map, pixels; 0 is none, the paper's is 4.
        seed: Draws the first coreset pick.
        device: ``cpu``, ``cuda`` or another torch device.
        loader: Arguments of ``make_loader`` (batch_size, num_workers, ...); no score depends on them.

    Attributes:
        stats: After ``fit``: n_images, n_patches, dimension, bank_size, seconds_features, seconds_coreset.

    Raises:
        ConfigError: a setting out of range.
    """

    name = "patchcore"

    def __init__(
        self,
        backbone: Backbone,
        image_size: int = 224,
        coreset_ratio: float = 0.05,
        num_neighbors: int = 9,
        reweight: bool = True,
        aggregation: str = "max",
        topk_percentile: float = 0.95,
        smoothing_sigma: float = 4.0,
        seed: int = 42,
        device: str | torch.device = "cpu",
        loader: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone.to(device)
        self.image_size, self.coreset_ratio, self.num_neighbors = image_size, coreset_ratio, num_neighbors
        self.reweight, self.aggregation, self.topk_percentile = reweight, aggregation, topk_percentile
        self.smoothing_sigma, self.seed, self.device = smoothing_sigma, seed, torch.device(device)
        self.loader = dict(loader or {})
        self.bank: MemoryBank | None = None
        self.stats: dict[str, float] = {}
        for setting, fits, wanted in (
            ("coreset_ratio", 0 < coreset_ratio <= 1, "a share in (0, 1]"),
            ("num_neighbors", num_neighbors >= 1, "1 or more"),
            ("aggregation", aggregation in AGGREGATIONS, "one of " + ", ".join(AGGREGATIONS)),
            ("topk_percentile", 0 < topk_percentile < 1, "a share in (0, 1)"),
            ("smoothing_sigma", smoothing_sigma >= 0, "0 or more"),
        ):
            if not fits:
                raise ConfigError(f"patchcore {setting}: expected {wanted}, found {getattr(self, setting)!r}")

    @property
    def memory_bank(self) -> Tensor:
        """``(M, D)`` float32, the kept patch features in the order they were picked."""
        return self._fitted().features

    # -- features -----------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> Tensor:
        """Locally aware patch features of ``(B, 3, H, W)`` images, ``(B, h, w, D)``.

        Each layer's map is averaged over 3x3 cells (zeros beyond the border) and brought to the grid of the
        finest layer.
        """
        if self.device.type != "cpu" or len(images) == 1:
            return self._extract(images.to(self.device))
        with single_threaded() as n_threads:
            parts = images.split(min(IMAGES_AT_ONCE, -(-len(images) // n_threads)))
            return torch.cat(list(map_blocks(self._extract, parts, n_threads)))

    @torch.no_grad()
    def _extract(self, images: Tensor) -> Tensor:
        maps = self.backbone(images).values()
        maps = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in maps]
        grid = max((m.shape[-2:] for m in maps), key=math.prod)
        maps = [m if m.shape[-2:] == grid else F.interpolate(m, size=grid, mode="bilinear") for m in maps]
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1)

    def patch_features(self, samples: Sequence[Sample]) -> Tensor:
        """Patch features of all images, ``(N, D)`` float32 on the device; N is images times grid cells.

        Raises:
            ResourceError: they would not fit in memory together with a coreset of them.
        """
        channels, heights, widths = zip(*self.backbone.shapes(self.image_size).values(), strict=True)
        n_patches, dim = len(samples) * max(heights) * max(widths), sum(channels)
        self._require_memory(n_patches, dim)
        features = torch.empty(n_patches, dim, device=self.device)
        filled = 0
        for batch in self._batches(samples, "features", "train"):
            block = self.extract(batch.images).flatten(0, 2)
            features[filled : filled + len(block)] = block
            filled += len(block)
        return features

    def _require_memory(self, n_patches: int, dim: int) -> None:
        """Features, five copies of the coreset while it is selected, bookkeeping, blocks, activations."""
        kept = n_patches * self.coreset_ratio
        activations = 300 * self.image_size**2 * self.loader.get("batch_size", 16)
        require_memory(
            int(4 * dim * (n_patches + 5 * kept + 3 * 8192) + 32 * n_patches + activations), self.device,
            f"PatchCore's training features, {n_patches} patches of {dim} numbers",
            "set a smaller image_size or coreset_ratio, fewer layers, or a backbone with fewer channels",
        )

    def _batches(self, samples: Sequence[Sample], label: str, phase: str) -> Iterator[Batch]:
        if not samples:
            raise DataError("PatchCore: expected at least one image, found none; check the split")
        return iter(tqdm(make_loader(samples, self.image_size, phase=phase, **self.loader), desc=label))

    # -- fit ----------------------------------------------------------------------------------------

    def fit(self, samples: Sequence[Sample]) -> PatchCore:
        """Build the memory bank from good images.

        Raises:
            DataError: no image, an anomalous one, or one that cannot be read.
            ResourceError: the features would not fit in memory; said before any image is read.
        """
        begin = time.perf_counter()
        features = self.patch_features(samples)
        seconds = time.perf_counter() - begin
        self.fit_features(features)
        self.stats = {"n_images": len(samples), **self.stats, "seconds_features": round(seconds, 3)}
        return self

    def fit_features(self, features: Tensor) -> PatchCore:
        """Build the memory bank from patch features ``(N, D)``."""
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed)
        picks = greedy_coreset(features, coreset_size(len(features), self.coreset_ratio), generator=generator)
        self.bank = MemoryBank(features[picks])
        self.stats = {
            "n_patches": len(features), "dimension": features.shape[1], "bank_size": len(picks),
            "seconds_coreset": round(time.perf_counter() - begin, 3),
        }
        return self

    # -- predict ------------------------------------------------------------------------------------

    def predict(self, samples: Sequence[Sample]) -> Predictions:
        """Score images; the score of one does not depend on the others.

        Raises:
            ModelError: not fitted, or fitted with a backbone of other channels.
            DataError: no image, or one that cannot be read.
        """
        self._fitted()
        size = (len(samples), self.image_size, self.image_size)
        maps, masks = np.empty(size, np.float32), np.empty(size, np.uint8)
        scores, labels = np.empty(len(samples), np.float32), np.empty(len(samples), np.int64)
        valid = np.empty(len(samples), bool)
        filled = 0
        for batch in self._batches(samples, "predict", "test"):
            here = slice(filled, filled := filled + len(batch.samples))
            patch_scores, image_scores = self.score_features(self.extract(batch.images))
            maps[here], scores[here] = self.anomaly_maps(patch_scores), image_scores.cpu()
            masks[here], labels[here] = batch.masks, batch.labels
            # an anomalous image without any defect pixel: the defect left the frame
            valid[here] = batch.has_mask & ((batch.labels == 0) | batch.masks.flatten(1).any(dim=1))
        types, ids = tuple(s.defect_type for s in samples), tuple(s.id for s in samples)
        return Predictions(scores, maps, masks, valid, labels, types, ids)

    @torch.no_grad()
    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Patch scores ``(B, h, w)`` and image scores ``(B,)`` of patch features ``(B, h, w, D)``.

        A patch's score is the Euclidean distance to the nearest bank feature.
        """
        bank = self._fitted()
        if features.shape[-1] != bank.features.shape[1]:
            raise ModelError(
                f"PatchCore: expected patch features of {bank.features.shape[1]} numbers like the memory "
                f"bank, found {features.shape[-1]}; use the backbone and layers it was fitted with"
            )
        distance, index = bank.nearest(features.flatten(0, 2))
        patch_scores = distance.view(len(features), -1)
        if self.aggregation == "max":
            image_scores, best = patch_scores.max(dim=1)
            if self.reweight:
                patches = features.flatten(1, 2)[torch.arange(len(features), device=best.device), best]
                nearest = index.view_as(patch_scores).gather(1, best[:, None]).squeeze(1)
                image_scores = image_scores * bank.density_weight(
                    patches, image_scores, nearest, self.num_neighbors
                )
        else:
            share = 1.0 if self.aggregation == "mean" else 1 - self.topk_percentile
            count = max(1, round(share * patch_scores.shape[1]))
            image_scores = patch_scores.topk(count, dim=1).values.mean(dim=1)
        return patch_scores.view(features.shape[:3]), image_scores

    def anomaly_maps(self, patch_scores: Tensor) -> np.ndarray:
        """Patch scores ``(B, h, w)`` as ``(B, image_size, image_size)`` float32: bilinear, then smoothed."""
        size = (self.image_size, self.image_size)
        maps = F.interpolate(patch_scores[:, None], size=size, mode="bilinear")[:, 0].cpu().numpy()
        if self.smoothing_sigma == 0:
            return maps
        width = 2 * int(4 * self.smoothing_sigma + 0.5) + 1
        return np.stack([
            cv2.GaussianBlur(m, (width, width), self.smoothing_sigma, borderType=cv2.BORDER_REFLECT_101)
            for m in maps
        ])

    def _fitted(self) -> MemoryBank:
        if self.bank is None:
            raise ModelError("PatchCore: expected a memory bank, found none; call fit or load first")
        return self.bank

    # -- save and load ------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the folder ``path``: the bank, the settings, and which backbone it was fitted with."""
        backbone = self.backbone
        save_detector(path, KIND, {"memory_bank": self.memory_bank}, {
            "backbone": {
                "name": backbone.name, "layers": list(backbone.layers), "weights": backbone.weights,
                "seed": backbone.seed,
            },
            "fingerprint": backbone.fingerprint(),
            "settings": {name: getattr(self, name) for name in SETTINGS},
            "loader": self.loader,
            "stats": self.stats,
        })

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> PatchCore:
        """Read what ``save`` wrote: same settings, same backbone, identical scores.

        Raises:
            ModelError: something is missing, damaged, of another version, or does not fit together.
        """
        keys = ("memory_bank", "backbone", "fingerprint", "settings", "loader", "stats")
        tensors, stored = load_detector(path, KIND, keys, device)
        backbone = Backbone(**stored["backbone"])
        if backbone.fingerprint() != stored["fingerprint"]:
            raise ModelError(
                f"{path}: fitted with backbone {stored['fingerprint']}, found {backbone.fingerprint()} here; "
                "fit it again"
            )
        bank, width = tensors["memory_bank"], sum(backbone.channels.values())
        if bank.ndim != 2 or bank.shape[1] != width:
            raise ModelError(
                f"{path}: expected a memory bank (M, {width}) as its backbone gives, found "
                f"{tuple(bank.shape)}; fit it again"
            )
        model = cls(backbone, device=device, loader=stored["loader"], **stored["settings"])
        model.bank, model.stats = MemoryBank(bank), stored["stats"]
        return model
