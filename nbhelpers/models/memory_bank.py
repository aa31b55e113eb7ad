"""PatchCore's memory bank: exact nearest neighbours and the density weight of eq. 7.

Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, eqs. 6 and 7. All
distances are plain Euclidean ones, on every machine and device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nbhelpers.models.distances import Centres, check_features, mean_row


class MemoryBank:
    """The patch features that stand for everything normal.

    Args:
        features: ``(M, D)`` float32.

    Raises:
        DataError: another shape or type, or numbers that are not finite.
    """

    def __init__(self, features: Tensor) -> None:
        check_features(features)
        self.features = features.contiguous()
        self._centres = Centres(self.features, mean_row(self.features))

    def __len__(self) -> int:
        return len(self.features)

    def nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Euclidean distance to, and index of, the nearest bank feature, ``(N,)`` each (eq. 6)."""
        return self._centres.nearest(patches)

    def density_weight(
        self, patches: Tensor, distance: Tensor, index: Tensor, num_neighbors: int
    ) -> Tensor:
        """How much a patch's distance counts, by the neighbourhood of its nearest bank feature m* (eq. 7).

        ``1 - exp(|p - m*|) / sum of exp(|p - m|)`` over the ``num_neighbors`` bank features m nearest to m*,
        m* itself among them: near 1 where these are far from the patch, smaller where m* lies amid others.

        Args:
            patches: ``(B, D)``.
            distance: ``(B,)`` distance to the nearest bank feature.
            index: ``(B,)`` that feature.
            num_neighbors: b of the paper, at most the bank's size is used.

        Returns:
            ``(B,)`` in [0, 1); all 1 for one neighbour, where the formula would say 0 for everything.
        """
        n_neighbors = min(num_neighbors, len(self))
        if n_neighbors == 1:
            return torch.ones_like(distance)
        direct = "donot_use_mm_for_euclid_dist"
        between = torch.cdist(self.features[index], self.features, compute_mode=direct)
        support = self.features[between.topk(n_neighbors, largest=False).indices]
        to_support = torch.linalg.norm(patches[:, None] - support, dim=2)
        # exp of a distance overflows from 89 on; the difference to the log of the sum does not
        return 1 - torch.exp(distance - to_support.logsumexp(dim=1))
