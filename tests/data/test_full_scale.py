"""One way of reading for all files of a category, from its training images and the settings."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nbhelpers.config import load_config
from nbhelpers.data.full_scale import with_reading
from nbhelpers.data.images import read_image, write_png
from nbhelpers.data.layout import Sample
from nbhelpers.data.reading import Reading
from nbhelpers.errors import DataError


def settings(**data):
    return load_config("tiny", {f"data.{key}": value for key, value in data.items()}).data


def category(folder, train, test, kind=np.uint16):
    """One category whose images have these largest values."""
    samples = []
    for part, peaks in (("train", train), ("test", test)):
        for i, peak in enumerate(peaks):
            name = f"{part}_{i}.tif"
            Image.fromarray(np.array([[0, peak]], kind)).save(folder / name)
            samples.append(Sample(f"nut/{part}/good/{name}", folder / name, None, "nut", "good"))
    return samples


def scale_of(samples, **data):
    readings = {sample.reading for sample in with_reading(samples, settings(**data))}
    assert len(readings) == 1  # all images of the category, the test images too
    return readings.pop().full_scale


@pytest.mark.parametrize(
    ("train", "scale"),
    [
        ([200, 90], 1023),
        ([1023, 5], 1023),
        ([1024, 5], 4095),
        ([4000, 4095], 4095),
        ([9000], 16383),
        ([16384], 65535),
        ([65535], 65535),
    ],
)
def test_the_scale_is_the_least_that_holds_the_training_images(tmp_path, train, scale):
    assert scale_of(category(tmp_path, train, [60000])) == scale


def test_ordinary_images_need_no_scale(tmp_path):
    assert scale_of(category(tmp_path, [255, 9], [7], np.uint8)) is None


def test_the_scale_can_be_set(tmp_path):
    samples = category(tmp_path, [200, 90], [100])
    assert scale_of(samples, bit_depth=8) == 255 and scale_of(samples, bit_depth=11) == 2047


def test_floats_have_a_scale_too(tmp_path):
    assert scale_of(category(tmp_path, [0.7, 0.9], [0.2], np.float32)) == 1
    assert scale_of(category(tmp_path, [1.02], [0.2], np.float32)) == 1  # resampling overshoots
    assert scale_of(category(tmp_path, [250.0], [255.0], np.float32)) == 255
    assert scale_of(category(tmp_path, [3000.0], [0.2], np.float32)) == 4095
    with pytest.raises(DataError, match="category 'nut': expected values up to 65535, found 1e"):
        scale_of(category(tmp_path, [1e6], [0.2], np.float32))


def test_deep_test_images_alone_are_measured_themselves(tmp_path):
    samples = category(tmp_path, [3], [4000])
    write_png(tmp_path / "train_0.png", np.zeros((2, 2), np.uint8))
    samples[0] = replace(samples[0], image=tmp_path / "train_0.png")
    assert scale_of(samples) == 4095


def test_floats_beside_integers_are_refused(tmp_path):
    samples = category(tmp_path, [3000], [])
    Image.fromarray(np.array([[0, 0.5]], np.float32)).save(tmp_path / "f.tif")
    samples.append(Sample("nut/test/good/f.tif", tmp_path / "f.tif", None, "nut", "good"))
    with pytest.raises(DataError, match="integers in nut/train/good/train_0.tif and floats in"):
        with_reading(samples, settings())


def test_the_settings_reach_every_sample(tmp_path):
    samples = category(tmp_path, [9], [9], np.uint8)
    changed = with_reading(
        samples, settings(masks="invert", background=[1, 2, 3], resize="letterbox")
    )
    assert [sample.reading for sample in changed] == [Reading(None, (1, 2, 3), True, True)] * 2
    assert with_reading(samples, settings(background=7))[0].reading.background == (7, 7, 7)


def test_twelve_bits_give_the_grey_levels_that_eight_bits_had(tmp_path):
    samples = category(tmp_path, [4087], [4087])
    grey = np.arange(256, dtype=np.uint16)[None]
    Image.fromarray(grey * 16 + 7).save(samples[1].image)
    sample = with_reading(samples, settings())[1]
    read = read_image(sample.image, sample.reading)[0, :, 0].astype(int)
    assert np.abs(read - grey[0]).max() <= 1 and len(np.unique(read)) >= 255
    assert Reading.from_json({**vars(sample.reading), "background": [128] * 3}) == sample.reading
