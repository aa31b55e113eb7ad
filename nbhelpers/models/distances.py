"""Exact Euclidean nearest neighbours at the speed of a matrix product.

|x - c|^2 = |x|^2 + |c|^2 - 2 x.c lets a matrix product do the work, but cancels: for close points far from
the origin few digits are left. So the product only gives a *lower bound* of every squared distance, with its
own worst-case rounding error taken off. Pairs whose bound is not below what is already known are dropped; the
few others are computed directly, by differences. Every distance that leaves this module is a direct one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from nbhelpers.errors import DataError

Item, Result = TypeVar("Item"), TypeVar("Result")
GROUP = 32  # centres whose smallest bound is looked at first
CHECK_ROWS = 8192


def direct_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Euclidean distances of paired rows, ``(R,)``, by differences: no cancellation, whatever the offset."""
    return torch.linalg.norm(points - centres, dim=1)


def check_features(features: Tensor) -> None:
    """Refuse anything but a finite, non-empty ``(N, D)`` float32 tensor.

    Raises:
        DataError: another shape or type, no row, or a NaN or infinite number (the first such row is named).
    """
    if features.ndim != 2 or features.dtype != torch.float32 or features.numel() == 0:
        raise DataError(
            f"expected patch features (N, D) as float32, found {tuple(features.shape)} {features.dtype}"
        )
    # |x| <= 1e18 keeps squared distances inside float32; the comparison is False for NaN too
    for first in range(0, len(features), CHECK_ROWS):
        bad = ~(features[first : first + CHECK_ROWS].abs() <= 1e18).all(dim=1)
        if bad.any():
            raise DataError(
                f"patch features: expected finite numbers, found NaN, infinity or beyond 1e18 in row "
                f"{first + int(bad.int().argmax())}; check the images and the backbone's weights"
            )


@contextmanager
def full_float32_precision() -> Iterator[None]:
    """No TF32 or bfloat16 inside matrix products: the error bound counts on float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def mean_row(features: Tensor) -> Tensor:
    """Mean of ``(N, D)`` rows, by blocks."""
    return sum(block.mean(0) * (len(block) / len(features)) for block in features.split(CHECK_ROWS))


@contextmanager
def single_threaded() -> Iterator[int]:
    """One thread for each torch operation inside; yields how many there were, for `map_blocks`.

    Threads that share the work of many small operations mostly wait for each other, on a busy machine for
    long. Whole blocks a thread need no waiting.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def map_blocks(work: Callable[[Item], Result], blocks: Sequence[Item], n_threads: int) -> Iterator[Result]:
    """Results of ``work`` in the blocks' order, by ``n_threads`` threads; call inside `single_threaded`."""
    if n_threads == 1 or len(blocks) == 1:
        yield from map(work, blocks)
        return
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, blocks)


class Centres:
    """Rows to which distances are asked, prepared for the matrix product.

    Args:
        centres: ``(K, D)`` float32.
        origin: ``(D,)`` float32, anything near the data (its mean): the closer, the tighter the bounds. No
            result depends on it.
        memory_budget_mb: Size of a block of bounds; by default 8 on a CPU (its cache), 256 elsewhere.
    """

    def __init__(self, centres: Tensor, origin: Tensor, memory_budget_mb: float | None = None) -> None:
        n_centres, dim = centres.shape
        self.centres, self.origin = centres, origin
        if memory_budget_mb is None:
            memory_budget_mb = 8 if centres.device.type == "cpu" else 256
        # With z = x - origin and w = c - origin, float32 |z|^2 + |w|^2 - 2 z.w and the squared direct
        # distance differ by at most 2 * error * (|z|^2 + |w|^2), with unit roundoff u = 2^-24 (Higham,
        # Accuracy and Stability, 3.1): D u for the squares, 2 D u for the product and its sum with one of
        # them, 2 D u for the direct distance, less than 60 u for centring and comparing. That is separable,
        # so that it costs nothing: the squares are shrunk by it. `slack` leads from lower to upper bound.
        error = 1.02 * (3 * dim + 32) * 2.0**-24
        self.shrink, self.slack = 1 - 2 * error, 4 * error / (1 - 2 * error)
        self.width = -(-n_centres // GROUP) * GROUP
        self.room = max(int(memory_budget_mb * 2**20 / 4), self.width)  # numbers in a block
        self.weights = torch.zeros(dim, self.width, device=centres.device)
        self.offsets = torch.full((self.width,), torch.inf, device=centres.device)  # padding is never near
        shifted = centres - origin
        self.offsets[:n_centres] = shifted.square().sum(1).mul_(self.shrink)
        self.farthest = self.offsets[:n_centres].max()
        self.weights[:, :n_centres] = shifted.mul_(-2).T

    def near_pairs(
        self, points: Tensor, rows: Tensor, known: Tensor, n_threads: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All pairs that can lower the distance of ``points[rows]`` to its nearest centre below ``known``.

        Args:
            points: ``(N, D)`` float32.
            rows: ``(R,)`` int64.
            known: ``(R,)`` distances; infinity where none is known.
            n_threads: Blocks at a time on a CPU, inside `single_threaded`.

        Yields:
            For blocks of rows: place in ``rows``, centre index, direct distance, ``(P,)`` each. The nearest
            centre of a row is among its pairs unless it is not nearer than ``known``.
        """
        step, own = self.room // self.width, threading.local()

        def block(first: int) -> tuple[Tensor, Tensor, Tensor]:
            if not hasattr(own, "buffer"):
                own.buffer = torch.empty(self.room, device=points.device)
            part = slice(first, first + step)
            place, centre = self._candidates(points.index_select(0, rows[part]), known[part], own.buffer)
            place += first
            size = max(1, self.room // (4 * points.shape[1]))
            distances = [
                direct_distances(points.index_select(0, rows[p]), self.centres.index_select(0, c))
                for p, c in zip(place.split(size), centre.split(size), strict=True)
            ]
            return place, centre, torch.cat(distances)

        return map_blocks(block, range(0, len(rows), step), n_threads if points.device.type == "cpu" else 1)

    def _candidates(self, points: Tensor, known: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """Row and centre of pairs whose lower bound is below ``known`` and the nearest's upper bound."""
        z = points - self.origin
        squares = z.square().sum(1).mul_(self.shrink)
        bounds = buffer[: len(z) * self.width].view(len(z), self.width)
        torch.addmm(self.offsets, z, self.weights, out=bounds)
        bounds = bounds.view(len(z), -1, GROUP)
        lowest = bounds.amin(dim=2)
        # known is rounded when squared, and squares may underflow
        limit = known.square().mul_(1 + 2.0**-20).sub_(squares)
        nearest = lowest.amin(dim=1).add_(squares.add_(self.farthest).mul_(self.slack))
        limit = torch.minimum(limit, nearest).add_(1e-30)
        row, group = (lowest <= limit[:, None]).nonzero(as_tuple=True)
        hit, centre = (bounds[row, group] <= limit[row, None]).nonzero(as_tuple=True)
        return row[hit], group[hit] * GROUP + centre

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and index, ``(N,)`` each, of the nearest centre of ``(N, D)`` points.

        Of equally near ones the lowest index. A NaN in a point gives an infinite distance.
        """
        distance = torch.full((len(points),), torch.inf, device=points.device)
        index = torch.full((len(points),), len(self.centres), device=points.device)
        rows = torch.arange(len(points), device=points.device)
        with full_float32_precision(), single_threaded() as n_threads:
            for place, centre, direct in self.near_pairs(points, rows, distance, n_threads):
                distance.scatter_reduce_(0, place, direct, "amin")
                best = direct == distance[place]
                index.scatter_reduce_(0, place[best], centre[best], "amin")
        return distance, index
