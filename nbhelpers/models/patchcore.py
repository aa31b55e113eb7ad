"""PatchCore: a coreset of normal patch features, and the distance to it as anomaly score.

Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, written from the
paper: locally aware patch features, greedy coreset (exact, see `coreset`), nearest neighbour in plain
Euclidean units (`memory_bank`), image score re-weighted by eq. 7.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nbhelpers.data.layout import Sample
from nbhelpers.errors import ModelError
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.base import FeatureDetector
from nbhelpers.models.coreset import coreset_size, greedy_coreset
from nbhelpers.models.memory_bank import MemoryBank
from nbhelpers.models.resources import require_memory


class PatchCore(FeatureDetector):
    """PatchCore detector.

    Args:
        backbone: Frozen network; its layers' maps are pooled 3x3 (stride 1) and brought to the finest grid.
        coreset_ratio: Share of the training patches that is kept, (0, 1].
        num_neighbors: b of eq. 7; 1 switches the re-weighting off.
        reweight: Weigh the highest patch score by eq. 7 (aggregation ``max`` only).
        seed: Draws the first coreset pick.
        **shared: See ``FeatureDetector``; ``aggregation`` is over the patch scores.

    Attributes:
        origins: ``(M,)`` int32, for each bank feature the training image it was taken from, by its place in
            what ``fit`` was given.
        stats: After ``fit``: n_images, n_patches, dimension, bank_size, bank_<category> (how much of the bank is of
            each category's images), seconds_features, seconds_coreset.

    Raises:
        ConfigError: a setting out of range.
    """

    name, kind = "patchcore", "patchcore 2, euclidean distances"
    settings = (*FeatureDetector.settings, "coreset_ratio", "num_neighbors", "reweight")

    def __init__(self, backbone: Backbone, image_size: int = 224, coreset_ratio: float = 0.05, num_neighbors: int = 9,
                 reweight: bool = True, **shared: Any) -> None:
        super().__init__(backbone, image_size, **shared)
        self.coreset_ratio, self.num_neighbors, self.reweight = coreset_ratio, num_neighbors, reweight
        self.bank: MemoryBank | None = None
        self.origins = torch.empty(0, dtype=torch.int32)
        self.require("coreset_ratio", 0 < coreset_ratio <= 1, "a share in (0, 1]")
        self.require("num_neighbors", num_neighbors >= 1, "1 or more")

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
        return self.in_parts(self._extract, images)

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
        for batch in self.batches(samples, "features", "train"):
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
        self.fit_features(features, patches_per_image=len(features) // len(samples))
        owners = Counter(samples[image].category for image in self.origins.tolist())
        shares = {f"bank_{name}": count for name, count in sorted(owners.items())}
        self.stats = {"n_images": len(samples), **self.stats, "seconds_features": round(seconds, 3), **shares}
        return self

    def fit_features(self, features: Tensor, patches_per_image: int = 1) -> PatchCore:
        """Build the memory bank from patch features ``(N, D)``, those of one image after those of another."""
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed)
        picks = greedy_coreset(features, coreset_size(len(features), self.coreset_ratio), generator=generator)
        self.bank, self.origins = MemoryBank(features[picks]), (picks // patches_per_image).int()
        self.stats = {
            "n_patches": len(features), "dimension": features.shape[1], "bank_size": len(picks),
            "seconds_coreset": round(time.perf_counter() - begin, 3),
        }
        return self

    # -- predict ------------------------------------------------------------------------------------

    def score(self, images: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        patch_scores, image_scores, nearest = self.score_features(self.extract(images))
        return self.anomaly_maps(patch_scores), image_scores.cpu().numpy(), self.origins[nearest].cpu().numpy()

    @torch.no_grad()
    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patch scores ``(B, h, w)``, image scores ``(B,)`` and nearest bank features ``(B, h, w)``.

        Of patch features ``(B, h, w, D)``. A patch's score is the Euclidean distance to the nearest bank feature.
        """
        bank = self._fitted()
        if features.shape[-1] != bank.features.shape[1]:
            raise ModelError(
                f"PatchCore: expected patch features of {bank.features.shape[1]} numbers like the memory "
                f"bank, found {features.shape[-1]}; use the backbone and layers it was fitted with"
            )
        distance, index = bank.nearest(features.flatten(0, 2))
        patch_scores = distance.view(len(features), -1)
        image_scores = self.aggregate(patch_scores)
        if self.aggregation == "max" and self.reweight:
            best = patch_scores.argmax(dim=1)
            patches = features.flatten(1, 2)[torch.arange(len(features), device=best.device), best]
            nearest = index.view_as(patch_scores).gather(1, best[:, None]).squeeze(1)
            image_scores = image_scores * self._fitted().density_weight(
                patches, image_scores, nearest, self.num_neighbors
            )
        grid = features.shape[:3]
        return patch_scores.view(grid), image_scores, index.view(grid)

    def _fitted(self) -> MemoryBank:
        if self.bank is None:
            raise ModelError("PatchCore: expected a memory bank, found none; call fit or load first")
        return self.bank

    # -- save and load ------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        return {"memory_bank": self.memory_bank, "origins": self.origins}

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        bank, width = tensors.get("memory_bank", torch.empty(0)), sum(self.backbone.channels.values())
        if bank.ndim != 2 or bank.shape[1] != width:
            raise ModelError(
                f"{path}: expected a memory bank (M, {width}) as its backbone gives, found "
                f"{tuple(bank.shape)}; fit it again"
            )
        if tensors["origins"].shape != bank.shape[:1]:
            raise ModelError(f"{path}: expected one origin for each of {len(bank)} bank features, found "
                             f"{tuple(tensors['origins'].shape)}; fit it again")
        self.bank, self.origins = MemoryBank(bank), tensors["origins"]
