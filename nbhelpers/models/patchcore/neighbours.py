"""Exact Euclidean nearest neighbours, nearly as fast as a matrix product.

With ``|x - c|^2 = |x|^2 + |c|^2 - 2 x.c`` a matrix product does most of the work. But the formula
cancels: for two close points far from the origin few correct digits are left. So the product only
gives a *lower bound* of every squared distance, from which its largest possible rounding error is
already subtracted. A pair whose bound is not below what is already known is dropped. The few other
pairs are computed directly, by differences, so every distance that leaves this module is a direct
one. ``docs/coreset.md`` derives the bound, and ``reference`` has the plain form.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nbhelpers.errors import DataError
from nbhelpers.models.threads import map_blocks, single_threaded

GROUP = 32  # centres that share one smallest bound, which is compared first
CHECK_ROWS = 8192  # rows that are checked or averaged together


def direct_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Compute Euclidean distances by differences, which do not cancel at any offset.

    Args:
        points: ``(R, D)``.
        centres: ``(R, D)``, or ``(D,)`` for one centre.

    Returns:
        ``(R,)``, the distance between each row and its counterpart.
    """
    return torch.linalg.norm(points - centres, dim=1)


def check_features(features: Tensor) -> None:
    """Refuse anything but a finite, non-empty ``(N, D)`` float32 tensor.

    Args:
        features: What is checked.

    Raises:
        DataError: If the shape or the type is another one, or a number is NaN, infinite or beyond
            1e18; the message names the first such row.
    """
    if features.ndim != 2 or features.dtype != torch.float32 or features.numel() == 0:
        raise DataError(
            f"patch features: expected at least one row, shape (N, D), as float32, found shape "
            f"{tuple(features.shape)} as {features.dtype}; check the backbone's output"
        )
    # |x| <= 1e18 keeps squared distances within float32; for NaN the comparison is False as well
    for first in range(0, len(features), CHECK_ROWS):
        bad = ~(features[first : first + CHECK_ROWS].abs() <= 1e18).all(dim=1)
        if bad.any():
            raise DataError(
                "patch features: expected finite numbers, found NaN, infinity or beyond 1e18 in "
                f"row {first + int(bad.int().argmax())}; check the images and the backbone's "
                "weights"
            )


@contextmanager
def full_float32_precision() -> Iterator[None]:
    """Compute matrix products in float32, not in TF32 or bfloat16: the error bound requires it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def mean_row(features: Tensor) -> Tensor:
    """Compute the mean ``(D,)`` of ``(N, D)`` rows, block by block."""
    return sum(block.mean(0) * (len(block) / len(features)) for block in features.split(CHECK_ROWS))


class Centres:
    """Points whose distances to other points are computed, prepared for the matrix product.

    Args:
        centres: ``(K, D)`` float32.
        origin: ``(D,)`` float32, a point near the data; by default the mean of the centres. A
            nearer one makes the bounds tighter, but no result depends on it.
        memory_budget_mb: Size of one block of bounds, in MiB. By default 8 on a CPU, so that the
            block stays in the cache, and 256 elsewhere.

    Attributes:
        centres: The centres as they were given.
    """

    def __init__(
        self, centres: Tensor, origin: Tensor | None = None, memory_budget_mb: float | None = None
    ) -> None:
        n_centres, dim = centres.shape
        self.centres = centres
        self.origin = mean_row(centres) if origin is None else origin
        if memory_budget_mb is None:
            memory_budget_mb = 8 if centres.device.type == "cpu" else 256
        # With z = x - origin and w = c - origin, |z|^2 + |w|^2 - 2 z.w in float32 and the squared
        # direct distance differ by at most 2 * error * (|z|^2 + |w|^2), which docs/coreset.md
        # derives. This is a sum of a term of z and a term of w, so it costs nothing: both squares
        # are shrunk once. ``_slack`` times the squares leads from the lower to the upper bound.
        error = 1.02 * (3 * dim + 32) * 2.0**-24
        self._shrink = 1 - 2 * error
        self._slack = 4 * error / (1 - 2 * error)
        self._width = -(-n_centres // GROUP) * GROUP  # centres, padded to whole groups
        self._block_size = max(int(memory_budget_mb * 2**20 / 4), self._width)  # bounds in a block
        self._weights = torch.zeros(dim, self._width, device=centres.device)
        # the padding has infinite bounds, so it is never near
        self._offsets = torch.full((self._width,), torch.inf, device=centres.device)
        shifted = centres - self.origin
        self._offsets[:n_centres] = shifted.square().sum(1).mul_(self._shrink)
        self._farthest = self._offsets[:n_centres].max()
        self._weights[:, :n_centres] = shifted.mul_(-2).T

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest centre of each point.

        Args:
            points: ``(N, D)`` float32.

        Returns:
            The distance of each point to its nearest centre, ``(N,)``, and the index of that
            centre, ``(N,)``. Of several equally near centres the lowest index is taken. A point
            with a NaN has an infinite distance.
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
        """Find all pairs of a point and a centre that may be nearer than what is known.

        Args:
            points: ``(N, D)`` float32.
            rows: ``(R,)`` int64, the indices of the points to look at.
            known: ``(R,)``, a distance for each of these points; infinite if none is known.
            n_threads: How many threads of a CPU work, each on whole blocks. Call this inside
                ``single_threaded``.

        Returns:
            An iterator over blocks of rows. Each item has three tensors ``(P,)`` for the P pairs of
            the block: the position in ``rows``, the index of the centre, and the direct distance.
            The nearest centre of a row is among its pairs unless it is no nearer than ``known``.
        """
        step = self._block_size // self._width
        scratch = threading.local()  # each thread writes its bounds into its own buffer

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
        """Find the pairs whose lower bound is below the limit of their point.

        The limit is the smaller of ``known`` and the upper bound of the point's nearest centre.

        Args:
            points: ``(R, D)``.
            known: ``(R,)`` distances.
            buffer: Memory for at least R * ``_width`` bounds.

        Returns:
            The row and the centre of each of the P pairs, ``(P,)`` each.
        """
        z = points - self.origin
        squares = z.square().sum(1).mul_(self._shrink)  # (R,)
        bounds = buffer[: len(z) * self._width].view(len(z), self._width)
        torch.addmm(self._offsets, z, self._weights, out=bounds)
        bounds = bounds.view(len(z), -1, GROUP)  # (R, groups, GROUP), without |z|^2
        lowest = bounds.amin(dim=2)  # (R, groups)
        # 2^-20 and 1e-30: ``known`` is rounded when it is squared, and squares may underflow
        limit = known.square().mul_(1 + 2.0**-20).sub_(squares)
        nearest = lowest.amin(dim=1).add_(squares.add_(self._farthest).mul_(self._slack))
        limit = torch.minimum(limit, nearest).add_(1e-30)
        row, group = (lowest <= limit[:, None]).nonzero(as_tuple=True)
        pair, member = (bounds[row, group] <= limit[row, None]).nonzero(as_tuple=True)
        return row[pair], group[pair] * GROUP + member

    def _direct(self, points: Tensor, rows: Tensor, centres: Tensor) -> Tensor:
        """Compute the direct distances ``(P,)`` of pairs, in chunks within the memory budget."""
        chunk = max(1, self._block_size // (4 * points.shape[1]))
        return torch.cat(
            [
                direct_distances(points.index_select(0, r), self.centres.index_select(0, c))
                for r, c in zip(rows.split(chunk), centres.split(chunk), strict=True)
            ]
        )
