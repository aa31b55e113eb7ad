"""Pixel values to network inputs: normalisation modes, and their inverses."""

from __future__ import annotations

import numpy as np

from nbhelpers.errors import ConfigError

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalize_image(image: np.ndarray, mode: str = "imagenet") -> np.ndarray:
    """``(H, W, 3)`` uint8 to float32."""
    scaled = image.astype(np.float32) / 255.0
    if mode == "imagenet":
        return (scaled - IMAGENET_MEAN) / IMAGENET_STD
    if mode == "none":
        return scaled
    raise ConfigError(f"unknown normalization {mode!r}")
