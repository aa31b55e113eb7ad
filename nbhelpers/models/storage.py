"""How a fitted detector lies on disk: a folder with tensors (safetensors) and everything else
(JSON).
"""

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
    """Write the folder ``path``, each file under a temporary name first, the settings last.

    Args:
        path: Folder; made if missing.
        kind: Name and version of the layout, e.g. ``patchcore 1``.
        tensors: What goes into the safetensors file.
        settings: What JSON can hold.

    Raises:
        ResourceError: no permission, or no space left.
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
    """Tensors and settings that ``save_detector`` wrote.

    Args:
        path: The folder.
        kind: What is expected there.
        keys: Names of tensors and settings that must be there.
        device: Where the tensors go.

    Raises:
        ModelError: a file is missing or damaged, of another kind, or lacks a key.
    """
    path = Path(path)
    for file in (path / SETTINGS_FILE, path / TENSORS_FILE):
        if not file.is_file():
            raise ModelError(
                f"{file}: expected a stored detector, found no such file; fit it again"
            )
    try:
        settings = json.loads((path / SETTINGS_FILE).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS_FILE, device=str(device))
    except (ValueError, SafetensorError) as error:  # bad JSON and bad UTF-8 are ValueErrors
        raise ModelError(
            f"{path}: damaged detector ({error}); remove it and fit it again"
        ) from error
    found = settings.get("kind") if isinstance(settings, dict) else None
    if found != kind:
        raise ModelError(f"{path}: expected a stored '{kind}', found '{found}'; fit it again")
    missing = [key for key in keys if key not in settings and key not in tensors]
    if missing:
        raise ModelError(f"{path}: detector lacks {', '.join(missing)}; remove it and fit it again")
    return tensors, settings
