"""PatchCore: an image is as anomalous as its strangest patch is far from all normal patches.

Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, written from
the paper, with its symbols. Read this file from top to bottom, it has the paper's order:

1. locally aware patch features (sec. 3.1): ``extract``;
2. the memory bank M, a coreset of the training patches (sec. 3.2, algorithm 1): ``fit_features``;
3. the nearest bank feature m* of each patch m^test, and the image's distance s* (sec. 3.3, eq. 6);
4. the weight w of that distance, so that s = w s* (eq. 7): ``density_weight``;
5. the anomaly map from the patches' distances: ``score``.

``reference`` has steps 2 to 4 in plain lines. All distances are plain Euclidean ones, on every
machine and device.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nbhelpers.data.layout import Sample
from nbhelpers.errors import ModelError
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.detector import FeatureDetector, Scores
from nbhelpers.models.memory import require_memory
from nbhelpers.models.patchcore.coreset import coreset_size, greedy_coreset
from nbhelpers.models.patchcore.neighbours import Centres, check_features


class PatchCore(FeatureDetector):
    """PatchCore detector.

    Args:
        backbone: Frozen network; its layers' maps are pooled 3x3 (stride 1) and brought to the
            finest grid.
        coreset_ratio: Share of the training patches that is kept, (0, 1].
        num_neighbors: b of eq. 7, at most the bank's size is used; 1 switches the re-weighting off.
        reweight: Weigh the highest patch score by eq. 7 (aggregation ``max`` only).
        seed: Draws the first coreset pick.
        **shared: See ``FeatureDetector``; ``aggregation`` is over the patch scores.

    Attributes:
        bank: After ``fit``: the memory bank M, ready to be asked for nearest neighbours.
        origins: ``(M,)`` int32, for each bank feature the training image it was taken from, by its
            place in what ``fit`` was given.
        stats: After ``fit``: n_images, n_patches, dimension, bank_size, bank_<category> (how much
            of the bank is of each category's images), seconds_features, seconds_coreset.

    Raises:
        ConfigError: a setting out of range.
    """

    name, kind = "patchcore", "patchcore 2, euclidean distances"
    settings = (*FeatureDetector.settings, "coreset_ratio", "num_neighbors", "reweight")

    def __init__(
        self,
        backbone: Backbone,
        image_size: int = 224,
        coreset_ratio: float = 0.05,
        num_neighbors: int = 9,
        reweight: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(backbone, image_size, **shared)
        self.coreset_ratio = coreset_ratio
        self.num_neighbors = num_neighbors
        self.reweight = reweight
        self.bank: Centres | None = None
        self.origins = torch.empty(0, dtype=torch.int32)
        self.require("coreset_ratio", 0 < coreset_ratio <= 1, "a share in (0, 1]")
        self.require("num_neighbors", num_neighbors >= 1, "1 or more")

    # -- Step 1: locally aware patch features (sec. 3.1) --

    def extract(self, images: Tensor) -> Tensor:
        """Patch features ``(B, h, w, D)`` of ``(B, 3, H, W)`` normalised images.

        Each layer's map is averaged over 3x3 cells (zeros beyond the border) and brought to the
        grid of the finest layer; D is the sum of the layers' channels.
        """
        return self.in_parts(self._extract, images)

    @torch.no_grad()
    def _extract(self, images: Tensor) -> Tensor:
        maps = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in self.backbone(images).values()]
        grid = max((m.shape[-2:] for m in maps), key=math.prod)
        maps = [
            m if m.shape[-2:] == grid else F.interpolate(m, size=grid, mode="bilinear")
            for m in maps
        ]
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1)

    def patch_features(self, samples: Sequence[Sample]) -> Tensor:
        """Patch features of all images, ``(N, D)`` float32 on the device; N is images times grid
        cells.

        Raises:
            ResourceError: they would not fit in memory together with a coreset of them.
        """
        channels, heights, widths = zip(
            *self.backbone.shapes(self.image_size).values(), strict=True
        )
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
        """Room for the features, five copies of the coreset while it is selected, bookkeeping,
        blocks and activations.
        """
        kept = n_patches * self.coreset_ratio
        activations = 300 * self.image_size**2 * self.loader.get("batch_size", 16)
        require_memory(
            int(4 * dim * (n_patches + 5 * kept + 3 * 8192) + 32 * n_patches + activations),
            self.device,
            f"PatchCore's training features, {n_patches} patches of {dim} numbers",
            "set a smaller image_size or coreset_ratio, fewer layers, or a backbone with fewer channels",
        )

    # -- Step 2: the memory bank M (sec. 3.2, algorithm 1) --

    def fit(self, samples: Sequence[Sample]) -> PatchCore:
        """Build the memory bank from good images.

        Raises:
            DataError: no image, an anomalous one, or one that cannot be read.
            ResourceError: the features would not fit in memory; raised before any image is read.
        """
        begin = time.perf_counter()
        features = self.patch_features(samples)
        seconds = time.perf_counter() - begin
        self.fit_features(features, patches_per_image=len(features) // len(samples))
        categories = Counter(samples[image].category for image in self.origins.tolist())
        self.stats = {
            "n_images": len(samples),
            **self.stats,
            "seconds_features": round(seconds, 3),
            **{f"bank_{name}": count for name, count in sorted(categories.items())},
        }
        return self

    def fit_features(self, features: Tensor, patches_per_image: int = 1) -> PatchCore:
        """Build the memory bank from patch features ``(N, D)`` in which the ``patches_per_image``
        rows of one image follow those of another.
        """
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed)
        n_select = coreset_size(len(features), self.coreset_ratio)
        picks = greedy_coreset(features, n_select, generator=generator)
        self._remember(features[picks], (picks // patches_per_image).int())
        self.stats = {
            "n_patches": len(features),
            "dimension": features.shape[1],
            "bank_size": len(picks),
            "seconds_coreset": round(time.perf_counter() - begin, 3),
        }
        return self

    def _remember(self, memory_bank: Tensor, origins: Tensor) -> None:
        """Take over the memory bank ``(M, D)``; DataError unless it is finite float32."""
        check_features(memory_bank)
        self.bank, self.origins = Centres(memory_bank.contiguous()), origins

    @property
    def memory_bank(self) -> Tensor:
        """``(M, D)`` float32, the kept patch features in the order they were picked."""
        return self._fitted().centres

    def _fitted(self) -> Centres:
        if self.bank is None:
            raise ModelError(
                "PatchCore: expected a memory bank, found none; call fit or load first"
            )
        return self.bank

    # -- Steps 3 to 5: scores (sec. 3.3) --

    @torch.no_grad()
    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of images from their patch features.

        Args:
            features: ``(B, h, w, D)``, P = h w patches for each image.

        Returns:
            Patch scores ``(B, h, w)``, each patch's Euclidean distance to the nearest bank feature;
            image scores ``(B,)``; index of each patch's nearest bank feature ``(B, h, w)``.

        Raises:
            ModelError: not fitted, or fitted with features of another dimension.
        """
        bank = self._fitted()
        if features.shape[-1] != bank.centres.shape[1]:
            raise ModelError(
                f"PatchCore: expected patch features of {bank.centres.shape[1]} numbers like the "
                f"memory bank, found {features.shape[-1]}; use the backbone and layers it was "
                "fitted with"
            )
        grid = features.shape[:3]
        patches = features.flatten(1, 2)  # (B, P, D)
        # Step 3, eq. 6: the distance of every patch to its nearest bank feature
        distance, nearest = bank.nearest(patches.flatten(0, 1))
        distance, nearest = (
            distance.view(len(patches), -1),
            nearest.view(len(patches), -1),
        )  # (B, P)
        # s* of each image: with aggregation "max" the largest of its patches' distances
        image_scores = self.aggregate(distance)
        if self.aggregation == "max" and self.reweight:
            # m^test,* is the image's strangest patch, the one whose distance is s*, and m* is the
            # bank feature nearest to it
            strangest = distance.argmax(dim=1)
            image = torch.arange(len(patches), device=strangest.device)
            m_test, m_star = patches[image, strangest], nearest[image, strangest]
            # Step 4, eq. 7: s = w s*
            w = density_weight(m_test, m_star, image_scores, bank.centres, self.num_neighbors)
            image_scores = w * image_scores
        return distance.view(grid), image_scores, nearest.view(grid)

    def score(self, images: Tensor) -> Scores:
        patch_scores, image_scores, nearest = self.score_features(self.extract(images))
        # Step 5: the patch scores, enlarged to the image's size and smoothed
        maps = self.anomaly_maps(patch_scores)
        return maps, image_scores.cpu().numpy(), self.origins[nearest].cpu().numpy()

    # -- save and load --

    def tensors(self) -> dict[str, Tensor]:
        return {"memory_bank": self.memory_bank, "origins": self.origins}

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        memory_bank = tensors.get("memory_bank", torch.empty(0))
        dim = sum(self.backbone.channels.values())
        if memory_bank.ndim != 2 or memory_bank.shape[1] != dim:
            raise ModelError(
                f"{path}: expected a memory bank (M, {dim}) as its backbone gives, found "
                f"{tuple(memory_bank.shape)}; fit it again"
            )
        if tensors["origins"].shape != memory_bank.shape[:1]:
            raise ModelError(
                f"{path}: expected one origin for each of {len(memory_bank)} bank features, found "
                f"{tuple(tensors['origins'].shape)}; fit it again"
            )
        self._remember(memory_bank, tensors["origins"])


def density_weight(
    m_test: Tensor, m_star: Tensor, s_star: Tensor, memory_bank: Tensor, num_neighbors: int
) -> Tensor:
    """The weight w of eq. 7: how much the distance of a patch counts, by the neighbourhood of m*.

    ``w = 1 - exp(|m_test - m*|) / sum of exp(|m_test - m|) over m in N_b(m*)``, where N_b(m*) are
    the b bank features nearest to m*, m* itself among them. It is near 1 where these are far from
    the patch (m* is a rare normal patch), and smaller where m* lies among others.

    Args:
        m_test: ``(B, D)``, the strangest patch of each image.
        m_star: ``(B,)`` int64, index of the bank feature nearest to it.
        s_star: ``(B,)``, the distance between the two.
        memory_bank: ``(M, D)``.
        num_neighbors: b; at most M is used.

    Returns:
        ``(B,)`` in [0, 1). For b = 1 all 1, where the formula would give 0 for every patch.
    """
    b = min(num_neighbors, len(memory_bank))
    if b == 1:
        return torch.ones_like(s_star)
    # by differences: the form with a matrix product cancels digits of small distances
    from_m_star = torch.cdist(
        memory_bank[m_star], memory_bank, compute_mode="donot_use_mm_for_euclid_dist"
    )  # (B, M)
    neighbourhood = memory_bank[from_m_star.topk(b, largest=False).indices]  # N_b(m*), (B, b, D)
    to_neighbourhood = torch.linalg.norm(m_test[:, None] - neighbourhood, dim=2)  # (B, b)
    # exp(s*) / sum of exp(d) is exp(s* - log of the sum): exp alone overflows for distances from 89
    return 1 - torch.exp(s_star - to_neighbourhood.logsumexp(dim=1))
