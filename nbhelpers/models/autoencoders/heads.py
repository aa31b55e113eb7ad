"""Heads, which compare images with reconstructions pixel by pixel, and measures of quality."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.errors import ConfigError, ModelError
from nbhelpers.models.autoencoders.similarity import (
    FrozenFeatures,
    at_least_float32,
    full_precision,
    mean_ssim,
    ssim_map,
)

HEADS = ("pixel_l1", "pixel_l2", "ssim", "feature")
CHUNK = 16  # images whose quality is measured together: SSIM needs several times their memory


def pixel_l1(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Compute the mean absolute difference over the channels, ``(B, H, W)`` in [0, 2]."""
    return (images - reconstructions).abs().mean(dim=1)


def pixel_l2(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Compute the mean squared difference over the channels, ``(B, H, W)`` in [0, 4]."""
    return (images - reconstructions).square().mean(dim=1)


def ssim_distance(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Compute the mean of (1 - SSIM) / 2 over the channels, ``(B, H, W)`` in [0, 1]."""
    distance = (1 - ssim_map(images, reconstructions)) / 2
    return distance.mean(dim=1).clamp(min=0)  # SSIM may be rounded to just above 1


#: All heads except ``feature``, which needs a network.
PIXEL_HEADS = {"pixel_l1": pixel_l1, "pixel_l2": pixel_l2, "ssim": ssim_distance}


class Residual(nn.Module):
    """How much each pixel of an image in [-1, 1] differs from its reconstruction, by one head.

    ``pixel_l1``, ``pixel_l2`` and ``ssim`` are the functions of ``PIXEL_HEADS``. ``feature`` is
    1 - cosine between the backbone's features of image and reconstruction, in [0, 2], enlarged to
    the size of the images (bilinear) and averaged over the layers. No map depends on the other
    images of its batch.

    Args:
        head: One of ``HEADS``.
        backbone: The network of ``feature``, see ``FrozenFeatures``; other heads ignore it.

    Raises:
        ConfigError: If there is no such head, or ``feature`` lacks its backbone.
    """

    def __init__(self, head: str, backbone: nn.Module | None = None) -> None:
        super().__init__()
        if head not in HEADS:
            raise ConfigError(
                f"head: expected one of {', '.join(HEADS)}, found {head!r}; choose one of them"
            )
        if head == "feature":
            if backbone is None:
                raise ConfigError(
                    "head feature: expected a backbone, found none; pass one or choose another head"
                )
            self.features = FrozenFeatures(backbone)
        self.head = head

    @torch.no_grad()
    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Compute the residuals of images.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].
            reconstructions: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            ``(B, H, W)`` float32, 0 or more.

        Raises:
            ModelError: If the shapes differ, or the images are smaller than SSIM's window.
        """
        _require_pair(images, reconstructions)
        with full_precision(images):
            pair = at_least_float32(images), at_least_float32(reconstructions)
            if self.head == "feature":
                return self._feature_distance(*pair).float()
            return PIXEL_HEADS[self.head](*pair).float()

    def _feature_distance(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Compute 1 - cosine of the features, averaged over the layers, ``(B, H, W)`` in [0, 2]."""
        maps = []
        for one, other in zip(self.features(images), self.features(reconstructions), strict=True):
            # half the squared distance of unit vectors is 1 - cosine; in this form equal features
            # give exactly 0, also if all of them are zero
            difference = F.normalize(one, dim=1) - F.normalize(other, dim=1)
            distance = difference.square().sum(dim=1, keepdim=True) / 2
            maps.append(F.interpolate(distance, size=images.shape[-2:], mode="bilinear"))
        return torch.cat(maps, dim=1).mean(dim=1)


def _require_pair(images: Tensor, reconstructions: Tensor) -> None:
    """Refuse two tensors that are not both ``(B, 3, H, W)``; raises ModelError."""
    if images.shape != reconstructions.shape or images.ndim != 4 or images.shape[1] != 3:
        raise ModelError(
            f"residual: expected images and reconstructions of one shape (B, 3, H, W), found "
            f"{tuple(images.shape)} and {tuple(reconstructions.shape)}; check the network's output"
        )


def morphology(maps: np.ndarray, size: int) -> np.ndarray:
    """Apply a grey opening with an ellipse to anomaly maps.

    A peak into which the ellipse does not fit disappears, even if it is a small defect. A wider
    peak keeps its height.

    Args:
        maps: ``(B, H, W)`` float32.
        size: Height and width of the ellipse, in pixels; 0 leaves the maps unchanged.

    Returns:
        ``(B, H, W)`` float32.

    Raises:
        ConfigError: If the size is negative.
    """
    if size < 0:
        raise ConfigError(f"morphology: expected a size of 0 or more, found {size}; set 0 for none")
    if size == 0:
        return maps
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    # cv2's own opening dilates without mirroring the ellipse: one of even size moves what it keeps
    mirrored = np.ascontiguousarray(ellipse[::-1, ::-1])
    center = size - 1 - size // 2
    anchor = (center, center)
    return np.stack([cv2.dilate(cv2.erode(m, ellipse), mirrored, anchor=anchor) for m in maps])


@torch.no_grad()
def reconstruction_quality(images: Tensor, reconstructions: Tensor) -> dict[str, np.ndarray]:
    """Measure the quality of each reconstruction.

    Args:
        images: ``(B, 3, H, W)`` in [-1, 1].
        reconstructions: ``(B, 3, H, W)`` in [-1, 1].

    Returns:
        The measures ``ssim`` (1 is perfect), ``mse`` and ``l1`` (0 is perfect) by name, ``(B,)``
        float32 each.

    Raises:
        ModelError: If the shapes differ, or the images are smaller than SSIM's window.
    """
    _require_pair(images, reconstructions)
    blocks = []
    with full_precision(images):
        for pair in zip(images.split(CHUNK), reconstructions.split(CHUNK), strict=True):
            one, other = map(at_least_float32, pair)
            difference = (one - other).flatten(1)
            blocks.append(
                {
                    "ssim": mean_ssim(one, other),
                    "mse": difference.square().mean(dim=1),
                    "l1": difference.abs().mean(dim=1),
                }
            )
    return {
        name: torch.cat([block[name] for block in blocks]).float().cpu().numpy()
        for name in ("ssim", "mse", "l1")
    }
