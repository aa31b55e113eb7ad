"""How similar two images are: structural similarity, and the features of a frozen network.

The losses, which train a network, and the heads, which compare an image with its reconstruction,
both use this file. Images are ``(B, 3, H, W)`` in [-1, 1].
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

WINDOW = 11  # side of SSIM's Gaussian window, in pixels; its sigma is 1.5
DATA_RANGE = PIXELS.high - PIXELS.low


def require_window(images: Tensor, name: str) -> None:
    """Refuse images that are smaller than the window.

    Args:
        images: ``(B, 3, H, W)``.
        name: What needs the window; the error message begins with it.

    Raises:
        ModelError: If the height or the width is below ``WINDOW`` pixels.
    """
    if min(images.shape[-2:]) < WINDOW:
        raise ModelError(
            f"{name}: expected images of at least {WINDOW} x {WINDOW} pixels, found "
            f"{images.shape[-2]} x {images.shape[-1]}; set a larger data.image_size"
        )


def ssim_map(images: Tensor, others: Tensor) -> Tensor:
    """Compute the structural similarity around each pixel.

    The images are mirrored at their borders.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity",
    2004, eq. 13, with K1 = 0.01 and K2 = 0.03.

    Args:
        images: ``(B, 3, H, W)`` in [-1, 1].
        others: The images to compare with, of the same shape.

    Returns:
        ``(B, 3, H, W)`` in (-1, 1]; 1 means equal.

    Raises:
        ModelError: If the images are smaller than the window.
    """
    require_window(images, "ssim")
    # SSIM's variances are small differences of large numbers. In this memory layout a GPU convolves
    # channel by channel in float32; in channels_last it could use TF32. kornia's window is
    # separable and takes 22 products per pixel, not 121.
    return local_similarity(images.contiguous(), others.contiguous(), WINDOW, max_val=DATA_RANGE)


def mean_ssim(images: Tensor, others: Tensor) -> Tensor:
    """Compute the mean structural similarity ``(B,)`` of each image.

    The mean runs over the windows that lie within the image, as in skimage.

    Args:
        images: ``(B, 3, H, W)`` in [-1, 1].
        others: The images to compare with, of the same shape.

    Raises:
        ModelError: If the images are smaller than the window.
    """
    margin = WINDOW // 2
    return ssim_map(images, others)[..., margin:-margin, margin:-margin].mean(dim=(1, 2, 3))


class FrozenFeatures(nn.Module):
    """The feature maps that a frozen network computes for images in [-1, 1].

    The network stays frozen and in evaluation mode, even inside a module that is trained.

    Args:
        network: Takes ``(B, 3, H, W)`` images normalised by ImageNet's mean and standard deviation,
            and returns feature maps by name or in a list. Its weights are frozen in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stay in evaluation mode, whatever ``mode`` is."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps ``(B, C, h, w)`` of ``(B, 3, H, W)`` images, layer by layer."""
        maps = self.network(to_imagenet(images, PIXELS.normalization))
        return list(maps.values() if isinstance(maps, Mapping) else maps)


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32; float64 stays as it is."""
    return values if values.dtype == torch.float64 else values.float()


def full_precision(images: Tensor) -> AbstractContextManager:
    """Return a context in which autocast is off on the device of the images."""
    device_type = images.device.type
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
