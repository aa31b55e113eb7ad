"""PatchCore: a coreset of normal patch features, and the distance to it.

Start in ``detector``, which follows the paper step by step; ``reference`` has its formulas in plain
lines. ``coreset`` and ``neighbours`` compute the same numbers faster.
"""

from nbhelpers.models.patchcore.detector import PatchCore

__all__ = ["PatchCore"]
