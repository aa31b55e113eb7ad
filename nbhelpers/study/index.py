"""What is known of a category's files, stored so that unchanged files are not read again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nbhelpers.data.images import fingerprint
from nbhelpers.data.layout import Sample
from nbhelpers.files import hash_file, read_json, write_json


class FileEntry(NamedTuple):
    """What is known of one file.

    Attributes:
        size: Bytes.
        modified: Time of the last change, nanoseconds.
        content: Hash of the bytes.
        pixels: Hash of the pixels of an image; empty for a mask.
        peak: Largest value of an image of more than 8 bits (see ``fingerprint``); None for images
            of 8 bits and for masks.
    """

    size: int
    modified: int
    content: str
    pixels: str
    peak: float | int | None


def index_files(samples: Iterable[Sample], root: Path, stored: Path) -> dict[str, FileEntry]:
    """Hash the images and masks of samples; a file whose size and time are unchanged is not read.

    Args:
        samples: The samples.
        root: The folder that file names are relative to.
        stored: The JSON file that holds the index; it is brought up to date.

    Returns:
        An entry for each file, by its path below ``root``.
    """
    rows = read_json(stored) if stored.is_file() else {}
    known = {name: FileEntry(*row) for name, row in rows.items() if len(row) == 5}
    index: dict[str, FileEntry] = {}
    for sample in samples:
        for file in filter(None, (sample.image, sample.mask)):
            name, stat = file.relative_to(root).as_posix(), file.stat()
            entry = known.get(name)
            if entry is None or (entry.size, entry.modified) != (stat.st_size, stat.st_mtime_ns):
                pixels, peak = fingerprint(file) if file == sample.image else ("", None)
                entry = FileEntry(stat.st_size, stat.st_mtime_ns, hash_file(file), pixels, peak)
            index[name] = entry
    if index != known:
        write_json(stored, {name: list(entry) for name, entry in index.items()})
    return index
