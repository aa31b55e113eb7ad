"""Drawing tools of the synthetic categories: noise, strokes, blobs, and the camera at the end.

All lengths are in image units: x and y run from -1 to 1 over the picture, whatever its size in
pixels. So a defect covers the same share of the picture at 64 px and at 512 px.

Everything with a fraction is computed in double precision by NumPy, SciPy and Pillow, and rounded
once, at the end. OpenCV's filters have single precision; their last digits, and so the pixels,
depend on the processor.
"""

import math

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

# strokes are drawn this many times larger and averaged down, so that a thin line keeps its width
SUPERSAMPLING = 4
# a pixel belongs to the defect when the noise-free picture changes by more than this
CHANGED = 4.0 / 255.0
# printed letters as polylines in a unit box, y downwards; a font file may differ between machines
LETTERS: dict[str, list[list[tuple[float, float]]]] = {
    "A": [[(0, 1), (0.5, 0), (1, 1)], [(0.2, 0.6), (0.8, 0.6)]],
    "E": [[(1, 0), (0, 0), (0, 1), (1, 1)], [(0, 0.5), (0.8, 0.5)]],
    "F": [[(1, 0), (0, 0), (0, 1)], [(0, 0.5), (0.8, 0.5)]],
    "H": [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0.5), (1, 0.5)]],
    "K": [[(0, 0), (0, 1)], [(1, 0), (0, 0.5), (1, 1)]],
    "M": [[(0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)]],
    "N": [[(0, 1), (0, 0), (1, 1), (1, 0)]],
    "X": [[(0, 0), (1, 1)], [(1, 0), (0, 1)]],
    "Z": [[(0, 0), (1, 0), (0, 1), (1, 1)]],
    "4": [[(0.8, 1), (0.8, 0), (0, 0.7), (1, 0.7)]],
    "7": [[(0, 0), (1, 0), (0.4, 1)]],
}


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Image coordinates of all pixel centres: x (right) and y (down), ``(size, size)`` float64."""
    axis = (np.arange(size) + 0.5) * (2.0 / size) - 1.0
    x, y = np.meshgrid(axis, axis)
    return x, y


def smooth_noise(
    rng: np.random.Generator, size: int, rows: int, columns: int | None = None
) -> np.ndarray:
    """Cubic value noise ``(size, size)`` float64 with mean about 0 and deviation below 1.

    ``rows`` times ``columns`` (by default as many) independent values span the picture; few values
    along one axis give streaks along it.
    """
    values = rng.standard_normal((rows, columns or rows), dtype=np.float32)
    return smooth(values, (size, size))


def smooth(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Interpolate float32 values ``(rows, columns)`` cubically to ``shape``, float64."""
    return np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.BICUBIC), float)


def soften(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a picture ``(H, W)`` or ``(H, W, 3)`` by a Gaussian.

    Args:
        picture: The picture.
        sigma: Width of the Gaussian, pixels of a picture of 256 px.
    """
    return gaussian_filter(picture, sigma * len(picture) / 256, axes=(0, 1), mode="mirror")


def soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside (distance < 0) and 0 outside, with a linear edge of ``width`` around 0."""
    return np.clip(0.5 - distance / width, 0.0, 1.0)


def blend(
    image: np.ndarray, colour: np.ndarray | tuple[float, ...], alpha: np.ndarray
) -> np.ndarray:
    """Paint a colour over an image.

    Args:
        image: ``(H, W, 3)``.
        colour: ``(3,)`` or ``(H, W, 3)``.
        alpha: ``(H, W)``, the opacity in [0, 1].
    """
    return image + (np.asarray(colour) - image) * alpha[..., None]


def wander(
    rng: np.random.Generator,
    centre: tuple[float, float],
    angle: float,
    length: float,
    wiggle: float,
    steps: int = 24,
) -> np.ndarray:
    """A hand-drawn line of ``(steps + 1, 2)`` points, about ``length`` long.

    It turns by about ``wiggle`` rad per step.
    """
    headings = angle + np.cumsum(rng.normal(0.0, wiggle, steps))
    headings += angle - headings.mean()
    strides = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / steps)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(strides, axis=0)])
    return points - points.mean(axis=0) + np.asarray(centre)


def stroke(size: int, lines: list[np.ndarray], width: float, taper: bool = False) -> np.ndarray:
    """Draw polylines with a pen.

    Args:
        size: Side of the picture, pixels.
        lines: Polylines of ``(n, 2)`` points.
        width: Width of the pen, image units; a pen thinner than a pixel covers pixels partly.
        taper: Whether the lines start and end thin.

    Returns:
        The coverage ``(size, size)`` float64 in [0, 1].
    """
    canvas = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING), dtype=np.uint8)
    scale = size * SUPERSAMPLING / 2.0
    for line in lines:
        points = np.round((line + 1.0) * scale).astype(np.int32)
        pen = np.full(len(points) - 1, width)
        if taper:
            pen *= np.sin(np.linspace(0.15, np.pi - 0.15, len(pen)))
        thickness = np.maximum(1, np.round(pen * scale)).astype(int)
        for start, end, thick in zip(points[:-1], points[1:], thickness, strict=True):
            cv2.line(canvas, start.tolist(), end.tolist(), 255, int(thick))
    # the mean of whole numbers is exact on every processor
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / 255.0


def blob_distance(
    rng: np.random.Generator,
    size: int,
    centre: tuple[float, float],
    radius: float,
    roughness: float,
    stretch: float = 1.0,
) -> np.ndarray:
    """Approximate signed distance ``(size, size)`` to the outline of an irregular spot.

    It is negative inside. ``roughness`` is the outline's deviation relative to ``radius``;
    ``stretch`` above 1 makes the spot longer in a random direction.
    """
    x, y = grid(size)
    turn = rng.uniform(0.0, np.pi)
    along = ((x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)) / np.sqrt(stretch)
    across = (-(x - centre[0]) * np.sin(turn) + (y - centre[1]) * np.cos(turn)) * np.sqrt(stretch)
    angle = np.arctan2(across, along)
    outline = np.ones_like(angle)
    for order in range(2, 7):
        outline += (
            (roughness / order)
            * rng.normal()
            * np.cos(order * angle + rng.uniform(0.0, 2.0 * np.pi))
        )
    return np.hypot(along, across) - radius * np.clip(outline, 0.4, 1.6)


def pick_strength(rng: np.random.Generator) -> float:
    """How clearly a defect shows, in (0.3, 1): most are easy to see, many are faint."""
    return float(0.3 + 0.7 * np.sqrt(rng.uniform()))


def letters(
    rng: np.random.Generator, centre: tuple[float, float], height: float, angle: float
) -> list[np.ndarray]:
    """Polylines of 1 to 3 random letters of ``height``, centred and turned by ``angle`` rad."""
    text = rng.choice(sorted(LETTERS), size=rng.integers(1, 4), replace=False)
    cos, sin = np.cos(angle), np.sin(angle)
    lines = []
    for index, letter in enumerate(text):
        for polyline in LETTERS[letter]:
            points = np.asarray(polyline, dtype=np.float64) * (0.65, 1.0) + (
                0.95 * index - 0.475 * len(text) + 0.15,
                -0.5,
            )
            lines.append(height * points @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(centre))
    return lines


def _tidy(changed: np.ndarray) -> np.ndarray:
    """Join the pieces of one defect and drop single specks, so that a defect is a region.

    Takes and returns ``(H, W)`` uint8 of 0 and 1.
    """
    scale = len(changed) / 256
    reach = 2 * round(3 * scale) + 1
    joined = cv2.morphologyEx(
        changed, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    )
    count, regions, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [i for i in range(1, count) if areas[i] >= min(24 * scale**2, areas[1:].max())]
    return np.isin(regions, kept).astype(np.uint8)


def photograph(
    rng: np.random.Generator, clean: np.ndarray, defective: np.ndarray, gradient: float = 0.10
) -> tuple[np.ndarray, np.ndarray]:
    """Take the picture: optics, exposure, light gradient, white balance, sensor noise, 8 bits.

    Args:
        rng: Draws the camera's settings and noise.
        clean: The scene without the defect, ``(H, W, 3)`` float64 in about [0, 1].
        defective: The same scene with the defect, or ``clean`` itself.
        gradient: Largest change of the light over half the picture, as a share.

    Returns:
        The image ``(H, W, 3)`` uint8 RGB, and the mask ``(H, W)`` uint8 0/255 of the pixels that the
        defect changed. Outside the mask the image is that of the clean scene.
    """
    size = clean.shape[0]
    scene, changed = soften(clean, 0.6), np.zeros((size, size), np.uint8)
    if defective is not clean:
        softened = soften(defective, 0.6)
        changed = _tidy((np.abs(softened - scene).max(axis=2) > CHANGED).astype(np.uint8))
        scene[changed > 0] = softened[changed > 0]
    x, y = grid(size)
    direction = rng.uniform(0.0, 2.0 * np.pi)
    slope = rng.uniform(0.0, gradient)
    light = rng.uniform(0.88, 1.12) * (
        1.0 + slope * (x * math.cos(direction) + y * math.sin(direction))
    )
    light = light[..., None] * (1.0 + rng.normal(0.0, 0.006, 3))
    noise = rng.standard_normal((size, size, 3), dtype=np.float32) * rng.uniform(0.006, 0.013)
    scene = scene * light + noise
    return np.rint(np.clip(scene, 0.0, 1.0) * 255).astype(np.uint8), changed * 255
