"""Exact k-centre greedy coreset, without reading the whole matrix once a pick.

Greedy k-centre (Gonzalez 1985; Sener & Savarese, ICLR 2018; PatchCore, Roth et al., CVPR 2022, Alg. 1): pick
the point that is farthest from all picks so far, again and again. The plain loop reads all N x D numbers for
every pick. Here the same picks come from two observations:

* A point's distance to its nearest pick only falls, so an old value is an upper bound. While the best of a
  small *pool* of points that were brought up to date is not below the bound of any point outside, it is the
  greedy pick. Points outside are brought up to date, with all the picks they missed, only when the pool's
  level has fallen to their old value; for most of them that time never comes.
* Bringing points up to date is one matrix product that gives a *lower bound* of every squared distance, its
  own rounding error included. A pair whose bound is not below the point's value is dropped, the few others
  are computed directly (`distances.Centres`).

Why the picks are exactly those of the plain loop:
1. every stored value is the minimum of direct float32 distances |x - c| as the loop computes them; the
   product only drops pairs whose direct distance provably is not smaller, so a fresh value is the loop's;
2. a stale point has missed some picks, so its value is at least the loop's;
3. a pick is taken from the pool while (value, -index) of its best is not below the pool's last entry at its
   creation; every point outside was below that entry, stale or fresh, and has only fallen since;
4. so the pick has the largest value of all, at the lowest index among equals: the loop's pick.
On CPU that holds bit for bit. On CUDA a reduction may round differently for another number of rows: two
points within an ulp of each other may then change places.

Cost: the plain loop does N*K direct distances, bound by memory. Here at most N*K (in practice a third to a
half) go through a matrix product, about ten a point are computed directly, and K*M in pools of M. Memory
beside the features: two numbers a point, the pool, three copies of the picks, and a block of
`memory_budget_mb` a thread.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from nbhelpers.errors import ConfigError
from nbhelpers.models.distances import (
    Centres,
    check_features,
    direct_distances,
    full_float32_precision,
    mean_row,
    single_threaded,
)

POOL_SIZE = 512  # points that compete for the next picks
BURST = 16  # picks between two looks at the device: more wastes picks, fewer wait for the GPU more often
BLOCK_ROWS = 8192  # stale points brought up to date before the pool's level is looked at again


def coreset_size(n_points: int, ratio: float) -> int:
    """How many of ``n_points`` a coreset of share ``ratio`` in (0, 1] has, rounded down.

    Raises:
        ConfigError: the ratio is outside (0, 1], or so small that nothing is left.
    """
    if not 0 < ratio <= 1:
        raise ConfigError(f"coreset_ratio: expected a share in (0, 1], found {ratio!r}; 0.05 is usual")
    size = int(n_points * ratio + 1e-9)  # 0.29 * 100 is 28.999999999999996
    if size == 0:
        raise ConfigError(
            f"coreset_ratio {ratio} selects none of {n_points} patch features; set {1 / n_points:.2g} or more"
        )
    return size


class _MinDistances:
    """Distance of every point to its nearest pick, brought up to date where asked.

    ``value[i]`` counts in the first ``seen[i]`` picks; picked points hold -1, so they are never picked again.
    """

    def __init__(
        self, features: Tensor, start: int, n_select: int, memory_budget_mb: float | None, n_threads: int
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
        """Append picks; no point has seen them yet."""
        self.picks[self.count : self.count + len(picks)] = picks
        self.count += len(picks)
        self.value[picks] = -1

    def refresh(self, rows: Tensor) -> None:
        """Bring ``rows`` up to date with all picks."""
        moving = rows[self.value[rows] > 0]  # a pick, or a copy of one, cannot come closer
        seen = self.seen[moving]
        for first in seen.unique().tolist():
            missed = self.features.index_select(0, self.picks[first : self.count])
            group = moving[seen == first]
            centres = Centres(missed, self.origin, self.memory_budget_mb)
            known = self.value[group]
            for place, _, distance in centres.near_pairs(self.features, group, known, self.n_threads):
                self.value.scatter_reduce_(0, group[place], distance, "amin")
        self.seen[rows] = self.count

    def make_pool(self, size: int) -> tuple[Tensor, float, int]:
        """The ``size`` farthest points, all fresh, in index order; value and index of the last of them."""
        level = -2.0
        while True:
            fresh = self.seen == self.count
            if int(fresh.sum()) >= size:
                level = float(torch.where(fresh, self.value, -2.0).topk(size, sorted=False).values.min())
            rows = (~fresh & (self.value >= level)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            if len(rows) > BLOCK_ROWS:
                rows = rows[self.value[rows].topk(BLOCK_ROWS, sorted=False).indices]
            self.refresh(rows)
        above = (self.value > level).nonzero().squeeze(1)
        level_with = (self.value == level).nonzero().squeeze(1)[: size - len(above)]
        return torch.cat([above, level_with]).sort().values, level, int(level_with[-1])


def _pick_in_pool(
    features: Tensor, pool: Tensor, values: Tensor, level: float, last: int, limit: int
) -> Iterator[Tensor]:
    """Yield the greedy picks (point indices, in bursts) until the pool can no longer vouch for them."""
    rows = features[pool]
    difference = torch.empty_like(rows)
    while limit > 0:
        chosen, sound = [], []
        for _ in range(min(BURST, limit)):
            # The first of equals, and the pool is in index order. Kept as a tensor: plain indexing would
            # make the host wait for a GPU at every pick.
            best = values.argmax().view(1)
            pick, value = pool.index_select(0, best), values.index_select(0, best)
            chosen.append(pick)
            sound.append((value > level) | ((value == level) & (pick <= last)))
            torch.sub(rows, rows.index_select(0, best), out=difference)
            values = torch.minimum(values, torch.linalg.norm(difference, dim=1)).index_fill_(0, best, -1)
        n_sound = int(torch.cat(sound).int().cumprod(0).sum())
        yield torch.cat(chosen)[:n_sound]
        limit = limit - n_sound if n_sound == len(chosen) else 0


@torch.no_grad()
def greedy_coreset(
    features: Tensor,
    n_select: int,
    start: int | None = None,
    generator: torch.Generator | None = None,
    memory_budget_mb: float | None = None,
    progress: bool = True,
) -> Tensor:
    """Pick ``n_select`` rows so that the farthest row from all picks is always the next pick.

    Args:
        features: ``(N, D)`` float32, on any device.
        n_select: How many, 1 to N. Where fewer distinct rows exist, copies follow in index order.
        start: Index of the first pick; drawn from ``generator`` where it is None.
        generator: A CPU generator.
        memory_budget_mb: Size of a temporary block; by default 8 on a CPU (its cache), 256 elsewhere.
        progress: Show a bar (``TQDM_DISABLE=1`` silences it, too).

    Returns:
        ``(n_select,)`` int64 row indices, in pick order, distinct, on the features' device.

    Raises:
        DataError: features of another shape or type, or not finite.
        ConfigError: ``n_select`` or ``start`` out of range, or neither start nor generator.
    """
    check_features(features)
    n_points = len(features)
    if not 1 <= n_select <= n_points:
        raise ConfigError(f"coreset: expected 1 to {n_points} picks, found {n_select}; change coreset_ratio")
    if start is None:
        if generator is None:
            raise ConfigError("coreset: expected a start index or a seeded generator, found none; pass one")
        start = int(torch.randint(n_points, (1,), generator=generator))
    if not 0 <= start < n_points:
        raise ConfigError(f"coreset: expected a start index from 0 to {n_points - 1}, found {start}")

    features = features.contiguous()  # so that the rows of every block are summed alike
    hidden = {} if progress else {"disable": True}  # an explicit False would overrule TQDM_DISABLE
    bar = tqdm(total=n_select, desc="coreset", unit="pick", initial=1, **hidden)
    with full_float32_precision(), single_threaded() as n_threads, bar:
        state = _MinDistances(features, start, n_select, memory_budget_mb, n_threads)
        while state.count < n_select:
            pool, level, last = state.make_pool(min(POOL_SIZE, n_points))
            values = state.value[pool]
            for picks in _pick_in_pool(features, pool, values, level, last, n_select - state.count):
                state.add(picks)
                bar.update(len(picks))
    return state.picks


def covering_radius(features: Tensor, index: Tensor) -> float:
    """Largest distance of any row to its nearest picked row; what a k-centre selection makes small."""
    return float(Centres(features[index], mean_row(features)).nearest(features)[0].max())
