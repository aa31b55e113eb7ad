"""From images and their reconstructions to anomaly maps and measures of quality."""

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
CHUNK = 16  # images whose quality is measured at a time: SSIM keeps several times their size


def pixel_l1(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean absolute difference over the channels, ``(B, H, W)``."""
    return (images - reconstructions).abs().mean(dim=1)


def pixel_l2(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean squared difference over the channels, ``(B, H, W)``."""
    return (images - reconstructions).square().mean(dim=1)


def ssim_distance(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean of (1 - SSIM) / 2 over the channels, ``(B, H, W)`` in [0, 1]."""
    distance = (1 - ssim_map(images, reconstructions)) / 2
    return distance.mean(dim=1).clamp(min=0)  # a similarity may be rounded to just above 1


#: All heads but ``feature``, which has a network.
PIXEL_HEADS = {"pixel_l1": pixel_l1, "pixel_l2": pixel_l2, "ssim": ssim_distance}


class Residual(nn.Module):
    """How far each pixel of an image in [-1, 1] is from its reconstruction, by one of ``HEADS``.

    ``pixel_l1``, ``pixel_l2`` and ``ssim`` are the functions of ``PIXEL_HEADS``; ``feature`` is
    1 - cosine between the backbone's features of both, in [0, 2], brought to the images' size
    (bilinear) and averaged over the layers. No map depends on the other images of its batch.

    Args:
        head: One of ``HEADS``.
        backbone: For ``feature`` alone; see ``FrozenFeatures``.

    Raises:
        ConfigError: unknown head, or ``feature`` without a backbone.
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
                    "head feature: expected a backbone, found none; pass one or set another head"
                )
            self.features = FrozenFeatures(backbone)
        self.head = head

    @torch.no_grad()
    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Residuals ``(B, H, W)`` float32, 0 or more, of ``(B, 3, H, W)`` images and
        reconstructions.

        Raises:
            ModelError: shapes differ, or are smaller than SSIM's window.
        """
        _require_pair(images, reconstructions)
        with full_precision(images):
            pair = at_least_float32(images), at_least_float32(reconstructions)
            if self.head == "feature":
                return self._feature_distance(*pair).float()
            return PIXEL_HEADS[self.head](*pair).float()

    def _feature_distance(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """1 - cosine of the features, ``(B, H, W)`` in [0, 2], averaged over the layers."""
        maps = []
        for one, other in zip(self.features(images), self.features(reconstructions), strict=True):
            # 1 - cosine, written so that equal features give 0 exactly, also where all are zero
            difference = F.normalize(one, dim=1) - F.normalize(other, dim=1)
            distance = difference.square().sum(dim=1, keepdim=True) / 2
            maps.append(F.interpolate(distance, size=images.shape[-2:], mode="bilinear"))
        return torch.cat(maps, dim=1).mean(dim=1)


def _require_pair(images: Tensor, reconstructions: Tensor) -> None:
    if images.shape != reconstructions.shape or images.ndim != 4 or images.shape[1] != 3:
        raise ModelError(
            f"residual: expected images and reconstructions of one shape (B, 3, H, W), found "
            f"{tuple(images.shape)} and {tuple(reconstructions.shape)}; check the network's output"
        )


def morphology(maps: np.ndarray, size: int) -> np.ndarray:
    """Grey opening of ``(B, H, W)`` maps with an ellipse: a peak that it does not fit into
    disappears, a small defect's too; what is wider keeps its height.

    Args:
        maps: float32.
        size: Height and width of the ellipse, pixels; 0 leaves the maps as they are.

    Raises:
        ConfigError: a negative size.
    """
    if size < 0:
        raise ConfigError(f"morphology: expected a size of 0 or more, found {size}; set 0 for none")
    if size == 0:
        return maps
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    mirrored, anchor = np.ascontiguousarray(ellipse[::-1, ::-1]), (size - 1 - size // 2,) * 2
    # cv2's own opening dilates without mirroring: one of an even size moves what it keeps
    return np.stack([cv2.dilate(cv2.erode(m, ellipse), mirrored, anchor=anchor) for m in maps])


@torch.no_grad()
def reconstruction_quality(images: Tensor, reconstructions: Tensor) -> dict[str, np.ndarray]:
    """``ssim`` (1 is perfect), ``mse`` and ``l1`` (0 is) of each reconstruction, ``(B,)`` float32
    each.

    Args:
        images: ``(B, 3, H, W)`` in [-1, 1]; so are the reconstructions.

    Raises:
        ModelError: shapes differ, or are smaller than SSIM's window.
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
