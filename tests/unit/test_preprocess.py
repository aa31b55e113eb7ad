"""Normalisation modes and their inverses, padding that keeps the aspect, chains of steps."""

import numpy as np
import pytest

from nbhelpers.data.preprocess import (
    NORMALIZATIONS,
    PADDINGS,
    Preprocess,
    denormalize,
    normalize_image,
    resize_with_aspect_ratio,
    to_gray,
    value_range,
)
from nbhelpers.errors import ConfigError


@pytest.mark.parametrize(("mode", "black", "white"), [
    ("imagenet", -0.485 / 0.229, (1 - 0.485) / 0.229), ("tanh", -1, 1), ("gray", -0.485 / 0.229, 0.515 / 0.229),
    ("none", 0, 1),
])
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
    assert np.array_equal(denormalize(values, mode), levels[:, :, :values.shape[2]])
    low, high = value_range(mode)
    assert values.min() == pytest.approx(low, abs=1e-6) and values.max() == pytest.approx(high, abs=1e-6)


def test_gray_is_the_luma():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert to_gray(image)[0, :, 0].tolist() == [76, 150, 29]  # 0.299, 0.587, 0.114 of 255


@pytest.mark.parametrize("padding", PADDINGS)
def test_each_padding_fits_a_flat_image_without_distortion(padding):
    image = np.full((50, 100, 3), 90, np.uint8)
    image[:, :50] = 30
    padded = resize_with_aspect_ratio(image, 64, padding, value=7)
    assert padded.shape == (64, 64, 3) and padded.dtype == np.uint8
    inner, above = padded[16:48], padded[:16]  # 50 x 100 becomes 32 x 64
    assert (inner[:, :31] == 30).all() and (inner[:, 33:] == 90).all()
    assert (above == 7).all() if padding == "constant" else np.array_equal(above, inner[:16])


def test_paddings_differ_as_numpy_says():
    column = np.array([[10], [20], [30]], np.uint8).repeat(5, 1)  # 3 x 5 needs one row above and one below
    tops = {mode: int(resize_with_aspect_ratio(column, 5, mode)[0, 0]) for mode in PADDINGS}
    assert tops == {"constant": 0, "edge": 10, "reflect": 20, "symmetric": 10, "wrap": 30}


@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_wider_than_the_image(padding):
    assert resize_with_aspect_ratio(np.full((2, 200, 3), 5, np.uint8), (64, 32), padding).shape == (64, 32, 3)


def test_unknown_names_are_refused():
    image = np.zeros((4, 4, 3), np.uint8)
    for call in (lambda: normalize_image(image, "zscore"), lambda: resize_with_aspect_ratio(image, 8, "mirror"),
                 lambda: resize_with_aspect_ratio(image, 0), lambda: Preprocess(["sharpen"]),
                 lambda: Preprocess([{"normalize": {"mod": "tanh"}}]), lambda: Preprocess([3])):
        with pytest.raises(ConfigError, match="found|unexpected"):
            call()


def test_chain_runs_its_steps_in_order():
    chain = Preprocess(["to_gray", {"resize_with_aspect_ratio": {"target": [8, 4], "value": 255}},
                        {"normalize": {"mode": "tanh"}}])
    out = chain(np.zeros((6, 6, 3), np.uint8))
    assert out.shape == (8, 4, 1)
    assert out[:, 0, 0].tolist() == [1, 1, -1, -1, -1, -1, 1, 1]
