"""Draws a synthetic hazelnut: a brown, streaked nut with a pale hilum, in any pose on a dark ground.

The nut is a rounded solid with latitude and longitude, so its streaks meet at the tip, and the hilum
moves with the pose as on a real nut. Defects change the colour of the shell before it is lit, so
they are shaded like the shell.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from nbhelpers.data.synthetic.draw import (
    blend,
    blob_distance,
    grid,
    letters,
    pick_strength,
    smooth,
    smooth_noise,
    soft_step,
    stroke,
    wander,
)

DEFECTS = ("crack", "cut", "hole", "print")
# noise on the shell is interpolated cubically to a grid this many times finer, then linearly
FINE = 8


@dataclass(frozen=True)
class Nut:
    """A drawn nut: shell and ground ``(H, W, 3)``; light, gloss and coverage ``(H, W)``; its pose in
    image units and rad.
    """

    shell: np.ndarray
    light: np.ndarray
    gloss: np.ndarray
    coverage: np.ndarray
    ground: np.ndarray
    centre: tuple[float, float]
    radius: float
    axis: float

    def scene(self, shell: np.ndarray) -> np.ndarray:
        """The lit picture ``(H, W, 3)`` float64 with this colour of the shell."""
        return blend(
            self.ground, shell * self.light[..., None] + self.gloss[..., None], self.coverage
        )


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
    nut = _grow(rng, size)
    clean = nut.scene(nut.shell)
    if defect is None:
        return clean, clean
    distance = nut.radius * 0.62 * np.sqrt(defect_rng.uniform())
    around = defect_rng.uniform(0.0, 2.0 * np.pi)
    position = (
        nut.centre[0] + distance * np.cos(around),
        nut.centre[1] + distance * np.sin(around),
    )
    strength = pick_strength(defect_rng)
    paint = {"crack": _crack, "cut": _cut, "hole": _hole, "print": _print}[defect]
    return clean, nut.scene(paint(defect_rng, nut, position, strength))


def _grow(rng: np.random.Generator, size: int) -> Nut:
    x, y = grid(size)
    centre = (float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.06, 0.06)))
    radius = rng.uniform(0.62, 0.70)
    axis = rng.uniform(0.0, 2.0 * np.pi)
    tilt = rng.uniform(-0.45, 0.20)
    x, y = x - centre[0], y - centre[1]
    cos, sin = math.cos(axis), math.sin(axis)
    along, across = x * cos + y * sin, -x * sin + y * cos
    angle = np.arctan2(across, along)  # 0 towards the tip, ±pi towards the hilum
    outline = 1.0 + rng.uniform(0.0, 0.05) * np.cos(2 * angle)
    outline += rng.uniform(0.03, 0.10) * np.exp(-((angle / 0.4) ** 2))
    outline -= rng.uniform(0.02, 0.07) * np.exp(-(((np.abs(angle) - np.pi) / 0.6) ** 2))
    for order in (3, 4, 5):
        outline += rng.normal(0.0, 0.007) * np.cos(order * angle + rng.uniform(0.0, 2 * np.pi))
    reach = radius * outline
    rho = np.hypot(along, across) / reach
    depth = np.sqrt(np.clip(1.0 - rho**2, 0.0, 1.0))

    # coordinates on the nut: latitude is 1 at the tip and -1 in the middle of the hilum
    forward = along / reach
    latitude = forward * math.cos(tilt) + depth * math.sin(tilt)
    longitude = np.arctan2(across / reach, depth * math.cos(tilt) - forward * math.sin(tilt))

    def on_shell(rows: int, columns: int) -> np.ndarray:
        """Noise with ``rows`` values from hilum to tip and ``columns`` around, wrapped onto the nut."""
        sheet = np.pad(
            rng.standard_normal((rows, columns), dtype=np.float32), ((0, 0), (3, 3)), mode="wrap"
        )
        fine = smooth(sheet, (FINE * rows, FINE * (columns + 6)))
        u = (longitude / (2 * np.pi) + 0.5) * columns + 3.5
        v = (np.clip(latitude, -1, 1) + 1) / 2 * (rows - 1) + 0.5
        return map_coordinates(fine, (FINE * v - 0.5, FINE * u - 0.5), order=1)

    streaks = 0.55 * on_shell(3, 70) + 0.45 * on_shell(6, 190)
    brown = np.array([0.60, 0.35, 0.17]) * rng.uniform(0.90, 1.10)
    brown *= 1.0 + rng.normal(0.0, [0.01, 0.03, 0.05])
    tone = 1.0 + 0.07 * smooth_noise(rng, size, 6) + 0.04 * smooth_noise(rng, size, 90)
    tone += rng.uniform(0.06, 0.11) * streaks
    shell = brown * tone[..., None]
    # grey down towards the tip, and some dark fibres as on every nut
    bloom = np.clip((latitude - 0.62) / 0.35, 0, 1) * rng.uniform(0.2, 0.6)
    shell = blend(shell, np.array([0.62, 0.50, 0.36]), bloom * (0.75 + 0.25 * streaks).clip(0, 1))
    shell *= 1.0 - (0.30 * np.clip(streaks - 1.1, 0, 1))[..., None]

    edge = -rng.uniform(0.55, 0.70) + 0.035 * on_shell(2, 16) + 0.025 * on_shell(2, 60)
    hilum = soft_step(latitude - edge, 0.05)
    grain = 1.0 + 0.10 * smooth_noise(rng, size, 64) + 0.07 * smooth_noise(rng, size, 24)
    pale = np.array([0.78, 0.64, 0.47]) * rng.uniform(0.85, 1.08) * grain[..., None]
    shell = blend(shell, pale, hilum)
    rim = np.exp(-(((latitude - edge - 0.035) / 0.03) ** 2))  # the dark seam around the hilum
    shell *= 1.0 - 0.35 * rim[..., None]

    sun = np.array([rng.normal(-0.45, 0.12), rng.normal(-0.5, 0.12), 0.85])
    sun = sun / np.linalg.norm(sun)
    facing = np.clip(x / reach * sun[0] + y / reach * sun[1] + depth * sun[2], 0.0, 1.0)
    light = (0.30 + 0.85 * facing) * (0.55 + 0.45 * np.sqrt(depth))
    gloss = rng.uniform(0.05, 0.16) * facing**14 * (1 - 0.8 * hilum) * (1 + 0.3 * streaks)
    coverage = soft_step((rho - 1.0) * radius, 3.0 / size)
    backdrop = 0.055 + 0.008 * smooth_noise(rng, size, 5) + 0.008 * smooth_noise(rng, size, 80)
    halo = 0.03 * np.exp(-np.clip(rho - 1.0, 0, None) * 5.0)
    ground = (backdrop + halo)[..., None] * np.array([1.05, 0.97, 1.0])
    return Nut(
        shell, light, gloss, coverage, ground, centre=centre, radius=float(radius), axis=float(axis)
    )


def _crack(
    rng: np.random.Generator, nut: Nut, position: tuple[float, float], strength: float
) -> np.ndarray:
    """A jagged dark split that runs roughly from hilum to tip, sometimes forked."""
    size = len(nut.shell)
    path = wander(rng, position, nut.axis + rng.normal(0.0, 0.35), rng.uniform(0.30, 0.85), 0.30)
    lines = [path]
    if rng.uniform() < 0.4:
        branch = wander(
            rng, (0.0, 0.0), nut.axis + rng.choice([-0.9, 0.9]), rng.uniform(0.08, 0.2), 0.3, 10
        )
        lines.append(branch - branch[0] + path[rng.integers(8, 17)])
    width = rng.uniform(0.016, 0.042)
    gap = stroke(size, lines, width, taper=True)
    lip = stroke(size, [line + width for line in lines], width, taper=True)
    shell = blend(nut.shell, (0.80, 0.62, 0.42), 0.45 * strength * lip)
    return blend(shell, (0.10, 0.06, 0.04), strength * gap)


def _cut(
    rng: np.random.Generator, nut: Nut, position: tuple[float, float], strength: float
) -> np.ndarray:
    """One to three straight knife marks: pale inner shell with a thin shadow on one side."""
    size = len(nut.shell)
    angle, width = rng.uniform(0.0, np.pi), rng.uniform(0.026, 0.055)
    shell = nut.shell
    for _ in range(rng.integers(1, 4)):
        middle = (position[0] + rng.normal(0.0, 0.09), position[1] + rng.normal(0.0, 0.09))
        mark = wander(rng, middle, angle + rng.normal(0.0, 0.12), rng.uniform(0.22, 0.55), 0.02)
        shadow = stroke(size, [mark + 0.8 * width], 0.6 * width, taper=True)
        shell = blend(shell, (0.16, 0.09, 0.05), 0.7 * strength * shadow)
        shell = blend(
            shell, (0.92, 0.76, 0.54), 0.92 * strength * stroke(size, [mark], width, taper=True)
        )
    return shell


def _hole(
    rng: np.random.Generator, nut: Nut, position: tuple[float, float], strength: float
) -> np.ndarray:
    """A worm hole: a round dark pit with a chewed, slightly paler rim."""
    radius = rng.uniform(0.030, 0.090)
    distance = blob_distance(rng, len(nut.shell), position, radius, 0.10)
    rim = np.exp(-((distance / (0.3 * radius)) ** 2)) * (distance > 0)
    shell = blend(nut.shell, (0.78, 0.58, 0.38), 0.4 * strength * rim)
    pit = soft_step(distance, 0.5 * radius)
    return blend(shell, (0.07, 0.04, 0.03), np.sqrt(strength) * pit)


def _print(
    rng: np.random.Generator, nut: Nut, position: tuple[float, float], strength: float
) -> np.ndarray:
    """A few stamped letters in worn white, grey or blue ink."""
    size = len(nut.shell)
    height = rng.uniform(0.20, 0.38)
    near = (np.asarray(position) * 0.6 + np.asarray(nut.centre) * 0.4).tolist()
    ink = stroke(size, letters(rng, near, height, rng.uniform(0.0, 2.0 * np.pi)), 0.13 * height)
    wear = np.clip(0.8 + 0.35 * smooth_noise(rng, size, 40), 0.3, 1.0)
    colour = [(0.88, 0.86, 0.82), (0.70, 0.70, 0.70), (0.24, 0.32, 0.60)][rng.integers(3)]
    return blend(nut.shell, colour, 0.85 * strength * wear * ink)
