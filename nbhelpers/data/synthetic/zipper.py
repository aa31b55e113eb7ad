"""Draws a synthetic closed zipper: two dark woven tapes and two rows of interlocking teeth, upright.

Each tooth has a position, a turn and a length of its own, so the defects of teeth change the zipper
itself and are not painted over it. The defects of the fabric are painted on the tapes.
"""

from dataclasses import replace

import numpy as np

from nbhelpers.data.synthetic.draw import (
    blend,
    blob_distance,
    pick_strength,
    smooth_noise,
    soft_step,
    stroke,
    wander,
)
from nbhelpers.data.synthetic.zipper_parts import TAPE_EDGE, TEETH, Cloth, Teeth, assemble, sew

DEFECTS = (
    "broken_teeth",
    "combined",
    "fabric_border",
    "fabric_interior",
    "rough",
    "split_teeth",
    "squeezed_teeth",
)
#: The tapes ``(H, W, 3)``, and the share ``(H, W)`` of them that is missing.
Painted = tuple[np.ndarray, np.ndarray]


def draw(
    rng: np.random.Generator, defect_rng: np.random.Generator, size: int, defect: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene without and with a defect.

    Args:
        rng: Draws the scene.
        defect_rng: Draws the defect.
        size: Side of the picture, pixels.
        defect: One of ``DEFECTS``; None for a scene without a defect.

    Returns:
        Two arrays ``(size, size, 3)`` float64; the same array twice for None.
    """
    cloth = sew(rng, size)
    teeth = Teeth(
        apart=rng.normal(0.0, 0.0018, (2, TEETH)),
        along=rng.normal(0.0, 0.0018, (2, TEETH)),
        turn=rng.normal(0.0, 0.03, (2, TEETH)),
        length=np.ones((2, TEETH)),
        tone=rng.normal(1.0, 0.045, (2, TEETH)),
    )
    tapes, bite = cloth.tapes, np.zeros((size, size))
    clean = assemble(cloth, teeth, tapes, bite)
    if defect is None:
        return clean, clean
    names = [defect]
    if defect == "combined":  # one defect of the teeth and one of the fabric
        names = [str(defect_rng.choice(sorted(kinds))) for kinds in (TOOTH_DEFECTS, FABRIC_DEFECTS)]
    for name in names:
        strength = pick_strength(defect_rng)
        if name in TOOTH_DEFECTS:
            teeth = TOOTH_DEFECTS[name](defect_rng, cloth, teeth, strength)
        else:
            tapes, bite = FABRIC_DEFECTS[name](defect_rng, cloth, tapes, strength)
    return clean, assemble(cloth, teeth, tapes, bite)


def _visible_tooth(rng: np.random.Generator, cloth: Cloth) -> int:
    """The index of a tooth that lies well inside the frame."""
    first = (1.5 + cloth.phase - 0.72) / cloth.pitch
    last = (1.5 + cloth.phase + 0.72) / cloth.pitch
    return int(rng.integers(int(np.ceil(first)), int(last)))


def _broken(rng: np.random.Generator, cloth: Cloth, teeth: Teeth, strength: float) -> Teeth:
    """One to three neighbouring teeth of one row have lost their heads or are missing."""
    length = teeth.length.copy()
    k, row = _visible_tooth(rng, cloth), rng.integers(2)
    for step in range(rng.integers(1, 2 + round(2 * strength))):
        length[row, k + step] = 0.0 if rng.uniform() < 0.4 * strength else rng.uniform(0.35, 0.9)
    return replace(teeth, length=length)


def _split(rng: np.random.Generator, cloth: Cloth, teeth: Teeth, strength: float) -> Teeth:
    """The rows come apart over a stretch of the zipper."""
    k, reach = _visible_tooth(rng, cloth), rng.uniform(1.5, 4.0)
    apart = teeth.apart.copy()
    for row in (0, 1):
        distance = np.clip(np.abs(np.arange(TEETH) + 0.5 * row - k) / reach, 0, 1)
        apart[row] += (0.015 + 0.055 * strength) * np.cos(0.5 * np.pi * distance) ** 2
    return replace(teeth, apart=apart)


def _squeezed(rng: np.random.Generator, cloth: Cloth, teeth: Teeth, strength: float) -> Teeth:
    """A few teeth are pressed together and turned out of line."""
    k, reach = _visible_tooth(rng, cloth), rng.uniform(1.2, 2.6)
    along, turn = teeth.along.copy(), teeth.turn.copy()
    for row in (0, 1):
        offset = np.arange(TEETH) + 0.5 * row - k
        near = np.cos(0.5 * np.pi * np.clip(np.abs(offset) / reach, 0, 1)) ** 2
        along[row] -= np.sign(offset) * near * cloth.pitch * (0.12 + 0.25 * strength)
        turn[row] += near * rng.uniform(-0.5, 0.5) * (0.4 + strength)
    return replace(teeth, along=along, turn=turn)


def _on_tape(cloth: Cloth, u: float, v: float) -> tuple[float, float]:
    """The picture coordinates of the point ``u`` across and ``v`` along the zipper."""
    across, turn = u + cloth.shift, cloth.lean
    return across * np.cos(turn) - v * np.sin(turn), across * np.sin(turn) + v * np.cos(turn)


def _border(rng: np.random.Generator, cloth: Cloth, tapes: np.ndarray, strength: float) -> Painted:
    """The outer hem is bitten or frayed."""
    size = len(tapes)
    side, v = rng.choice([-1.0, 1.0]), rng.uniform(-0.8, 0.8)
    spot = _on_tape(cloth, side * TAPE_EDGE, v)
    bite = soft_step(blob_distance(rng, size, spot, 0.04 + 0.07 * strength, 0.4, 1.6), 0.02)
    fibres = []
    for _ in range(rng.integers(4, 9)):
        root = _on_tape(
            cloth, side * (TAPE_EDGE + rng.uniform(-0.03, 0.03)), v + rng.normal(0.0, 0.05)
        )
        fibres.append(wander(rng, root, rng.normal(0.0, 0.6), rng.uniform(0.08, 0.20), 0.2, 8))
    lint = stroke(size, fibres, 0.009)
    tapes = blend(tapes, (0.34, 0.34, 0.36), 0.8 * strength * lint)
    return tapes, bite * (1.0 - lint)


def _interior(
    rng: np.random.Generator, cloth: Cloth, tapes: np.ndarray, strength: float
) -> Painted:
    """The fabric of a tape has a hole, a scratch or a pulled yarn."""
    size = len(tapes)
    spot = _on_tape(
        cloth, rng.choice([-1.0, 1.0]) * rng.uniform(0.34, 0.68), rng.uniform(-0.85, 0.85)
    )
    whole = np.zeros((size, size))
    kind = rng.choice(["hole", "scratch", "pulled yarn"])
    if kind == "hole":
        hole = soft_step(blob_distance(rng, size, spot, rng.uniform(0.03, 0.07), 0.35, 1.4), 0.02)
        return blend(tapes, (0.42, 0.42, 0.41), strength * hole), whole
    if kind == "scratch":
        line = wander(rng, spot, rng.uniform(0, np.pi), rng.uniform(0.2, 0.5), 0.08)
        scratch = stroke(size, [line], 0.020, taper=True)
        return blend(tapes, (0.42, 0.42, 0.44), 0.9 * strength * scratch), whole
    line = wander(rng, spot, rng.normal(0.0, 0.2), rng.uniform(0.25, 0.5), 0.12)
    return blend(
        tapes, (0.04, 0.04, 0.04), strength * stroke(size, [line], 0.030, taper=True)
    ), whole


def _rough(rng: np.random.Generator, cloth: Cloth, tapes: np.ndarray, strength: float) -> Painted:
    """Worn, fluffy fabric by the teeth: fibres stand up and hide the weave."""
    size = len(tapes)
    side, v, radius = rng.choice([-1.0, 1.0]), rng.uniform(-0.8, 0.8), rng.uniform(0.06, 0.13)
    spot = _on_tape(cloth, side * rng.uniform(0.27, 0.36), v)
    worn = soft_step(blob_distance(rng, size, spot, radius, 0.35, 1.8), 0.6 * radius)
    fluff = 0.23 + 0.07 * smooth_noise(rng, size, size // 3)
    tapes = blend(tapes, fluff[..., None] * np.array([0.98, 1.0, 1.05]), 0.8 * strength * worn)
    roots = np.asarray(spot) + rng.normal(0.0, 0.5 * radius, (10, 2))
    fibres = [wander(rng, root, rng.uniform(0, np.pi), 0.07, 0.3, 8) for root in roots]
    tapes = blend(tapes, (0.45, 0.45, 0.47), 0.6 * strength * stroke(size, fibres, 0.006))
    return tapes, np.zeros((size, size))


TOOTH_DEFECTS = {"broken_teeth": _broken, "split_teeth": _split, "squeezed_teeth": _squeezed}
FABRIC_DEFECTS = {"fabric_border": _border, "fabric_interior": _interior, "rough": _rough}
