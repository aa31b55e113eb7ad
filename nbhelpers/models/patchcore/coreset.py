"""Exact greedy k-centre coreset (PatchCore's algorithm 1), without reading all points at each pick.

With the same start it makes the same picks as the plain loop ``reference.greedy_coreset``, bit for
bit on a CPU. ``docs/coreset.md`` explains the three ideas (old distances are upper bounds, a small
pool competes for the next picks, a matrix product gives lower bounds) and proves that no pick can
differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from nbhelpers.errors import ConfigError
from nbhelpers.models.patchcore.neighbours import (
    Centres,
    check_features,
    direct_distances,
    full_float32_precision,
    mean_row,
)
from nbhelpers.models.threads import single_threaded

# These change the speed only; no value of them changes a pick.
POOL_SIZE = 512  # points that compete for the next picks
BURST = 16  # picks between two waits for a GPU; in a longer burst more picks may be discarded
BLOCK_ROWS = 8192  # stale points that are brought up to date before the level is computed again


def coreset_size(n_points: int, ratio: float) -> int:
    """Compute how many of ``n_points`` points a coreset keeps, rounded down.

    Args:
        n_points: Number of points.
        ratio: Share of them that is kept, in (0, 1].

    Raises:
        ConfigError: If the ratio is outside (0, 1], or so small that no point is kept.
    """
    if not 0 < ratio <= 1:
        raise ConfigError(
            f"coreset_ratio: expected a share in (0, 1], found {ratio!r}; 0.05 is usual"
        )
    size = int(n_points * ratio + 1e-9)  # 0.29 * 100 is 28.999999999999996
    if size == 0:
        raise ConfigError(
            "coreset_ratio: expected a share that keeps at least one of "
            f"{n_points} patch features, found {ratio}; set {1 / n_points:.2g} or more"
        )
    return size


@torch.no_grad()
def greedy_coreset(
    features: Tensor,
    n_select: int,
    start: int | None = None,
    generator: torch.Generator | None = None,
    memory_budget_mb: float | None = None,
    progress: bool = True,
) -> Tensor:
    """Pick rows so that the next pick is always the row that is farthest from all picks so far.

    Args:
        features: ``(N, D)`` float32, on any device.
        n_select: How many rows to pick, from 1 to N. If there are fewer distinct rows, copies
            follow in the order of their indices.
        start: Index of the first pick; if it is None, ``generator`` draws it.
        generator: A seeded generator on the CPU.
        memory_budget_mb: Size of one temporary block, in MiB; by default 8 on a CPU, so that it
            stays in the cache, and 256 elsewhere.
        progress: Whether to show a progress bar (``TQDM_DISABLE=1`` hides it as well).

    Returns:
        ``(n_select,)`` int64, distinct row indices in the order in which they were picked, on the
        device of the features.

    Raises:
        DataError: If the features have another shape or type, or are not finite.
        ConfigError: If ``n_select`` or ``start`` is out of range, or both ``start`` and
            ``generator`` are None.
    """
    check_features(features)
    n_points = len(features)
    if not 1 <= n_select <= n_points:
        raise ConfigError(
            f"coreset: expected 1 to {n_points} picks, found {n_select}; change coreset_ratio"
        )
    if start is None:
        if generator is None:
            raise ConfigError(
                "coreset: expected a start index or a seeded generator, found none; pass one"
            )
        start = int(torch.randint(n_points, (1,), generator=generator))
    if not 0 <= start < n_points:
        raise ConfigError(
            f"coreset: expected a start index from 0 to {n_points - 1}, found {start}; "
            "choose one of the rows"
        )

    features = features.contiguous()  # so that the rows of every block are summed in one order
    hidden = {} if progress else {"disable": True}  # an explicit False would overrule TQDM_DISABLE
    bar = tqdm(total=n_select, desc="coreset", unit="pick", initial=1, **hidden)
    with full_float32_precision(), single_threaded() as n_threads, bar:
        distances = _MinDistances(features, start, n_select, memory_budget_mb, n_threads)
        while distances.count < n_select:
            pool = distances.make_pool(min(POOL_SIZE, n_points))
            for picks in _picks_from_pool(features, pool, n_select - distances.count):
                distances.add(picks)
                bar.update(len(picks))
    return distances.picks


def covering_radius(features: Tensor, index: Tensor) -> float:
    """Compute the largest distance of any row to its nearest picked row.

    A k-centre selection makes it small.

    Args:
        features: ``(N, D)`` float32.
        index: ``(K,)`` int64, the indices of the picked rows.
    """
    return float(Centres(features[index], mean_row(features)).nearest(features)[0].max())


@dataclass(frozen=True)
class _Pool:
    """The points that compete for the next picks.

    Attributes:
        points: ``(P,)`` int64, the indices of the points, ascending.
        values: ``(P,)``, their distances to the nearest pick, all up to date.
        level: The smallest of the values. No point outside the pool has a larger one.
        last: The largest index among the pool's points with that smallest value. All points outside
            the pool that have this value come after it.
    """

    points: Tensor
    values: Tensor
    level: float
    last: int


class _MinDistances:
    """The distance of every point to its nearest pick, brought up to date only where it is needed.

    Attributes:
        picks: ``(n_select,)`` int64, of which the first ``count`` are picked.
        value: ``(N,)`` float32. ``value[i]`` is the distance of point i to the nearest of the first
            ``seen[i]`` picks. Picked points hold -1, so they are never picked again.
        seen: ``(N,)`` int32, how many picks each point's value accounts for.
    """

    def __init__(
        self,
        features: Tensor,
        start: int,
        n_select: int,
        memory_budget_mb: float | None,
        n_threads: int,
    ) -> None:
        self.features = features
        self.memory_budget_mb = memory_budget_mb
        self.n_threads = n_threads
        self.origin = mean_row(features)
        self.picks = torch.full((n_select,), start, device=features.device)
        self.count = 1
        self.value = torch.cat(
            [direct_distances(block, features[start]) for block in features.split(BLOCK_ROWS)]
        )
        self.value[start] = -1
        self.seen = torch.ones(len(features), dtype=torch.int32, device=features.device)

    def add(self, picks: Tensor) -> None:
        """Append picks ``(n,)``; no point's value accounts for them yet."""
        self.picks[self.count : self.count + len(picks)] = picks
        self.count += len(picks)
        self.value[picks] = -1

    def refresh(self, rows: Tensor) -> None:
        """Bring the values of ``rows`` ``(R,)`` up to date with all picks."""
        moving = rows[self.value[rows] > 0]  # the value of a pick or of its copy cannot fall
        seen = self.seen[moving]
        for first in seen.unique().tolist():
            missed = self.features.index_select(0, self.picks[first : self.count])
            group = moving[seen == first]
            centres = Centres(missed, self.origin, self.memory_budget_mb)
            for row, _, distance in centres.near_pairs(
                self.features, group, self.value[group], self.n_threads
            ):
                self.value.scatter_reduce_(0, group[row], distance, "amin")
        self.seen[rows] = self.count

    def make_pool(self, size: int) -> _Pool:
        """Make a pool of the ``size`` farthest points, with their values up to date.

        Of several equally far points those with the lowest indices are taken.
        """
        level = -2.0  # below every value
        while True:
            fresh = self.seen == self.count
            if int(fresh.sum()) >= size:
                fresh_values = torch.where(fresh, self.value, -2.0)
                level = float(fresh_values.topk(size, sorted=False).values.min())
            stale = (~fresh & (self.value >= level)).nonzero().squeeze(1)
            if len(stale) == 0:
                break
            if len(stale) > BLOCK_ROWS:
                stale = stale[self.value[stale].topk(BLOCK_ROWS, sorted=False).indices]
            self.refresh(stale)
        above = (self.value > level).nonzero().squeeze(1)
        equal = (self.value == level).nonzero().squeeze(1)[: size - len(above)]
        points = torch.cat([above, equal]).sort().values
        return _Pool(points, self.value[points], level, last=int(equal[-1]))


def _picks_from_pool(features: Tensor, pool: _Pool, limit: int) -> Iterator[Tensor]:
    """Make up to ``limit`` greedy picks inside a pool, as long as it can vouch for them.

    Yields:
        Bursts of picks, as indices of points.
    """
    rows, values = features[pool.points], pool.values
    difference = torch.empty_like(rows)
    while limit > 0:
        chosen, sound = [], []  # the picks of a burst, and whether the pool vouches for each
        for _ in range(min(BURST, limit)):
            # argmax takes the first of equal values, and the pool is in the order of the indices.
            # ``best`` stays a tensor: plain indexing would make the CPU wait for a GPU at each pick
            best = values.argmax().view(1)
            pick, value = pool.points.index_select(0, best), values.index_select(0, best)
            chosen.append(pick)
            sound.append((value > pool.level) | ((value == pool.level) & (pick <= pool.last)))
            torch.sub(rows, rows.index_select(0, best), out=difference)
            values = torch.minimum(values, torch.linalg.norm(difference, dim=1))
            values.index_fill_(0, best, -1)
        n_sound = int(torch.cat(sound).int().cumprod(0).sum())
        yield torch.cat(chosen)[:n_sound]
        limit = limit - n_sound if n_sound == len(chosen) else 0
