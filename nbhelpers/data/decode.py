"""Opens an image file of any supported format and gives its values as they are stored.

Nothing is scaled here, and nothing is lost: 16 bits stay 16 bits, floats stay floats, transparency
is kept apart, and the picture stands as every viewer shows it (EXIF orientation).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
from PIL import Image

from nbhelpers.errors import DataError

#: Formats that are tried, whatever the file is called. Others, for example EPS, would start
#: another program.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
ORIENTATION = 0x0112  # EXIF tag: 1 is upright, 2 to 8 are the other ways to lay a picture
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR = 258, 262, 284  # TIFF tags

#: Bytes of memory that reading takes for each pixel: the file's pixels, RGB, and a copy.
BYTES_PER_PIXEL = 12
#: Above this, a file of less than a byte for 10 000 pixels is damaged: its header lies.
LARGE, PIXELS_PER_BYTE = 50_000_000, 10_000

# Line-scan images are larger than Pillow's limit; ``_check_size`` compares them with the memory
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Picture:
    """The values of an image file.

    Attributes:
        values: ``(H, W)`` grey or ``(H, W, 3)`` RGB; uint8, uint16, int32, or float32.
        alpha: ``(H, W)`` uint8 or uint16, the opacity; None where the file has none.
        indices: ``(H, W)`` uint8, the entries of the palette; None for files without a palette.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    indices: np.ndarray | None = None


@contextmanager
def open_header(path: Path) -> Iterator[Image.Image]:
    """Open an image without reading its pixels.

    Raises:
        DataError: The file does not exist, is not an image, or is larger than the free memory.
    """
    try:
        # Opened here and not by Pillow, which maps a file that it opened itself into memory, and
        # then takes height for width where a grey TIFF lies on its side
        stream = path.open("rb")
    except FileNotFoundError:
        raise DataError(
            f"{path}: expected an image, found no file; restore it or make the splits again"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    with stream:
        try:
            image = Image.open(stream, formats=FORMATS)
        except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
            raise _unreadable(path, error) from error
        with image:
            _check_size(path, image)
            yield image


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: expected a readable image, found {type(error).__name__}: {error}; replace or remove the file"
    )


def _check_size(path: Path, image: Image.Image) -> None:
    """Refuse an image that does not fit in memory, before any of it is read."""
    width, height = image.size
    needed, free = width * height * BYTES_PER_PIXEL, psutil.virtual_memory().available
    lies = width * height > max(LARGE, path.stat().st_size * PIXELS_PER_BYTE)
    if lies or needed > free:
        raise DataError(
            f"{path}: expected a readable image that fits in the free memory ({free / 2**30:.1f} GiB), found "
            f"{width}x{height} pixels ({needed / 2**30:.1f} GiB) in a file of {path.stat().st_size} bytes; "
            "cut it into parts, or replace the file"
        )


def decode(path: Path) -> Picture:
    """Read an image file of any supported format.

    Raises:
        DataError: The file does not exist, is unreadable or truncated, is larger than the free
            memory, or has colours of more than 8 bits in a form that no reader here can take.
    """
    with open_header(path) as image:
        try:
            if has_deep_colour(image):
                picture = _deep_colour(path, image)
            else:
                image.load()
                picture = _picture(path, image)
            turn = _orientation(image)
        except DataError:
            raise
        except Exception as error:  # as above
            raise _unreadable(path, error) from error
    return picture if turn == 1 else _upright(picture, turn)


def upright_shape(path: Path) -> tuple[int, int]:
    """Height and width of an image as ``decode`` gives it, without reading its pixels.

    Raises:
        DataError: See ``open_header``.
    """
    with open_header(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def has_deep_colour(image: Image.Image) -> bool:
    """Whether an opened image has colours, or grey and alpha, of more than 8 bits.

    Pillow reads the upper 8 bits of these and does not say so.
    """
    if image.mode in DEEP_GREY:
        return False
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))) > 8  # type: ignore[attr-defined]
    tiles = getattr(image, "tile", [])
    return image.format == "PNG" and any(";16" in str(tile[3]) for tile in tiles)


def _deep_colour(path: Path, image: Image.Image) -> Picture:
    tags = getattr(image, "tag_v2", {})
    usual = image.mode in ("RGB", "RGBA", "LA") and tags.get(PLANAR, 1) == 1
    if not usual or tags.get(PHOTOMETRIC, 2) != 2:
        raise DataError(
            f"{path}: expected deep colours as interleaved RGB, found mode {image.mode} in another order; "
            "save the image as PNG, or as TIFF with RGB side by side"
        )
    image.load()  # OpenCV gives what there is of a truncated file; Pillow refuses it
    data = path.read_bytes()
    values = None
    if image.format != "PNG" or _chunks_fit(data):
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.shape[:2] != image.size[::-1] or values.ndim != 3:
        raise DataError(
            f"{path}: expected a readable image, found damaged pixels; replace or remove the file"
        )
    alpha = values[:, :, 3] if values.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(values[:, :, 2::-1]), alpha)


def _chunks_fit(png: bytes) -> bool:
    """Whether no chunk of a PNG claims to be longer than the file; OpenCV takes memory for it."""
    at = 8
    while at + 8 <= len(png):
        if png[at + 4 : at + 8] == b"IEND":  # what follows is not read
            return True
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return at <= len(png)


def _picture(path: Path, image: Image.Image) -> Picture:
    if image.mode in DEEP_GREY:
        # Pillow turns 8 bits of a TIFF in which zero is white, but not more bits
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
            raise DataError(
                f"{path}: expected a deep TIFF in which zero is black, found one in which it is white; save "
                "the image again"
            )
        return Picture(np.asarray(image))
    indices = np.asarray(image) if image.mode == "P" else None
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        colours = np.asarray(image.convert("RGBA"))
        return Picture(colours[:, :, :3], colours[:, :, 3], indices)
    grey = image.mode in ("1", "L")
    return Picture(np.asarray(image.convert("L" if grey else "RGB")), None, indices)


def _orientation(image: Image.Image) -> int:
    """How the stored picture lies; 1, as every viewer takes it, where the file does not say so in
    a form that can be read.
    """
    if image.format == "TIFF":  # both readers turn these themselves
        return 1
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # the pixels are whole, and viewers show them as stored
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(picture: Picture, orientation: int) -> Picture:
    """A picture that lies as the EXIF orientation says, put upright."""

    def turned(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        if orientation in (5, 6, 7, 8):
            array = array.swapaxes(0, 1)
        if orientation in (2, 3, 6, 7):
            array = array[:, ::-1]
        if orientation in (3, 4, 7, 8):
            array = array[::-1]
        return np.ascontiguousarray(array)

    values = turned(picture.values)
    assert values is not None
    return Picture(values, turned(picture.alpha), turned(picture.indices))
