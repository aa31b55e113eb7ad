"""A Reversed Autoencoder: a deep encoder, a vector, a shallow decoder, and a loss that the encoder
itself measures.
"""

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
    """Pseudo-healthy reconstructions after Bercea et al. ("Generalizing Unsupervised Anomaly
    Detection", MIDL 2023).

    The reconstruction is encoded once more, and its embeddings shall be those of the image:
    likeness is asked for where the network sees it, not pixel by pixel. Of the paper's training the
    variational and the adversarial part (a soft-introspective encoder) are left out; so a
    reconstruction need not look healthy by construction, it only cannot show what no normal image
    taught the decoder. No skips, and the vector knows no place.

    Args:
        image_size: Side of the images, pixels; a multiple of 2^stages.
        channels: Of each stage; two convolutions a stage in the encoder, one in the decoder.
        bottleneck: Length of the vector.
        similarity: Weight of ``embedding_difference`` in the loss; 0 leaves it out.
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
        """``(B, bottleneck)``."""
        return self.encoder(images)[-1]

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent)

    def loss(
        self, inputs: Tensor, targets: Tensor, criterion: Criterion
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The criterion's loss and ``similarity`` times ``embedding_difference``, which is the part
        "similarity".

        As the measure the encoder is fixed, or it could shrink its embeddings instead; that part's
        gradients reach it by way of the reconstruction alone.
        """
        reconstructions = self(inputs)
        total, parts = criterion(reconstructions, targets)
        if not self.similarity:
            return total, parts
        with torch.no_grad():
            of_targets = self.encoder(targets)
        fixed = {name: weight.detach() for name, weight in self.encoder.named_parameters()}
        difference = embedding_difference(
            of_targets, functional_call(self.encoder, fixed, (reconstructions,))
        )
        return total + self.similarity * difference, {**parts, "similarity": difference}


def embedding_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Mean over the scales of 1 - cosine + half the mean squared difference (the paper's sum over
    them).

    Args:
        first, second: Embeddings ``(B, ...)``, scale by scale; each image's is one vector for the
            cosine.
    """
    terms = []
    for a, b in zip(first, second, strict=True):
        a, b = at_least_float32(a.flatten(1)), at_least_float32(b.flatten(1))
        terms.append((1 - F.cosine_similarity(a, b)).mean() + F.mse_loss(b, a) / 2)
    return torch.stack(terms).mean()


class _Encoder(nn.Module):
    """``(B, 3, H, W)`` to the maps of each stage, and the vector as last."""

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
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [*maps[1:], self.vector(maps[-1])]


def _normalise(channels: int) -> tuple[nn.Module, ...]:
    """Group normalisation: batch statistics would mix images and reconstructions, which the encoder
    both sees.
    """
    return nn.GroupNorm(math.gcd(4, channels), channels), nn.LeakyReLU(0.2)
