"""PaDiM: one Gaussian per location, and the Mahalanobis distance to it as anomaly score; through
anomalib's torch model.

Source: Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR 2020 workshops, sec. III. The embedding, the Gaussians (covariance + 0.01 I, eq.
1) and the distance (eq. 2) are anomalib's `PadimModel`. Ours are the backbone (the same network and
weights as any other detector's), the generator that draws the feature subset, and what follows the
distance: smoothing, image score, raw scores.
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
    """PaDiM detector.

    Args:
        backbone: Frozen network; its layers' maps are brought to the finest grid (nearest
            neighbour), deeper layers after shallower ones, whatever their order in
            ``backbone.layers``.
        n_features: How many of the channels are kept, at most all; the paper's are 100 (ResNet-18)
            and 550.
        seed: Draws which channels are kept; nothing else has part in that choice.
        **shared: See ``FeatureDetector``; ``aggregation`` is over the pixels of the smoothed
            anomaly map, as the paper takes its maximum.

    Attributes:
        feature_indices: ``(n_features,)`` int64, the channels that are kept; stored with the model.
        stats: After ``fit``: n_images, n_locations, dimension, seconds_features, seconds_gaussians.

    Raises:
        ConfigError: a setting out of range.
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
        # anomalib draws a network and a subset from the global generator; both are replaced below
        with torch.random.fork_rng(devices=[]):
            self._model = PadimModel(
                backbone=backbone.name,
                layers=list(backbone.layers),
                pre_trained=False,
                n_features=n_features,
            )
        shapes = backbone.shapes(image_size)
        # the largest map first, for it gives the grid
        self._model.layers = sorted(shapes, key=lambda layer: -math.prod(shapes[layer][1:]))
        self.grid = shapes[self._model.layers[0]][1:]
        self._model.feature_extractor = backbone
        generator = torch.Generator().manual_seed(self.seed)
        self._model.idx = torch.randperm(n_channels, generator=generator)[:n_features]
        self._model.to(self.device).eval()

    @property
    def feature_indices(self) -> Tensor:
        """``(n_features,)`` int64, the channels that are kept, of all layers one after another."""
        return self._model.idx

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Embeddings ``(B, n_features, h, w)`` of ``(B, 3, H, W)`` normalised images (sec. III-A)."""
        return self._model.generate_embedding(self.backbone(images))

    # -- fit --

    def fit(self, samples: Sequence[Sample]) -> Padim:
        """Fit one Gaussian per location on good images.

        Raises:
            DataError: fewer than two images, an anomalous one, or one that cannot be read.
            ResourceError: embeddings and covariances would not fit in memory; raised before any
                image is read.
        """
        if len(samples) == 1:
            raise DataError(
                "padim: expected at least two images for a covariance, found one; check the split"
            )
        n_locations, begin = math.prod(self.grid), time.perf_counter()
        require_memory(
            # the embeddings; covariances, their regularised copy, their inverse and its workspace;
            # activations
            4 * n_locations * self.n_features * (len(samples) + 4 * self.n_features)
            + 300 * self.image_size**2 * self.loader.get("batch_size", 16),
            self.device,
            f"PaDiM's Gaussians, {n_locations} locations of {self.n_features} features and {len(samples)} images",
            "set a smaller image_size or padim.n_features, or a coarser first layer",
        )
        embeddings = torch.empty(len(samples), self.n_features, *self.grid, device=self.device)
        filled = 0
        for batch in self.batches(samples, "features", "train"):
            block = self.in_parts(self.embed, batch.images)
            embeddings[filled : filled + len(block)] = block
            filled += len(block)
        seconds = time.perf_counter() - begin
        self.fit_embeddings(embeddings)
        self.stats = {"n_images": len(samples), **self.stats, "seconds_features": round(seconds, 3)}
        return self

    @torch.no_grad()
    def fit_embeddings(self, embeddings: Tensor) -> Padim:
        """Fit one Gaussian per location on embeddings ``(N, n_features, h, w)``."""
        begin = time.perf_counter()
        # thousands of products too small to share: threads would wait for each other
        with single_threaded():
            gaussian = self._model.gaussian
            gaussian.fit(embeddings)
        # the layout in which they will be loaded, so that a loaded model sums in the same order
        gaussian.inv_covariance = gaussian.inv_covariance.contiguous()
        self.stats = {
            "n_locations": math.prod(self.grid),
            "dimension": self.n_features,
            "seconds_gaussians": round(time.perf_counter() - begin, 3),
        }
        return self

    def spread(self) -> np.ndarray:
        """How much normal features vary at each location, ``(h, w)``: mean standard deviation over
        the features.

        Of the regularised Gaussians that the scores use, so nowhere below 0.1.
        """
        covariance = torch.linalg.inv(self.tensors()["inv_covariance"])
        return covariance.diagonal(dim1=1, dim2=2).sqrt().mean(dim=1).view(self.grid).cpu().numpy()

    # -- predict --

    def score(self, images: Tensor) -> Scores:
        maps = self.anomaly_maps(
            self.in_parts(lambda part: self.patch_scores(self.embed(part)), images)
        )
        return maps, self.aggregate(torch.from_numpy(maps).flatten(1)).numpy(), None

    @torch.no_grad()
    def patch_scores(self, embeddings: Tensor) -> Tensor:
        """Mahalanobis distance ``(B, h, w)`` of each location's embedding to its Gaussian (eq. 2)."""
        learned = self.tensors()
        distance = self._model.anomaly_map_generator.compute_distance(
            embeddings, [learned["mean"], learned["inv_covariance"]]
        )
        return distance[:, 0]

    # -- save and load --

    def tensors(self) -> dict[str, Tensor]:
        gaussian = self._model.gaussian
        if gaussian.mean.numel() == 0:
            raise ModelError("padim: expected fitted Gaussians, found none; call fit or load first")
        return {
            "mean": gaussian.mean,
            "inv_covariance": gaussian.inv_covariance,
            "feature_indices": self._model.idx,
        }

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        n, locations = self.n_features, math.prod(self.grid)
        expected = {
            "mean": (n, locations),
            "inv_covariance": (locations, n, n),
            "feature_indices": (n,),
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes = {name: shapes.get(name) for name in expected}
        if shapes != expected:
            raise ModelError(
                f"{path}: expected tensors {expected} for its backbone and size, found "
                f"{shapes}; fit it again"
            )
        if tensors["feature_indices"].max() >= sum(self.backbone.channels.values()):
            raise ModelError(
                f"{path}: expected a feature subset among its backbone's channels, found channel "
                f"{int(tensors['feature_indices'].max())}; fit it again"
            )
        gaussian = self._model.gaussian
        gaussian.mean = tensors["mean"].to(self.device)
        gaussian.inv_covariance = tensors["inv_covariance"].to(self.device)
        self._model.idx = tensors["feature_indices"].to(self.device)
