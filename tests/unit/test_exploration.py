"""What is said of a data set: every file is read, every type is named."""

import numpy as np
import pytest

from nbhelpers.data.exploration import (
    count_table,
    describe_defects,
    describe_images,
    find_duplicates,
    metadata,
    report,
)
from nbhelpers.data.images import write_png
from nbhelpers.data.layout import scan
from nbhelpers.errors import DataError


@pytest.fixture
def tree(tmp_path):
    """One category, 10 x 20 px, grey 50 good and grey 90 defects; a 2 x 3 and a touching 1 x 4 px defect."""
    for part, grey, count in (("train/good", 50, 3), ("test/good", 50, 2), ("test/dent", 90, 2)):
        for i in range(count):
            write_png(tmp_path / "nut" / part / f"{i}.png", np.full((10, 20, 3), grey, np.uint8))
    for i, box in enumerate([np.s_[4:6, 4:7], np.s_[0:1, 0:4]]):
        mask = np.zeros((10, 20), np.uint8)
        mask[box] = 255
        write_png(tmp_path / "nut" / "ground_truth" / "dent" / f"{i}_mask.png", mask)
    return tmp_path


def test_counts_and_metadata(tree):
    samples = scan(tree)
    assert count_table(samples).images.tolist() == [3, 2, 2]
    assert metadata(samples)["nut"] == {
        "train_good": 3, "test_good": 2, "test_defect": 2, "defect_types": ["dent"], "masks": 2,
        "official_counts": False,
    }


def test_every_image_is_described(tree):
    images = describe_images(scan(tree))
    assert len(images) == 7 and set(images.width) == {20} and set(images.aspect_ratio) == {2.0}
    assert images["mean"].tolist() == [50.0] * 5 + [90.0] * 2 and set(images["mode"]) == {"RGB"}
    (tree / "nut" / "test" / "good" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="1.png: expected a readable image"):
        describe_images(scan(tree))


def test_defect_areas_by_hand(tree):
    defects = describe_defects(scan(tree))
    assert defects.area_pixels.tolist() == [6, 4]
    assert defects.area_percent.tolist() == [3.0, 2.0]
    assert defects.touches_border.tolist() == [False, True] and defects.regions.tolist() == [1, 1]


def test_no_masks_give_an_empty_table_with_its_columns(tree):
    assert describe_defects([s for s in scan(tree) if not s.label]).columns.tolist()[0] == "category"


def test_duplicates():
    assert find_duplicates({"a": "1", "b": "2", "c": "1"}) == [("a", "c")]


def test_report_names_every_defect_type(tree):
    samples = scan(tree)
    text = report(samples, describe_images(samples), describe_defects(samples))
    assert "dent: 2 images, median area 2.50 % of the image" in text and "heights 10-10" in text
