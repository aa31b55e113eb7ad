"""A small U-Net of three stages, with which the study's first results were made."""

from __future__ import annotations

from nbhelpers.models.autoencoders.networks.unet import UNetAutoencoder


class AutoencoderUNetLite(UNetAutoencoder):
    """A U-Net of three stages without batch normalisation and dropout.

    Its stages have base, 2 base and 4 base channels, and its bottleneck 8 base. It has 7 697 475
    parameters with base 64, and 1 925 667 with base 32.

    Args:
        image_size: Side of the images, in pixels; a multiple of 8.
        base: Number of channels of the first stage.
    """

    name = "unet_lite"
    batch_norm = False

    def __init__(self, image_size: int, base: int = 64) -> None:
        super().__init__(image_size, channels=(base, 2 * base, 4 * base))
