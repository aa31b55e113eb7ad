"""Fitted detectors on disk: a folder with the tensors (safetensors) and everything else (JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from nbhelpers.errors import ModelError
from nbhelpers.files import replacing, write_json

TENSORS_FILE, SETTINGS_FILE = "tensors.safetensors", "settings.json"


def save_detector(
    path: Path, kind: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write a detector to the folder ``path``, each file under a temporary name first.

    Args:
        path: The folder; it is made if it is missing.
        kind: Name and version of the layout, e.g. ``patchcore 1``.
        tensors: What goes into the safetensors file, by name.
        settings: What goes into the JSON file, which is written last.

    Raises:
        ResourceError: If there is no permission to write, or no space left.
    """
    path = Path(path)
    with replacing(path / TENSORS_FILE) as temporary:
        temporary.write_bytes(
            save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
        )
    write_json(path / SETTINGS_FILE, {"kind": kind, **settings})


def load_detector(
    path: Path, kind: str, keys: tuple[str, ...], device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_detector`` wrote.

    Args:
        path: The folder.
        kind: The name and version of the layout that is expected.
        keys: Names of tensors and settings that must be among those read.
        device: Where the tensors go.

    Returns:
        The tensors and the settings, each by name.

    Raises:
        ModelError: If a file is missing, damaged or of another kind, or lacks a key.
    """
    path = Path(path)
    for file in (path / SETTINGS_FILE, path / TENSORS_FILE):
        if not file.is_file():
            raise ModelError(
                f"{file}: expected a stored detector, found no such file; fit the detector again"
            )
    try:
        settings = json.loads((path / SETTINGS_FILE).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS_FILE, device=str(device))
    except (ValueError, SafetensorError) as error:  # bad JSON and bad UTF-8 are ValueErrors
        raise ModelError(
            f"{path}: expected a stored detector, found damaged files ({error}); remove it and fit "
            "it again"
        ) from error
    stored_kind = settings.get("kind") if isinstance(settings, dict) else None
    if stored_kind != kind:
        raise ModelError(f"{path}: expected a stored '{kind}', found '{stored_kind}'; fit it again")
    missing = [key for key in keys if key not in settings and key not in tensors]
    if missing:
        raise ModelError(
            f"{path}: expected {', '.join(missing)} in the stored detector, found none of that "
            "name; remove it and fit it again"
        )
    return tensors, settings
