"""From images and their reconstructions to anomaly maps, quality figures and masks of defects."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.errors import ConfigError, DataError, ModelError
from nbhelpers.models.losses import FrozenFeatures, at_least_float32, full_precision, mean_ssim, ssim_map

HEADS = ("pixel_l1", "pixel_l2", "ssim", "feature")
CHUNK = 16  # images whose quality is measured at a time: SSIM keeps several times their size


class Residual(nn.Module):
    """How far each pixel of an image in [-1, 1] is from its reconstruction, by one of ``HEADS``.

    ``pixel_l1`` and ``pixel_l2`` are the mean over channels of the absolute and squared difference; ``ssim`` is that
    of (1 - SSIM) / 2, in [0, 1]; ``feature`` is 1 - cosine between the backbone's features of both, in [0, 2], brought
    to the images' size (bilinear) and averaged over the layers. No map depends on the other images of its batch.

    Args:
        head: One of ``HEADS``.
        backbone: For ``feature`` alone; see ``FrozenFeatures``.

    Raises:
        ConfigError: unknown head, or ``feature`` without a backbone.
    """

    def __init__(self, head: str, backbone: nn.Module | None = None) -> None:
        super().__init__()
        if head not in HEADS:
            raise ConfigError(f"head: expected one of {', '.join(HEADS)}, found {head!r}; choose one of them")
        if head == "feature":
            if backbone is None:
                raise ConfigError("head feature: expected a backbone, found none; hand one over or set another head")
            self.features = FrozenFeatures(backbone)
        self.head = head

    @torch.no_grad()
    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Residuals ``(B, H, W)`` float32, 0 or more, of ``(B, 3, H, W)`` images and reconstructions.

        Raises:
            ModelError: shapes differ, or are smaller than SSIM's window.
        """
        _require_pair(images, reconstructions)
        with full_precision(images):
            return getattr(self, f"_{self.head}")(at_least_float32(images), at_least_float32(reconstructions)).float()

    def _pixel_l1(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return (images - reconstructions).abs().mean(dim=1)

    def _pixel_l2(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return (images - reconstructions).square().mean(dim=1)

    def _ssim(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return ((1 - ssim_map(images, reconstructions)) / 2).mean(dim=1).clamp(min=0)  # rounding may pass 1

    def _feature(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        maps = []
        for one, other in zip(self.features(images), self.features(reconstructions), strict=True):
            # 1 - cosine, written so that equal features give 0 exactly, features that are all zero included
            distance = (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(dim=1, keepdim=True) / 2
            maps.append(F.interpolate(distance, size=images.shape[-2:], mode="bilinear"))
        return torch.cat(maps, dim=1).mean(dim=1)


def _require_pair(images: Tensor, reconstructions: Tensor) -> None:
    if images.shape != reconstructions.shape or images.ndim != 4 or images.shape[1] != 3:
        raise ModelError(f"residual: expected images and reconstructions of one shape (B, 3, H, W), found "
                         f"{tuple(images.shape)} and {tuple(reconstructions.shape)}; check the network's output")


def morphology(maps: np.ndarray, size: int) -> np.ndarray:
    """Grey opening of ``(B, H, W)`` maps with an ellipse: a peak that it does not fit into disappears, a small defect's
    too; what is wider keeps its height.

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
    """``ssim`` (1 is perfect), ``mse`` and ``l1`` (0 is) of each reconstruction, ``(B,)`` float32 each.

    Args:
        images: ``(B, 3, H, W)`` in [-1, 1]; so are the reconstructions.

    Raises:
        ModelError: shapes differ, or are smaller than SSIM's window.
    """
    _require_pair(images, reconstructions)
    parts = []
    with full_precision(images):
        for pair in zip(images.split(CHUNK), reconstructions.split(CHUNK), strict=True):
            one, other = map(at_least_float32, pair)
            difference = (one - other).flatten(1)
            parts.append({"ssim": mean_ssim(one, other), "mse": difference.square().mean(dim=1),
                          "l1": difference.abs().mean(dim=1)})
    return {name: torch.cat([part[name] for part in parts]).float().cpu().numpy() for name in parts[0]}


def pixel_threshold(good_maps: np.ndarray, pixel_percentile: float) -> float:
    """The level that ``pixel_percentile`` % of the pixels of good images stay below, in the maps' unit.

    Args:
        good_maps: ``(N, H, W)`` maps of validation normals; all images share the level (FEATURES P31).
        pixel_percentile: In (0, 100).

    Raises:
        ConfigError: a percentile out of range.
        DataError: no map.
    """
    if not 0 < pixel_percentile < 100:
        raise ConfigError(f"pixel_percentile: expected a number in (0, 100), found {pixel_percentile}; 99.5 is usual")
    if good_maps.size == 0:
        raise DataError("pixel threshold: expected maps of good validation images, found none; check the split")
    return float(np.percentile(good_maps, pixel_percentile))


def binary_mask(anomaly_map: np.ndarray, threshold: float, min_area: int) -> np.ndarray:
    """Where an anomaly map is at its threshold or above, ``(H, W)`` uint8, 0 or 1.

    Args:
        anomaly_map: ``(H, W)``.
        threshold: In the map's unit, from good images (``pixel_threshold``): one taken from the map itself, after
            scaling it to its own range, finds a defect in every image (FEATURES P31).
        min_area: Regions (8-connected) of fewer pixels are dropped.
    """
    mask = (anomaly_map >= threshold).astype(np.uint8)
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = statistics[:, cv2.CC_STAT_AREA] >= min_area
    kept[0] = False  # what is below the threshold
    return kept[regions].astype(np.uint8)
