"""PatchCore: an image is as anomalous as its strangest patch is far from all normal patches.

Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022. The code is
written from the paper and uses its symbols. Read it from top to bottom, in the paper's order:

1. Each image becomes a grid of locally aware patch features (sec. 3.1): ``extract``.
2. A coreset of the training patches becomes the memory bank M (sec. 3.2, algorithm 1):
   ``fit_features``.
3. Each patch m^test of a new image has a distance to its nearest bank feature m*. The largest of
   these distances is s* (sec. 3.3, eq. 6): ``score_features``.
4. A weight w turns s* into the image score s = w s* (eq. 7): ``density_weight``.
5. The distances of all patches become the anomaly map: ``score``.

``reference`` has steps 2 to 4 in plain lines. All distances are Euclidean, on every machine and
device.
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
    """PatchCore: scores images by the distances of their patches to a memory bank.

    The memory bank has patch features of good images. A patch of a new image is as anomalous as it
    is far from the nearest feature in the bank, and an image as its most anomalous patch.

    Args:
        backbone: The frozen network. Its feature maps are averaged over 3 x 3 neighbourhoods and
            brought to the grid of the finest one.
        image_size: Side of the square that the network sees, in pixels.
        coreset_ratio: Share of the training patches that is kept in the memory bank, in (0, 1].
        num_neighbors: The number b of eq. 7, 1 or more; at most the size of the bank is used.
            1 switches the weight off.
        reweight: Whether the largest patch score is weighted by eq. 7. It has an effect with
            ``aggregation="max"`` only.
        **shared: See ``Detector``. ``seed`` draws the first pick of the coreset, and
            ``aggregation`` runs over the patch scores.

    Attributes:
        bank: The memory bank M, prepared for nearest-neighbour search; None before ``fit``.
        origins: ``(M,)`` int32. For each bank feature it holds the index, in the list that ``fit``
            was given, of the training image that the feature comes from.
        stats: After ``fit``: ``n_images``, ``n_patches``, ``dimension`` (D), ``bank_size`` (M),
            ``bank_size/<category>`` (how many bank features come from images of that category),
            ``seconds_features`` and ``seconds_coreset``.

    Raises:
        ConfigError: If a setting is out of range.
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
        """Compute the patch features of images.

        Each layer's map is averaged over 3 x 3 neighbourhoods (with zeros beyond the border) and
        brought to the grid of the finest layer (bilinear); then the channels of all layers are
        stacked.

        Args:
            images: ``(B, 3, H, W)``, normalised as ImageNet's networks expect.

        Returns:
            ``(B, h, w, D)`` float32, where h and w are the finest layer's height and width and D is
            the sum of the layers' channels.
        """
        return self.in_blocks(self._extract, images)

    @torch.no_grad()
    def _extract(self, images: Tensor) -> Tensor:
        """Compute the patch features of one block of images; see ``extract``."""
        maps = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in self.backbone(images).values()]
        grid = max((m.shape[-2:] for m in maps), key=math.prod)
        maps = [
            m if m.shape[-2:] == grid else F.interpolate(m, size=grid, mode="bilinear")
            for m in maps
        ]  # each (B, C, h, w)
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1)  # (B, h, w, D)

    def patch_features(self, samples: Sequence[Sample]) -> Tensor:
        """Compute the patch features of all good images.

        Args:
            samples: Good images.

        Returns:
            ``(N, D)`` float32 on the detector's device, where N is the number of images times h w.
            The h w rows of one image follow those of another.

        Raises:
            DataError: If there is no image, or one is anomalous or cannot be read.
            ResourceError: If the features and a coreset of them would not fit in memory. This is
                checked before any image is read.
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
        """Refuse to start unless there is memory for ``n_patches`` features of ``dim`` numbers.

        It must hold the features, five copies of the coreset while it is selected, some numbers per
        patch, blocks of distances and the network's activations.
        """
        n_kept = n_patches * self.coreset_ratio
        activations = 300 * self.image_size**2 * self.loader.get("batch_size", 16)
        require_memory(
            int(4 * dim * (n_patches + 5 * n_kept + 3 * 8192) + 32 * n_patches + activations),
            self.device,
            f"PatchCore's training features, {n_patches} patches of {dim} numbers",
            "set a smaller image_size or coreset_ratio, fewer layers, or a backbone with fewer "
            "channels",
        )

    # -- Step 2: the memory bank M (sec. 3.2, algorithm 1) --

    def fit(self, samples: Sequence[Sample]) -> PatchCore:
        """Build the memory bank from good images.

        Args:
            samples: Good images, at least one.

        Returns:
            The detector itself.

        Raises:
            DataError: If there is no image, or one is anomalous or cannot be read.
            ResourceError: If the features would not fit in memory. This is checked before any
                image is read.
        """
        begin = time.perf_counter()
        features = self.patch_features(samples)
        seconds = time.perf_counter() - begin
        self.fit_features(features, patches_per_image=len(features) // len(samples))
        # one key per category; "/" keeps it apart from other keys, as no folder's name has one
        of_category = Counter(samples[image].category for image in self.origins.tolist())
        self.stats = {
            "n_images": len(samples),
            **self.stats,
            "seconds_features": round(seconds, 3),
            **{f"bank_size/{name}": count for name, count in sorted(of_category.items())},
        }
        return self

    def fit_features(self, features: Tensor, patches_per_image: int = 1) -> PatchCore:
        """Build the memory bank from patch features (algorithm 1).

        Args:
            features: ``(N, D)`` float32. The rows of one image follow those of another.
            patches_per_image: How many rows belong to each image.

        Returns:
            The detector itself.

        Raises:
            DataError: If the features have another shape or type, or are not finite.
            ConfigError: If ``coreset_ratio`` would keep no patch.
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
        """Keep the memory bank ``(M, D)`` and the images ``(M,)`` that its features come from.

        Raises:
            DataError: If the bank is not finite float32.
        """
        check_features(memory_bank)
        self.bank, self.origins = Centres(memory_bank.contiguous()), origins

    @property
    def memory_bank(self) -> Tensor:
        """The kept patch features ``(M, D)`` float32, in the order in which they were picked."""
        return self._fitted().centres

    def _fitted(self) -> Centres:
        """Return the memory bank.

        Raises:
            ModelError: If the detector is not fitted.
        """
        if self.bank is None:
            raise ModelError(
                "PatchCore: expected a memory bank, found none; call fit or load first"
            )
        return self.bank

    # -- Steps 3 to 5: scores (sec. 3.3) --

    @torch.no_grad()
    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score images by their patch features (eq. 6 and 7).

        Args:
            features: ``(B, h, w, D)``, so each image has P = h w patches.

        Returns:
            The patch scores ``(B, h, w)``, which are the Euclidean distances of the patches to
            their nearest bank features; the image scores ``(B,)``; and the indices ``(B, h, w)`` of
            these bank features.

        Raises:
            ModelError: If the detector is not fitted, or was fitted with features of another
                dimension.
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
        distance, nearest = bank.nearest(patches.flatten(0, 1))  # (B * P,)
        distance = distance.view(len(patches), -1)  # (B, P)
        nearest = nearest.view(len(patches), -1)  # (B, P)
        # s* of each image, (B,): with aggregation "max" the largest of its patches' distances
        image_scores = self.aggregate(distance)
        if self.aggregation == "max" and self.reweight:
            # m^test,* is the image's strangest patch, whose distance is s*, and m* is the bank
            # feature nearest to it
            strangest = distance.argmax(dim=1)  # (B,)
            image = torch.arange(len(patches), device=strangest.device)
            m_test = patches[image, strangest]  # (B, D)
            m_star = nearest[image, strangest]  # (B,)
            # Step 4, eq. 7: s = w s*
            w = density_weight(m_test, m_star, image_scores, bank.centres, self.num_neighbors)
            image_scores = w * image_scores
        return distance.view(grid), image_scores, nearest.view(grid)

    def score(self, images: Tensor) -> Scores:
        """Score one batch; see ``Detector.score``."""
        patch_scores, image_scores, nearest = self.score_features(self.extract(images))
        # Step 5: the patch scores, enlarged to the image's size and smoothed
        maps = self.anomaly_maps(patch_scores)
        return maps, image_scores.cpu().numpy(), self.origins[nearest].cpu().numpy()

    # -- save and load --

    def tensors(self) -> dict[str, Tensor]:
        """Return ``memory_bank`` ``(M, D)`` and ``origins`` ``(M,)``; see ``Detector.tensors``."""
        return {"memory_bank": self.memory_bank, "origins": self.origins}

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Take over what ``tensors`` gave; see ``Detector.restore``."""
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
    """Compute the weight w of eq. 7: how much the distance of a patch to its nearest m* counts.

    ``w = 1 - exp(|m_test - m*|) / sum of exp(|m_test - m|) over all m in N_b(m*)``, where N_b(m*)
    is the set of the b bank features nearest to m*, including m* itself. The weight is near 1 if
    the other features of N_b(m*) are far from the patch, that is, if m* is a rare normal patch. It
    is smaller if m* lies among many others.

    Args:
        m_test: ``(B, D)``, the strangest patch of each image.
        m_star: ``(B,)`` int64, the index of the bank feature nearest to it.
        s_star: ``(B,)``, the distance between these two.
        memory_bank: ``(M, D)``.
        num_neighbors: The number b; at most M is used.

    Returns:
        ``(B,)`` in [0, 1). With b = 1 the formula would give 0 for every patch; then all weights
        are 1 instead.
    """
    b = min(num_neighbors, len(memory_bank))
    if b == 1:
        return torch.ones_like(s_star)
    # computed by differences: the form with a matrix product cancels digits of small distances
    from_m_star = torch.cdist(
        memory_bank[m_star], memory_bank, compute_mode="donot_use_mm_for_euclid_dist"
    )  # (B, M)
    neighbourhood = memory_bank[from_m_star.topk(b, largest=False).indices]  # N_b(m*), (B, b, D)
    to_neighbourhood = torch.linalg.norm(m_test[:, None] - neighbourhood, dim=2)  # (B, b)
    # exp(s*) / (sum of exp(d)) is exp(s* - log(sum of exp(d))); the plain form of ``reference``
    # overflows for distances of 89 and more
    return 1 - torch.exp(s_star - to_neighbourhood.logsumexp(dim=1))
