"""The machine's side of a run: where the project lies, seeds, the device, provenance."""

import platform
import random
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nbhelpers.errors import ConfigError
from nbhelpers.sources import installed_version


def set_seed(seed: int) -> None:
    """Seed the global generators of random, numpy and torch, for what libraries draw; ours have
    their own.
    """
    import torch  # slow, and not needed to plan a run

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def pick_device(name: str) -> str:
    """``auto`` to cuda, mps or cpu, whichever is there first; anything else is checked.

    Raises:
        ConfigError: the asked device is not on this machine.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there[name]:
        raise ConfigError(
            f"setting 'device': wanted {name}, found no such device here; set device to auto or cpu"
        )
    return name


ROOT = Path(__file__).resolve().parents[1]  # of the project
PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "anomalib",
    "opencv-python-headless",
    "scikit-learn",
    "lightning",
    "diffusers",
    "kornia",
    "torchmetrics",
    "albumentations",
)


@lru_cache(maxsize=1)
def git_revision() -> str:
    """Commit of the study's code, with ``+`` when files differ from it; ``unknown`` outside a
    clone.
    """
    command = [
        "git",
        "-C",
        str(ROOT),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty=+",
        "--exclude=*",
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (
        FileNotFoundError,
        subprocess.TimeoutExpired,
    ):  # no git on this machine: the revision is not known
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 1e6, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def _device_name(device: str) -> str:
    """A device with the name of its GPU, if it is one of CUDA's."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def provenance(device: str, seconds: float) -> dict[str, Any]:
    """Where, when and with what something was made."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": git_revision(),
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device_name(device),
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
    }
