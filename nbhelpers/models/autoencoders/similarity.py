"""How alike two images are: structural similarity, and the features of a frozen network.

Below both the losses, which train a network, and the heads, which compare an image with its
reconstruction. Images are ``(B, 3, H, W)`` in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from kornia.metrics import ssim as local_similarity
from torch import Tensor, nn

from nbhelpers.errors import ModelError
from nbhelpers.models.autoencoders.pixels import PIXELS
from nbhelpers.models.backbones import to_imagenet

WINDOW = 11  # side of SSIM's Gaussian window, sigma 1.5, pixels
DATA_RANGE = PIXELS.high - PIXELS.low


def require_window(images: Tensor, name: str) -> None:
    """Refuse images that are smaller than the window.

    Args:
        images: ``(B, 3, H, W)``.
        name: The name of what needs the window; the error begins with it.

    Raises:
        ModelError: height or width below ``WINDOW`` pixels.
    """
    if min(images.shape[-2:]) < WINDOW:
        raise ModelError(
            f"{name}: expected images of at least {WINDOW} x {WINDOW} pixels, found "
            f"{images.shape[-2]} x {images.shape[-1]}; set a larger data.image_size"
        )


def ssim_map(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity around each pixel, ``(B, 3, H, W)`` in (-1, 1]; images are mirrored at
    their borders.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity",
    2004, eq. 13, with K1 = 0.01 and K2 = 0.03.

    Raises:
        ModelError: images smaller than the window.
    """
    require_window(images, "ssim")
    # Variances are small differences of large numbers. In this memory layout a GPU convolves
    # channel by channel in float32; in channels_last it could take TF32. kornia's window is
    # separable: 22 products a pixel, not 121.
    return local_similarity(images.contiguous(), others.contiguous(), WINDOW, max_val=DATA_RANGE)


def mean_ssim(images: Tensor, others: Tensor) -> Tensor:
    """Mean structural similarity of each image, ``(B,)``, over the windows that lie within it, as
    skimage computes it.
    """
    margin = WINDOW // 2
    return ssim_map(images, others)[..., margin:-margin, margin:-margin].mean(dim=(1, 2, 3))


class FrozenFeatures(nn.Module):
    """Feature maps of images in [-1, 1], by a network that is never trained, even as a part of one
    that is.

    Args:
        network: From ``(B, 3, H, W)`` images in ImageNet's normalisation to feature maps, by name
            or in a list. Its weights are frozen in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, C, h, w)``, layer by layer."""
        maps = self.network(to_imagenet(images, PIXELS.normalization))
        return list(maps.values() if isinstance(maps, Mapping) else maps)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; float64 as it is."""
    return values if values.dtype == torch.float64 else values.float()


def full_precision(images: Tensor) -> AbstractContextManager:
    """A context in which autocast is off on the images' device."""
    kind = images.device.type
    return (
        torch.autocast(kind, enabled=False)
        if torch.amp.is_autocast_available(kind)
        else nullcontext()
    )
