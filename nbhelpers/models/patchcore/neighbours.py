"""Exact Euclidean nearest neighbours at the speed of a matrix product; `reference` has the plain form.

|x - c|^2 = |x|^2 + |c|^2 - 2 x.c lets a matrix product do the work, but it cancels: for close points
far from the origin few digits are left. So the product only gives a *lower bound* of every squared
distance, with its own worst-case rounding error taken off. Pairs whose bound is not below what is
already known are dropped, and the few others are computed directly, by differences. Every distance
that leaves this module is a direct one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nbhelpers.errors import DataError
from nbhelpers.models.threads import map_blocks, single_threaded

GROUP = 32  # centres whose smallest bound is looked at first
CHECK_ROWS = 8192  # rows that are looked at together


def direct_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Euclidean distances of paired rows, ``(R,)``, by differences: no cancellation, whatever the
    offset.
    """
    return torch.linalg.norm(points - centres, dim=1)


def check_features(features: Tensor) -> None:
    """Refuse anything but a finite, non-empty ``(N, D)`` float32 tensor.

    Raises:
        DataError: another shape or type, no row, or a NaN or infinite number (the error names the
            first such row).
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


class Centres:
    """Rows to which distances are asked, prepared for the matrix product.

    Args:
        centres: ``(K, D)`` float32.
        origin: ``(D,)`` float32, anything near the data: the nearer, the tighter the bounds. No
            result depends on it. By default the mean of the centres.
        memory_budget_mb: Size of a block of bounds; by default 8 on a CPU (its cache), 256
            elsewhere.

    Attributes:
        centres: As given.
    """

    def __init__(
        self, centres: Tensor, origin: Tensor | None = None, memory_budget_mb: float | None = None
    ) -> None:
        n_centres, dim = centres.shape
        self.centres = centres
        self.origin = mean_row(centres) if origin is None else origin
        if memory_budget_mb is None:
            memory_budget_mb = 8 if centres.device.type == "cpu" else 256
        # With z = x - origin and w = c - origin, float32 |z|^2 + |w|^2 - 2 z.w and the squared
        # direct distance differ by at most 2 * error * (|z|^2 + |w|^2); docs/coreset.md derives
        # the error. That is separable, so that it costs nothing: the squares are shrunk by it.
        # `slack` leads from lower to upper bound.
        error = 1.02 * (3 * dim + 32) * 2.0**-24
        self._shrink, self._slack = 1 - 2 * error, 4 * error / (1 - 2 * error)
        self._width = -(-n_centres // GROUP) * GROUP  # centres and padding, whole groups
        self._block_size = max(int(memory_budget_mb * 2**20 / 4), self._width)  # numbers in a block
        self._weights = torch.zeros(dim, self._width, device=centres.device)
        # padding has an infinite bound, so that it is never near
        self._offsets = torch.full((self._width,), torch.inf, device=centres.device)
        shifted = centres - self.origin
        self._offsets[:n_centres] = shifted.square().sum(1).mul_(self._shrink)
        self._farthest = self._offsets[:n_centres].max()
        self._weights[:, :n_centres] = shifted.mul_(-2).T

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to and index of the nearest centre of each of ``(N, D)`` points, ``(N,)`` each.

        Of equally near centres the lowest index. A NaN in a point gives an infinite distance.
        """
        distance = torch.full((len(points),), torch.inf, device=points.device)
        index = torch.full((len(points),), len(self.centres), device=points.device)
        rows = torch.arange(len(points), device=points.device)
        with full_float32_precision(), single_threaded() as n_threads:
            for row, centre, direct in self.near_pairs(points, rows, distance, n_threads):
                distance.scatter_reduce_(0, row, direct, "amin")
                is_nearest = direct == distance[row]
                index.scatter_reduce_(0, row[is_nearest], centre[is_nearest], "amin")
        return distance, index

    def near_pairs(
        self, points: Tensor, rows: Tensor, known: Tensor, n_threads: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All pairs that can lower the distance of ``points[rows]`` to its nearest centre below
        ``known``.

        Args:
            points: ``(N, D)`` float32.
            rows: ``(R,)`` int64.
            known: ``(R,)`` distances; infinity where none is known.
            n_threads: Threads on a CPU, each of which takes whole blocks; call it inside
                `single_threaded`.

        Yields:
            For each block of rows its P pairs: position in ``rows``, centre index and direct
            distance, ``(P,)`` each. The nearest centre of a row is among its pairs unless it is not
            nearer than ``known``.
        """
        step = self._block_size // self._width
        scratch = threading.local()  # every thread writes its bounds into a buffer of its own

        def pairs_of_block(first: int) -> tuple[Tensor, Tensor, Tensor]:
            if not hasattr(scratch, "buffer"):
                scratch.buffer = torch.empty(self._block_size, device=points.device)
            block = slice(first, first + step)
            row, centre = self._candidates(
                points.index_select(0, rows[block]), known[block], scratch.buffer
            )
            row += first
            return row, centre, self._direct(points, rows[row], centre)

        if points.device.type != "cpu":
            n_threads = 1
        return map_blocks(pairs_of_block, range(0, len(rows), step), n_threads)

    def _candidates(self, points: Tensor, known: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """Row and centre of pairs whose lower bound is below ``known`` and the nearest's upper
        bound.
        """
        z = points - self.origin
        squares = z.square().sum(1).mul_(self._shrink)
        bounds = buffer[: len(z) * self._width].view(len(z), self._width)
        torch.addmm(self._offsets, z, self._weights, out=bounds)
        bounds = bounds.view(len(z), -1, GROUP)
        lowest = bounds.amin(dim=2)
        # known is rounded when squared, and squares may underflow
        limit = known.square().mul_(1 + 2.0**-20).sub_(squares)
        nearest = lowest.amin(dim=1).add_(squares.add_(self._farthest).mul_(self._slack))
        limit = torch.minimum(limit, nearest).add_(1e-30)
        row, group = (lowest <= limit[:, None]).nonzero(as_tuple=True)
        pair, member = (bounds[row, group] <= limit[row, None]).nonzero(as_tuple=True)
        return row[pair], group[pair] * GROUP + member

    def _direct(self, points: Tensor, rows: Tensor, centres: Tensor) -> Tensor:
        """Direct distances ``(P,)`` of pairs, in chunks that keep to the memory budget."""
        chunk = max(1, self._block_size // (4 * points.shape[1]))
        return torch.cat(
            [
                direct_distances(points.index_select(0, r), self.centres.index_select(0, c))
                for r, c in zip(rows.split(chunk), centres.split(chunk), strict=True)
            ]
        )
