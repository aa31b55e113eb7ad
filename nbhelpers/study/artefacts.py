"""Ask by name, compute once: a file is kept with what it was made from, and made again when that changes.

An artefact is a file (or a folder) with a JSON sidecar beside it: the recipe (everything that the
content depends on, the code that makes it included), its hash, the content's own hash, and
provenance. Writing goes to a temporary name and is renamed, the sidecar last, under a file lock: a
killed process leaves either nothing or the whole, and of two processes that want one thing, one
computes and the other waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Generic, TypeVar

from nbhelpers.config import digest
from nbhelpers.files import cannot_write, hash_file, locked, read_json, remove, write_json
from nbhelpers.runtime import provenance

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Artefact(Generic[T]):
    """Something that is computed once and kept.

    Attributes:
        path: Its file or folder.
        recipe: JSON-able; everything that its content depends on.
        make: Writes it to the temporary path that it is given.
        load: Reads it.
        device: What it is computed on, for the provenance.
    """

    path: Path
    recipe: Mapping[str, Any]
    make: Callable[[Path], None]
    load: Callable[[Path], T]
    device: str = "cpu"

    @cached_property
    def key(self) -> str:
        """Hash of the recipe, for the recipes of what is made from this."""
        return digest(dict(self.recipe))

    @property
    def sidecar(self) -> Path:
        """The JSON that lies beside it."""
        return self.path.with_name(self.path.name + ".meta.json")

    def get(self) -> T:
        """Load it if it is current, else make it first.

        Raises:
            ResourceError: It cannot be written (permission, disk full).
        """
        with locked(self.path):
            if not self.is_current():
                self._make()
            return self.load(self.path)

    def is_current(self) -> bool:
        """Whether it is there, whole, and made from this recipe."""
        stored = self._stored()
        return (
            stored is not None
            and self.path.exists()
            and stored["recipe_hash"] == self.key
            and stored["content_hash"] == hash_file(self.path)
        )

    def why_stale(self) -> str:
        """What changed since it was made, in words; empty where it is current."""
        stored = self._stored()
        if stored is None or not self.path.exists():
            return "not made yet"
        if stored["recipe_hash"] != self.key:
            return "; ".join(_differences(stored["recipe"], self.recipe))
        return "" if stored["content_hash"] == hash_file(self.path) else "its file was changed"

    @property
    def provenance(self) -> dict[str, Any] | None:
        """Where, when and with what it was made; None where it is not made."""
        stored = self._stored()
        return stored["provenance"] if stored and self.path.exists() else None

    def _stored(self) -> dict[str, Any] | None:
        """The sidecar, or None where there is none that can be read."""
        try:
            return read_json(self.sidecar)
        except (FileNotFoundError, JSONDecodeError):
            return None

    def _make(self) -> None:
        for left_over in self.path.parent.glob(f".tmp-*-{self.path.name}"):  # of a killed run
            remove(left_over)
        temporary = self.path.with_name(f".tmp-{os.getpid()}-{self.path.name}")
        started = time.perf_counter()
        try:
            self.make(temporary)
            stored = {
                "recipe": dict(self.recipe),
                "recipe_hash": self.key,
                "content_hash": hash_file(temporary),
                "provenance": provenance(self.device, time.perf_counter() - started),
            }
            self.sidecar.unlink(missing_ok=True)
            remove(self.path)
            temporary.replace(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        finally:
            remove(temporary)
        write_json(self.sidecar, stored)


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Where two recipes differ, one phrase each: settings by name, code by module."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(before.get(key), now.get(key), inner)
    elif digest(before) != digest(now):
        top, _, rest = name.partition(".")
        if top == "code":
            yield f"code changed: {rest}"
        elif top == "libraries":
            yield f"{rest} {before or 'not used'} became {now or 'not used'}"
        elif isinstance(now, str | int | float | bool) and not _is_key(now):
            yield f"{name} {before!r} became {now!r}"
        else:
            yield f"{name} changed"


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef")
