"""PatchCore: a coreset of normal patch features, and the distance to it.

Start with ``detector``, which follows the paper step by step. ``reference`` has the paper's
formulas in plain lines. ``coreset`` and ``neighbours`` compute the same numbers faster.
"""

from nbhelpers.models.patchcore.detector import PatchCore

__all__ = ["PatchCore"]
