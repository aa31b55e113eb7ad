"""The description of a data set: every file is read, every type is named."""

import cv2
import numpy as np
import pandas as pd
import pytest

from nbhelpers.data.exploration import (
    color_contrast,
    count_table,
    describe_defects,
    describe_images,
    find_duplicates,
    metadata,
    report,
)
from nbhelpers.data.images import write_png
from nbhelpers.data.layout import Sample, scan_category
from nbhelpers.errors import DataError


@pytest.fixture
def tree(tmp_path):
    """One category, 10 x 20 px, grey 50 good and grey 90 defects; a 2 x 3 and a touching 1 x 4 px
    defect.
    """
    for part, grey, count in (("train/good", 50, 3), ("test/good", 50, 2), ("test/dent", 90, 2)):
        for i in range(count):
            write_png(tmp_path / "nut" / part / f"{i}.png", np.full((10, 20, 3), grey, np.uint8))
    for i, box in enumerate([np.s_[4:6, 4:7], np.s_[0:1, 0:4]]):
        mask = np.zeros((10, 20), np.uint8)
        mask[box] = 255
        write_png(tmp_path / "nut" / "ground_truth" / "dent" / f"{i}_mask.png", mask)
    return tmp_path


def test_counts_and_metadata(tree):
    samples = scan_category(tree, "nut")
    assert count_table(samples).images.tolist() == [3, 2, 2]
    assert metadata(samples)["nut"] == {
        "train_good": 3,
        "test_good": 2,
        "test_defect": 2,
        "defect_types": ["dent"],
        "masks": 2,
        "official_counts": False,
    }


def test_every_image_is_described(tree):
    images = describe_images(scan_category(tree, "nut"))
    assert len(images) == 7 and set(images.width) == {20} and set(images.aspect_ratio) == {2.0}
    assert images["mean"].tolist() == [50.0] * 5 + [90.0] * 2 and set(images["mode"]) == {"RGB"}
    (tree / "nut" / "test" / "good" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="1.png: expected a readable image"):
        describe_images(scan_category(tree, "nut"))


def test_defect_areas_by_hand(tree):
    defects = describe_defects(scan_category(tree, "nut"))
    assert defects.area_pixels.tolist() == [6, 4]
    assert defects.area_percent.tolist() == [3.0, 2.0]
    assert defects.touches_border.tolist() == [False, True] and defects.regions.tolist() == [1, 1]


def test_no_masks_give_an_empty_table_with_its_columns(tree):
    assert (
        describe_defects([s for s in scan_category(tree, "nut") if not s.label]).columns.tolist()[0]
        == "category"
    )


def test_duplicates():
    assert find_duplicates({"a": "1", "b": "2", "c": "1"}) == [("a", "c")]


def test_report_names_every_defect_type(tree):
    samples = scan_category(tree, "nut")
    text = report(samples, describe_images(samples), describe_defects(samples))
    assert "dent: 2 images, median area 2.50 % of the image" in text and "heights 10-10" in text


def square(side, box, inside=255, outside=0):
    """A ``side`` px grey image with a patch of another grey, and the mask of the patch."""
    image, mask = np.full((side, side, 3), outside, np.uint8), np.zeros((side, side), np.uint8)
    image[box], mask[box] = inside, 1
    return image, mask


def described(folder, image, mask, domain="clean"):
    """The row that ``describe_defects`` gives for one drawn defect."""
    write_png(folder / "image.png", image)
    write_png(folder / "mask.png", mask * np.uint8(255))
    sample = Sample(
        "nut/test/dent/0.png", folder / "image.png", folder / "mask.png", "nut", "dent", domain
    )
    return describe_defects([sample]).iloc[0]


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (20, 30, 1.0),  # the middle of 41 x 61 pixels: 20 to the nearest border
        (20, 10, 0.5),  # 10 to the left
        (35, 30, 0.25),  # 5 above the lower border, which is row 40
        (0, 60, 0.0),
        (20, 59, 0.05),
    ],
)
def test_distance_of_one_pixel_to_the_border(tmp_path, row, column, expected):
    mask = np.zeros((41, 61), np.uint8)
    mask[row, column] = 1
    defect = described(tmp_path, np.zeros((41, 61, 3), np.uint8), mask)
    assert defect.border_distance == defect.centroid_distance == expected
    assert defect.touches_border == (expected == 0)


def test_nearest_pixel_and_centroid_differ(tmp_path):
    mask = np.zeros((41, 41), np.uint8)
    mask[20, 2:11] = 1  # 9 px from column 2 to 10: the centroid in column 6
    mask[30, 6] = 1
    defect = described(tmp_path, np.zeros((41, 41, 3), np.uint8), mask)
    assert defect.border_distance == 2 / 20 and defect.centroid_distance == 6 / 20
    assert (defect.regions, defect.area_pixels, defect.largest_region_pixels) == (2, 10, 9)


def test_contrast_of_white_on_black_is_100():
    image, mask = square(64, np.s_[20:30, 20:30])
    assert color_contrast(image, mask) == pytest.approx(100, abs=0.01)
    assert color_contrast(255 - image, mask) == pytest.approx(100, abs=0.01)
    assert color_contrast(np.full_like(image, 90), mask) == 0


def test_contrast_of_red_on_green_in_lab():
    image, mask = square(64, np.s_[20:30, 20:30], (255, 0, 0), (0, 255, 0))
    # CIELAB (D65) of sRGB red is 53.24, 80.09, 67.20, of green 87.73, -86.18, 83.18
    by_hand = np.linalg.norm(np.subtract((53.24, 80.09, 67.20), (87.73, -86.18, 83.18)))
    assert color_contrast(image, mask) == pytest.approx(by_hand, abs=0.05)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    assert color_contrast(image, mask) == pytest.approx(
        np.linalg.norm(lab[25, 25] - lab[0, 0]), abs=0.5
    )


def test_the_ring_is_a_thirty_second_of_the_shorter_side_wide():
    for side, width in ((64, 2), (128, 4), (20, 1)):
        image, mask = square(side, np.s_[8:12, 8:12])
        image[8 - width : 12 + width, 8 - width : 12 + width][
            mask[8 - width : 12 + width, 8 - width : 12 + width] == 0
        ] = 255
        assert color_contrast(image, mask) == 0  # the ring is as white as the defect
        image[8 - width, 10] = 0  # one pixel of its outermost row is black
        assert color_contrast(image, mask) > 0


def test_each_region_is_compared_with_its_own_surroundings():
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    image[:, 32:] = 255
    image[10:12, 10:12], mask[10:12, 10:12] = 255, 1  # 4 px of white in black
    mask[40:46, 50:52] = 1  # 12 px that do not differ
    assert color_contrast(image, mask) == pytest.approx(25, abs=0.01)


def test_another_defect_is_no_surroundings():
    image, mask = square(64, np.s_[20:30, 20:30])
    image[20:30, 31:40], mask[20:30, 31:40] = 255, 1  # one column of black between the two
    assert color_contrast(image, mask) == pytest.approx(100, abs=0.01)


def test_what_cannot_be_measured_is_not_a_number(tmp_path):
    image = np.full((16, 16, 3), 80, np.uint8)
    empty = described(tmp_path, image, np.zeros((16, 16), np.uint8))
    assert empty[["border_distance", "centroid_distance", "contrast_delta_e"]].isna().all()
    assert (empty.area_pixels, empty.largest_region_pixels, empty.regions) == (0, 0, 0)
    full = described(tmp_path, image, np.ones((16, 16), np.uint8))
    assert (
        np.isnan(full.contrast_delta_e)
        and full.border_distance == 0
        and full.centroid_distance == 1
    )


def test_a_shifted_sample_is_described_like_a_clean_one(tmp_path):
    image, mask = square(64, np.s_[20:30, 20:30])
    pd.testing.assert_series_equal(
        described(tmp_path, image, mask), described(tmp_path, image, mask, "shift")
    )
