"""Masks are found by one rule, or by a pattern; what does not fit is named."""

import numpy as np
import pytest

from nbhelpers.config import load_config
from nbhelpers.data.images import make_loader, write_png
from nbhelpers.data.layout import survey_category
from nbhelpers.data.shift.twins import load_shifted, write_shifted
from nbhelpers.data.splits import create_clean_split, verify_split
from nbhelpers.errors import ConfigError, DataError


def build(root, images, masks):
    """A category with these defect images below test/ and masks below the category's folder."""
    grey = np.full((8, 6, 3), 90, np.uint8)
    for name in ("train/good/0.png", "test/good/0.png", *(f"test/{image}" for image in images)):
        write_png(root / "nut" / name, grey)
    for name in masks:
        write_png(root / "nut" / name, np.zeros((8, 6), np.uint8))
    return root


def pairs(scan):
    """The mask of each defect image, both below their folders; None without one."""
    return {
        s.id.removeprefix("nut/test/"): s.mask and s.mask.as_posix().split("/nut/")[1]
        for s in scan.samples
        if s.label
    }


T = "ground_truth"


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["crack/a.png"], [f"{T}/crack/a_mask.png"]),
        (["crack/a.png"], [f"{T}/crack/a.bmp"]),
        (["crack/a.png"], [f"{T}/crack/a_gt.png"]),
        (["crack/a.png"], [f"{T}/crack/a_label.png"]),
        (["crack/a.png"], [f"{T}/crack/a-GroundTruth.png"]),
        (["crack/a.png"], [f"{T}/crack/mask_a.png"]),
        (["crack/a_gt.png"], [f"{T}/crack/a_gt_mask.png"]),
        (["crack/a_gt.png"], [f"{T}/crack/a_gt.png"]),
        (["crack/a.png", "hole/b.png"], [f"{T}/a.png", f"{T}/b_mask.png"]),
        (["crack/a.png", "hole/b.png"], [f"{T}/all/a.png", f"{T}/all/b_mask.png"]),
        (["crack/a.png", "hole/a.png"], [f"{T}/crack_a.png", f"{T}/hole_a_mask.png"]),
        (["crack/x/a.png", "crack/y/a.png"], [f"{T}/crack/x/a_mask.png", f"{T}/crack/y/a.png"]),
    ],
)
def test_names_and_places_that_are_found(tmp_path, images, masks):
    scan = survey_category(build(tmp_path, images, masks), "nut")
    assert pairs(scan) == dict(zip(images, masks, strict=True))
    assert not any(finding.harmful for finding in scan.findings)


def test_other_names_are_said_and_the_usual_ones_are_not(tmp_path):
    usual = build(
        tmp_path / "a", ["crack/1.png", "hole/2.png"], [f"{T}/crack/1_mask.png", f"{T}/hole/2.png"]
    )
    assert survey_category(usual, "nut").findings == []
    other = build(
        tmp_path / "b", ["crack/1.png", "crack/2.png"], [f"{T}/crack/{i}_gt.png" for i in (1, 2)]
    )
    (finding,) = survey_category(other, "nut").findings
    assert finding.file == f"nut/{T}/crack/1_gt.png and 1 more"
    assert "1_gt.png is read for 1.png" in finding.what


@pytest.mark.parametrize(
    ("masks", "missing"),
    [([f"{T}/crack/1_mask.png"], 2), ([f"{T}/crack/1_mask.png", f"{T}/crack/2_mask.png"], 1)],
)
def test_some_images_or_types_without_a_mask(tmp_path, masks, missing):
    images = ["crack/1.png", "crack/2.png", "hole/1.png"]
    scan = survey_category(build(tmp_path, images, masks), "nut")
    assert pairs(scan) == dict(zip(images, [*masks, *[None] * missing], strict=True))
    (finding,) = scan.findings
    assert finding.what == f"{missing} of 3 defect images have no mask" and not finding.harmful


def test_pixel_labels_are_unknown_where_a_mask_is_missing_in_both_domains(tmp_path):
    images = [f"{kind}/{i}.png" for kind in ("crack", "hole") for i in range(4)]
    build(tmp_path, images, [f"{T}/crack/{i}_mask.png" for i in range(3)])
    for i in range(1, 6):
        write_png(tmp_path / f"nut/train/good/{i}.png", np.full((8, 6, 3), i, np.uint8))
    for i in range(3):
        write_png(tmp_path / f"nut/{T}/crack/{i}_mask.png", np.full((8, 6), 255, np.uint8))
    split = create_clean_split(survey_category(tmp_path, "nut").samples)
    assert verify_split(split) == {"train": (4, 0), "val": (2, 2), "test": (1, 6)}
    write_shifted(split, tmp_path / "shifted", load_config("tiny").shift, 42)
    for parts in (split, load_shifted(tmp_path / "shifted", "nut")):
        known = []
        for name in ("val", "test"):
            for batch in make_loader(parts[name], 32):
                known += batch.has_mask.tolist()
                shows = batch.masks.flatten(1).any(dim=1)
                assert shows.tolist() == [bool(s.mask) for s in batch.samples]
        assert sum(known) == 3 + 3  # the good images, and the defects that have a mask


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        (["crack/1.png"], [f"{T}/crack/1_mask.png", f"{T}/crack/1.png"], "two masks for one image"),
        (["crack/1.png", "crack/1.bmp"], [f"{T}/crack/1_mask.png"], "share a stem"),
        (["crack/x/1.png", "crack/y/1.png"], [f"{T}/crack/1_mask.png"], "share a stem"),
        (["crack/1.png", "hole/1.png"], [f"{T}/1_mask.png"], "share a stem"),
        (
            ["crack/1.png"],
            [f"{T}/crack/one.png"],
            r"one.png: this mask has no image.*1.png.*masks_patt",
        ),
        (["crack/1.png"], [f"{T}/Crack/one.png"], r"one.png: expected .*set data.masks_pattern"),
        # a folder for each image, as in MVTec LOCO: 0.png in it is not the mask of image 0
        (["crack/0.png", "crack/1.png"], [f"{T}/crack/1/0.png"], "has no image"),
    ],
)
def test_masks_that_do_not_fit_are_named(tmp_path, images, masks, words):
    with pytest.raises(DataError, match=words):
        survey_category(build(tmp_path, images, masks), "nut")


def test_masks_of_good_images_and_of_no_image_are_not_used(tmp_path):
    masks = [f"{T}/crack/1_mask.png", f"{T}/good/0_mask.png", f"{T}/gone/7_mask.png"]
    scan = survey_category(build(tmp_path, ["crack/1.png"], masks), "nut")
    assert pairs(scan) == {"crack/1.png": masks[0]}
    assert [f.what for f in scan.findings] == [
        "masks of good images",
        "masks of images that are not in test",
    ]


def test_a_pattern_says_where_masks_are(tmp_path):
    images = ["crack/1.png", "crack/late/2.png", "hole/1.png"]
    masks = [f"truth/{name.removesuffix('.png')}.seg.bmp" for name in images]
    root = build(tmp_path, images, masks)
    assert set(pairs(survey_category(root, "nut")).values()) == {None}
    scan = survey_category(root, "nut", "truth/{defect}/{folder}/{stem}.seg")
    assert pairs(scan) == dict(zip(images, masks, strict=True))
    assert {tmp_path / "nut" / mask for mask in masks} <= set(scan.files)
    with pytest.raises(
        DataError, match="1.png: expected a mask, found none for any of 3.*masks_patt"
    ):
        survey_category(root, "nut", "truth/{defect}/{stem}.png")


@pytest.mark.parametrize(
    "pattern", ["gt/x.png", "{stem", "/gt/{stem}", "../{stem}", "{kind}/{stem}", "{}"]
)
def test_a_pattern_that_cannot_work_is_refused(pattern):
    with pytest.raises(ConfigError, match="data.masks_pattern': expected an empty text, or a path"):
        load_config("folder", {"data.masks_pattern": pattern})
