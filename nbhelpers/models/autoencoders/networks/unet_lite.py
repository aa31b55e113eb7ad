"""A small U-Net of three stages: the one that the study's first results were made with."""

from __future__ import annotations

from nbhelpers.models.autoencoders.networks.unet import UNetAutoencoder


class AutoencoderUNetLite(UNetAutoencoder):
    """A U-Net of widths base, 2 base, 4 base and a bottleneck of 8 base, without normalisation or
    dropout.

    7 697 475 parameters with base 64; 1 925 667 with base 32.

    Args:
        image_size: Side of the images, pixels; a multiple of 8.
        base: Channels of the first stage.
    """

    name = "unet_lite"
    batch_norm = False

    def __init__(self, image_size: int, base: int = 64) -> None:
        super().__init__(image_size, channels=(base, 2 * base, 4 * base))
