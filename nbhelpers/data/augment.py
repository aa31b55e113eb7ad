"""Training augmentations by name.

The strategies use albumentations, which is imported only when one of them is chosen; ``none`` needs
no library. Rotations mirror the border, because a black corner would be a pattern that no real
image has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from nbhelpers.errors import ConfigError, DataError

if TYPE_CHECKING:
    import albumentations

Augmentation = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

BORDER = cv2.BORDER_REFLECT_101


def _elastic(
    library: Any, image_size: int, strength: float, p: float
) -> albumentations.BasicTransform:
    """Smooth displacement of about half a percent of the image's side (rms) at full strength.

    The published setting, alpha 1 and sigma 50, moves a pixel by only some thousandths. The library
    divides its white noise by the largest value (4.5 deviations), and a Gaussian of width ``sigma``
    leaves 1 / (2 sqrt(pi) sigma) of a deviation.
    """
    sigma = image_size / 16
    alpha = strength * 0.005 * image_size * 4.5 * 2 * np.sqrt(np.pi) * sigma
    return library.ElasticTransform(alpha=float(alpha), sigma=sigma, border_mode=BORDER, p=p)


def _flips_color(
    library: Any, image_size: int, strength: float
) -> list[albumentations.BasicTransform]:
    return [
        library.HorizontalFlip(p=0.5 * strength),
        library.VerticalFlip(p=0.5 * strength),
        library.RandomRotate90(p=0.5 * strength),
        library.RandomBrightnessContrast(0.2 * strength, 0.2 * strength, p=0.5),
        # one value for all channels, here and below, so that a grey image stays grey
        library.GaussNoise(std_range=(0.01 * strength, 0.03 * strength), per_channel=False, p=0.3),
        _elastic(library, image_size, strength, p=0.2),
    ]


def _industrial(
    library: Any, image_size: int, strength: float
) -> list[albumentations.BasicTransform]:
    # a variance of 10 to 50 on values of 0 to 255, as a deviation on values of 0 to 1
    noise = (10**0.5 / 255 * strength, 50**0.5 / 255 * strength)
    return [
        library.RandomRotate90(p=0.5 * strength),
        library.HorizontalFlip(p=0.5 * strength),
        library.VerticalFlip(p=0.3 * strength),
        library.GaussNoise(std_range=noise, per_channel=False, p=0.3),
        library.RandomBrightnessContrast(0.2 * strength, 0.2 * strength, p=0.5),
        library.OneOf(
            [
                _elastic(library, image_size, strength, p=1),
                library.GridDistortion(distort_limit=0.3 * strength, border_mode=BORDER, p=1),
                library.OpticalDistortion(distort_limit=0.05 * strength, border_mode=BORDER, p=1),
            ],
            p=0.2,
        ),
    ]


def _xray(library: Any, image_size: int, strength: float) -> list[albumentations.BasicTransform]:
    change = (1 - 0.2 * strength, 1 + 0.2 * strength)
    return [
        library.Rotate(limit=15 * strength, border_mode=BORDER, p=1),
        library.HorizontalFlip(p=0.5 * strength),
        library.ColorJitter(brightness=change, contrast=change, saturation=(1, 1), hue=(0, 0), p=1),
    ]


STRATEGIES: dict[str, Callable[[Any, int, float], list[Any]] | None] = {
    "none": None,
    "flips_color": _flips_color,
    "industrial": _industrial,
    "xray": _xray,
}


def _identity(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image, mask


def train_augmentation(
    strategy: str, image_size: int, strength: float = 1.0, *, seed: int
) -> Augmentation:
    """A function that augments a resized training image and its mask.

    Args:
        strategy: ``none``, ``flips_color``, ``industrial`` or ``xray``.
        image_size: Side of the square images that the function takes, pixels.
        strength: 0 (changes nothing) to 1 (as published). It scales the magnitudes, and the
            probability of flips and quarter turns, which have no magnitude.
        seed: Seed of the random choices; two augmentations with one seed give the same sequence.

    Returns:
        A function that takes and returns an ``(image_size, image_size, 3)`` uint8 image and its 0/1
        uint8 mask, and raises ``DataError`` for an image of another size.

    Raises:
        ConfigError: The strategy is unknown, the strength is outside [0, 1], or albumentations is
            not installed.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"augmentation: expected one of {', '.join(STRATEGIES)}, found {strategy!r}; choose one of "
            "them"
        )
    if not 0 <= strength <= 1:
        raise ConfigError(
            f"augmentation strength: expected 0 to 1, found {strength!r}; change the setting"
        )
    build = STRATEGIES[strategy]
    if build is None or strength == 0:
        return _identity
    # without this the import would look for a newer version in the network
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError:
        raise ConfigError(
            f"augmentation {strategy!r}: expected the package albumentations, found none; install "
            "requirements.txt, or use 'none'"
        ) from None
    transform = albumentations.Compose(build(albumentations, image_size, strength), seed=seed)
    # the library gives all transforms the same seed, so both flips would always come together
    seeds = np.random.SeedSequence(seed).generate_state(len(transform.transforms))
    for step, step_seed in zip(transform.transforms, seeds, strict=True):
        step.set_random_seed(int(step_seed))

    def augment(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if image.shape[:2] != (image_size, image_size):
            raise DataError(
                f"augmentation: expected {image_size}x{image_size} pixels, found "
                f"{image.shape[1]}x{image.shape[0]}; resize the image first"
            )
        result = transform(image=image, mask=mask)
        return result["image"], result["mask"]

    return augment
