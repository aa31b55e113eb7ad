"""The body of the synthetic zipper: woven tapes, the ground below, and teeth that are posed one by
one.
"""

import math
from dataclasses import dataclass

import numpy as np

from nbhelpers.data.synthetic.draw import blend, grid, smooth_noise, soft_step

TEETH = 30  # teeth per row, more than the frame shows
TAPE_EDGE = 0.80  # outer edge of each tape, distance from the middle


@dataclass(frozen=True)
class Teeth:
    """The pose of every tooth: arrays ``(2, TEETH)``, row 0 is the left one and row 1 the right one.

    Lengths are in image units, angles in rad.
    """

    apart: np.ndarray  # moved away from the middle
    along: np.ndarray  # moved down the zipper
    turn: np.ndarray  # turned out of line, rad
    length: np.ndarray  # 1 is a whole tooth, 0 a missing one
    tone: np.ndarray  # factor on the brightness


@dataclass(frozen=True)
class Cloth:
    """A zipper without its teeth: coordinates ``(H, W)``, tapes and ground ``(H, W, 3)``."""

    u: np.ndarray  # across the zipper, 0 in the middle
    v: np.ndarray  # along the zipper, downwards
    tapes: np.ndarray
    ground: np.ndarray
    pitch: float  # distance between two teeth of a row
    phase: float  # offset of the teeth along the zipper
    metal: np.ndarray  # colour of the teeth, (3,)
    shift: float  # of the middle line to the right
    lean: float  # of the middle line, rad


def sew(rng: np.random.Generator, size: int) -> Cloth:
    """Draw tapes and ground, with a random position, lean and phase of the teeth."""
    x, y = grid(size)
    shift, turn = rng.normal(0.0, 0.012), rng.normal(0.0, 0.012)
    cos, sin = math.cos(turn), math.sin(turn)
    u, v = x * cos + y * sin - shift, -x * sin + y * cos
    side = np.abs(u)
    # Herringbone: diagonal ribs that change direction from stripe to stripe, and a sewn cord by the
    # teeth.
    stripe = np.floor((side - 0.28) / 0.13)
    lean = np.where(stripe % 2 == 0, 1.0, -1.0)
    phase = 2 * np.pi * (v / 0.050 + lean * side / 0.045 + rng.uniform())
    ribs = np.sin(phase + 0.8 * smooth_noise(rng, size, 12))
    seam = np.exp(-((((side - 0.28 + 0.065) % 0.13 - 0.065) / 0.008) ** 2))
    twist = 1.0 + 0.35 * np.sin(2 * np.pi * (v / 0.04 + 15.0 * side))
    cord = np.exp(-(((side - 0.225) / 0.030) ** 2)) * twist
    hem = np.exp(-(((side - TAPE_EDGE + 0.03) / 0.022) ** 2)) * (
        1.0 + 0.3 * np.sin(2 * np.pi * v / 0.045)
    )
    value = 0.19 * (1.0 + 0.28 * ribs - 0.25 * seam) + 0.055 * cord + 0.045 * hem
    value *= 1.0 + 0.10 * smooth_noise(rng, size, size // 3) + 0.06 * smooth_noise(rng, size, 9)
    tint = np.array([0.97, 1.0, 1.09]) * (1.0 + rng.normal(0.0, 0.01, 3)) * rng.uniform(0.93, 1.07)
    tapes = value[..., None] * tint
    table = 1.0 + 0.012 * smooth_noise(rng, size, 5) + 0.01 * smooth_noise(rng, size, 70)
    table *= 0.58 * rng.uniform(0.95, 1.05)
    shadow = 1.0 - 0.35 * np.exp(-np.clip(side - TAPE_EDGE, 0, None) / 0.035)
    ground = (table * shadow)[..., None] * np.array([1.0, 0.99, 0.96])
    metal = np.array([0.60, 0.60, 0.58]) * (1.0 + rng.normal(0.0, 0.008, 3))
    pitch = rng.uniform(0.108, 0.112)
    return Cloth(u, v, tapes, ground, pitch, rng.uniform(0, pitch), metal, shift, turn)


def assemble(cloth: Cloth, teeth: Teeth, tapes: np.ndarray, bite: np.ndarray) -> np.ndarray:
    """Draw the zipper: the tapes on the ground and the teeth on the tapes.

    Args:
        cloth: The zipper without its teeth.
        teeth: The pose of the teeth.
        tapes: ``(H, W, 3)``, the tapes with their defects.
        bite: ``(H, W)`` in [0, 1], the share of the tape that is missing at each pixel.

    Returns:
        ``(H, W, 3)`` float64.
    """
    size = len(cloth.u)
    pixel = 2.0 / size
    side = np.abs(cloth.u)
    cover = soft_step(side - TAPE_EDGE, 2 * pixel) * (1.0 - bite)
    scene = blend(cloth.ground, tapes, cover)
    # only the middle of the frame holds teeth, so only these columns are drawn
    columns = slice(int(0.33 * size), int(np.ceil(0.67 * size)))
    u, v = cloth.u[:, columns], cloth.v[:, columns]
    middle = scene[:, columns]
    tooth = (v + 1.5 + cloth.phase) / cloth.pitch  # tooth coordinate along the zipper
    left, right = (
        np.interp(tooth, np.arange(TEETH) + 0.5 * row, teeth.apart[row]) for row in (0, 1)
    )
    gap = (u > -0.055 - left) & (u < 0.055 + right)
    middle[gap] = 0.05
    for row, sign in ((0, 1.0), (1, -1.0)):
        apart, along, turn, length, tone = (
            pose[row] for pose in (teeth.apart, teeth.along, teeth.turn, teeth.length, teeth.tone)
        )
        nearest = np.floor(tooth - 0.5 * row)
        # a displaced tooth may reach its neighbours, so each pixel looks at the teeth above and below
        for candidate in (nearest, nearest + 1):
            k = np.clip(candidate, 0, TEETH - 1).astype(int)
            across = sign * u + apart[k]
            down = (tooth - 0.5 * row - candidate) * cloth.pitch - along[k]
            a, b = across + turn[k] * down, down - turn[k] * across
            body = _tooth_distance(a, b, length[k])
            bright = 0.62 + 0.55 * np.clip(-body / 0.030, 0, 1) - 6.0 * b
            bright = np.clip(bright, 0.25, 1.5) * tone[k]
            middle = blend(middle, (0.03, 0.03, 0.03), 0.8 * soft_step(body - 0.008, 2 * pixel))
            middle = blend(middle, bright[..., None] * cloth.metal, soft_step(body, 2 * pixel))
    scene[:, columns] = middle
    return scene


def _tooth_distance(a: np.ndarray, b: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Signed distance ``(H, W)`` to the outline of a tooth with foot, neck and round head.

    Args:
        a: Coordinate along the tooth.
        b: Coordinate across the tooth.
        length: 1 is a whole tooth; below 1 it has lost its head; 0 is a missing tooth.
    """
    tip = 0.062 - 0.15 * (1.0 - length)
    neck = np.maximum(np.abs(a - (tip - 0.235) / 2) - (tip + 0.165) / 2, np.abs(b) - 0.024)
    head = np.hypot((a - tip + 0.042) / 1.35, b) - 0.033
    foot = np.maximum(np.abs(a + 0.140) - 0.045, np.abs(b) - 0.031)
    body = np.minimum(neck, foot)
    body = np.where(length < 1.0, body, np.minimum(body, head))
    return np.where(length > 0.0, body, 1.0)
