"""PatchCore in plain lines: the paper's formulas as they are written, to read and to test against.

Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022: algorithm 1
(`greedy_coreset`), eq. 6 (`nearest_neighbour`) and eq. 7 (`density_weight`). ``coreset`` and
``neighbours`` compute the same numbers faster; ``docs/coreset.md`` proves that the picks are equal.
Every function here holds a whole distance matrix, so use it on a few thousand patches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distance_matrix(points: Tensor, centres: Tensor) -> Tensor:
    """Euclidean distances ``(N, M)`` between ``(N, D)`` points and ``(M, D)`` centres."""
    return torch.stack([torch.linalg.norm(centres - point, dim=1) for point in points])


def greedy_coreset(features: Tensor, n_select: int, start: int) -> list[int]:
    """Algorithm 1: the next pick is the row that is farthest from all picks so far.

    Args:
        features: ``(N, D)``.
        n_select: How many rows to pick, 1 to N.
        start: Index of the first pick.

    Returns:
        ``n_select`` distinct row indices in pick order; of equally far rows the first is picked.
    """
    picks = [start]
    nearest = torch.full((len(features),), torch.inf)  # each row's distance to its nearest pick
    while len(picks) < n_select:
        to_last_pick = torch.linalg.norm(features - features[picks[-1]], dim=1)
        nearest = torch.minimum(nearest, to_last_pick)
        nearest[picks] = -1  # a picked row is never picked again
        picks.append(int(nearest.argmax()))
    return picks


def covering_radius(features: Tensor, picks: list[int]) -> float:
    """The largest distance of any of ``(N, D)`` rows to its nearest picked row."""
    return float(distance_matrix(features, features[picks]).amin(dim=1).max())


def nearest_neighbour(patches: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 6, for every patch: distance to and index of the nearest bank feature.

    Args:
        patches: ``(P, D)``, all patch features of one image.
        bank: ``(M, D)``.

    Returns:
        Distances ``(P,)`` and indices ``(P,)`` into the bank; of equally near features the first.
    """
    distances = distance_matrix(patches, bank)
    return distances.amin(dim=1), distances.argmin(dim=1)


def density_weight(m_test: Tensor, m_star: int, bank: Tensor, b: int) -> float:
    """Eq. 7: the weight w of the distance between a patch and its nearest bank feature m*.

    Args:
        m_test: ``(D,)``, the patch.
        m_star: Index of m* in the bank.
        bank: ``(M, D)``.
        b: How many bank features the neighbourhood N_b(m*) has, m* itself included.
    """
    neighbourhood = distance_matrix(bank[[m_star]], bank)[0].argsort(stable=True)[:b]  # N_b(m*)
    s_star = torch.linalg.norm(m_test - bank[m_star])
    to_neighbourhood = torch.linalg.norm(m_test - bank[neighbourhood], dim=1)
    return float(1 - s_star.exp() / to_neighbourhood.exp().sum())


def image_score(patches: Tensor, bank: Tensor, b: int) -> float:
    """Score s = w s* of an image with ``(P, D)`` patches: eq. 6, then eq. 7."""
    distances, nearest = nearest_neighbour(patches, bank)
    strangest = int(distances.argmax())  # the patch m^test,*
    w = density_weight(patches[strangest], int(nearest[strangest]), bank, b)
    return w * float(distances[strangest])
