"""A fitted detector reads later images as it read the training images; maps of letterboxed ones fit."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nbhelpers.data.images import write_png
from nbhelpers.data.layout import Sample
from nbhelpers.data.masks import read_mask
from nbhelpers.data.reading import Reading
from nbhelpers.data.resize import resize_mask
from nbhelpers.models.patchcore.detector import PatchCore


def detector(backbone):
    return PatchCore(backbone, image_size=64, coreset_ratio=0.25)


def test_later_images_are_read_as_the_training_images(samples, backbone, tmp_path):
    deep = {"train": [], "test": []}
    for part, members in samples.items():
        for i, sample in enumerate(members):
            grey = np.asarray(Image.open(sample.image).convert("L")).astype(np.uint16)
            Image.fromarray(grey * np.uint16(16)).save(tmp_path / f"{part}{i}.png")
            deep[part].append(
                replace(sample, image=tmp_path / f"{part}{i}.png", reading=Reading(4095))
            )
    model = detector(backbone).fit(deep["train"])
    expected = model.predict(deep["test"])
    model.save(tmp_path / "model")
    # samples of which nothing is known but their files
    later = [replace(sample, reading=Reading()) for sample in deep["test"]]
    predictions = PatchCore.load(tmp_path / "model").predict(later)
    assert np.array_equal(predictions.image_scores, expected.image_scores)
    model.readings = {}
    assert not np.allclose(model.predict(later).image_scores, expected.image_scores, rtol=0.1)


@pytest.fixture
def oblong(tmp_path):
    """Images of 40 x 120 px, one in three kinds of grey; a bright square at the right end."""
    rng, made = np.random.default_rng(0), {"train": [], "test": []}
    for part, count in (("train", 6), ("test", 2)):
        for i in range(count):
            image = rng.normal(110, 12, (40, 120, 3)).clip(0, 255).astype(np.uint8)
            mask = None
            if part == "test":
                image[10:30, 90:110] = 250
                mask = tmp_path / f"{i}_mask.png"
                write_png(mask, np.pad(np.full((20, 20), 255, np.uint8), ((10, 10), (90, 10))))
            path = tmp_path / f"{part}{i}.png"
            write_png(path, image)
            kind = "spot" if mask else "good"
            reading = Reading(letterbox=True)
            made[part].append(
                Sample(f"c/{part}/{kind}/{i}.png", path, mask, "c", kind, reading=reading)
            )
    return made


def test_maps_of_letterboxed_images_lie_on_their_masks(oblong, backbone):
    model = detector(backbone).fit(oblong["train"])
    predictions = model.predict(oblong["test"])
    assert predictions.anomaly_maps.shape == predictions.masks.shape == (2, 64, 64)
    for i, sample in enumerate(oblong["test"]):
        # the mask fills the square: pixel metrics see no bar
        assert np.array_equal(
            predictions.masks[i], resize_mask(read_mask(sample.mask, (40, 120)), 64)
        )
        assert predictions.masks[i].sum() == pytest.approx(64 * 64 * 400 / 4800, abs=1)
        anomaly_map = predictions.anomaly_maps[i]
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert 12 <= row <= 52 and 44 <= column <= 62  # the square is 16 to 48, 48 to 59
        assert (
            anomaly_map[predictions.masks[i] == 1].mean()
            > 1.2 * anomaly_map[predictions.masks[i] == 0].mean()
        )
    assert predictions.nearest.shape == (2, 16, 16) and predictions.nearest.max() < 6
