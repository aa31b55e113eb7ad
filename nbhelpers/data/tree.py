"""Walks a folder of images and sorts out what lies in it: images, other files, dead links.

Links to folders are followed, and no folder is listed twice. What operating systems, storage servers
and editors leave among the images is passed over, see ``is_junk``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nbhelpers.errors import DataError

GOOD = "good"  # the folder of good images, and the defect type of the images in it
TRUTH = "ground_truth"  # the folder of masks
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp")

#: Names, in small letters, of files and folders that systems make by themselves.
JUNK_NAMES = {
    "#recycle",
    "#snapshot",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "found.000",
    "icon\r",
    "lost+found",
    "network trash folder",
    "picasa.ini",
    "recycled",
    "recycler",
    "system volume information",
    "temporary items",
    "thumbs.db",
}
#: First characters of the names of folders that storage servers, archivers and Python make by
#: themselves: ``@eaDir``, ``$RECYCLE.BIN``, ``__MACOSX``, ``~snapshot``.
JUNK_PREFIXES = ("@", "$", "__", "~")


def is_junk(name: str, folder: bool = True) -> bool:
    """Whether a file or a folder of this name is left behind by a system and is nobody's image.

    These are hidden names (with a dot in front, among them ``.ipynb_checkpoints``, ``.DS_Store``,
    ``._000.png`` and the lock ``.#000.png``), the names in ``JUNK_NAMES``, Office's locks (``~$``),
    and folders whose names start with one of ``JUNK_PREFIXES``.
    """
    if name.startswith((".", "~$")) or name.lower() in JUNK_NAMES:
        return True
    return folder and name.startswith(JUNK_PREFIXES)


def is_image_name(path: Path) -> bool:
    """Whether the suffix of a file is one that is read, in capital or small letters."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def natural_key(name: str) -> list[int | str]:
    """Sort key that puts ``img_10`` after ``img_9`` and ignores case; equal names in other case are
    sorted by the name itself.
    """
    key: list[int | str] = []
    for index, piece in enumerate(re.split(r"(\d+)", name)):  # text and digits take turns
        key.append(int(piece) if index % 2 else piece.lower())
    return [*key, name]


@dataclass
class Tree:
    """What lies below one folder, as paths below it that keep the names of links.

    Attributes:
        images: Files that can be read by their suffix, in natural order.
        others: Files of other kinds.
        dead_links: Links whose target does not exist.
        repeated: Folders that are links to a folder that is listed already, or to one that holds
            this one; they are not listed a second time.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    dead_links: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """Everything that was listed."""
        return [*self.images, *self.others, *self.dead_links]


def children(folder: Path) -> list[Path]:
    """The entries of a folder that are no junk, in natural order.

    Raises:
        DataError: The folder cannot be read, or a name in it is not UTF-8.
    """
    try:
        entries = [path for path in folder.iterdir() if not is_junk(path.name, path.is_dir())]
    except OSError as error:
        raise DataError(
            f"{printable(folder)}: expected a folder that can be read, found {error.strerror}; allow reading it"
        ) from error
    for path in entries:
        if printable(path) != str(path):
            raise DataError(
                f"{printable(path)}: expected a name in UTF-8, found other bytes (\\x..), as in archives that "
                "were packed on Windows; rename it, or unpack the archive again with the encoding of its names "
                "(unzip -O CP437, convmv)"
            )
    return sorted(entries, key=lambda path: natural_key(path.name))


def printable(path: Path) -> str:
    """The path as text that can be printed and written; bytes that are not UTF-8 become ``\\x..``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def walk(folder: Path) -> Tree:
    """List everything below ``folder``; see ``Tree``.

    Raises:
        DataError: A folder cannot be read, or a name is not UTF-8.
    """
    tree = Tree()
    around = {*folder.absolute().parents, *folder.resolve().parents}
    listed = {_identity(path) for path in around if path.exists()}
    for path in _files_below(folder, listed, tree):
        if path.is_symlink() and not path.exists():
            tree.dead_links.append(path)
        elif path.is_file() and is_image_name(path):
            tree.images.append(path)
        else:
            tree.others.append(path)
    tree.images.sort(key=lambda path: natural_key(path.relative_to(folder).as_posix()))
    return tree


def _files_below(folder: Path, listed: set[tuple[int, int]], tree: Tree) -> Iterator[Path]:
    listed.add(_identity(folder))
    for path in children(folder):
        if not path.is_dir():
            yield path
        elif _identity(path) in listed:
            tree.repeated.append(path)
        else:
            yield from _files_below(path, listed, tree)


def _identity(path: Path) -> tuple[int, int]:
    """What tells a folder from others, through whatever link it is reached."""
    status = path.stat()
    return status.st_dev, status.st_ino
