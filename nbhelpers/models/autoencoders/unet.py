"""A U-Net of any width and depth, with skip connections or without them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.models.autoencoders.base import PIXELS, BaseAutoencoder
from nbhelpers.models.autoencoders.blocks import double_conv


class UNetAutoencoder(BaseAutoencoder):
    """U-Net (Ronneberger et al. 2015): a stage a width, each half as large; a bottleneck of twice the last width; back.

    With skips the network can copy its input, defects included (FEATURES P30): train it on corrupted images.
    Without them all passes through the bottleneck, which with the default widths holds 4/3 numbers a pixel value;
    that is no compression, only a coarse grid.

    Args:
        image_size: Side of the images, pixels; a multiple of 2^stages.
        channels: Of each stage.
        skips: Whether a stage of the decoder also sees the encoder's maps of its size. Without, its convolutions
            take the upsampled maps alone.
        dropout: Share of the bottleneck's maps that is dropped while training.
    """

    name = "unet"
    #: Whether a batch normalisation follows each convolution.
    batch_norm: ClassVar[bool] = True

    def __init__(self, image_size: int, channels: Sequence[int] = (64, 128, 256, 512), skips: bool = True,
                 dropout: float = 0.0) -> None:
        super().__init__(image_size, multiple=2 ** len(channels))
        self.skips = skips
        widths = [3, *channels, 2 * channels[-1]]
        self.down = nn.ModuleList(double_conv(a, b, self.batch_norm) for a, b in itertools.pairwise(widths[:-1]))
        self.bottleneck = nn.Sequential(double_conv(*widths[-2:], self.batch_norm), nn.Dropout2d(dropout))
        back = list(itertools.pairwise(reversed(widths[1:])))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in back)
        self.merge = nn.ModuleList(double_conv(b * (1 + skips), b, self.batch_norm) for _, b in back)
        self.head = nn.Sequential(nn.Conv2d(channels[0], 3, 1), PIXELS.activation())

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The bottleneck's map, and what the skips carry, from large to small; nothing without skips."""
        maps, carried = images, []
        for stage in self.down:
            maps = stage(maps)
            carried.append(maps)
            maps = F.max_pool2d(maps, 2)
        return self.bottleneck(maps), carried if self.skips else []

    def decode(self, latent: tuple[Tensor, list[Tensor]]) -> Tensor:
        maps, carried = latent
        for level, (up, merge) in enumerate(zip(self.up, self.merge, strict=True), start=1):
            maps = up(maps)
            maps = merge(torch.cat([carried[-level], maps], dim=1) if self.skips else maps)
        return self.head(maps)

    @torch.no_grad()
    def summary(self) -> list[dict[str, Any]]:
        """A row a stage, in the order of computation: ``stage``, ``shape`` (C, H, W) of its output, ``parameters``."""
        levels = range(len(self.up))
        order = ([f"down.{i}" for i in levels] + ["bottleneck"]
                 + [f"{part}.{i}" for i in levels for part in ("up", "merge")] + ["head"])
        shapes, hooks = {}, []
        for stage in order:
            hooks.append(self.get_submodule(stage).register_forward_hook(
                lambda _module, _inputs, output, stage=stage: shapes.update({stage: tuple(output.shape[1:])})
            ))
        weight = next(self.parameters())
        self.reconstruct(weight.new_zeros(1, 3, self.image_size, self.image_size))
        for hook in hooks:
            hook.remove()
        return [
            {"stage": stage, "shape": shapes[stage],
             "parameters": sum(p.numel() for p in self.get_submodule(stage).parameters())}
            for stage in order
        ]
