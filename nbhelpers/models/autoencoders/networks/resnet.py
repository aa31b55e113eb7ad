"""An autoencoder with a ResNet as encoder and one vector as bottleneck."""

from __future__ import annotations

import itertools
from typing import Any

import timm
from torch import Tensor, nn

from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.networks.blocks import FromVector, ResidualUp, ToVector
from nbhelpers.models.autoencoders.pixels import PIXELS


class ResNetAutoencoder(BaseAutoencoder):
    """One of timm's ResNets as the encoder, a vector, and five residual blocks as the decoder.

    The ResNet is untrained and has no classifier. The vector has no spatial grid, so the network
    cannot simply copy pixels: with the default length there are 192 pixel values of a 256 px image
    per number.

    Args:
        image_size: Side of the images, in pixels; a multiple of 32.
        backbone: Name of one of timm's ResNets.
        latent: Length of the vector.

    Raises:
        ConfigError: If timm has no such ResNet.
    """

    name = "resnet"

    def __init__(self, image_size: int, backbone: str = "resnet18", latent: int = 1024) -> None:
        super().__init__(image_size, multiple=32)
        known = timm.list_models(module="resnet")
        if backbone not in known:
            raise ConfigError(
                f"autoencoder {self.name} backbone: expected one of timm's ResNets, found "
                f"{backbone!r}; choose for instance resnet18 or resnet34"
            )
        # typed as Any, since nn.Module knows nothing of timm's num_features
        body: Any = timm.create_model(backbone, pretrained=False, num_classes=0, global_pool="")
        channels, side = int(body.num_features), image_size // 32
        self.encoder = nn.Sequential(body, ToVector(channels, side, latent))
        # each block halves the channels; at most 512 at first, since a resnet50 ends in 2048
        widths = [max(16, min(channels, 512) // 2**level) for level in range(6)]
        self.decoder = nn.Sequential(
            FromVector(widths[0], side, latent),
            *(ResidualUp(a, b) for a, b in itertools.pairwise(widths)),
            nn.Conv2d(widths[-1], 3, 3, padding=1),
            PIXELS.activation(),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Compute the vectors ``(B, latent)``."""
        return self.encoder(images)

    def decode(self, latent: Tensor) -> Tensor:
        """Turn the vectors into images ``(B, 3, H, W)`` in [-1, 1]."""
        return self.decoder(latent)
