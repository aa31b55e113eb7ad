"""Layout: the samples of a folder, and the errors that a wrong folder gives."""

import numpy as np
import pytest

from nbhelpers.data.images import write_png
from nbhelpers.data.layout import count_parts, find_categories, natural_key, scan_category, to_table
from nbhelpers.errors import DataError


def fill(root, category="nut", masks=True, defects=("crack", "hole")):
    """A tiny MVTec AD tree: 3 train, 2 test good, 2 images per defect type."""
    grey = np.full((8, 6, 3), 90, np.uint8)
    for i in range(3):
        write_png(root / category / "train" / "good" / f"{i}.png", grey)
    for part, count in (("good", 2), *((d, 2) for d in defects)):
        for i in range(count):
            write_png(root / category / "test" / part / f"{i}.png", grey)
            if masks and part != "good":
                mask = np.zeros((8, 6), np.uint8)
                mask[2:4, 2:4] = 255
                write_png(root / category / "ground_truth" / part / f"{i}_mask.png", mask)
    return root


def test_scan_finds_all_with_masks(tmp_path):
    samples = scan_category(fill(tmp_path), "nut")
    assert count_parts(samples) == (3, 2, 4)
    assert [s.id for s in samples][:4] == [f"nut/train/good/{i}.png" for i in range(3)] + [
        "nut/test/good/0.png"
    ]
    assert all((s.mask is not None) == bool(s.label) for s in samples)
    assert samples[-1].defect_type == "hole" and samples[-1].mask.name == "1_mask.png"
    assert list(to_table(samples).columns) == [
        "category",
        "split",
        "defect",
        "label",
        "image",
        "mask",
    ]


def test_masks_are_optional(tmp_path):
    assert all(s.mask is None for s in scan_category(fill(tmp_path, masks=False), "nut"))


def test_several_categories_and_detection(tmp_path):
    fill(fill(tmp_path, "nut"), "bolt")
    (tmp_path / "notes").mkdir()
    assert find_categories(tmp_path) == ["bolt", "nut"]
    assert {s.category for s in scan_category(tmp_path, "nut")} == {"nut"}


def test_files_come_in_natural_order():
    names = ["img_10.png", "img_9.png", "2.png", "a.png", "10.png"]
    assert sorted(names, key=natural_key) == ["2.png", "10.png", "a.png", "img_9.png", "img_10.png"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda r: (r / "nut" / "ground_truth" / "crack" / "0_mask.png").unlink(),
            "expected its mask",
        ),
        (lambda r: (r / "nut" / "test" / "crack" / "0.png").unlink(), "has no image"),
        (
            lambda r: [p.unlink() for p in (r / "nut" / "train" / "good").iterdir()],
            "expected images",
        ),
        (
            lambda r: [p.unlink() for p in (r / "nut" / "test" / "hole").iterdir()],
            "expected images",
        ),
        (lambda r: (r / "nut" / "test" / "good").rename(r / "nut" / "test" / "fine"), "test/good"),
        (
            lambda r: (r / "nut" / "test" / "good" / "0.png").rename(
                r / "nut" / "test" / "good" / "1.jpg"
            ),
            "share a stem",
        ),
    ],
)
def test_a_wrong_folder_is_named(tmp_path, spoil, message):
    spoil(fill(tmp_path))
    with pytest.raises(DataError, match=message) as error:
        scan_category(tmp_path, "nut")
    assert str(tmp_path) in str(error.value)


def test_unknown_category_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match="unknown category 'bolt'.*has: nut"):
        scan_category(fill(tmp_path), "bolt")


def test_missing_and_empty_roots(tmp_path):
    with pytest.raises(DataError, match="found nothing"):
        find_categories(tmp_path / "nowhere")
    with pytest.raises(DataError, match="train/good, found nothing"):
        find_categories(tmp_path)
