"""What a run needs of the machine: the project's folder, seeds, the device, and provenance."""

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
    """Seed the global generators of ``random``, NumPy and PyTorch.

    Only libraries draw from them; the study's own code always has generators of its own.
    """
    import torch  # slow, and not needed to plan a run

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def pick_device(name: str) -> str:
    """The device to compute on.

    Args:
        name: ``auto`` for the first of cuda, mps and cpu that this machine has, or one of these.

    Raises:
        ConfigError: This machine does not have the device.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, usable in available.items() if usable)
    if not available[name]:
        raise ConfigError(
            f"setting 'device': expected {name}, found no such device here; set device to auto or cpu"
        )
    return name


ROOT = Path(__file__).resolve().parents[1]  # the project's folder
#: Packages whose versions the provenance lists.
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
    """The commit of the study's code: 12 hex digits, and ``+`` when files differ from it.

    It is ``unknown`` outside a clone and on a machine without git.
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
    except (FileNotFoundError, subprocess.TimeoutExpired):  # git is missing, or does not answer
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far, in MB."""
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 1e6, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return round(peak * unit / 1e6, 1)


def _device_name(device: str) -> str:
    """The device's name, with the name of the GPU for a CUDA device."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def provenance(device: str, seconds: float) -> dict[str, Any]:
    """When, where and with which versions something was made.

    Args:
        device: The device that computed it, as ``pick_device`` gives it.
        seconds: How long it took.

    Returns:
        A mapping that JSON can hold: created, git, python, packages, platform, device, seconds, and
        peak_memory_mb.
    """
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
