"""What the tests of training share: small networks, criteria, and a way to run a training of the
drawn images.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nbhelpers.config import load_config
from nbhelpers.config.autoencoders import TrainingConfig
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.training.trainer import train

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
    """Two convolutions, no statistics of the batch."""

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
    """A level that sgd raises by the rate in each step; held-out images want it at 0.45."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def loss(self, inputs, targets, criterion):
        return (-self.level, {}) if self.training else ((self.level - 0.45).abs(), {})


class Small(Plain):
    """On a device where ``fits`` images fit, after some calls."""

    def __init__(self, fits=2, calls=0):
        super().__init__()
        self.fits, self.calls = fits, calls

    def loss(self, inputs, targets, criterion):
        self.calls -= 1
        if len(inputs) > self.fits and self.calls < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().loss(inputs, targets, criterion)


class Squares(nn.Module):
    """Mean squared error, as one part."""

    def forward(self, reconstructions, targets):
        error = (reconstructions - targets).square().mean()
        return error, {"mse": error.detach()}


class Constant(nn.Module):
    """A loss of one that no weight changes."""

    def forward(self, reconstructions, targets):
        return reconstructions.sum() * 0 + 1, {}


class Never(nn.Module):
    """Must not be asked."""

    def forward(self, *_):
        raise AssertionError("trained again")


def same_weights(first, second):
    """Whether two networks have the very same weights and statistics."""
    others = second.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in first.state_dict().items())


@pytest.fixture(scope="session")
def kit():
    """The classes above, and ``BASE``."""
    return SimpleNamespace(
        Plain=Plain,
        Level=Level,
        Small=Small,
        Squares=Squares,
        Constant=Constant,
        Never=Never,
        BASE=BASE,
        same_weights=same_weights,
    )


@pytest.fixture
def run(samples, tmp_path):
    """Train on the eight good images, one of them held out, with some settings changed: the network
    and the result.
    """

    def trained(
        name,
        network=None,
        criterion=None,
        images=None,
        corruption="none",
        loader=None,
        groups=None,
        **changes,
    ):
        network = network or Plain()
        criterion = criterion or (Squares() if network.uses_criterion else None)
        result = train(
            network,
            criterion,
            images or samples["train"],
            TrainingConfig(**{**BASE, **changes}),
            corruption=corruption,
            groups=groups,
            seed=3,
            device="cpu",
            loader=loader or {},
            folder=tmp_path / name,
        )
        return network, result

    return trained
