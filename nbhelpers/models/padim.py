"""PaDiM: one Gaussian per image location, and the Mahalanobis distance to it as anomaly score.

Source: Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR 2020 workshops, sec. III. Read this file in the paper's order:

1. the embedding of each location, a random subset of the channels of all layers (sec. III-A):
   ``embed``;
2. the mean and the covariance of each location's embeddings over the training images (sec. III-B,
   eq. 1; 0.01 I is added to the covariance): ``fit_embeddings``;
3. the Mahalanobis distance of an embedding to the Gaussian of its location (sec. III-C, eq. 2):
   ``patch_scores``;
4. the anomaly map, and its maximum as the image score (sec. III-C): ``score``.

anomalib's ``PadimModel`` computes the embedding, the Gaussians and the distance. Ours are the
backbone (the same network and weights as every other detector's), the generator that draws the
channels, and what follows the distance: smoothing, the image score, and scores that are not
normalised.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.image.padim.torch_model import PadimModel
from torch import Tensor

from nbhelpers.data.layout import Sample
from nbhelpers.errors import DataError, ModelError
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.detector import FeatureDetector, Scores
from nbhelpers.models.memory import require_memory
from nbhelpers.models.threads import single_threaded


class Padim(FeatureDetector):
    """PaDiM: scores images by the distances of their embeddings to one Gaussian per location.

    For each location of the feature grid it learns a Gaussian of the embeddings that good images
    have there. An image is as anomalous as its embeddings are far from these Gaussians, so the
    images should show the object in one position.

    Args:
        backbone: The frozen network. The feature maps of its layers are brought to the finest grid
            (nearest neighbour) and stacked, the layer with the largest map first, whatever their
            order in ``backbone.layers``.
        image_size: Side of the square that the network sees, in pixels.
        n_features: How many of the channels are kept, from 1 to all. The paper keeps 100
            (ResNet-18) or 550 (Wide ResNet-50-2).
        **shared: See ``Detector``. ``seed`` alone decides which channels are kept.
            ``aggregation`` runs over the pixels of the smoothed anomaly map, of which the paper
            takes the maximum.

    Attributes:
        grid: Height and width ``(h, w)`` of the feature grid.
        stats: After ``fit``: ``n_images``, ``n_locations`` (h w), ``dimension`` (``n_features``),
            ``seconds_features`` and ``seconds_gaussians``.

    Raises:
        ConfigError: If a setting is out of range.
    """

    name, kind = "padim", "padim 1, anomalib's Gaussians"
    settings = (*FeatureDetector.settings, "n_features")

    def __init__(
        self, backbone: Backbone, image_size: int = 224, n_features: int = 100, **shared: Any
    ) -> None:
        super().__init__(backbone, image_size, **shared)
        self.n_features = n_features
        n_channels = sum(backbone.channels.values())
        self.require(
            "n_features",
            0 < n_features <= n_channels,
            f"1 to {n_channels}, the channels of {backbone.name}'s {', '.join(backbone.layers)}",
        )
        # anomalib draws a network and the channels from the global generator; both are replaced
        with torch.random.fork_rng(devices=[]):
            self._model = PadimModel(
                backbone=backbone.name,
                layers=list(backbone.layers),
                pre_trained=False,
                n_features=n_features,
            )
        shapes = backbone.shapes(image_size)
        # the layer with the largest map comes first, since anomalib takes the grid from it
        self._model.layers = sorted(shapes, key=lambda layer: -math.prod(shapes[layer][1:]))
        _, height, width = shapes[self._model.layers[0]]
        self.grid = (height, width)
        # ours is called in the same way, but is not a timm extractor
        self._model.feature_extractor = backbone  # type: ignore[assignment]
        generator = torch.Generator().manual_seed(self.seed)
        self._model.idx = torch.randperm(n_channels, generator=generator)[:n_features]
        self._model.to(self.device).eval()

    @property
    def feature_indices(self) -> Tensor:
        """Indices ``(n_features,)`` int64 of the kept channels, counted over all layers."""
        return self._model.idx

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Compute the embeddings of images (sec. III-A).

        Args:
            images: ``(B, 3, H, W)``, normalised as ImageNet's networks expect.

        Returns:
            ``(B, n_features, h, w)``: at each location the kept channels of all layers.
        """
        return self._model.generate_embedding(self.backbone(images))

    # -- fit --

    def fit(self, samples: Sequence[Sample]) -> Padim:
        """Fit one Gaussian per location on good images (sec. III-B).

        Args:
            samples: Good images, at least two.

        Returns:
            The detector itself.

        Raises:
            DataError: If there are fewer than two images, or one is anomalous or cannot be read.
            ResourceError: If embeddings and covariances would not fit in memory. This is checked
                before any image is read.
        """
        if len(samples) == 1:
            raise DataError(
                "padim: expected at least two images for a covariance, found one; check the split"
            )
        n_locations, begin = math.prod(self.grid), time.perf_counter()
        require_memory(
            # the embeddings; the covariances, their regularised copy, their inverses and the
            # workspace of the inversion; the network's activations
            4 * n_locations * self.n_features * (len(samples) + 4 * self.n_features)
            + 300 * self.image_size**2 * self.loader.get("batch_size", 16),
            self.device,
            f"PaDiM's Gaussians, {n_locations} locations of {self.n_features} features and "
            f"{len(samples)} images",
            "set a smaller image_size or padim.n_features, or a coarser first layer",
        )
        embeddings = torch.empty(len(samples), self.n_features, *self.grid, device=self.device)
        filled = 0
        for batch in self.batches(samples, "features", "train"):
            block = self.in_blocks(self.embed, batch.images)
            embeddings[filled : filled + len(block)] = block
            filled += len(block)
        seconds = time.perf_counter() - begin
        self.fit_embeddings(embeddings)
        self.stats = {"n_images": len(samples), **self.stats, "seconds_features": round(seconds, 3)}
        return self

    @torch.no_grad()
    def fit_embeddings(self, embeddings: Tensor) -> Padim:
        """Fit one Gaussian per location on embeddings (eq. 1).

        Args:
            embeddings: ``(N, n_features, h, w)`` of N good images, at least two.

        Returns:
            The detector itself.
        """
        begin = time.perf_counter()
        # thousands of products that are too small to share: the threads would wait for each other
        with single_threaded():
            gaussian = self._model.gaussian
            gaussian.fit(embeddings)
        # the memory layout that a loaded model has, so that both sum in the same order
        gaussian.inv_covariance = gaussian.inv_covariance.contiguous()
        self.stats = {
            "n_locations": math.prod(self.grid),
            "dimension": self.n_features,
            "seconds_gaussians": round(time.perf_counter() - begin, 3),
        }
        return self

    def spread(self) -> np.ndarray:
        """Measure how much the features of good images vary at each location.

        Returns:
            ``(h, w)`` float32: the standard deviations of the Gaussian at each location, averaged
            over the features. They include the 0.01 I that is added to each covariance, so no
            value is below 0.1.

        Raises:
            ModelError: If the detector is not fitted.
        """
        covariance = torch.linalg.inv(self.tensors()["inv_covariance"])
        return covariance.diagonal(dim1=1, dim2=2).sqrt().mean(dim=1).view(self.grid).cpu().numpy()

    # -- predict --

    def score(self, images: Tensor) -> Scores:
        """Score one batch (sec. III-C); see ``Detector.score``. No nearest images are known."""
        patch_scores = self.in_blocks(
            lambda block: self.patch_scores(self.embed(block)), images
        )  # (B, h, w)
        maps = self.anomaly_maps(patch_scores)  # (B, image_size, image_size)
        return maps, self.aggregate(torch.from_numpy(maps).flatten(1)).numpy(), None

    @torch.no_grad()
    def patch_scores(self, embeddings: Tensor) -> Tensor:
        """Compute the Mahalanobis distance of each embedding to the Gaussian of its location.

        With an embedding x and the mean mu and covariance Sigma of its location it is
        ``sqrt((x - mu)^T Sigma^-1 (x - mu))`` (eq. 2).

        Args:
            embeddings: ``(B, n_features, h, w)``.

        Returns:
            ``(B, h, w)``, 0 or more.

        Raises:
            ModelError: If the detector is not fitted.
        """
        learned = self.tensors()
        distance = self._model.anomaly_map_generator.compute_distance(
            embeddings, [learned["mean"], learned["inv_covariance"]]
        )
        return distance[:, 0]

    # -- save and load --

    def tensors(self) -> dict[str, Tensor]:
        """Return the Gaussians and the kept channels, by name; see ``Detector.tensors``.

        Returns:
            ``mean`` ``(n_features, h w)``, ``inv_covariance`` ``(h w, n_features, n_features)`` and
            ``feature_indices`` ``(n_features,)``.
        """
        gaussian = self._model.gaussian
        if gaussian.mean.numel() == 0:
            raise ModelError("padim: expected fitted Gaussians, found none; call fit or load first")
        return {
            "mean": gaussian.mean,
            "inv_covariance": gaussian.inv_covariance,
            "feature_indices": self._model.idx,
        }

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Take over what ``tensors`` gave; see ``Detector.restore``."""
        n, locations = self.n_features, math.prod(self.grid)
        expected = {
            "mean": (n, locations),
            "inv_covariance": (locations, n, n),
            "feature_indices": (n,),
        }
        shapes = {
            name: tuple(tensors[name].shape) if name in tensors else None for name in expected
        }
        if shapes != expected:
            raise ModelError(
                f"{path}: expected tensors {expected} for its backbone and size, found "
                f"{shapes}; fit it again"
            )
        if tensors["feature_indices"].max() >= sum(self.backbone.channels.values()):
            raise ModelError(
                f"{path}: expected indices of its backbone's channels, found channel "
                f"{int(tensors['feature_indices'].max())}; fit it again"
            )
        gaussian = self._model.gaussian
        gaussian.mean = tensors["mean"].to(self.device)
        gaussian.inv_covariance = tensors["inv_covariance"].to(self.device)
        self._model.idx = tensors["feature_indices"].to(self.device)
