"""Normalisation modes and their inverses."""

import numpy as np
import pytest

from nbhelpers.data.preprocess import (
    NORMALIZATIONS,
    denormalize,
    normalize_image,
    to_gray,
    value_range,
)
from nbhelpers.errors import ConfigError


@pytest.mark.parametrize(
    ("mode", "black", "white"),
    [
        ("imagenet", -0.485 / 0.229, (1 - 0.485) / 0.229),
        ("tanh", -1, 1),
        ("gray", -0.485 / 0.229, 0.515 / 0.229),
        ("none", 0, 1),
    ],
)
def test_black_and_white_by_hand(mode, black, white):
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 255
    values = normalize_image(image, mode)
    assert values.dtype == np.float32
    assert values.shape == (1, 2, 1 if mode == "gray" else 3)
    assert values[0, :, 0] == pytest.approx([black, white], abs=1e-6)


@pytest.mark.parametrize("mode", NORMALIZATIONS)
def test_denormalize_gives_every_level_back_and_stays_in_the_range(mode):
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    values = normalize_image(levels, mode)
    assert np.array_equal(denormalize(values, mode), levels[:, :, : values.shape[2]])
    low, high = value_range(mode)
    assert values.min() == pytest.approx(low, abs=1e-6) and values.max() == pytest.approx(
        high, abs=1e-6
    )


def test_gray_is_the_luma():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert to_gray(image)[0, :, 0].tolist() == [76, 150, 29]  # 0.299, 0.587, 0.114 of 255


def test_an_unknown_mode_is_refused():
    image = np.zeros((4, 4, 3), np.uint8)
    for call in (normalize_image, denormalize):
        with pytest.raises(ConfigError, match="normalization: expected one of .*, found 'zscore'"):
            call(image, "zscore")
