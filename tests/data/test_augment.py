"""Named augmentations: repeatable, aligned with the mask, silent."""

import builtins
import sys
import warnings

import cv2
import numpy as np
import pytest

from nbhelpers.data.augment import STRATEGIES, train_augmentation
from nbhelpers.errors import ConfigError, DataError

REAL = [name for name in STRATEGIES if name != "none"]
SIZE = 96


def patch():
    """Textured grey image with a bright square that its mask marks."""
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(40, 80, (SIZE, SIZE, 1), dtype=np.uint8), 3, axis=2)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[20:50, 30:70] = 1
    image[mask == 1] = 220
    return image, mask


def draws(strategy, count=40, seed=1, strength=1.0):
    function = train_augmentation(strategy, SIZE, strength, seed=seed)
    return [function(*patch()) for _ in range(count)]


@pytest.mark.parametrize("strategy", REAL)
def test_no_warning_and_the_mask_follows_the_image(strategy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = draws(strategy)
    changed = 0
    for image, mask in results:
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        seen = (
            cv2.threshold(image[:, :, 0], 0, 1, cv2.THRESH_OTSU)[1] == 1
        )  # brightness has changed
        assert (seen & (mask == 1)).sum() / (seen | (mask == 1)).sum() > 0.92
        assert (image == image[:, :, :1]).all()  # a grey image stays grey
        changed += not np.array_equal(image, patch()[0])
    assert changed > 30


@pytest.mark.parametrize("strategy", REAL)
def test_a_seed_gives_one_sequence(strategy):
    first, again, other = draws(strategy, 5), draws(strategy, 5), draws(strategy, 5, seed=2)
    assert all(
        np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
        for a, b in zip(first, again, strict=True)
    )
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strength_zero_changes_nothing_and_half_changes_less(strategy):
    image, mask = patch()
    for shifted, shifted_mask in draws(strategy, 5, strength=0):
        assert np.array_equal(shifted, image) and np.array_equal(shifted_mask, mask)
    if strategy != "none":
        change = [
            np.mean(
                [np.abs(i.astype(int) - image).mean() for i, _ in draws(strategy, 60, strength=s)]
            )
            for s in (0.2, 1.0)
        ]
        assert 0 < change[0] < change[1]


def test_rotation_leaves_no_black_corner():
    image, mask = np.full((SIZE, SIZE, 3), 200, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    function = train_augmentation("xray", SIZE, seed=0)
    assert (
        min(int(function(image, mask)[0].min()) for _ in range(20)) >= 140
    )  # 0.8 of 200, less the contrast


def test_none_needs_no_albumentations(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "albumentations":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.split(".")[0] == "albumentations"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    image, mask = patch()
    assert train_augmentation("none", SIZE, seed=0)(image, mask)[0] is image
    with pytest.raises(ConfigError, match="albumentations"):
        train_augmentation("industrial", SIZE, seed=0)


def test_refused_arguments():
    with pytest.raises(ConfigError, match="flips_color"):
        train_augmentation("flip", SIZE, seed=0)
    with pytest.raises(ConfigError, match="0 to 1"):
        train_augmentation("xray", SIZE, 1.5, seed=0)
    with pytest.raises(DataError, match="96x96"):
        train_augmentation("xray", SIZE, seed=0)(
            np.zeros((96, 80, 3), np.uint8), np.zeros((96, 80), np.uint8)
        )


def test_transforms_are_drawn_apart():
    """Two flips of one image: each alone, both and neither all happen, with a fresh seed as with a
    running one.
    """
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    mask = np.zeros((16, 16), np.uint8)
    mask[0, 0] = 1
    places = set()
    for seed in range(60):
        _, moved = train_augmentation("industrial", 16, seed=seed)(image, mask)
        places.add(tuple(np.argwhere(moved)[0]) if moved.any() else None)
    assert {(0, 0), (0, 15), (15, 0), (15, 15)} <= places
