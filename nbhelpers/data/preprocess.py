"""Pixel values to network inputs and back: normalisation, resizing with padding, and chains of such steps.

A network that reconstructs its input must end in an activation whose range covers ``value_range(mode)``: a
tanh fits ``tanh``, a sigmoid ``none``, neither fits ``imagenet`` or ``gray``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from nbhelpers.errors import ConfigError

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

#: Mean and standard deviation on values in [0, 1]; ``gray`` is the luma with ImageNet's red statistics.
NORMALIZATIONS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "tanh": (np.array([0.5], np.float32), np.array([0.5], np.float32)),
    "gray": (IMAGENET_MEAN[:1], IMAGENET_STD[:1]),
    "none": (np.array([0.0], np.float32), np.array([1.0], np.float32)),
}

#: NumPy's own names; each works for any size of image and padding.
PADDINGS = ("constant", "edge", "reflect", "symmetric", "wrap")


def _statistics(mode: str) -> tuple[np.ndarray, np.ndarray]:
    if mode not in NORMALIZATIONS:
        raise ConfigError(f"normalization: wanted one of {', '.join(NORMALIZATIONS)}, found {mode!r}")
    return NORMALIZATIONS[mode]


def to_gray(image: np.ndarray) -> np.ndarray:
    """Luma (ITU-R BT.601) of an ``(H, W, 3)`` uint8 image as ``(H, W, 1)``; one channel as it is."""
    return image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]


def normalize_image(image: np.ndarray, mode: str = "imagenet") -> np.ndarray:
    """Scale pixels to [0, 1], subtract the mode's mean and divide by its standard deviation.

    Args:
        image: ``(H, W, C)`` uint8.
        mode: ``imagenet``; ``tanh`` for [-1, 1]; ``gray`` for the luma alone; ``none`` for [0, 1].

    Returns:
        ``(H, W, C)`` float32, ``(H, W, 1)`` for ``gray``.

    Raises:
        ConfigError: unknown mode.
    """
    mean, std = _statistics(mode)
    pixels = to_gray(image) if mode == "gray" else image
    return (pixels.astype(np.float32) / 255 - mean) / std


def denormalize(values: np.ndarray, mode: str = "imagenet") -> np.ndarray:
    """The inverse: ``(H, W, C)`` float to uint8, rounded to the nearest level and clipped."""
    mean, std = _statistics(mode)
    return np.clip(np.rint((values * std + mean) * 255), 0, 255).astype(np.uint8)


def value_range(mode: str) -> tuple[float, float]:
    """Smallest and largest value that ``normalize_image`` can give in this mode."""
    mean, std = _statistics(mode)
    return float((-mean / std).min()), float(((1 - mean) / std).max())


def resize_with_aspect_ratio(image: np.ndarray, target: int | Sequence[int], padding: str = "constant",
                             value: int = 0) -> np.ndarray:
    """Fit an image into ``target`` without distorting it; what is left over is padded evenly on both sides.

    Args:
        image: ``(H, W, C)`` or ``(H, W)`` uint8.
        target: Height and width of the result, or one number for both.
        padding: One of ``PADDINGS``. ``value`` is the level for ``constant``.

    Raises:
        ConfigError: unknown padding, or a target that is not positive.
    """
    sizes = (target, target) if isinstance(target, int) else tuple(target)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ConfigError(f"target: wanted a positive size or [height, width], found {target!r}")
    if padding not in PADDINGS:
        raise ConfigError(f"padding: wanted one of {', '.join(PADDINGS)}, found {padding!r}")
    height, width = image.shape[:2]
    factor = min(sizes[0] / height, sizes[1] / width)
    fitted = tuple(max(1, round(side * factor)) for side in (height, width))
    kernel = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, fitted[::-1], interpolation=kernel).reshape(*fitted, *image.shape[2:])
    free = [total - side for total, side in zip(sizes, fitted, strict=True)]
    margins = [(space // 2, space - space // 2) for space in free] + [(0, 0)] * (image.ndim - 2)
    return np.pad(resized, margins, padding, **({"constant_values": value} if padding == "constant" else {}))


STEPS: dict[str, Callable[..., np.ndarray]] = {
    "to_gray": to_gray,
    "resize_with_aspect_ratio": resize_with_aspect_ratio,
    "normalize": normalize_image,
}


class Preprocess:
    """A chain of steps as a YAML list names them, applied in order.

    Each entry is a step's name, or a mapping of the name to its arguments, for instance
    ``["to_gray", {"resize_with_aspect_ratio": {"target": 64}}, {"normalize": {"mode": "tanh"}}]``.

    Raises:
        ConfigError: unknown step, or arguments that it does not take.
    """

    def __init__(self, steps: Sequence[str | Mapping[str, Mapping[str, Any]]]) -> None:
        self.steps: list[tuple[Callable[..., np.ndarray], dict[str, Any]]] = []
        for entry in steps:
            named = {entry: {}} if isinstance(entry, str) else entry
            if not isinstance(named, Mapping) or len(named) != 1:
                raise ConfigError(f"preprocessing step: wanted a name, or a name: arguments, found {entry!r}")
            name, arguments = next(iter(named.items()))
            if name not in STEPS:
                raise ConfigError(f"preprocessing step: wanted one of {', '.join(STEPS)}, found {name!r}")
            try:
                inspect.signature(STEPS[name]).bind(None, **(arguments or {}))
            except TypeError as error:
                raise ConfigError(f"preprocessing step {name!r}: {error}; found {arguments}") from None
            self.steps.append((STEPS[name], dict(arguments or {})))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Run an ``(H, W, C)`` uint8 image through the chain."""
        for function, arguments in self.steps:
            image = function(image, **arguments)
        return image
