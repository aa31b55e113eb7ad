"""Converts pixel values to network inputs and back.

A network that reconstructs its input must end in an activation whose range covers
``value_range(mode)``: a tanh covers ``tanh``, a sigmoid covers ``none``, and none of the two covers
``imagenet`` or ``gray``.
"""

from __future__ import annotations

import cv2
import numpy as np

from nbhelpers.errors import ConfigError

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

#: Mean and standard deviation of each mode, for values in [0, 1]; ``gray`` is the luma with
#: ImageNet's statistics of red.
NORMALIZATIONS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "tanh": (np.array([0.5], np.float32), np.array([0.5], np.float32)),
    "gray": (IMAGENET_MEAN[:1], IMAGENET_STD[:1]),
    "none": (np.array([0.0], np.float32), np.array([1.0], np.float32)),
}


def _statistics(mode: str) -> tuple[np.ndarray, np.ndarray]:
    if mode not in NORMALIZATIONS:
        raise ConfigError(
            f"normalization: expected one of {', '.join(NORMALIZATIONS)}, found {mode!r}; choose one "
            "of them"
        )
    return NORMALIZATIONS[mode]


def to_gray(image: np.ndarray) -> np.ndarray:
    """Luma ``(H, W, 1)`` of an ``(H, W, 3)`` uint8 image (ITU-R BT.601).

    An image of one channel is returned unchanged.
    """
    return image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]


def normalize_image(image: np.ndarray, mode: str = "imagenet") -> np.ndarray:
    """Scale pixels to [0, 1], subtract the mode's mean and divide by its standard deviation.

    Args:
        image: ``(H, W, C)`` uint8.
        mode: ``imagenet``; ``tanh`` for [-1, 1]; ``gray`` for the luma only; ``none`` for [0, 1].

    Returns:
        ``(H, W, C)`` float32, ``(H, W, 1)`` for ``gray``.

    Raises:
        ConfigError: The mode is unknown.
    """
    mean, std = _statistics(mode)
    pixels = to_gray(image) if mode == "gray" else image
    return (pixels.astype(np.float32) / 255 - mean) / std


def denormalize(values: np.ndarray, mode: str = "imagenet") -> np.ndarray:
    """The inverse of ``normalize_image``.

    Args:
        values: ``(H, W, C)`` float.
        mode: As in ``normalize_image``.

    Returns:
        ``(H, W, C)`` uint8, rounded to the nearest level and clipped.

    Raises:
        ConfigError: The mode is unknown.
    """
    mean, std = _statistics(mode)
    return np.clip(np.rint((values * std + mean) * 255), 0, 255).astype(np.uint8)


def value_range(mode: str) -> tuple[float, float]:
    """The smallest and the largest value that ``normalize_image`` can return in a mode.

    Raises:
        ConfigError: The mode is unknown.
    """
    mean, std = _statistics(mode)
    return float((-mean / std).min()), float(((1 - mean) / std).max())
