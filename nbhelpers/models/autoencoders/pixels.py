"""The range of pixel values that every autoencoder here takes and returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nbhelpers.data.preprocess import value_range


@dataclass(frozen=True)
class PixelSpec:
    """The range of a network's input and output, which must be the same.

    Both are set here together: an output that cannot reach the range of the input never fits it.

    Attributes:
        normalization: How ``data.images`` prepares the input.
        activation: The network's last layer, which has the same range.
    """

    normalization: str
    activation: type[nn.Module]

    @property
    def low(self) -> float:
        """The smallest value of input and output."""
        return value_range(self.normalization)[0]

    @property
    def high(self) -> float:
        """The largest value of input and output."""
        return value_range(self.normalization)[1]


#: The convention of every network here: input and output are in [-1, 1].
PIXELS = PixelSpec("tanh", nn.Tanh)
