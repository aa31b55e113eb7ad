"""PatchCore in plain lines: the paper's formulas as they are written, to read and to test against.

Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022: algorithm 1
(``greedy_coreset``), eq. 6 (``nearest_neighbour``) and eq. 7 (``density_weight``). The modules
``coreset`` and ``neighbours`` compute the same numbers faster, and ``docs/coreset.md`` proves that
the picks are the same. The functions here hold whole distance matrices in memory, so use them with
a few thousand patches at most.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distance_matrix(points: Tensor, centres: Tensor) -> Tensor:
    """Compute all Euclidean distances between two sets of points.

    Args:
        points: ``(N, D)``.
        centres: ``(M, D)``.

    Returns:
        ``(N, M)``; row i has the distances of point i to all centres.
    """
    return torch.stack([torch.linalg.norm(centres - point, dim=1) for point in points])


def greedy_coreset(features: Tensor, n_select: int, start: int) -> list[int]:
    """Pick rows by algorithm 1: the next pick is the row that is farthest from all picks so far.

    Args:
        features: ``(N, D)``.
        n_select: How many rows to pick, from 1 to N.
        start: Index of the first pick.

    Returns:
        ``n_select`` distinct row indices, in the order in which they were picked. Of several
        equally far rows the one with the lowest index is picked.
    """
    picks = [start]
    nearest = torch.full(
        (len(features),), torch.inf
    )  # (N,), distance of each row to its nearest pick
    while len(picks) < n_select:
        to_last_pick = torch.linalg.norm(features - features[picks[-1]], dim=1)  # (N,)
        nearest = torch.minimum(nearest, to_last_pick)
        nearest[picks] = -1  # a picked row is never picked again
        picks.append(int(nearest.argmax()))
    return picks


def covering_radius(features: Tensor, picks: list[int]) -> float:
    """Compute the largest distance of any row to its nearest picked row.

    Args:
        features: ``(N, D)``.
        picks: Indices of the picked rows.
    """
    return float(distance_matrix(features, features[picks]).amin(dim=1).max())


def nearest_neighbour(patches: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest bank feature of every patch (eq. 6).

    Args:
        patches: ``(P, D)``, all patch features of one image.
        bank: ``(M, D)``, the memory bank.

    Returns:
        The distance of each patch to its nearest bank feature, ``(P,)``, and the index of that
        feature in the bank, ``(P,)``. Of several equally near features the one with the lowest
        index is taken.
    """
    distances = distance_matrix(patches, bank)  # (P, M)
    return distances.amin(dim=1), distances.argmin(dim=1)


def density_weight(m_test: Tensor, m_star: int, bank: Tensor, b: int) -> float:
    """Compute the weight w of the distance between a patch and its nearest bank feature m* (eq. 7).

    Args:
        m_test: ``(D,)``, the patch.
        m_star: Index of m* in the bank.
        bank: ``(M, D)``, the memory bank.
        b: How many bank features the neighbourhood N_b(m*) has, including m* itself; 2 or more.

    Returns:
        The weight, in [0, 1).
    """
    neighbourhood = distance_matrix(bank[[m_star]], bank)[0].argsort(stable=True)[:b]  # N_b(m*)
    s_star = torch.linalg.norm(m_test - bank[m_star])
    to_neighbourhood = torch.linalg.norm(m_test - bank[neighbourhood], dim=1)  # (b,)
    return float(1 - s_star.exp() / to_neighbourhood.exp().sum())


def image_score(patches: Tensor, bank: Tensor, b: int) -> float:
    """Compute the score s = w s* of an image (eq. 6, then eq. 7).

    Args:
        patches: ``(P, D)``, all patch features of the image.
        bank: ``(M, D)``, the memory bank.
        b: Size of the neighbourhood in ``density_weight``.

    Returns:
        The image score, 0 or more.
    """
    distances, nearest = nearest_neighbour(patches, bank)
    strangest = int(distances.argmax())  # the patch m^test,*, whose distance is s*
    w = density_weight(patches[strangest], int(nearest[strangest]), bank, b)
    return w * float(distances[strangest])
