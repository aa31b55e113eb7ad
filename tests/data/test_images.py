"""Reading every pixel format, resizing images and masks, batching."""

import numpy as np
import pytest
import torch
from PIL import Image

from nbhelpers.data.images import (
    SampleDataset,
    make_loader,
    read_image,
    read_mask,
    resize_image,
    resize_mask,
    write_png,
)
from nbhelpers.data.layout import Sample
from nbhelpers.errors import DataError


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "tif", "tiff"])
def test_every_format_is_read_as_rgb(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.full((5, 7, 3), 128, np.uint8)).save(path)
    assert read_image(path).shape == (5, 7, 3)
    assert abs(int(read_image(path)[2, 3, 1]) - 128) <= 1


def test_grey_alpha_palette_and_sixteen_bit(tmp_path):
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    cases = {
        "grey": (Image.fromarray(grey), grey),
        "alpha": (Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 9)])), grey),
        "palette": (Image.fromarray(grey).convert("P"), grey),
        "deep": (Image.fromarray(grey.astype(np.uint16) * 257), grey),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / f"{name}.png")
        read = read_image(tmp_path / f"{name}.png")
        assert read.dtype == np.uint8 and (read == expected[:, :, None]).all(), name


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"not an image"):
        path.write_bytes(damage)
        with pytest.raises(DataError, match="a.png: expected a readable image"):
            read_image(path)
    with pytest.raises(DataError, match="found no file"):
        read_image(tmp_path / "b.png")


def test_mask_of_another_size_is_refused(tmp_path):
    write_png(tmp_path / "m.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(DataError, match="10x8 pixels like its image, found 6x8"):
        read_mask(tmp_path / "m.png", (8, 10))


def test_shrinking_averages_areas():
    checker = np.kron([[0, 255], [255, 0]], np.ones((4, 4))).astype(np.uint8)  # (8, 8)
    image = np.repeat(checker[:, :, None], 3, axis=2)
    assert (resize_image(image, 2)[:, :, 0] == [[0, 255], [255, 0]]).all()
    fine = np.tile(
        np.array([[0, 255], [255, 0]], np.uint8), (4, 4)
    )  # one cell holds as much black as white
    assert (resize_image(np.repeat(fine[:, :, None], 3, axis=2), 4) == 128).all()


def test_one_axis_shrinks_while_the_other_grows():
    image = np.zeros((100, 4, 3), np.uint8)
    image[::2] = 200  # stripes finer than a target row: averaged away, not sampled
    resized = resize_image(image, 10)
    assert resized.shape == (10, 10, 3) and (resized == 100).all()


def test_mask_regions_keep_their_area():
    square = np.zeros((900, 900), np.uint8)
    square[433:463, 433:463] = 1  # 30 px of 900: 72.8 cells of 256
    assert resize_mask(square, 256).sum() == 73
    scratch = np.zeros((900, 900), np.uint8)
    scratch[450:452, 100:800] = 1  # thinner than a cell of 224
    thin = resize_mask(scratch, 224)
    assert abs(int(thin.sum()) - 1400 * (224 / 900) ** 2) <= 1
    dot = np.zeros((900, 900), np.uint8)
    dot[7, 880] = 1
    assert resize_mask(dot, 64).sum() == 1 and resize_mask(dot, 64)[0, 62] == 1


def test_mask_resize_is_exact_for_whole_factors_and_regions_stay_apart():
    mask = np.zeros((12, 12), np.uint8)
    mask[0:3, 0:3] = 1
    mask[6:12, 6:9] = 1
    expected = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    assert (resize_mask(mask, 4) == expected).all()
    assert (resize_mask(resize_mask(mask, 48), 12) == mask).all()


def samples_on_disk(tmp_path, count=5):
    rng = np.random.default_rng(1)
    samples = []
    for i in range(count):
        write_png(tmp_path / f"{i}.png", rng.integers(0, 255, (20 + i, 30, 3), np.uint8))
        mask = None
        if i == 1:
            mask = tmp_path / "m.png"
            write_png(mask, np.full((21, 30), 255, np.uint8))
        kind = "crack" if i in (1, 2) else "good"
        samples.append(Sample(f"nut/test/{kind}/{i}.png", tmp_path / f"{i}.png", mask, "nut", kind))
    return samples


def test_batches_tolerate_missing_masks_and_mixed_sizes(tmp_path):
    samples = samples_on_disk(tmp_path)
    (first, second) = make_loader(samples, 16, batch_size=3)
    assert first.images.shape == (3, 3, 16, 16) and second.images.shape[0] == 2
    assert first.labels.tolist() == [0, 1, 1]
    assert first.has_mask.tolist() == [True, True, False]  # image 2 is a defect without a mask
    assert first.masks.sum(dim=(1, 2)).tolist() == [0, 256, 0]
    assert [s.id for s in first.samples] == [s.id for s in samples[:3]]


def test_training_refuses_defects_and_shuffling_is_seeded(tmp_path):
    samples = samples_on_disk(tmp_path)
    with pytest.raises(
        DataError, match="1.png: training takes good images only, found defect type 'crack'"
    ):
        SampleDataset(samples, 16, phase="train")
    orders = [
        [s.id for b in make_loader(samples, 16, 2, shuffle_seed=seed) for s in b.samples]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] and sorted(orders[0]) == sorted(orders[2])


def test_workers_and_their_knobs_reach_the_loader(tmp_path):
    loader = make_loader(
        samples_on_disk(tmp_path), 16, 2, num_workers=2, prefetch_factor=3, persistent_workers=True
    )
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, True)
    torch.testing.assert_close(
        torch.cat([b.images for b in loader]),
        torch.cat([b.images for b in make_loader(loader.dataset.samples, 16, 2)]),
    )
