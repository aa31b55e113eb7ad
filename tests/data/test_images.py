"""Reading every pixel format, resizing images and masks, batching."""

import hashlib
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from nbhelpers.data.decode import decode, open_header, upright_shape
from nbhelpers.data.images import (
    SampleDataset,
    fingerprint,
    make_loader,
    read_image,
    read_mask,
    write_png,
)
from nbhelpers.data.layout import Sample
from nbhelpers.data.reading import Reading
from nbhelpers.data.resize import content_window, fill_square, resize_image, resize_mask
from nbhelpers.errors import ConfigError, DataError


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "jfif", "bmp", "tif", "tiff", "webp"])
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


def stored(upright, orientation):
    """How a camera stores a picture so that this EXIF orientation puts it upright (EXIF 2.3,
    table 6: where the stored first row and first column belong).
    """
    arrays = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(arrays[orientation])


def save_turned(path, upright, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(stored(upright, orientation)).save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_images_and_masks_stand_as_viewers_show_them(tmp_path, suffix, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = (255, 255, 255)
    upright[8:, :8] = (120, 120, 120)
    path = tmp_path / f"a.{suffix}"
    save_turned(path, upright, orientation)
    assert np.abs(read_image(path).astype(int) - upright).max() <= (8 if suffix == "jpg" else 0)
    assert upright_shape(path) == (16, 24)
    corner = np.where(upright[:, :, 0] == 255, 255, 0).astype(np.uint8)
    save_turned(path, corner, orientation)
    assert np.array_equal(read_mask(path, (16, 24)), corner > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("deep", [False, True])
def test_grey_tiffs_stand_upright(tmp_path, orientation, compression, deep):
    upright = np.random.default_rng(0).integers(0, 256, (5, 9)).astype(np.uint8)
    layer = stored(upright, orientation).astype(np.uint16 if deep else np.uint8)
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(layer).save(tmp_path / "a.tif", exif=tags, compression=compression)
    assert np.array_equal(decode(tmp_path / "a.tif").values, upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colours_stand_upright_too(tmp_path, orientation):
    upright = np.random.default_rng(0).integers(0, 65536, (5, 9, 3), np.uint16)
    turned = stored(upright, orientation)
    tifffile.imwrite(
        tmp_path / "a.tif", turned, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
    )
    assert np.array_equal(decode(tmp_path / "a.tif").values, upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + block))
    png = cv2.imencode(".png", turned[:, :, ::-1])[1].tobytes()
    (tmp_path / "a.png").write_bytes(png[:33] + chunk + png[33:])  # behind the header
    assert np.array_equal(decode(tmp_path / "a.png").values, upright)


def test_an_orientation_that_cannot_be_read_is_none(tmp_path):
    image = Image.fromarray(np.full((4, 6, 3), 9, np.uint8))
    image.save(tmp_path / "a.png", exif=b"Exif\0\0not a TIFF header")
    assert read_image(tmp_path / "a.png").shape == (4, 6, 3)


def test_every_full_scale_becomes_white(tmp_path):
    path = tmp_path / "a.png"
    for bits in (8, 10, 12, 14, 16):
        scale = 2**bits - 1
        ramp = np.arange(0, scale + 1, max(1, scale // 500), dtype=np.uint16)[None]
        Image.fromarray(ramp).save(path)
        read = read_image(path, Reading(full_scale=scale))[0, :, 0]
        assert np.array_equal(read, np.rint(ramp[0] * 255.0 / scale)), bits
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(every).save(path)
    assert np.array_equal(read_image(path)[:, :, 0], np.rint(every / 257))
    assert read_image(path, Reading(full_scale=1023))[255, 255, 0] == 255  # cut off, not wrapped


def test_sixteen_bit_colours_keep_their_lower_bits(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (6, 7, 3), np.uint16)  # 12 bits
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), deep[:, :, ::-1])
        read = read_image(tmp_path / name, Reading(full_scale=4095))
        assert np.array_equal(read, np.rint(deep * 255.0 / 4095)), name
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="half.png: expected a readable image"):
        read_image(tmp_path / "half.png")
    (tmp_path / "long.png").write_bytes(whole[:-12] + b"\x7f\xff\xff\xfftEXt" + whole[-12:])
    with pytest.raises(DataError, match="long.png: expected a readable image"):
        read_image(tmp_path / "long.png")  # not 2 GB of memory for a text that is not there
    tifffile.imwrite(
        tmp_path / "p.tif", np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig="separate"
    )
    with pytest.raises(DataError, match="p.tif: expected deep colours as interleaved RGB"):
        read_image(tmp_path / "p.tif")


def test_floats_of_zero_to_one_are_read_and_others_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 0.25, 0.5, 1.0, 1.02, -0.01]], np.float32)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 64, 128, 255, 255, 0]
    for value in (200.0, -0.5, np.nan, np.inf):
        Image.fromarray(np.array([[0, value]], np.float32)).save(path)
        with pytest.raises(DataError, match="a.tif: expected floats of 0 to 1"):
            read_image(path)
    Image.fromarray(np.array([[0, 200.0]], np.float32)).save(path)
    assert read_image(path, Reading(full_scale=255))[0, :, 0].tolist() == [0, 200]


def test_a_deep_tiff_in_which_zero_is_white_is_refused(tmp_path):
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="miniswhite")
    with pytest.raises(DataError, match="in which zero is black"):
        read_image(tmp_path / "a.tif")


def test_cut_outs_are_laid_on_one_colour(tmp_path):
    colour = np.full((1, 3, 3), (200, 100, 0), np.uint8)
    alpha = np.array([[0, 255, 51]], np.uint8)  # 51 is a fifth
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([colour, alpha])).save(path)
    assert read_image(path)[0].tolist() == [[128] * 3, [200, 100, 0], [142, 122, 102]]
    read = read_image(path, Reading(background=(0, 10, 255)))
    assert read[0].tolist() == [[0, 10, 255], [200, 100, 0], [40, 28, 204]]
    Image.fromarray(np.dstack([colour, np.full_like(alpha, 7)])).save(path)
    assert np.array_equal(read_image(path), colour)  # opacity that is the same everywhere
    deep = np.dstack([colour[:, :, ::-1], alpha]).astype(np.uint16) * 257
    cv2.imwrite(str(path), deep)
    assert read_image(path)[0].tolist() == [[128] * 3, [200, 100, 0], [142, 122, 102]]
    keyed = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    keyed.putpalette([9, 9, 9, 60, 70, 80])
    keyed.save(path, transparency=0)
    assert read_image(path)[0].tolist() == [[128] * 3, [60, 70, 80]]


def test_the_fingerprint_does_not_depend_on_the_packing(tmp_path):
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "b.bmp")
    expected = hashlib.sha256(b"(5, 6, 3)" + np.dstack([grey] * 3).tobytes()).hexdigest()[:16]
    assert fingerprint(tmp_path / "a.png") == fingerprint(tmp_path / "b.bmp") == (expected, None)
    for low in (3, 4):  # equal but for their lower bits
        Image.fromarray(grey.astype(np.uint16) * 256 + low).save(tmp_path / f"{low}.png")
    assert fingerprint(tmp_path / "3.png")[1] == 29 * 256 + 3
    assert fingerprint(tmp_path / "3.png")[0] != fingerprint(tmp_path / "4.png")[0]


def test_line_scans_above_179_megapixels_are_read(tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", (1800, 100_001)).save(path)
    with open_header(path) as image:
        assert image.size == (1800, 100_001)


def test_an_image_that_does_not_fit_in_memory_is_named_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.bmp"
    Image.fromarray(np.zeros((50, 40), np.uint8)).save(path)
    free = SimpleNamespace(available=1000)
    monkeypatch.setattr("nbhelpers.data.decode.psutil.virtual_memory", lambda: free)
    with pytest.raises(DataError, match="a.bmp: .* fits in the free memory .* found 40x50 pixels"):
        read_image(path)


def test_a_header_that_promises_gigapixels_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((50, 40), np.uint8)).save(path)
    whole = bytearray(path.read_bytes())
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    path.write_bytes(whole)
    with pytest.raises(DataError, match="found 60000x60000 pixels"):
        read_image(path)


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


def test_a_phase_that_is_misspelt_is_refused(tmp_path):
    for phase in ("training", "Train", ""):
        with pytest.raises(ConfigError, match="phase: expected one of train, val, test, found"):
            make_loader(samples_on_disk(tmp_path), 16, phase=phase)


def test_worker_processes_may_be_spawned(tmp_path):
    samples = samples_on_disk(tmp_path)
    loader = make_loader(samples, 16, 2, num_workers=1)
    loader.multiprocessing_context = "spawn"
    torch.testing.assert_close(
        torch.cat([b.images for b in loader]),
        torch.cat([b.images for b in make_loader(samples, 16, 2)]),
    )


def test_letterboxed_images_keep_their_aspect(tmp_path):
    image = np.full((40, 20, 3), 200, np.uint8)
    read = resize_image(image, 16, Reading(letterbox=True, background=(1, 2, 3)))
    assert content_window((40, 20), 16) == (slice(0, 16), slice(4, 12))
    assert (read[:, 4:12] == 200).all()
    assert (read[:, :4] == (1, 2, 3)).all() and (read[:, 12:] == (1, 2, 3)).all()
    line = resize_image(np.zeros((2, 900, 3), np.uint8), 32, Reading(letterbox=True))
    assert (line[15] == 0).all() and (line[:15] == 128).all()  # one row at least is left
    square = np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8)
    assert np.array_equal(
        resize_image(square, 16, Reading(letterbox=True)), resize_image(square, 16)
    )


def test_what_was_found_on_a_letterboxed_image_is_carried_back():
    boxed = np.full((16, 16), 9.0, np.float32)  # the bars
    boxed[:, 4:12] = np.repeat([[0.0, 1.0]], 4, axis=1)  # left half 0, right half 1
    full = fill_square(boxed, (40, 20))
    assert full.shape == (16, 16) and full.max() == 1
    assert (full[:, :7] == 0).all() and (full[:, 9:] == 1).all()
    cells = np.arange(16, dtype=np.int32).reshape(4, 4)
    assert fill_square(cells, (10, 20)).tolist() == [[4, 5, 6, 7]] * 2 + [[8, 9, 10, 11]] * 2


def test_workers_and_their_knobs_reach_the_loader(tmp_path):
    loader = make_loader(
        samples_on_disk(tmp_path), 16, 2, num_workers=2, prefetch_factor=3, persistent_workers=True
    )
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, True)
    torch.testing.assert_close(
        torch.cat([b.images for b in loader]),
        torch.cat([b.images for b in make_loader(loader.dataset.samples, 16, 2)]),
    )
