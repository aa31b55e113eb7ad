"""The machine's side of a run: global seeds and the device."""

import random

import numpy as np
import torch

from nbhelpers.errors import ConfigError


def set_seed(seed: int) -> None:
    """Seed the global generators of random, numpy and torch, for what libraries draw; ours have their own."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def pick_device(name: str) -> str:
    """``auto`` to cuda, mps or cpu, whichever is there first; anything else is checked.

    Raises:
        ConfigError: the asked device is not on this machine.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there[name]:
        raise ConfigError(f"setting 'device': wanted {name}, found no such device here; set device to auto or cpu")
    return name
