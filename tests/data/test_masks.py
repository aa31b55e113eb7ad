"""Masks of every kind that programs write give the same defect; resizing keeps every region."""

import time

import cv2
import numpy as np
import pytest
from PIL import Image

from nbhelpers.data.images import read_mask, write_png
from nbhelpers.data.masks import interpret_mask
from nbhelpers.data.reading import Reading
from nbhelpers.data.resize import resize_image, resize_mask
from nbhelpers.errors import DataError

SHAPE = (40, 60)
DEFECT = np.zeros(SHAPE, np.uint8)
DEFECT[10:20, 30:50] = 1
WHITE = DEFECT * np.uint8(255)
EMPTY = np.zeros(SHAPE, np.uint8)


def palette(indices, *colours):
    image = Image.fromarray(indices).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([level for colour in colours for level in colour])
    return image


def layers(colour, alpha):
    return Image.fromarray(np.dstack([colour, colour, colour, alpha]))


KINDS = {
    "white on black": Image.fromarray(WHITE),
    "one on zero": Image.fromarray(DEFECT),
    "1 bit": Image.fromarray(WHITE).convert("1"),
    "16 bits": Image.fromarray(WHITE.astype(np.uint16) * 257),
    "16 bits, one on zero": Image.fromarray(DEFECT.astype(np.uint16)),
    "floats of 0 and 1": Image.fromarray(DEFECT.astype(np.float32)),
    "floats of 0 and 0.3": Image.fromarray(DEFECT.astype(np.float32) * np.float32(0.3)),
    "RGB white": Image.fromarray(np.dstack([WHITE, WHITE, WHITE])),
    "RGB painted (0, 0, 4)": Image.fromarray(np.dstack([EMPTY, EMPTY, DEFECT * np.uint8(4)])),
    "black paint on a transparent layer": layers(EMPTY, WHITE),
    "white layer with the background erased": layers(WHITE * 0 + 255, WHITE),
    "opaque RGBA": layers(WHITE, EMPTY + 255),
    "transparent everywhere": layers(WHITE, EMPTY),
    "grey and alpha, alpha varies": Image.fromarray(np.dstack([EMPTY, WHITE])),
    "grey and alpha, opaque": Image.fromarray(np.dstack([WHITE, EMPTY + 255])),
    "palette, black first": palette(DEFECT, (0, 0, 0), (128, 0, 0)),
    "palette, dark blue": palette(DEFECT, (0, 0, 0), (0, 0, 4)),
    "palette, black second": palette(1 - DEFECT, (255, 255, 255), (0, 0, 0)),
    "palette without black": palette(DEFECT, (68, 1, 84), (253, 231, 37)),
    "1 is the background, 2 the defect": Image.fromarray(DEFECT + np.uint8(1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mask_gives_the_same_defect(tmp_path, kind):
    path = tmp_path / ("mask.tif" if KINDS[kind].mode == "F" else "mask.png")
    KINDS[kind].save(path)
    assert np.array_equal(read_mask(path, SHAPE), DEFECT)


def test_a_transparent_palette_entry_is_the_background(tmp_path):
    image = palette(DEFECT, (255, 255, 255), (200, 10, 10))
    image.save(tmp_path / "m.png", transparency=0)
    assert np.array_equal(read_mask(tmp_path / "m.png", SHAPE), DEFECT)


def test_jpeg_fringes_are_no_defect(tmp_path):
    disc = np.zeros((300, 300), np.uint8)
    cv2.circle(disc, (150, 140), 60, 255, -1)
    Image.fromarray(disc).save(tmp_path / "m.jpg", quality=75)
    stored = np.asarray(Image.open(tmp_path / "m.jpg"))
    assert (stored > 0).sum() > 1.05 * (disc > 0).sum()  # what a cut above zero would mark
    mask, how = interpret_mask(tmp_path / "m.jpg")
    assert np.array_equal(mask, disc > 0)
    assert how == f"{len(np.unique(stored))} levels, cut at half of their range (127.5)"


def test_soft_edges_are_cut_at_half_of_the_range(tmp_path):
    # a square of 20 px, drawn four times as large and shifted by one: its edge cells are covered
    # by three quarters on one side and by one quarter on the other
    large = np.zeros((160, 160), np.uint8)
    large[41:121, 41:121] = 180
    soft = cv2.resize(large, (40, 40), interpolation=cv2.INTER_AREA)
    write_png(tmp_path / "m.png", soft)
    expected = np.zeros((40, 40), np.uint8)
    expected[10:30, 10:30] = 1
    expected[10, 10] = 1  # covered by nine sixteenths
    assert np.array_equal(read_mask(tmp_path / "m.png", (40, 40)), expected)
    for name, layer in (("float", soft / np.float32(180)), ("deep", soft.astype(np.uint16) * 300)):
        Image.fromarray(layer).save(tmp_path / f"{name}.tif")
        assert np.array_equal(read_mask(tmp_path / f"{name}.tif", (40, 40)), expected), name
    Image.fromarray(np.dstack([soft * 0, soft * 0, soft * 0, soft])).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png", (40, 40)), expected)


@pytest.mark.parametrize(
    "levels", [(1, 2, 3), (20, 40, 63), (127, 255, 191), (85, 170, 255)], ids=str
)
def test_labels_are_defects_whatever_their_number(tmp_path, levels):
    mask = np.zeros((40, 60), np.uint8)
    for row, level in enumerate(levels):
        mask[5 + 10 * row : 12 + 10 * row, 4:30] = level
    write_png(tmp_path / "m.png", mask)
    read, how = interpret_mask(tmp_path / "m.png")
    assert np.array_equal(read, mask > 0) and how == "4 levels, labels of defects"


def test_numbered_regions_are_defects_beyond_255(tmp_path):
    dots = np.zeros((100, 100), np.uint8)
    dots[::4, ::4] = 1  # 625 regions of one pixel
    _, numbers = cv2.connectedComponents(dots, connectivity=8)
    Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", (100, 100)), dots)


def test_coloured_labels_are_defects(tmp_path):
    image = palette(
        np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 4, axis=0),
        (0, 0, 0),
        (128, 0, 0),
        (0, 64, 0),
        (0, 0, 192),
    )
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (4, 4)).tolist() == [[0, 1, 1, 1]] * 4


def test_masks_that_mark_nothing_or_all_stay_so(tmp_path):
    for level, expected in ((0, 0), (255, 1)):
        write_png(tmp_path / "m.png", EMPTY + np.uint8(level))
        assert (read_mask(tmp_path / "m.png", SHAPE) == expected).all()


def test_inverted_masks_are_turned_by_their_reading(tmp_path):
    write_png(tmp_path / "m.png", 255 - WHITE)
    assert np.array_equal(
        read_mask(tmp_path / "m.png", SHAPE, Reading(inverted_masks=True)), DEFECT
    )


def test_a_mask_that_is_not_a_number_is_refused(tmp_path):
    for value in (np.nan, -1.0):
        Image.fromarray(np.full(SHAPE, value, np.float32)).save(tmp_path / "m.tif")
        with pytest.raises(DataError, match="m.tif: expected a mask of finite values from 0"):
            read_mask(tmp_path / "m.tif", SHAPE)


def test_mask_of_another_size_is_refused(tmp_path):
    write_png(tmp_path / "m.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(DataError, match="10x8 pixels like its image, found 6x8"):
        read_mask(tmp_path / "m.png", (8, 10))


def resize_region_by_region(mask, size):
    """``resize_mask`` in its first form, which resizes the whole mask once for each region."""
    height, width = mask.shape
    if (height, width) == (size, size):
        return mask
    resized = np.zeros((size, size), np.uint8)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    scale = size * size / (height * width)
    for region in range(1, count):
        coverage = resize_image((regions == region).astype(np.float32), size).ravel().round(4)
        keep = max(1, round(int(stats[region, cv2.CC_STAT_AREA]) * scale))
        order = np.argsort(-coverage, kind="stable")[:keep]
        resized.ravel()[order[coverage[order] > 0]] = 1
    return resized


def drawn_masks(rng, height, width):
    """Specks, blobs, thin lines and noise."""
    specks = np.kron(rng.random((height // 7 + 1, width // 7 + 1)) > 0.8, np.ones((7, 7)))
    yield (specks[:height, :width] > 0).astype(np.uint8)
    blobs = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 4)
    yield (blobs > np.quantile(blobs, 0.7)).astype(np.uint8)
    lines = np.zeros((height, width), np.uint8)
    for _ in range(6):
        ends = rng.integers(0, [width, height], (2, 2))
        cv2.line(lines, ends[0].tolist(), ends[1].tolist(), 1, int(rng.integers(1, 4)))
    yield lines
    yield (rng.random((height, width)) > 0.97).astype(np.uint8)


# shrinking by whole and broken factors, growing, one axis of each; line scans
@pytest.mark.parametrize(
    ("shape", "size"),
    [((96, 64), 32), ((150, 97), 64), ((40, 50), 64), ((30, 200), 64), ((200, 12), 32)],
)
def test_one_pass_gives_the_same_mask_bit_for_bit(shape, size):
    rng = np.random.default_rng(list(shape))
    for mask in drawn_masks(rng, *shape):
        assert np.array_equal(resize_mask(mask, size), resize_region_by_region(mask, size))


def test_thousands_of_specks_do_not_take_a_pass_each():
    rng = np.random.default_rng(0)
    specks = (rng.random((1000, 1500)) > 0.999).astype(np.uint8)  # about 1 500 regions
    started = time.process_time()
    resize_region_by_region((specks[:200]).copy(), 64)  # about 300 regions of a fifth of the image
    slow = time.process_time() - started
    started = time.process_time()
    resize_mask(specks, 64)
    # once for each region would be five times the regions at five times the size
    assert time.process_time() - started < 5 * slow
