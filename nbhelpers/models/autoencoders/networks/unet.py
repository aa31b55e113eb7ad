"""A U-Net of any width and depth, with or without skip connections."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.networks.blocks import double_conv
from nbhelpers.models.autoencoders.pixels import PIXELS


class UNetAutoencoder(BaseAutoencoder):
    """U-Net (Ronneberger et al. 2015).

    It has one stage per width, each at half the resolution of the one before, a bottleneck of twice
    the last width, and the same stages back.

    With skips the network can copy its input including the defects, so train it on corrupted
    images. Without skips everything passes through the bottleneck. With the default widths this
    holds 4/3 numbers per pixel value: it does not compress the image, it only has a coarser grid.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2^stages.
        channels: Number of channels of each stage, from the full resolution downwards.
        skips: Whether a stage of the decoder also sees the encoder's maps of the same size. If not,
            its convolutions see the enlarged maps only.
        dropout: Share of the bottleneck's channels that is dropped while training, in [0, 1).
    """

    name = "unet"
    #: Whether a batch normalisation follows each convolution.
    batch_norm: ClassVar[bool] = True

    def __init__(
        self,
        image_size: int,
        channels: Sequence[int] = (64, 128, 256, 512),
        skips: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(image_size, multiple=2 ** len(channels))
        self.skips = skips
        widths = [3, *channels, 2 * channels[-1]]
        self.down = nn.ModuleList(
            double_conv(a, b, self.batch_norm) for a, b in itertools.pairwise(widths[:-1])
        )
        self.bottleneck = nn.Sequential(
            double_conv(channels[-1], 2 * channels[-1], self.batch_norm), nn.Dropout2d(dropout)
        )
        back = list(itertools.pairwise(reversed(widths[1:])))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in back)
        self.merge = nn.ModuleList(
            double_conv(2 * b if skips else b, b, self.batch_norm) for _, b in back
        )
        self.head = nn.Sequential(nn.Conv2d(channels[0], 3, 1), PIXELS.activation())

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the bottleneck's maps and the maps that the skips carry.

        Returns:
            Maps ``(B, C, h, w)``, and a list of the encoder's maps from large to small; the list is
            empty without skips.
        """
        maps, carried = images, []
        for stage in self.down:
            maps = stage(maps)
            carried.append(maps)
            maps = F.max_pool2d(maps, 2)
        return self.bottleneck(maps), carried if self.skips else []

    def decode(self, latent: tuple[Tensor, list[Tensor]]) -> Tensor:
        """Turn what ``encode`` returned into images ``(B, 3, H, W)`` in [-1, 1]."""
        maps, carried = latent
        for level, (up, merge) in enumerate(zip(self.up, self.merge, strict=True), start=1):
            maps = up(maps)
            maps = merge(torch.cat([carried[-level], maps], dim=1) if self.skips else maps)
        return self.head(maps)
