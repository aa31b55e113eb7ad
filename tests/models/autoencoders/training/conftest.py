"""A way to run a training of the drawn images, which the tests of training share."""

import pytest

from nbhelpers.config.autoencoders import TrainingConfig
from nbhelpers.models.autoencoders.training.trainer import train
from tests.models.autoencoders.training.small_networks import BASE, Plain, Squares


@pytest.fixture
def run(samples, tmp_path):
    """A function that trains on the eight good images, one of them held out, with some settings
    changed, and returns the network and the result.
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
