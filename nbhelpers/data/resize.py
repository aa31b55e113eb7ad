"""Resizes images and masks to the network's square input.

A mask keeps the area of each of its regions, so that a thin scratch does not break or vanish.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import cv2
import numpy as np

from nbhelpers.data.reading import AS_STORED, Reading

COLUMNS_AT_ONCE = 1024  # of a mask whose rows are resized: 16 MB for 4 000 rows


def resize_image(image: np.ndarray, size: int, reading: Reading = AS_STORED) -> np.ndarray:
    """Resize an image to ``(size, size, 3)``; its type stays.

    An axis that shrinks is averaged over pixel areas; an axis that grows is interpolated linearly.
    The image fills the square, or, with ``reading.letterbox``, the part of it that
    ``content_window`` gives, and ``reading.background`` the rest.
    """
    height, width = image.shape[:2]
    if reading.letterbox and height != width:
        rows, columns = content_window((height, width), size)
        boxed = np.empty((size, size, 3), image.dtype)
        boxed[:] = reading.background
        image = _resize_columns(image, columns.stop - columns.start)
        boxed[rows, columns] = _resize_rows(image, rows.stop - rows.start)
        return boxed
    if (height, width) == (size, size):
        return image
    # cv2.INTER_AREA takes the nearest neighbour along an axis that grows, so each axis is resized
    # with a kernel of its own
    return _resize_rows(_resize_columns(image, size), size)


def content_window(shape: tuple[int, int], size: int) -> tuple[slice, slice]:
    """Rows and columns of the square that a letterboxed image of this (height, width) fills."""
    longest = max(shape)
    lengths = [max(1, round(size * side / longest)) for side in shape]
    starts = [(size - length) // 2 for length in lengths]
    rows, columns = (slice(at, at + n) for at, n in zip(starts, lengths, strict=True))
    return rows, columns


def fill_square(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Carry what was found on a letterboxed image back to the frame of its mask, which fills the
    square: cut the bars off and stretch the rest.

    Args:
        array: ``(H, H)``, an anomaly map (float32, interpolated linearly) or whole numbers
            (repeated).
        shape: Height and width of the image's file.
    """
    size = len(array)
    content = np.ascontiguousarray(array[content_window(shape, size)])
    kernel = cv2.INTER_LINEAR if array.dtype.kind == "f" else cv2.INTER_NEAREST
    return cv2.resize(content, (size, size), interpolation=kernel)


def _resize_columns(image: np.ndarray, width: int) -> np.ndarray:
    kernel = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, image.shape[0]), interpolation=kernel)


def _resize_rows(image: np.ndarray, height: int) -> np.ndarray:
    kernel = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(image, (image.shape[1], height), interpolation=kernel)


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a 0/1 mask to ``(size, size)`` uint8; every region keeps its area, at least one pixel.

    Of each 8-connected region the target pixels that it covers most are kept, as many as its scaled
    area. For a compact region these are the pixels that are covered by at least a half; a scratch
    that is thinner than a target pixel stays a scratch.
    """
    height, width = mask.shape
    if (height, width) == (size, size):
        return mask
    resized = np.zeros((size, size), np.uint8)
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    scale = size * size / (height * width)
    areas = stats[:, cv2.CC_STAT_AREA].tolist()
    for region, first, coverage in _coverages(regions, stats, size):
        # rounded, so that equal coverages stay equal in whatever order a processor adds them
        coverage = coverage.round(4)
        keep = max(1, round(areas[region] * scale))
        order = np.argsort(-coverage, axis=None, kind="stable")[:keep]
        row, column = np.unravel_index(order, coverage.shape)
        covered = coverage[row, column] > 0
        resized[row[covered], first + column[covered]] = 1
    return resized


def _coverages(
    regions: np.ndarray, stats: np.ndarray, size: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """How much of each target pixel each region covers, as if it were resized alone.

    An axis is resized line by line, so regions that do not share a target column lie side by side
    in the rows of one strip, and an image of thousands of specks is resized in a few strips instead
    of thousands of times.

    Yields:
        A region's number, its first target column, and its coverage ``(size, columns)`` float32.
    """
    height, width = regions.shape
    reach = 1 + -(-size // width)  # target pixels by which a growing axis spreads a pixel
    left, top, across, down = (
        stats[:, column].tolist()
        for column in (cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT)
    )
    first = [max(0, x * size // width - reach) for x in left]
    end = [
        min(size, (x + n) * size // width + 1 + reach) for x, n in zip(left, across, strict=True)
    ]
    by_height: dict[int, list[int]] = {}
    for region in sorted(range(1, len(stats)), key=lambda region: first[region]):
        by_height.setdefault(down[region].bit_length(), []).append(region)
    for members in by_height.values():
        tall = max(down[region] for region in members)
        strip_of: dict[int, int] = {}
        ends: list[tuple[int, int]] = []  # a strip's last target column, and its number
        for region in members:
            if ends and ends[0][0] <= first[region]:
                strip_of[region] = ends[0][1]
                heapq.heapreplace(ends, (end[region], strip_of[region]))
            else:
                strip_of[region] = len(ends)
                heapq.heappush(ends, (end[region], strip_of[region]))
        strips = np.zeros((len(ends) * tall, width), np.float32)
        for region in members:
            y, x, n, m = top[region], left[region], down[region], across[region]
            start = strip_of[region] * tall
            strips[start : start + n, x : x + m] += regions[y : y + n, x : x + m] == region
        strips = _resize_columns(strips, size)
        for several in _batches(members, [end[r] - first[r] for r in members], COLUMNS_AT_ONCE):
            columns = np.zeros((height, sum(end[r] - first[r] for r in several)), np.float32)
            at = 0
            for region in several:
                start, n = strip_of[region] * tall, end[region] - first[region]
                columns[top[region] : top[region] + down[region], at : at + n] = strips[
                    start : start + down[region], first[region] : end[region]
                ]
                at += n
            columns = _resize_rows(columns, size)
            at = 0
            for region in several:
                n = end[region] - first[region]
                yield region, first[region], columns[:, at : at + n]
                at += n


def _batches(items: list[int], sizes: list[int], most: int) -> Iterator[list[int]]:
    """Divide a list so that each part's sizes add up to ``most``, or little more."""
    part: list[int] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        part.append(item)
        total += size
        if total >= most:
            yield part
            part, total = [], 0
    if part:
        yield part
