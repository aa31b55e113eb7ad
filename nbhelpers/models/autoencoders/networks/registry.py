"""Networks by the name of their architecture."""

from __future__ import annotations

import difflib
from typing import Any

import torch

from nbhelpers.errors import ConfigError
from nbhelpers.methods import ARCHITECTURES, class_of
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder


def architecture_class(architecture: str) -> type[BaseAutoencoder]:
    """Return the class of an architecture.

    Raises:
        ConfigError: If there is no such architecture.
    """
    if architecture not in ARCHITECTURES:
        close = difflib.get_close_matches(architecture, ARCHITECTURES, n=1)
        hint = f"did you mean {close[0]}?" if close else "choose one of them"
        raise ConfigError(
            f"architecture: expected one of {', '.join(ARCHITECTURES)}, found '{architecture}'; "
            f"{hint}"
        )
    return class_of(ARCHITECTURES[architecture])


def build_network(
    architecture: str, image_size: int, seed: int = 42, **sizes: Any
) -> BaseAutoencoder:
    """Build an untrained network; the global random generator is left unchanged.

    Args:
        architecture: One of ``ARCHITECTURES``.
        image_size: Side of the images, in pixels.
        seed: Seed of the initial weights.
        **sizes: Arguments of the architecture's class; its defaults are the published ones.

    Raises:
        ConfigError: If there is no such architecture, or a size does not fit.
    """
    network = architecture_class(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs as well
        return network(image_size, **sizes)
