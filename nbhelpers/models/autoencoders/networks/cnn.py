"""A convolutional autoencoder: strided convolutions to a small map, and transposed ones back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.pixels import PIXELS


class CnnAutoencoder(BaseAutoencoder):
    """Strided convolutions to a latent map, and their mirror image back.

    The latent map is ``(latent, h, w)`` with h = w = image_size / 2^(stages + 1). It holds
    latent / (3 * 4^(stages + 1)) numbers per pixel value, which is one sixth with the default
    sizes.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2^(stages + 1).
        channels: Number of channels of each stage.
        latent: Number of channels of the latent map.
        dropout: Share of the latent map's channels that is dropped while training, in [0, 1).
    """

    name = "cnn"

    def __init__(
        self,
        image_size: int,
        channels: Sequence[int] = (64, 128, 256, 512),
        latent: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(image_size, multiple=2 ** (len(channels) + 1))
        widths = [3, *channels]
        down = [
            _stage(nn.Conv2d(a, b, 4, 2, 1), b) for a, b in zip(widths, widths[1:], strict=False)
        ]
        self.encoder = nn.Sequential(
            *down, nn.Conv2d(channels[-1], latent, 4, 2, 1), nn.Dropout2d(dropout)
        )
        back = [latent, *reversed(channels)]
        up = [
            _stage(nn.ConvTranspose2d(a, b, 4, 2, 1), b)
            for a, b in zip(back, back[1:], strict=False)
        ]
        self.decoder = nn.Sequential(
            *up, nn.ConvTranspose2d(channels[0], 3, 4, 2, 1), PIXELS.activation()
        )

    def encode(self, images: Tensor) -> Tensor:
        """Compute the latent map ``(B, latent, h, w)``."""
        return self.encoder(images)

    def decode(self, latent: Tensor) -> Tensor:
        """Turn the latent map into images ``(B, 3, H, W)`` in [-1, 1]."""
        return self.decoder(latent)


def _stage(convolution: nn.Module, channels: int) -> nn.Sequential:
    """Make a stage: the convolution, a batch normalisation of its channels and an activation."""
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2))
