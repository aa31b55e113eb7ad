"""Small networks and criteria with which the tests of training train."""

import torch
from torch import nn

from nbhelpers.config import load_config
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder

BASE = {
    **load_config().autoencoder.training.model_dump(),
    "epochs": 2,
    "warmup_epochs": 0,
    "batch_size": 4,
    "scheduler": "none",
    "clip_norm": 0.0,
    "patience": 0,
    "precision": "auto",
}


class Plain(BaseAutoencoder):
    """Two convolutions without batch statistics."""

    name = "plain"

    def __init__(self, image_size=32):
        super().__init__(image_size)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.down, self.up = nn.Conv2d(3, 4, 4, 2, 1), nn.ConvTranspose2d(4, 3, 4, 2, 1)

    def encode(self, images):
        return torch.tanh(self.down(images))

    def decode(self, latent):
        return torch.tanh(self.up(latent))


class Level(Plain):
    """A number that sgd raises by the rate in each step; it is best for held-out images at 0.45."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def loss(self, inputs, targets, criterion):
        return (-self.level, {}) if self.training else ((self.level - 0.45).abs(), {})


class Small(Plain):
    """A network that runs out of memory with more than ``fits`` images, after some calls."""

    def __init__(self, fits=2, calls=0):
        super().__init__()
        self.fits, self.calls = fits, calls

    def loss(self, inputs, targets, criterion):
        self.calls -= 1
        if len(inputs) > self.fits and self.calls < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().loss(inputs, targets, criterion)


class Squares(nn.Module):
    """Mean squared error, as the only term."""

    def forward(self, reconstructions, targets):
        error = (reconstructions - targets).square().mean()
        return error, {"mse": error.detach()}


class Constant(nn.Module):
    """A loss of one that no weight changes."""

    def forward(self, reconstructions, targets):
        return reconstructions.sum() * 0 + 1, {}


class Never(nn.Module):
    """A criterion that must not be called, since nothing may be trained."""

    def forward(self, *_):
        raise AssertionError("trained again")


def same_weights(first, second):
    """Whether two networks have exactly the same weights and statistics."""
    others = second.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in first.state_dict().items())
