"""The parameters of one shifted image: every value of the domain shift, drawn from one seed.

The ranges are those of ``ShiftConfig``. Every part of the shift is drawn for every image, in one
fixed order, whatever ``only`` and ``severity`` are. So another choice of parts or severity keeps all
other draws, and two shifted sets that differ in one setting can be compared image by image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nbhelpers.config.sections import ShiftConfig
from nbhelpers.errors import ConfigError

GEOMETRIC = ("rotation", "crop", "translation")
PHOTOMETRIC = ("brightness", "contrast", "saturation", "blur", "noise", "illumination")
PARTS = GEOMETRIC + PHOTOMETRIC
GROUPS = {"geometric": GEOMETRIC, "photometric": PHOTOMETRIC}

#: Factor on the distance of each drawn value from "unchanged"; ``moderate`` is the configured range.
SEVERITIES = {"mild": 0.5, "moderate": 1.0, "severe": 1.5}

#: Factors, the crop's area and the illumination's darkest gain never fall below this share.
FLOOR = 0.05

ILLUMINATIONS = (
    ("linear", "left"),
    ("linear", "right"),
    ("linear", "top"),
    ("linear", "bottom"),
    ("radial", "center_dark"),
    ("radial", "edges_dark"),
)


@dataclass(frozen=True)
class ShiftParameters:
    """All values that determine one shifted image; the defaults leave an image unchanged.

    Attributes:
        rotation_degrees: Rotation about the image's centre, counter-clockwise.
        crop_scale: Area of the crop window as a share of the image's area.
        crop_aspect: Width over height of the window, relative to the image's own.
        crop_x: Horizontal position of the window: 0 is left, 0.5 centred, 1 right.
        crop_y: Vertical position of the window: 0 is at the top, 1 at the bottom.
        translation_x: Move to the right, as a share of the width.
        translation_y: Move down, as a share of the height.
        brightness: Factor on all values.
        contrast: Factor on the distance to the image's mean grey.
        saturation: Factor on the distance of a colour to its own grey.
        blur_applied: Whether the image is blurred.
        blur_kernel: Side of the Gaussian kernel, pixels at 224 px; 0 without blur.
        blur_sigma: Width of the Gaussian, pixels at 224 px; 0 without blur.
        noise_applied: Whether noise is added.
        noise_sigma: Standard deviation of the noise on values in [0, 1], at 224 px; 0 without
            noise.
        noise_seed: Seed of the noise field.
        illumination_applied: Whether the light has a gradient.
        illumination_kind: ``none``, ``linear`` or ``radial``.
        illumination_direction: The side from which the light comes (``left``, ``right``, ``top``,
            ``bottom``), or what is dark (``center_dark``, ``edges_dark``).
        illumination_strength: Gain at the darkest pixel; it is 1 at the brightest.
        illumination_sigma: Width of the Gaussian that rounds the two ends of the ramp, pixels at
            224 px.
    """

    rotation_degrees: float = 0.0
    crop_scale: float = 1.0
    crop_aspect: float = 1.0
    crop_x: float = 0.5
    crop_y: float = 0.5
    translation_x: float = 0.0
    translation_y: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    blur_applied: bool = False
    blur_kernel: int = 0
    blur_sigma: float = 0.0
    noise_applied: bool = False
    noise_sigma: float = 0.0
    noise_seed: int = 0
    illumination_applied: bool = False
    illumination_kind: str = "none"
    illumination_direction: str = "none"
    illumination_strength: float = 1.0
    illumination_sigma: float = 0.0

    def to_row(self) -> dict[str, float | int | bool | str]:
        """All values by name, for a row of the manifest; ``ShiftParameters(**row)`` is the inverse."""
        return asdict(self)


IDENTITY = ShiftParameters()


def image_seed(base_seed: int, category: str, split: str, sample_id: str) -> int:
    """The seed of one image: a stable hash of its name, which does not depend on the order of images.

    It has 63 bits, so that readers of CSV and Parquet files take it for a signed integer.
    """
    text = "\0".join((str(base_seed), category, split, sample_id))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def expand_parts(only: Iterable[str]) -> tuple[str, ...]:
    """The parts of the shift that ``only`` selects, in the order of ``PARTS``; all if it is empty.

    Raises:
        ConfigError: A name is not that of a part or of a group of parts.
    """
    names = tuple(only)
    unknown = sorted(set(names) - set(PARTS) - set(GROUPS))
    if unknown:
        raise ConfigError(
            f"setting 'shift.only': expected names among {', '.join((*GROUPS, *PARTS))}, "
            f"found {', '.join(unknown)}; correct the setting"
        )
    chosen = {part for name in names for part in GROUPS.get(name, (name,))}
    return tuple(part for part in PARTS if part in chosen or not names)


def sample_parameters(config: ShiftConfig, seed: int) -> ShiftParameters:
    """Draw all parameters of one image from a generator of its own.

    The severity moves the same draws towards or away from "unchanged" (``SEVERITIES``). It does not
    change probabilities, kernel size, direction and seeds.

    Args:
        config: The ranges, the severity and the chosen parts.
        seed: The image's seed, from ``image_seed``.

    Raises:
        ConfigError: ``only`` has an unknown name, ``blur_kernel`` has no odd size of at least 3, or
            ``crop_aspect`` is not a range around 1 (a window of the full area has aspect 1).
    """
    chosen = expand_parts(config.only)
    kernels = [
        k for k in range(config.blur_kernel[0], config.blur_kernel[1] + 1) if k % 2 and k >= 3
    ]
    if not kernels:
        raise ConfigError(
            "setting 'shift.blur_kernel': expected a range with an odd size of at least 3, found "
            f"{config.blur_kernel}; correct the setting"
        )
    if not config.crop_aspect[0] <= 1 <= config.crop_aspect[1]:
        raise ConfigError(
            f"setting 'shift.crop_aspect': expected a range around 1, found {config.crop_aspect}; "
            "correct the setting"
        )

    rng = np.random.default_rng(seed)
    # A new draw must go to the end of this list; otherwise all images change.
    rotation, scale, aspect, crop_x, crop_y, move_x, move_y = rng.random(7)
    brightness, contrast, saturation = rng.random(3)
    blur, kernel, blur_sigma, noise, noise_sigma = rng.random(5)
    illumination, which, strength = rng.random(3)
    noise_seed = int(rng.integers(2**63))

    factor = SEVERITIES[config.severity]

    def within(bounds: tuple[float, float], draw: float) -> float:
        return float(bounds[0] + draw * (bounds[1] - bounds[0]))

    def scaled(value: float, unchanged: float) -> float:
        # exactly the draw itself when the factor is 1
        return value + (factor - 1) * (value - unchanged)

    def multiplier(bounds: tuple[float, float], draw: float) -> float:
        return max(FLOOR, scaled(within(bounds, draw), 1.0))

    def symmetric(limit: float, draw: float) -> float:
        return scaled(within((-limit, limit), draw), 0.0)

    # The window must fit the image on both sides: crop_scale <= aspect <= 1 / crop_scale.
    area = within(config.crop_scale, scale)
    ratio = within((max(config.crop_aspect[0], area), min(config.crop_aspect[1], 1 / area)), aspect)
    area = max(FLOOR, scaled(area, 1.0))
    ratio = float(np.clip(scaled(ratio, 1.0), area, 1 / area))

    drawn: dict[str, dict[str, Any]] = {
        "rotation": {"rotation_degrees": symmetric(config.rotation_degrees, rotation)},
        "crop": {
            "crop_scale": area,
            "crop_aspect": ratio,
            "crop_x": float(crop_x),
            "crop_y": float(crop_y),
        },
        "translation": {
            "translation_x": symmetric(config.translation, move_x),
            "translation_y": symmetric(config.translation, move_y),
        },
        "brightness": {"brightness": multiplier(config.brightness, brightness)},
        "contrast": {"contrast": multiplier(config.contrast, contrast)},
        "saturation": {"saturation": multiplier(config.saturation, saturation)},
    }
    if blur < config.blur_probability:
        drawn["blur"] = {
            "blur_applied": True,
            "blur_kernel": kernels[int(kernel * len(kernels))],
            "blur_sigma": scaled(within(config.blur_sigma, blur_sigma), 0.0),
        }
    if noise < config.noise_probability:
        drawn["noise"] = {
            "noise_applied": True,
            "noise_seed": noise_seed,
            "noise_sigma": scaled(within(config.noise_sigma, noise_sigma), 0.0),
        }
    if illumination < config.illumination_probability:
        kind, direction = ILLUMINATIONS[int(which * len(ILLUMINATIONS))]
        drawn["illumination"] = {
            "illumination_applied": True,
            "illumination_kind": kind,
            "illumination_direction": direction,
            "illumination_strength": multiplier(config.illumination_strength, strength),
            "illumination_sigma": float(config.illumination_sigma),
        }
    values: dict[str, Any] = {}
    for part in chosen:
        values |= drawn.get(part, {})
    return replace(IDENTITY, **values)
