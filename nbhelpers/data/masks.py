"""Reads ground-truth masks: which pixels are the defect, whatever program painted them.

The defect is where a mask differs from its background: where it is opaque if opacity varies, and
where any channel is above zero otherwise. Soft edges, which JPEG and resizing make, are cut at half
of the mask's range; labels, which number the defects or their types, are not cut.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from nbhelpers.data.decode import Picture, decode
from nbhelpers.data.reading import AS_STORED, Reading
from nbhelpers.errors import DataError

#: Labels are a few small integers; soft edges reach the white of their type.
MOST_LABELS, HIGHEST_LABEL = 16, 63
#: Larger labels are told from soft edges by their regions: this share of the pixels lies in regions
#: of a single value, and the smallest value is not the noise of a black background.
FLAT_SHARE, LOWEST_LABEL = 0.9, 32


def read_mask(path: Path, shape: tuple[int, int], reading: Reading = AS_STORED) -> np.ndarray:
    """Read a ground-truth mask as ``(H, W)`` uint8 of 0 and 1, where 1 is the defect.

    Args:
        path: The mask's file.
        shape: Height and width of its image.
        reading: How the files of the category are read.

    Raises:
        DataError: The file is unreadable, or its size is not ``shape``.
    """
    mask, _ = interpret_mask(path)
    if mask.shape != tuple(shape):
        raise DataError(
            f"{path}: expected a mask of {shape[1]}x{shape[0]} pixels like its image, found "
            f"{mask.shape[1]}x{mask.shape[0]}; export the mask again at the image's size"
        )
    return 1 - mask if reading.inverted_masks else mask


def interpret_mask(path: Path) -> tuple[np.ndarray, str]:
    """The defect pixels of a mask file, and what was decided to find them.

    Returns:
        ``(H, W)`` uint8 of 0 and 1; and how the file was understood, in words, empty where a
        background of zero and one value for the defect left nothing to decide.

    Raises:
        DataError: The file is unreadable.
    """
    picture = decode(path)
    if picture.alpha is not None and _varies(picture.alpha):
        mask, how = _cut(picture.alpha, path)
        return mask, "its transparency is the mask" + (f"; {how}" if how else "")
    if picture.indices is not None:
        return _from_palette(picture, path)
    values = picture.values
    return _cut(values if values.ndim == 2 else values.max(axis=2), path)


def _varies(values: np.ndarray) -> bool:
    return bool(values.min() != values.max())


def _from_palette(picture: Picture, path: Path) -> tuple[np.ndarray, str]:
    """A mask whose pixels are entries of a palette: labels, unless the palette is a grey ramp."""
    assert picture.indices is not None
    brightest = picture.values if picture.values.ndim == 2 else picture.values.max(axis=2)
    if picture.values.ndim == 2 or (brightest == picture.values.min(axis=2)).all():
        return _cut(brightest, path)
    if _varies(picture.indices) and brightest.min() > 0:
        how = "no black: the palette's first entry is the background"
        return (picture.indices > 0).astype(np.uint8), how
    return (brightest > 0).astype(np.uint8), ""


def _cut(values: np.ndarray, path: Path) -> tuple[np.ndarray, str]:
    """Divide one channel into background (0) and defect (1)."""
    if not np.isfinite(values).all() or values.min() < 0:
        raise DataError(
            f"{path}: expected a mask of finite values from 0, found {values.min()} to {values.max()}; "
            "export the mask as an image of 0 and 255"
        )
    levels = _levels(values)
    if len(levels) <= 2:
        if len(levels) == 2 and levels[0] > 0:
            low, high = levels
            return (values == high).astype(np.uint8), f"no zero: {low:g} is the background"
        return (values > 0).astype(np.uint8), ""
    if _are_labels(values, levels):
        return (values > 0).astype(np.uint8), f"{len(levels)} levels, labels of defects"
    half = (float(levels[0]) + float(levels[-1])) / 2
    return (values > half).astype(
        np.uint8
    ), f"{len(levels)} levels, cut at half of their range ({half:g})"


def _levels(values: np.ndarray) -> np.ndarray:
    """The sorted values that occur."""
    if values.dtype in (np.uint8, np.uint16):  # counted, which is much faster than sorting
        return np.flatnonzero(np.bincount(values.ravel()))
    return np.unique(values)


def _are_labels(values: np.ndarray, levels: np.ndarray) -> bool:
    """Whether more than two levels number the defects, or their types."""
    if levels[0] > 0 or values.dtype.kind == "f" and (levels % 1).any():
        return False
    if len(levels) <= MOST_LABELS and levels[-1] <= HIGHEST_LABEL:
        return True
    numbered = np.array_equal(levels, np.arange(len(levels)))
    if not numbered and (len(levels) > MOST_LABELS or levels[1] < LOWEST_LABEL):
        return False
    _, regions = cv2.connectedComponents((values > 0).astype(np.uint8), connectivity=8)
    return _flat_share(values, regions) >= FLAT_SHARE


def _flat_share(values: np.ndarray, regions: np.ndarray) -> float:
    """The share of the pixels above zero that lie in regions of a single value."""
    inside = regions > 0
    numbers, inner = regions[inside], values[inside].astype(np.float64)
    count = int(numbers.max()) + 1
    lowest, highest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(lowest, numbers, inner)
    np.maximum.at(highest, numbers, inner)
    return float((lowest == highest)[numbers].mean())
