"""Compute once: a file is kept with the hash of what it was made from, and made again when that changes.

An artefact is a file (or a folder) with a JSON sidecar beside it: the recipe (everything the content depends
on), its hash, the content's own hash, and provenance. Writing goes to a temporary name and is renamed, the
sidecar last, under a file lock: a killed process leaves either nothing or the whole, and of two processes that
want one thing, one computes and the other waits.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock

from nbhelpers.config import ROOT, digest
from nbhelpers.files import cannot_write, hash_file, read_json, write_json

T = TypeVar("T")
PACKAGES = ("numpy", "torch", "torchvision", "timm", "anomalib", "opencv-python-headless", "scikit-learn", "lightning",
            "diffusers", "kornia", "torchmetrics", "albumentations")


@lru_cache(maxsize=1)
def git_revision() -> str:
    """Commit of the study's code, with ``+`` when files differ from it; ``unknown`` outside a clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):  # no git on this machine: the revision is not known
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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
    import torch  # slow; whoever computes on a GPU has it already

    return f"{device} ({torch.cuda.get_device_name(device)})"


def provenance(device: str, seconds: float) -> dict[str, Any]:
    """Where, when and with what something was made."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device_name(device),
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
    }


def sidecar(path: Path) -> Path:
    """The JSON that lies beside an artefact."""
    return path.with_name(path.name + ".meta.json")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """An artefact's sidecar, or None where there is none that can be read."""
    try:
        return read_json(sidecar(path))
    except (FileNotFoundError, JSONDecodeError):
        return None


def is_current(path: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether the artefact at ``path`` is there, whole, and made from ``recipe``."""
    meta = read_sidecar(path)
    return (
        meta is not None and path.exists() and meta["recipe_hash"] == digest(dict(recipe))
        and meta["content_hash"] == hash_file(path)
    )


def ask(path: Path, recipe: Mapping[str, Any], make: Callable[[Path], None], load: Callable[[Path], T], *,
        device: str = "cpu") -> T:
    """Load the artefact at ``path`` if it was made from ``recipe``, else make it first.

    Args:
        path: The artefact's file or folder.
        recipe: JSON-able; everything that its content depends on.
        make: Writes it to the temporary path it is given.
        load: Reads it.
        device: For the provenance.

    Raises:
        ResourceError: it cannot be written (permission, disk full).
    """
    path = Path(path)
    with locked(path):
        if not is_current(path, recipe):
            for left_over in path.parent.glob(f".tmp-*-{path.name}"):  # of a killed run: we hold the lock
                remove(left_over)
            temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
            started = time.perf_counter()
            try:
                make(temporary)
                meta = {
                    "recipe": dict(recipe), "recipe_hash": digest(dict(recipe)),
                    "content_hash": hash_file(temporary),
                    "provenance": provenance(device, time.perf_counter() - started),
                }
                sidecar(path).unlink(missing_ok=True)
                remove(path)
                temporary.replace(path)
            except OSError as error:
                raise cannot_write(path, error) from error
            finally:
                remove(temporary)
            write_json(sidecar(path), meta)
        return load(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of what is written at ``path``; the system lets go of it when the process ends or is killed.

    Raises:
        ResourceError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def remove(path: Path) -> None:
    """Delete a file or a folder that may not be there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
