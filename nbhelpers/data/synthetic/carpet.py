"""Draws a synthetic carpet: a grey-brown 2/2 twill weave that fills the frame, with uneven yarns."""

import math

import numpy as np

from nbhelpers.data.synthetic.draw import (
    blend,
    blob_distance,
    grid,
    pick_strength,
    smooth_noise,
    soft_step,
    soften,
    stroke,
    wander,
)

DEFECTS = ("color", "cut", "hole", "metal_contamination", "thread")
Point = tuple[float, float]


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
    clean = _weave(rng, size)
    if defect is None:
        return clean, clean
    position = tuple(defect_rng.uniform(-0.78, 0.78, 2).tolist())
    strength = pick_strength(defect_rng)
    paint = {
        "color": _color,
        "cut": _cut,
        "hole": _hole,
        "metal_contamination": _metal,
        "thread": _thread,
    }[defect]
    return clean, paint(defect_rng, clean, position, strength)


def _weave(rng: np.random.Generator, size: int) -> np.ndarray:
    """The lit cloth ``(size, size, 3)`` float64, whose warp (vertical) and weft yarns pass over two
    yarns and under two.
    """
    x, y = grid(size)
    turn, pitch = rng.normal(0.0, 0.025), rng.uniform(0.072, 0.080)
    drape_u = 0.35 * smooth_noise(rng, size, 4)
    drape_v = 0.35 * smooth_noise(rng, size, 4)
    cos, sin = math.cos(turn), math.sin(turn)
    u = (x * cos + y * sin) / pitch + drape_u + rng.uniform(40, 44)
    v = (-x * sin + y * cos) / pitch + drape_v + rng.uniform(40, 44)
    warp, weft = np.floor(u), np.floor(v)
    warp_on_top = (warp + weft) % 4 < 2
    # a yarn is round across; along a float (two crossings long) it rises and sinks
    across = np.where(warp_on_top, u - warp, v - weft) * 2.0 - 1.0
    float_phase = np.where(warp_on_top, (v + warp) % 4, (u + weft - 2) % 4) / 2.0
    rise = 0.50 + 0.50 * np.sin(np.pi * np.clip(float_phase, 0, 1))
    height = np.sqrt(np.clip(1.0 - 0.92 * across**2, 0, 1)) * rise
    # every yarn has a tone of its own, and fibres that run along it
    yarns = rng.normal(0, 0.035, (2, 120))
    tone = np.where(warp_on_top, yarns[0][warp.astype(int)], yarns[1][weft.astype(int)])
    upright = smooth_noise(rng, size, size // 6, size // 2)
    level = smooth_noise(rng, size, size // 2, size // 6)
    fibres = np.where(warp_on_top, upright, level)
    mottle = 0.035 * smooth_noise(rng, size, 7) + 0.03 * smooth_noise(rng, size, 24)
    value = (0.42 + 0.70 * height) * (1.0 + tone + 0.08 * fibres + mottle)
    base = 0.47 * (1.0 + rng.normal(0.0, 0.05))
    tint = 1.0 + rng.normal(0.0, 0.008, 3)
    yarn_colours = (
        np.array([[1.10, 1.06, 1.00], [0.88, 0.83, 0.76]]) * tint * base
    )  # pale weft, dark warp
    colour = yarn_colours[warp_on_top.astype(int)]
    return value[..., None] * colour


def _color(
    rng: np.random.Generator, cloth: np.ndarray, position: Point, strength: float
) -> np.ndarray:
    """A dye stain: the weave stays visible and its colour changes."""
    radius = rng.uniform(0.08, 0.24)
    distance = blob_distance(rng, len(cloth), position, radius, 0.45, rng.uniform(1.0, 2.5))
    dye = np.array(
        [(1.25, 0.60, 0.55), (0.60, 0.75, 1.25), (1.20, 1.02, 0.60), (0.62, 1.10, 0.70)][
            rng.integers(4)
        ]
    )
    amount = 0.55 * strength * soft_step(distance, 0.5 * radius)
    return cloth * (1.0 + (dye - 1.0) * amount[..., None])


def _cut(
    rng: np.random.Generator, cloth: np.ndarray, position: Point, strength: float
) -> np.ndarray:
    """A knife slit: a dark opening with the pale ends of the cut yarns along it."""
    size = len(cloth)
    angle, width = rng.uniform(0.0, np.pi), rng.uniform(0.022, 0.050)
    slit = wander(rng, position, angle, rng.uniform(0.30, 0.85), 0.06)
    opening = stroke(size, [slit], width, taper=True)
    near = soften(opening, 2.2)
    frayed = np.clip(2.0 * near, 0, 1) * np.clip(
        0.5 + 0.8 * smooth_noise(rng, size, size // 3), 0, 1
    )
    return blend(
        blend(cloth, (0.66, 0.63, 0.58), 0.5 * strength * frayed),
        (0.08, 0.07, 0.06),
        strength * opening,
    )


def _hole(
    rng: np.random.Generator, cloth: np.ndarray, position: Point, strength: float
) -> np.ndarray:
    """A worn hole: it is dark inside and has a ragged edge and loose yarn ends across it."""
    size, radius = len(cloth), rng.uniform(0.05, 0.12)
    distance = blob_distance(rng, size, position, radius, 0.3, 1.4) + 0.25 * radius * smooth_noise(
        rng, size, size // 5
    )
    holed = blend(cloth, (0.07, 0.06, 0.06), strength * soft_step(distance, 0.35 * radius))
    ends = []
    for _ in range(6):
        around = rng.uniform(0.0, 2.0 * np.pi)
        start = np.asarray(position) + radius * np.array([np.cos(around), np.sin(around)])
        ends.append(
            wander(
                rng,
                start.tolist(),
                around + rng.normal(0.0, 0.4),
                rng.uniform(0.5, 1.1) * radius,
                0.15,
                8,
            )
        )
    return blend(holed, (0.55, 0.52, 0.47), 0.7 * strength * stroke(size, ends, 0.009))


def _metal(
    rng: np.random.Generator, cloth: np.ndarray, position: Point, strength: float
) -> np.ndarray:
    """A small metal shaving: a bright curved ribbon with a sharp highlight and a shadow below it."""
    size, width = len(cloth), rng.uniform(0.026, 0.060)
    ribbon = wander(rng, position, rng.uniform(0.0, np.pi), rng.uniform(0.14, 0.42), 0.16, 16)
    body = stroke(size, [ribbon], width, taper=True)
    shine = stroke(size, [ribbon - 0.2 * width], 0.4 * width, taper=True)
    shade = soften(stroke(size, [ribbon + 0.9 * width], width), 1.2)
    scene = blend(cloth, (0.05, 0.05, 0.05), 0.55 * strength * shade)
    glint = 0.5 + 0.5 * np.sin(rng.uniform(0, 6) + 9.0 * smooth_noise(rng, size, 8))
    steel = (0.42 + 0.30 * glint)[..., None] * np.array([0.97, 1.0, 1.05])
    scene = blend(scene, steel, (0.45 + 0.55 * strength) * body)
    return blend(scene, (1.0, 1.0, 1.0), strength * shine * glint)


def _thread(
    rng: np.random.Generator, cloth: np.ndarray, position: Point, strength: float
) -> np.ndarray:
    """A loose thread on the cloth: a long thin curl, pale, dark or coloured, with a faint shadow."""
    size, width = len(cloth), rng.uniform(0.016, 0.032)
    curl = wander(
        rng,
        (position[0] * 0.7, position[1] * 0.7),
        rng.uniform(0.0, np.pi),
        rng.uniform(0.6, 1.6),
        0.13,
        40,
    )
    line = stroke(size, [curl], width)
    shade = stroke(size, [curl + 0.7 * width], width)
    colour = [(0.80, 0.77, 0.70), (0.14, 0.13, 0.13), (0.60, 0.30, 0.26), (0.62, 0.60, 0.56)][
        rng.integers(4)
    ]
    return blend(
        blend(cloth, (0.08, 0.08, 0.08), 0.35 * strength * shade),
        colour,
        (0.25 + 0.6 * strength) * line,
    )
