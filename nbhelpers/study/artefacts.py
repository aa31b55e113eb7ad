"""Artefacts are computed once, stored with what they were made from, and made again if that changes.

An artefact is a file or a folder with a JSON sidecar beside it. The sidecar holds the recipe
(everything that the content depends on, including the code that makes it), the hash of the recipe,
the hash of the content, and the provenance. Everything is written to a temporary name and renamed
under a file lock, the sidecar last. So a killed process leaves either nothing or the whole, and if
two processes need the same artefact, one computes it and the other waits.
"""

from __future__ import annotations

import glob
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
    """Something that is computed once and stored.

    Attributes:
        path: Its file or folder.
        recipe: Everything that its content depends on, as values that JSON can hold.
        make: Computes the content and writes it to the temporary path that it is given.
        load: Reads the content from the path that it is given.
        device: What it is computed on, for the provenance.
    """

    path: Path
    recipe: Mapping[str, Any]
    make: Callable[[Path], None]
    load: Callable[[Path], T]
    device: str = "cpu"

    @cached_property
    def key(self) -> str:
        """Hash of the recipe; it stands in the recipes of what is made from this artefact."""
        return digest(dict(self.recipe))

    @property
    def sidecar(self) -> Path:
        """The path of the JSON sidecar beside the file."""
        return self.path.with_name(self.path.name + ".meta.json")

    def get(self) -> T:
        """Load the content; if it is not current, make it first.

        Raises:
            ResourceError: It cannot be written (permission, disk full).
        """
        with locked(self.path):
            if not self.is_current():
                self._make()
            return self.load(self.path)

    def is_current(self) -> bool:
        """Whether the file exists, is unchanged since it was made, and was made from this recipe."""
        stored = self._stored()
        return (
            stored is not None
            and self.path.exists()
            and stored["recipe_hash"] == self.key
            and stored["content_hash"] == hash_file(self.path)
        )

    def why_stale(self) -> str:
        """What changed since it was made, in words; empty if it is current."""
        stored = self._stored()
        if stored is None or not self.path.exists():
            return "not made yet"
        if stored["recipe_hash"] != self.key:
            return "; ".join(_differences(stored["recipe"], self.recipe))
        return "" if stored["content_hash"] == hash_file(self.path) else "its file was changed"

    @property
    def provenance(self) -> dict[str, Any] | None:
        """Where, when and with what it was made; None if it is not made yet."""
        stored = self._stored()
        return stored["provenance"] if stored and self.path.exists() else None

    def _stored(self) -> dict[str, Any] | None:
        """The content of the sidecar; None if there is none or it cannot be read."""
        try:
            return read_json(self.sidecar)
        except (FileNotFoundError, JSONDecodeError):
            return None

    def _make(self) -> None:
        killed_runs = f".tmp-*-{glob.escape(self.path.name)}"
        for left_over in self.path.parent.glob(killed_runs):
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


def keys_of(value: Any) -> Any:
    """The value of a recipe with the key of each artefact in its place."""
    if isinstance(value, Artefact):
        return value.key
    return [keys_of(item) for item in value] if isinstance(value, list) else value


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Where two recipes differ, one phrase per difference: settings by name, code by module.

    Args:
        before: The stored recipe, or a part of it.
        now: The present recipe, or the same part of it.
        name: Dotted name of that part.
    """
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
        elif isinstance(now, str | int | float | bool) and not _is_hash(now):
            yield f"{name} {before!r} became {now!r}"
        else:
            yield f"{name} changed"


def _is_hash(value: Any) -> bool:
    """Whether a value is a hash, which says nothing to a reader."""
    return isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef")
