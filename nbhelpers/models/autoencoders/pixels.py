"""The range of pixels that every autoencoder here takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nbhelpers.data.preprocess import value_range


@dataclass(frozen=True)
class PixelSpec:
    """What a network takes and gives, bound together: an output that cannot reach its input's range
    never fits it.

    Attributes:
        normalization: How ``data.images`` prepares the input.
        activation: The network's last layer, with the same range.
    """

    normalization: str
    activation: type[nn.Module]

    @property
    def low(self) -> float:
        """Smallest value of input and output."""
        return value_range(self.normalization)[0]

    @property
    def high(self) -> float:
        """Largest value of input and output."""
        return value_range(self.normalization)[1]


#: The convention of every network here: [-1, 1] in, [-1, 1] out.
PIXELS = PixelSpec("tanh", nn.Tanh)
