"""Parts that several autoencoders share: convolution pairs, up-convolutions, a bottleneck that is
one vector.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def double_conv(inputs: int, outputs: int, batch_norm: bool = True) -> nn.Sequential:
    """Two 3 x 3 convolutions with ReLU; before a batch normalisation they need no bias."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers.append(nn.Conv2d(width, outputs, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class ResidualUp(nn.Module):
    """``(B, inputs, h, w)`` to ``(B, outputs, 2h, 2w)``: nearest neighbours, then a residual pair
    of convolutions.

    Nearest neighbours and a convolution leave no chequerboard, as a strided transposed convolution
    can (Odena et al. 2016).
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
        # a 1 x 1 convolution and nearest neighbours commute; in this order it sees a quarter of the
        # pixels
        larger, shortcut = (F.interpolate(x, scale_factor=2.0) for x in (maps, self.shortcut(maps)))
        return F.relu(self.pair(larger) + shortcut)


class ToVector(nn.Sequential):
    """``(B, channels, side, side)`` to ``(B, size)``: fewer channels by a 1 x 1 convolution, then a
    linear layer.

    Without the convolution the linear layer alone would have channels * side^2 * size weights: 134
    million for 512 channels, a side of 16 and 1024 numbers.
    """

    def __init__(self, channels: int, side: int, size: int, thin: int = 32) -> None:
        super().__init__(
            nn.Conv2d(channels, thin, 1), nn.Flatten(), nn.Linear(thin * side**2, size)
        )


class FromVector(nn.Sequential):
    """``(B, size)`` to ``(B, channels, side, side)``: the way of ``ToVector`` back."""

    def __init__(self, channels: int, side: int, size: int, thin: int = 32) -> None:
        super().__init__(
            nn.Linear(size, thin * side**2),
            nn.Unflatten(1, (thin, side, side)),
            nn.Conv2d(thin, channels, 1),
            nn.ReLU(),
        )
