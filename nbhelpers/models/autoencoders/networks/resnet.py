"""An autoencoder with a ResNet as encoder and one vector as bottleneck."""

from __future__ import annotations

import itertools

import timm
from torch import Tensor, nn

from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.networks.blocks import FromVector, ResidualUp, ToVector
from nbhelpers.models.autoencoders.pixels import PIXELS


class ResNetAutoencoder(BaseAutoencoder):
    """timm's ResNet, untrained, without its classifier, to ``latent`` numbers; five residual blocks
    back to full size.

    The vector knows no place, so nothing can be copied: with the default, 192 values at 256 px
    share a number.

    Args:
        image_size: Side of the images, pixels; a multiple of 32.
        backbone: One of timm's ResNets.
        latent: Length of the vector.

    Raises:
        ConfigError: timm has no such ResNet.
    """

    name = "resnet"

    def __init__(self, image_size: int, backbone: str = "resnet18", latent: int = 1024) -> None:
        super().__init__(image_size, multiple=32)
        known = timm.list_models(module="resnet")
        if backbone not in known:
            raise ConfigError(
                f"autoencoder {self.name} backbone: expected one of timm's ResNets, found {backbone!r}; "
                "choose for instance resnet18 or resnet34"
            )
        body = timm.create_model(backbone, pretrained=False, num_classes=0, global_pool="")
        channels, side = body.num_features, image_size // 32
        self.encoder = nn.Sequential(body, ToVector(channels, side, latent))
        widths = [
            max(16, min(channels, 512) >> level) for level in range(6)
        ]  # a resnet50 ends in 2048 channels
        self.decoder = nn.Sequential(
            FromVector(widths[0], side, latent),
            *(ResidualUp(a, b) for a, b in itertools.pairwise(widths)),
            nn.Conv2d(widths[-1], 3, 3, padding=1),
            PIXELS.activation(),
        )

    def encode(self, images: Tensor) -> Tensor:
        """``(B, latent)``."""
        return self.encoder(images)

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent)
