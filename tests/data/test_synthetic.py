"""The synthetic set: same bytes for a seed, exact masks, MVTec AD's tree, nothing half-written."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from nbhelpers.data.synthetic import dataset as synthetic
from nbhelpers.data.synthetic.dataset import DEFECT_TYPES, draw_sample, make_synthetic
from nbhelpers.errors import ConfigError, DataError, ResourceError

SMALL = {"size": 64, "train_good": 3, "test_good": 2, "per_defect": 2}
ALL_DEFECTS = [
    (category, defect) for category, defects in DEFECT_TYPES.items() for defect in defects
]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    make_synthetic(root, **SMALL, seed=1)
    return root


def test_defect_types_are_those_of_mvtec_ad():
    assert DEFECT_TYPES == {
        "hazelnut": ("crack", "cut", "hole", "print"),
        "carpet": ("color", "cut", "hole", "metal_contamination", "thread"),
        "zipper": (
            "broken_teeth",
            "combined",
            "fabric_border",
            "fabric_interior",
            "rough",
            "split_teeth",
            "squeezed_teeth",
        ),
    }


def test_tree_has_the_names_and_counts_of_mvtec_ad(tree):
    expected = set()
    for category, defects in DEFECT_TYPES.items():
        expected |= {f"{category}/{synthetic.RECORD}"}
        expected |= {f"{category}/train/good/{i:03d}.png" for i in range(3)}
        expected |= {f"{category}/test/good/{i:03d}.png" for i in range(2)}
        for defect in defects:
            expected |= {f"{category}/test/{defect}/{i:03d}.png" for i in range(2)}
            expected |= {f"{category}/ground_truth/{defect}/{i:03d}_mask.png" for i in range(2)}
    assert set(digests(tree)) == expected


def test_files_hold_what_was_drawn(tree):
    image, mask = draw_sample("zipper", "test", "split_teeth", 1, 64, 1)
    stored = cv2.imread(str(tree / "zipper/test/split_teeth/001.png"), cv2.IMREAD_UNCHANGED)
    stored_mask = cv2.imread(
        str(tree / "zipper/ground_truth/split_teeth/001_mask.png"), cv2.IMREAD_UNCHANGED
    )
    np.testing.assert_array_equal(stored[..., ::-1], image)
    np.testing.assert_array_equal(stored_mask, mask)
    assert stored_mask.ndim == 2 and set(np.unique(stored_mask)) == {0, 255}


def test_same_bytes_for_a_seed_in_any_order_and_subset(tree, tmp_path):
    make_synthetic(tmp_path, ("zipper", "hazelnut"), **SMALL, seed=1)
    drawn = digests(tmp_path)
    assert drawn == {name: d for name, d in digests(tree).items() if not name.startswith("carpet/")}


def test_fewer_images_are_the_first_of_more(tree, tmp_path):
    make_synthetic(tmp_path, ("carpet",), size=64, train_good=1, test_good=1, per_defect=1, seed=1)
    few, more = digests(tmp_path), digests(tree)
    images = [name for name in few if name.endswith(".png")]
    assert len(images) == 2 + 2 * 5
    assert all(few[name] == more[name] for name in images)


def test_no_two_images_are_alike_and_another_seed_changes_all(tree):
    images = [
        d
        for name, d in digests(tree).items()
        if name.endswith(".png") and "ground_truth" not in name
    ]
    assert len(set(images)) == len(images) == 3 * 5 + 2 * len(ALL_DEFECTS)
    for category in DEFECT_TYPES:
        first, _ = draw_sample(category, "train", "good", 0, 64, 1)
        other, _ = draw_sample(category, "train", "good", 0, 64, 2)
        assert (first != other).any(axis=2).mean() > 0.5


@pytest.mark.parametrize(("category", "defect"), ALL_DEFECTS)
@pytest.mark.parametrize("size", [64, 160])
def test_mask_is_exactly_where_the_defect_changed_the_image(category, defect, size):
    for index in range(4):
        image, mask = draw_sample(category, "test", defect, index, size, 3)
        clean, nothing = draw_sample(category, "test", defect, index, size, 3, with_defect=False)
        changed = (image != clean).any(axis=2)
        assert image.shape == (size, size, 3) and image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255} and not nothing.any()
        assert not changed[mask == 0].any()
        assert changed[mask == 255].mean() > 0.8
        assert 0.0005 < (mask > 0).mean() < 0.15


@pytest.mark.parametrize("category", DEFECT_TYPES)
def test_normal_images_vary_in_light_and_pose_but_hold_no_defect(category):
    drawn = [draw_sample(category, "train", "good", index, 64, 0) for index in range(12)]
    images = np.stack([image for image, _ in drawn]).astype(float)
    assert not any(mask.any() for _, mask in drawn)
    assert images.mean(axis=(1, 2, 3)).std() > 1.0  # grey levels: exposure and colour differ
    assert images.std(axis=0).mean() > 5.0  # place by place: pose and texture differ
    assert (images == 255).mean() < 0.02  # the camera does not clip


def test_finished_category_is_kept_and_other_parameters_replace_it(tmp_path):
    make_synthetic(tmp_path, ("carpet",), **SMALL, seed=1)
    image = tmp_path / "carpet/train/good/000.png"
    before = image.stat().st_mtime_ns
    make_synthetic(tmp_path, ("carpet",), **SMALL, seed=1)
    assert image.stat().st_mtime_ns == before
    first = digests(tmp_path)
    make_synthetic(tmp_path, ("carpet",), **{**SMALL, "train_good": 2}, seed=2)
    assert not (tmp_path / "carpet/train/good/002.png").exists()
    assert digests(tmp_path)["carpet/train/good/000.png"] != first["carpet/train/good/000.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["carpet"]


def test_lost_image_is_drawn_again(tmp_path):
    make_synthetic(tmp_path, ("carpet",), **SMALL, seed=1)
    whole = digests(tmp_path)
    (tmp_path / "carpet/ground_truth/cut/001_mask.png").unlink()
    make_synthetic(tmp_path, ("carpet",), **SMALL, seed=1)
    assert digests(tmp_path) == whole


def test_interrupted_run_leaves_no_half_category(tmp_path, monkeypatch):
    written = []

    def stop_in_zipper(path, pixels, write=synthetic.write_png):
        written.append(path)
        if len(written) == 25:  # hazelnut has 5 + 2 * 8 files
            raise KeyboardInterrupt
        write(path, pixels)

    monkeypatch.setattr(synthetic, "write_png", stop_in_zipper)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path, ("hazelnut", "zipper"), **SMALL, seed=1)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["hazelnut"]
    monkeypatch.undo()
    make_synthetic(tmp_path, ("hazelnut", "zipper"), **SMALL, seed=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hazelnut", "zipper"]


def test_wrong_parameters_are_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(ConfigError, match="hazelnut, carpet, zipper, found 'bottle'"):
        make_synthetic(tmp_path, ("carpet", "bottle"), **SMALL)
    with pytest.raises(ConfigError, match="size: expected at least 64 px, found 32"):
        make_synthetic(tmp_path, **{**SMALL, "size": 32})
    with pytest.raises(ConfigError, match="per_defect: expected 1 to 1000 .* found 0"):
        make_synthetic(tmp_path, **{**SMALL, "per_defect": 0})
    assert list(tmp_path.iterdir()) == []


def test_unknown_defect_type_or_category_of_one_picture_is_refused():
    with pytest.raises(ConfigError, match="'scratch'"):
        draw_sample("hazelnut", "test", "scratch", 0, 64, 0)
    with pytest.raises(ConfigError, match="'bottle'"):
        draw_sample("bottle", "test", "good", 0, 64, 0)


def test_foreign_folder_is_never_replaced(tmp_path):
    (tmp_path / "carpet/train/good").mkdir(parents=True)
    (tmp_path / "carpet/train/good/000.png").write_bytes(b"a real image")
    with pytest.raises(DataError, match="move that folder away"):
        make_synthetic(tmp_path, ("carpet",), **SMALL)
    assert digests(tmp_path).keys() == {"carpet/train/good/000.png"}


def test_unwritable_root_is_a_named_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResourceError, match="synthetic carpet images"):
        make_synthetic(tmp_path / "file", ("carpet",), **SMALL)
