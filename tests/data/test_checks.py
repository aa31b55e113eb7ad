"""Each oddity of the files of a category is named once, and an ordinary category has none."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nbhelpers.config import load_config
from nbhelpers.data.checks import check_files
from nbhelpers.data.findings import Finding, findings_table, named
from nbhelpers.data.full_scale import with_reading
from nbhelpers.data.images import write_png
from nbhelpers.data.layout import scan_category

SHAPE = (20, 20)


@pytest.fixture
def tree(tmp_path):
    """An ordinary category of 20 x 20 px with three defects, whose masks cover a tenth."""
    rng = np.random.default_rng(0)
    for part, count in (("train/good", 3), ("test/good", 2), ("test/dent", 3)):
        for i in range(count):
            image = rng.integers(0, 256, (*SHAPE, 3), np.uint8)
            write_png(tmp_path / "nut" / part / f"{i}.png", image)
    for i in range(3):
        write_png(truth(tmp_path, i), marked(40))
    return tmp_path


def truth(root, i):
    return root / "nut" / "ground_truth" / "dent" / f"{i}_mask.png"


def marked(pixels, level=255):
    mask = np.zeros(SHAPE, np.uint8)
    mask.ravel()[:pixels] = level
    return mask


def findings_of(root, **data):
    overrides = {f"data.{key}": value for key, value in data.items()}
    samples = with_reading(scan_category(root, "nut"), load_config("tiny", overrides).data)
    return check_files(samples)


def only(root, **data):
    findings = findings_of(root, **data)
    assert len(findings) == 1, findings
    return findings[0]


def test_nothing_is_odd_about_an_ordinary_category(tree):
    assert findings_of(tree) == []


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (0, "the mask marks no pixel"),
        (364, "the mask covers 91 % of the image: inverted?"),
        (400, "the mask covers 100 % of the image"),
    ],
)
def test_masks_that_mark_nothing_or_too_much(tree, pixels, words):
    for i in (1, 2):
        write_png(truth(tree, i), marked(pixels))
    finding = only(tree)
    assert finding.what == words and finding.harmful
    assert finding.file == "nut/ground_truth/dent/1_mask.png and 1 more"


def test_inverted_masks_are_settled_by_the_setting(tree):
    for i in range(3):
        write_png(truth(tree, i), 255 - marked(40))
    assert "data.masks: invert" in only(tree).remedy
    assert findings_of(tree, masks="invert") == []


def test_rules_that_were_applied_to_masks_are_said(tree):
    soft = marked(40)
    soft[2] = np.arange(20) * 5  # of 0 to 95
    write_png(truth(tree, 0), soft)
    write_png(truth(tree, 1), marked(80, 1) + marked(40, 1) + marked(20, 1))
    write_png(truth(tree, 2), np.dstack([marked(0)] * 3 + [marked(40)]))
    whats = {finding.file[-10:]: finding.what for finding in findings_of(tree)}
    assert whats == {
        "0_mask.png": "21 levels, cut at half of their range (127.5)",
        "1_mask.png": "4 levels, labels of defects",
        "2_mask.png": "its transparency is the mask",
    }
    assert not any(finding.harmful for finding in findings_of(tree))


def image_path(root, part="train/good", i=0):
    return root / "nut" / part / f"{i}.png"


def test_orientation_transparency_and_sheets(tree):
    pixels = np.asarray(Image.open(image_path(tree)))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(image_path(tree), exif=exif)
    finding = only(tree)
    assert finding.file == "nut/train/good/0.png" and "turned" in finding.what
    assert not finding.harmful
    Image.fromarray(np.dstack([pixels, pixels[:, :, 0]])).save(image_path(tree))
    assert only(tree).what == "opacity varies" and "(9, 9, 9)" in only(tree, background=9).effect
    sheet = Image.fromarray(pixels)
    sheet.save(image_path(tree), format="TIFF", save_all=True, append_images=[sheet, sheet])
    assert only(tree).what == "holds 3 pictures in one file" and only(tree).harmful


def deepen(root, factor, parts=("train/good", "test/good", "test/dent")):
    for part in parts:
        for path in (root / "nut" / part).iterdir():
            grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
            Image.fromarray(grey * np.uint16(factor)).save(path)


def test_deep_images_say_their_full_scale(tree):
    deepen(tree, 16)
    finding = only(tree)
    assert "4095 becomes white" in finding.effect and not finding.harmful
    Image.fromarray(np.full(SHAPE, 50_000, np.uint16)).save(image_path(tree, "test/dent", 1))
    above = next(finding for finding in findings_of(tree) if finding.harmful)
    assert above.file == "nut/test/dent/1.png"
    assert above.what == "has values up to 50000, above the full scale 4095"
    assert [f.harmful for f in findings_of(tree, bit_depth=16)] == [False]


def test_values_of_eight_bits_in_sixteen_are_named(tree):
    deepen(tree, 1)
    assert any("bit_depth: 8" in f.remedy and f.harmful for f in findings_of(tree))
    assert not any(f.harmful for f in findings_of(tree, bit_depth=8))


def test_two_depths_in_one_category_are_named(tree):
    deepen(tree, 16, ("train/good",))
    mixed = [finding for finding in findings_of(tree) if finding.harmful]
    assert [finding.what for finding in mixed] == [
        "images of 8 bits (nut/test/good/0.png) beside images of more (nut/train/good/0.png)"
    ]


def test_oblong_images_are_named_unless_their_aspect_is_kept(tree):
    write_png(image_path(tree), np.zeros((10, 50, 3), np.uint8))
    assert only(tree).what == "one side is 5.0 times as long as the other"
    assert findings_of(tree, resize="letterbox") == []


def test_unreadable_files_are_named_and_the_rest_is_checked(tree):
    samples = with_reading(scan_category(tree, "nut"), load_config("tiny").data)
    image_path(tree).write_bytes(b"no image")
    truth(tree, 0).write_bytes(b"no mask")
    write_png(truth(tree, 1), marked(0))
    assert [finding.what for finding in check_files(samples)] == [
        "cannot be read",
        "the mask cannot be read",
        "the mask marks no pixel",
    ]
    elsewhere = [replace(sample, id=f"x/{sample.id}") for sample in samples]
    assert check_files(elsewhere)[1].file == truth(tree, 0).as_posix()


def test_the_table_starts_with_what_is_harmful():
    findings = [Finding("a", "b", "c", "d"), Finding("e", "f", "g", "h", harmful=True)]
    table = findings_table(findings)
    assert table.columns.tolist() == ["file", "what", "effect", "remedy", "harmful"]
    assert table.file.tolist() == ["e", "a"]
    assert findings_table([]).columns.tolist() == table.columns.tolist()
    assert named(["a"]) == "a" and named(["a", "b", "c"]) == "a and 2 more"
