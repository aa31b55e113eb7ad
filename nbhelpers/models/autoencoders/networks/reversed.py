"""A Reversed Autoencoder: a deep encoder, a vector, a shallow decoder, and a loss of embeddings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder, Criterion
from nbhelpers.models.autoencoders.networks.blocks import FromVector, ToVector
from nbhelpers.models.autoencoders.pixels import PIXELS
from nbhelpers.models.autoencoders.similarity import at_least_float32


class ReversedAutoencoder(BaseAutoencoder):
    """Pseudo-healthy reconstructions, after Bercea et al.

    The reconstruction is encoded once more, and the embeddings of image and reconstruction should
    match: the two are compared in the network's features, not only pixel by pixel. The variational
    and the adversarial terms of the paper's training (a soft-introspective encoder) are left out.
    So nothing forces a reconstruction to look healthy; the decoder only cannot show what it has not
    learned from normal images. There are no skips, and the vector has no spatial grid.

    Source: Bercea et al., "Generalizing Unsupervised Anomaly Detection", MIDL 2023.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2^stages.
        channels: Number of channels of each stage. A stage of the encoder has two convolutions, a
            stage of the decoder has one.
        bottleneck: Length of the vector.
        similarity: Weight of ``embedding_difference`` in the loss; 0 leaves that term out.
    """

    name = "reversed"

    def __init__(
        self,
        image_size: int,
        channels: Sequence[int] = (32, 64, 128, 256, 256),
        bottleneck: int = 512,
        similarity: float = 0.1,
    ) -> None:
        super().__init__(image_size, multiple=2 ** len(channels))
        self.similarity = similarity
        self.encoder = _Encoder(channels, image_size // 2 ** len(channels), bottleneck)
        back = [channels[-1], *reversed(channels)]
        stages = [
            nn.Sequential(
                nn.Upsample(scale_factor=2),
                nn.Conv2d(a, b, 3, padding=1, bias=False),
                *_normalise(b),
            )
            for a, b in itertools.pairwise(back)
        ]
        self.decoder = nn.Sequential(
            FromVector(channels[-1], image_size // 2 ** len(channels), bottleneck),
            *stages,
            nn.Conv2d(channels[0], 3, 3, padding=1),
            PIXELS.activation(),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Compute the vectors ``(B, bottleneck)``."""
        return self.encoder(images)[-1]

    def decode(self, latent: Tensor) -> Tensor:
        """Turn the vectors into images ``(B, 3, H, W)`` in [-1, 1]."""
        return self.decoder(latent)

    def loss(
        self, inputs: Tensor, targets: Tensor, criterion: Criterion | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the criterion's loss plus ``similarity`` times ``embedding_difference``.

        The second is the term "similarity". Its embeddings come from an encoder with fixed weights:
        otherwise the encoder could shrink all embeddings instead. So the gradients of that term
        reach the encoder only through the reconstruction.

        Args:
            inputs: What the network sees, ``(B, 3, H, W)``.
            targets: What the network should return, ``(B, 3, H, W)``.
            criterion: Compares reconstructions with targets.

        Returns:
            The loss, a scalar, and its terms by name.

        Raises:
            ModelError: If the criterion is None.
        """
        reconstructions = self(inputs)
        total, terms = self.required(criterion)(reconstructions, targets)
        if not self.similarity:
            return total, terms
        with torch.no_grad():
            target_embeddings = self.encoder(targets)
        fixed = {name: weight.detach() for name, weight in self.encoder.named_parameters()}
        embeddings = functional_call(self.encoder, fixed, (reconstructions,))
        difference = embedding_difference(target_embeddings, embeddings)
        return total + self.similarity * difference, {**terms, "similarity": difference}


def embedding_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Average 1 - cosine + half the mean squared difference over the scales.

    The paper takes the sum over the scales instead of the mean.

    Args:
        first: Embeddings ``(B, ...)`` of the images, one tensor per scale. For the cosine the
            embedding of an image is flattened to one vector.
        second: Embeddings of the reconstructions, with the same shapes.

    Returns:
        A scalar, 0 or more.
    """
    terms = []
    for a, b in zip(first, second, strict=True):
        a, b = at_least_float32(a.flatten(1)), at_least_float32(b.flatten(1))
        terms.append((1 - F.cosine_similarity(a, b)).mean() + F.mse_loss(b, a) / 2)
    return torch.stack(terms).mean()


class _Encoder(nn.Module):
    """Encodes images ``(B, 3, H, W)``; returns the maps of each stage and, as the last, the vector.

    Args:
        channels: Number of channels of each stage.
        side: Height and width of the last stage's maps.
        size: Length of the vector.
    """

    def __init__(self, channels: Sequence[int], side: int, size: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, 2, 1, bias=False),
                *_normalise(b),
                nn.Conv2d(b, b, 3, 1, 1, bias=False),
                *_normalise(b),
            )
            for a, b in itertools.pairwise((3, *channels))
        )
        self.vector = ToVector(channels[-1], side, size)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the embeddings of images, one tensor per scale."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [*maps[1:], self.vector(maps[-1])]


def _normalise(channels: int) -> tuple[nn.Module, ...]:
    """Make a group normalisation and an activation.

    Batch normalisation would mix the statistics of images and reconstructions, since the encoder
    sees both.
    """
    return nn.GroupNorm(math.gcd(4, channels), channels), nn.LeakyReLU(0.2)
