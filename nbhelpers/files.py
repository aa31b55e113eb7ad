"""Writes each file completely or not at all, and raises a readable error when it cannot be written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from nbhelpers.errors import ResourceError

#: The system's error numbers for a folder that may not be written and for a full disk.
WRITE_ERRORS = {
    getattr(errno, name, errno.ENOSPC) for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT")
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file name beside ``path``, with the same suffix, to write to.

    When the block ends without an error the file is renamed to ``path``; otherwise it is removed.

    Args:
        path: The file to write; its folder is made when it is missing.

    Raises:
        ResourceError: The folder may not be written, or no space is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` completely or not at all.

    Raises:
        ResourceError: As ``replacing``.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cannot_write(path: Path, error: OSError) -> Exception:
    """Turn the system's error for a failed write into a readable ``ResourceError``.

    Any other system error is returned unchanged.
    """
    if error.errno not in WRITE_ERRORS:
        return error
    try:
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        free = f"{shutil.disk_usage(existing).free / 1e9:.1f} GB free"
    except OSError:
        free = "free space unknown"
    return ResourceError(
        f"{path}: cannot be written ({error.strerror or error}; {free}); free some space, allow writing there, or "
        "choose another folder with --workspace"
    )


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON with sorted keys.

    Raises:
        ResourceError: As ``replacing``.
        ValueError: The value holds NaN or infinity.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, such as ``write_json`` writes."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, with the same bytes on every system.

    Whole numbers are written without a fraction, all other numbers with six significant digits.

    Raises:
        ResourceError: As ``replacing``.
    """
    write_text(path, table.to_csv(index=False, float_format=_digits, lineterminator="\n"))


def _digits(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; of a folder, of its files' names and bytes."""
    sha = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for name in files:
        if path.is_dir():
            sha.update(name.relative_to(path).as_posix().encode())
        with name.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for writing ``path``, so that two processes do not write it at once.

    The system releases the lock when the process ends or is killed.

    Raises:
        ResourceError: The folder cannot be made or written.
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
    """Delete a file or a folder; nothing happens when it does not exist."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
