"""Blocks that several networks share: pairs of convolutions, enlargement, maps to a vector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def double_conv(inputs: int, outputs: int, batch_norm: bool = True) -> nn.Sequential:
    """Make two 3 x 3 convolutions, each with a ReLU.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels of both convolutions.
        batch_norm: Whether a batch normalisation follows each convolution, which then needs no
            bias.
    """
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers.append(nn.Conv2d(width, outputs, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class ResidualUp(nn.Module):
    """Enlarges maps ``(B, inputs, h, w)`` to ``(B, outputs, 2h, 2w)``.

    The maps are enlarged by nearest neighbours; then comes a residual pair of convolutions. A
    strided transposed convolution can leave a chequerboard pattern, this cannot (Odena et al.
    2016).

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pair = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Enlarge the maps."""
        larger = F.interpolate(maps, scale_factor=2.0)
        # a 1 x 1 convolution and nearest neighbours commute; in this order it costs a quarter
        shortcut = F.interpolate(self.shortcut(maps), scale_factor=2.0)
        return F.relu(self.pair(larger) + shortcut)


class ToVector(nn.Sequential):
    """Turns maps ``(B, channels, side, side)`` into vectors ``(B, size)``.

    A 1 x 1 convolution reduces the channels, then comes a linear layer. Without the convolution the
    linear layer would have channels * side^2 * size weights: 134 million for 512 channels, a side
    of 16 and vectors of 1024 numbers.

    Args:
        channels: Number of channels of the maps.
        side: Height and width of the maps.
        size: Length of the vectors.
        thin: Number of channels after the convolution.
    """

    def __init__(self, channels: int, side: int, size: int, thin: int = 32) -> None:
        super().__init__(
            nn.Conv2d(channels, thin, 1), nn.Flatten(), nn.Linear(thin * side**2, size)
        )


class FromVector(nn.Sequential):
    """Turns vectors ``(B, size)`` into maps ``(B, channels, side, side)``: ``ToVector`` reversed.

    Args:
        channels: Number of channels of the maps.
        side: Height and width of the maps.
        size: Length of the vectors.
        thin: Number of channels before the convolution.
    """

    def __init__(self, channels: int, side: int, size: int, thin: int = 32) -> None:
        super().__init__(
            nn.Linear(size, thin * side**2),
            nn.Unflatten(1, (thin, side, side)),
            nn.Conv2d(thin, channels, 1),
            nn.ReLU(),
        )
