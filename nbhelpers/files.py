"""Writing files so that each is whole or not there, and saying in words when that cannot be done."""

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

#: What the system says when a folder may not be written or the disk is full.
WRITE_ERRORS = {
    getattr(errno, name, errno.ENOSPC) for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT")
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` with its ending; renamed to ``path`` if all went well,
    else removed.

    Raises:
        ResourceError: no permission, or no space left.
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
    """Write ``text`` whole or not at all; ResourceError as ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cannot_write(path: Path, error: OSError) -> Exception:
    """The error for a write that failed, in words; any other system error as it is."""
    if error.errno not in WRITE_ERRORS:
        return error
    try:
        free = f"{shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free / 1e9:.1f} GB free"
    except OSError:
        free = "free space unknown"
    return ResourceError(
        f"{path}: cannot be written ({error.strerror or error}; {free}); free some space, allow writing there, or "
        "choose another folder with --workspace"
    )


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table: counts whole, other numbers with six digits, more than any carries; the same
    bytes everywhere.
    """
    write_text(path, table.to_csv(index=False, float_format=_digits, lineterminator="\n"))


def _digits(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's files with their names."""
    sha = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            sha.update(part.relative_to(path).as_posix().encode())
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of what is written at ``path``; the system lets go of it when the process ends
    or is killed.

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
