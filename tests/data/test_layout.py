"""Layout: the samples of a folder, and the errors that a wrong folder gives."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from nbhelpers.data.images import read_image, write_png
from nbhelpers.data.layout import (
    count_parts,
    find_categories,
    root_findings,
    scan_category,
    survey_category,
    to_table,
)
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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "nut" / "test" / "crack" / "0.png").unlink(), "has no image"),
        (
            lambda r: [p.unlink() for p in (r / "nut" / "train" / "good").iterdir()],
            "expected images",
        ),
        (
            lambda r: [p.unlink() for p in (r / "nut" / "test" / "hole").iterdir()],
            "expected images",
        ),
        (
            lambda r: (r / "nut" / "train" / "good").rename(r / "nut" / "train" / "Good"),
            "train/good, found nothing.*train/ .Good",
        ),
        (
            lambda r: (r / "nut" / "test" / "crack").rename(r / "nut" / "test" / ("c" * 121)),
            "at most 120 bytes, found 121",
        ),
    ],
)
def test_a_wrong_folder_is_named(tmp_path, spoil, message):
    spoil(fill(fill(tmp_path), "bolt"))
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
    (tmp_path / "gone").symlink_to(tmp_path / "nas")
    with pytest.raises(DataError, match="a link to .*nas, which does not exist"):
        find_categories(tmp_path / "gone")


@pytest.mark.parametrize("inside", [".", "train", "train/good"])
def test_the_folder_of_a_category_is_named_with_the_right_command(tmp_path, inside):
    fill(tmp_path)
    with pytest.raises(DataError) as error:
        find_categories(tmp_path / "nut" / inside)
    assert str(error.value).endswith(f"use --data-root {tmp_path.resolve()} --categories nut")
    with pytest.raises(DataError, match="--categories nut"):
        scan_category(tmp_path / "nut", "nut")


def test_a_root_that_fits_no_layout_says_what_was_seen(tmp_path):
    fill(tmp_path / "sets")
    with pytest.raises(DataError, match=r"found sets/ \(nut\).*use --data-root .*sets$"):
        find_categories(tmp_path)
    (tmp_path / "sets/nut/train/good").rename(tmp_path / "sets/nut/train/ok")
    with pytest.raises(DataError, match=r"found nut/train/ \(ok\); .*<category>/tr"):
        find_categories(tmp_path / "sets")
    fill(tmp_path / "sets", "bolt")
    (finding,) = root_findings(tmp_path / "sets")
    assert finding.file == "nut" and "without train/good" in finding.what


JUNK = (
    ".ipynb_checkpoints",
    "@eaDir",
    "__MACOSX",
    "#recycle",
    "$RECYCLE.BIN",
    "@Recycle",
    "~snapshot",
)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize(
    "folder_name", [".", "nut/test", "nut/train", "nut/train/good", "nut/test/crack"]
)
def test_folders_that_systems_make_are_passed_over(tmp_path, junk, folder_name):
    before = scan_category(fill(tmp_path), "nut")
    for below in ("", "train/good", "000.png"):
        folder = tmp_path / folder_name / junk / below
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "0.png").write_bytes(b"no image")
    assert find_categories(tmp_path) == ["nut"]
    scan = survey_category(tmp_path, "nut")
    assert scan.samples == before and scan.findings == [] and root_findings(tmp_path) == []


def test_files_that_systems_make_are_passed_over(tmp_path):
    before = survey_category(fill(tmp_path), "nut")
    for folder_name in (
        ".",
        "nut",
        "nut/test",
        "nut/train/good",
        "nut/test/crack",
        "nut/ground_truth/crack",
    ):
        for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", "~$0.png", "notes.txt"):
            (tmp_path / folder_name / name).write_bytes(b"0")
        (tmp_path / folder_name / ".#0.png").symlink_to("user@host.1234")
    scan = survey_category(tmp_path, "nut")
    assert (
        (scan.samples, scan.findings) == (before.samples, before.findings) == (before.samples, [])
    )


def move(path, folder):
    folder.mkdir(parents=True, exist_ok=True)
    path.rename(folder / path.name)


@pytest.mark.parametrize("mirrored", [True, False])
def test_images_in_sub_folders_are_read_with_their_masks(tmp_path, mirrored):
    nut = fill(tmp_path) / "nut"
    move(nut / "train/good/2.png", nut / "train/good/2024-01/line 1")
    move(nut / "test/good/1.png", nut / "test/good/late")
    move(nut / "test/crack/1.png", nut / "test/crack/large")
    if mirrored:
        move(nut / "ground_truth/crack/1_mask.png", nut / "ground_truth/crack/large")
    scan = survey_category(tmp_path, "nut")
    assert count_parts(scan.samples) == (3, 2, 4) and scan.findings == []
    ids = {s.id: s for s in scan.samples}
    assert "nut/train/good/2024-01/line 1/2.png" in ids and "nut/test/good/late/1.png" in ids
    nested = ids["nut/test/crack/large/1.png"]
    folder = "large/" if mirrored else ""
    assert nested.mask == nut / f"ground_truth/crack/{folder}1_mask.png"
    assert nested.defect_type == "crack" and nested.source == "test"


def test_webp_and_jfif_are_read(tmp_path):
    nut = fill(tmp_path) / "nut"
    for name, kind in (("3.webp", "WEBP"), ("4.JFIF", "JPEG")):
        Image.new("RGB", (6, 8), (90, 90, 90)).save(nut / "train/good" / name, format=kind)
    images = [s.image for s in scan_category(tmp_path, "nut") if s.source == "train"]
    assert [p.name for p in images] == ["0.png", "1.png", "2.png", "3.webp", "4.JFIF"]
    assert all(abs(read_image(p).astype(int) - 90).max() <= 2 for p in images)


def test_what_is_left_out_is_counted_and_named(tmp_path):
    nut = fill(tmp_path) / "nut"
    for name in ("7.heic", "8.HEIC", "9.gif"):
        (nut / "train/good" / name).write_bytes(b"0")
    (nut / "train/good/5.png").symlink_to("/nowhere/5.png")
    write_png(nut / "test/lost.png", np.zeros((8, 6, 3), np.uint8))
    write_png(nut / "train/bad/1.png", np.zeros((8, 6, 3), np.uint8))
    scan = survey_category(tmp_path, "nut")
    assert count_parts(scan.samples) == (3, 2, 4)
    assert [(f.file, f.what.split(" outside")[0], f.harmful) for f in scan.findings] == [
        ("nut/train/good/7.heic and 1 more", "2 of a kind that is not read (.heic)", True),
        ("nut/train/good/9.gif", "1 of a kind that is not read (.gif)", True),
        ("nut/train/good/5.png", "1 links to what does not exist", True),
        ("nut/train/bad", "1 images", False),
        ("nut/test/lost.png", "1 images", False),
    ]
    assert nut / "train/good/5.png" in scan.files and nut / "train/good/7.heic" in scan.files


def test_a_folder_of_other_files_is_named_by_what_it_holds(tmp_path):
    nut = fill(tmp_path) / "nut"
    for path in (nut / "train/good").iterdir():
        path.rename(path.with_suffix(".heic"))
    (nut / "train/good/5.png").symlink_to("/nowhere/5.png")
    with pytest.raises(DataError, match="found 3 .heic, 1 links to what does not exist"):
        scan_category(tmp_path, "nut")


def test_one_name_with_two_suffixes_is_two_images_where_no_mask_is_needed(tmp_path):
    nut = fill(tmp_path) / "nut"
    for part in ("train/good", "test/good"):
        Image.new("RGB", (6, 8)).save(nut / part / "0.jpg")
    assert count_parts(scan_category(tmp_path, "nut")) == (4, 3, 4)
    for name in ("crack", "hole"):
        Image.new("RGB", (6, 8)).save(nut / f"test/{name}/0.jpg")
        (nut / f"ground_truth/{name}/0_mask.png").unlink()
    assert count_parts(scan_category(tmp_path, "nut")) == (4, 3, 6)


def test_folders_and_files_behind_links_are_read(tmp_path):
    nut = fill(tmp_path / "root") / "nut"
    before = [s.id for s in scan_category(tmp_path / "root", "nut")]
    for part in ("train/good", "test/crack", "ground_truth/crack"):
        (nut / part).rename(tmp_path / part.replace("/", "_"))
        (nut / part).symlink_to(tmp_path / part.replace("/", "_"))
    nut.rename(tmp_path / "elsewhere")
    nut.symlink_to(tmp_path / "elsewhere")
    scan = survey_category(tmp_path / "root", "nut")
    assert [s.id for s in scan.samples] == before and scan.findings == []


def test_links_that_go_round_in_circles_are_followed_once(tmp_path):
    nut = fill(tmp_path) / "nut"
    before = scan_category(tmp_path, "nut")
    (nut / "train/good/again").symlink_to(nut / "train/good")
    (nut / "train/good/up").symlink_to(nut)
    (nut / "test/crack/self").symlink_to(nut / "test/crack/self")
    scan = survey_category(tmp_path, "nut")
    assert scan.samples == before
    assert [f.file for f in scan.findings] == [
        "nut/train/good/again and 1 more",
        "nut/test/crack/self",
    ]


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    fill(tmp_path)
    bad = os.fsdecode(b"gr\xfcn.png")
    (tmp_path / "nut/train/good" / bad).write_bytes(b"0")
    with pytest.raises(DataError, match=r"gr\\xfcn.png: expected a name in UTF-8") as error:
        scan_category(tmp_path, "nut")
    str(error.value).encode()  # it can be printed
    (tmp_path / "nut/train/good" / bad).unlink()
    fill(tmp_path, os.fsdecode(b"gr\xfcn"))
    with pytest.raises(DataError, match=r"gr\\xfcn: expected a name in UTF-8"):
        find_categories(tmp_path)


NO_GOOD = "no good test images; all of these count as defects: crack, hole"


@pytest.mark.parametrize(
    ("gone", "parts", "words"),
    [
        (("test", "ground_truth"), (3, 0, 0), ["no good test images", "no defect images"]),
        (("test/crack", "test/hole", "ground_truth"), (3, 2, 0), ["no defect images"]),
        (("test/good",), (3, 0, 4), [NO_GOOD]),
    ],
)
def test_a_category_without_a_part_of_the_test_set_is_read_and_said(tmp_path, gone, parts, words):
    fill(tmp_path)
    for name in gone:
        shutil.rmtree(tmp_path / "nut" / name)
    scan = survey_category(tmp_path, "nut")
    assert count_parts(scan.samples) == parts and [f.what for f in scan.findings] == words
    assert [f.harmful for f in scan.findings] == [word == NO_GOOD for word in words]


def test_an_empty_folder_test_good_is_said(tmp_path):
    for path in (fill(tmp_path) / "nut/test/good").iterdir():
        path.unlink()
    scan = survey_category(tmp_path, "nut")
    assert count_parts(scan.samples) == (3, 0, 4)
    assert [(f.what, f.harmful) for f in scan.findings] == [(NO_GOOD, False)]


@pytest.mark.parametrize("name", ["ok", "OK", "Good", "normal", "defect-free", "i.O."])
@pytest.mark.parametrize("instead", [True, False])
def test_good_images_under_another_name_are_not_taken_for_defects(tmp_path, name, instead):
    test = fill(tmp_path, masks=False) / "nut/test"
    (test / "good" if instead else test / "hole").rename(test / name)
    with pytest.raises(DataError, match=f"test/{name}: expected the name of a defect.*to 'good'"):
        scan_category(tmp_path, "nut")
