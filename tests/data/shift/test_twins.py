"""The shifted tree: complete, repeatable, never half-written, refused when names collide, checked
file by file.
"""

import hashlib
import re
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nbhelpers.config import load_config
from nbhelpers.config.sections import ShiftConfig
from nbhelpers.data.images import read_image, read_mask, write_png
from nbhelpers.data.layout import scan_category
from nbhelpers.data.shift.apply import apply_shift
from nbhelpers.data.shift.parameters import ShiftParameters, image_seed, sample_parameters
from nbhelpers.data.shift.twins import (
    load_shifted,
    read_manifest,
    shift_sample,
    verify_shifted,
    write_shifted,
)
from nbhelpers.errors import DataError, ResourceError

SIZE = (40, 56)
SHIFT = load_config("mvtec").shift.model_dump()


def config(**changes):
    return ShiftConfig(**{**SHIFT, **changes})


@pytest.fixture
def source(tmp_path):
    """A category whose folders share file names; defect 'edge' lies in the last columns, 'spot' in
    the middle.
    """
    rng = np.random.default_rng(0)
    root = tmp_path / "raw"
    for part, names in (
        ("train/good", "012"),
        ("test/good", "01"),
        ("test/spot", "01"),
        ("test/edge", "0123"),
    ):
        for name in names:
            image = rng.integers(40, 90, (*SIZE, 3), dtype=np.uint8)
            mask = np.zeros(SIZE, np.uint8)
            if part == "test/spot":
                mask[15:25, 20:30] = 1
            if part == "test/edge":
                mask[15:25, -2:] = 1
            image[mask == 1] = 220
            write_png(root / "nut" / part / f"00{name}.png", image)
            if mask.any():
                write_png(
                    root / "nut" / part.replace("test", "ground_truth") / f"00{name}_mask.png",
                    mask * 255,
                )
    return root


@pytest.fixture
def splits(source):
    samples = scan_category(source, "nut")
    train = [s for s in samples if s.source == "train"]
    test = [s for s in samples if s.source == "test"]
    # train/good/002 and test/good/000, edge/000, spot/000 all in val: one stem each, or nearly
    val = [train[-1], *(s for s in test if s.image.stem == "000")]
    return {"train": train[:-1], "val": val, "test": [s for s in test if s not in val]}


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_tree_and_manifest_are_complete(tmp_path, splits):
    out = tmp_path / "shifted"
    manifest = write_shifted(splits, out, config(), 42)
    assert len(manifest) == 11 and manifest["image"].is_unique
    assert set(manifest["image"]) | set(manifest["mask"]) - {""} | {"nut/manifest.csv"} == set(
        tree(out)
    )
    assert "nut/val/images/test_spot_000_shifted.png" in set(manifest["image"])
    assert "nut/test/masks/test_edge_003_shifted_mask.png" in set(manifest["mask"])
    assert not manifest.isna().any().any()
    assert {f.name for f in fields(ShiftParameters)} <= set(manifest.columns)
    assert manifest.groupby("split").size().to_dict() == {"train": 2, "val": 4, "test": 5}
    assert (manifest["mask"] != "").sum() == manifest["label"].sum() == 6
    assert verify_shifted(out, "nut") == {
        "images": 11,
        "masks": 6,
        "defects_lost": int(manifest.defect_lost.sum()),
    }


def test_every_image_can_be_made_again_from_its_row(tmp_path, splits, source):
    write_shifted(splits, tmp_path / "shifted", config(), 42)
    for row in read_manifest(tmp_path / "shifted", "nut").to_dict("records"):
        parameters = ShiftParameters(**{f.name: row[f.name] for f in fields(ShiftParameters)})
        assert row["seed"] == image_seed(42, "nut", row["split"], row["source_id"])
        assert parameters == sample_parameters(config(), row["seed"])
        again, _ = apply_shift(read_image(source / row["source_id"]), None, parameters)
        assert np.array_equal(again, read_image(tmp_path / "shifted" / row["image"]))
        assert row["gain_max"] == 1 and row["gain_min"] == np.float32(row["illumination_strength"])


def test_same_bytes_again_and_in_any_order(tmp_path, splits):
    write_shifted(splits, tmp_path / "a", config(), 42)
    write_shifted(splits, tmp_path / "b", config(), 42)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    write_shifted(
        {name: splits[name][::-1] for name in ("test", "val", "train")},
        tmp_path / "c",
        config(),
        42,
    )
    backward, forward = tree(tmp_path / "c"), tree(tmp_path / "a")
    assert backward.pop("nut/manifest.csv") != forward.pop(
        "nut/manifest.csv"
    )  # rows in another order
    assert backward == forward
    write_shifted(splits, tmp_path / "a", config(), 43)  # an older set is replaced
    assert all(
        digest != forward.get(name)
        for name, digest in tree(tmp_path / "a").items()
        if "/images/" in name
    )


def test_on_the_fly_equals_the_stored(tmp_path, splits):
    write_shifted(splits, tmp_path, config(), 42)
    sample = next(s for s in splits["test"] if s.label)
    image, mask, row = shift_sample(sample, "test", config(), 42)
    assert np.array_equal(image, read_image(tmp_path / row["image"]))
    assert np.array_equal(mask, read_mask(tmp_path / row["mask"], SIZE))


def test_lost_defects_are_counted_and_lose_their_mask(tmp_path, splits):
    manifest = write_shifted(splits, tmp_path, config(only=("translation",), translation=0.45), 1)
    lost = manifest[manifest.defect_lost]
    assert 0 < len(lost) < 6 and set(lost.defect_type) == {"edge"}
    # by hand: 2 columns of 56 leave the frame on the right, and nothing is mirrored into it there
    gone = manifest[(manifest.defect_type == "edge") & (manifest.translation_x * 56 > 2)]
    assert set(lost["image"]) == set(gone["image"])
    assert (lost.mask_pixels_before == 20).all() and (lost.mask_pixels_after == 0).all()
    assert verify_shifted(tmp_path, "nut")["defects_lost"] == len(lost)
    samples = {s.id: s for members in load_shifted(tmp_path, "nut").values() for s in members}
    assert all(samples[i].label == 1 and samples[i].mask is None for i in lost["id"])
    kept = manifest[(manifest.label == 1) & ~manifest.defect_lost]
    assert all(
        samples[i].mask == tmp_path / m for i, m in zip(kept["id"], kept["mask"], strict=True)
    )


def test_load_gives_the_splits_back_in_order(tmp_path, splits):
    manifest = write_shifted(splits, tmp_path, config(), 42)
    loaded = load_shifted(tmp_path, "nut")
    assert list(loaded) == ["train", "val", "test"]
    sources = dict(zip(manifest["id"], manifest["source_id"], strict=True))
    for name, samples in loaded.items():
        assert [sources[s.id] for s in samples] == [s.id for s in splits[name]]
        assert {s.domain for s in samples} == {"shift"} and all(s.image.is_file() for s in samples)
    with pytest.raises(DataError, match="manifest"):
        load_shifted(tmp_path, "bolt")


def test_an_image_in_two_splits_is_refused_before_anything_is_written(tmp_path, splits):
    with pytest.raises(DataError) as error:
        write_shifted(
            {"val": splits["val"], "test": splits["val"][:1]}, tmp_path / "out", config(), 0
        )
    assert str(error.value).count("nut/") == 2  # both are named
    with pytest.raises(DataError, match="one category"):
        write_shifted({"train": []}, tmp_path / "out", config(), 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "others",
    [
        ["test/good/000.jpg"],  # the same stem
        ["test/good/late/000.png", "test/good/early/000.png"],  # in sub-folders
        ["test/good_b/000.png", "test/good/b_000.png"],  # two paths that make one name
        ["test/good/A.png", "test/good/a.png"],  # one name where letters' cases are not told apart
    ],
)
def test_twins_whose_usual_names_collide_get_names_of_their_own(tmp_path, source, others):
    for name in others:
        (source / "nut" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", SIZE[::-1], (90, 80, 70)).save(source / "nut" / name)
    samples = scan_category(source, "nut")
    manifest = write_shifted({"test": samples}, tmp_path / "out", config(), 0)
    assert verify_shifted(tmp_path / "out", "nut")["images"] == len(samples)
    assert len({name.casefold() for name in manifest["image"]}) == len(samples)
    ids = dict(zip(manifest["source_id"], manifest["image"], strict=True))
    assert ids["nut/test/spot/000.png"] == "nut/test/images/test_spot_000_shifted.png"
    hashed = [i for i in ids if re.search("_[0-9a-f]{12}_shifted.png$", ids[i])]
    assert {f"nut/{name}" for name in others} <= set(hashed) and len(hashed) <= len(others) + 1
    again = write_shifted({"test": samples[::-1]}, tmp_path / "again", config(), 0)
    assert dict(zip(again["source_id"], again["image"], strict=True)) == ids


@pytest.mark.parametrize(
    "stem", ["SN0123456789-" * 18 + "x" * 17, "検" * 83, "\u00fc" * 125, "x" * 210]
)
def test_twins_of_long_names(tmp_path, source, stem):
    good, bad = source / "nut/train/good", source / "nut/test/spot"
    for path in (good / "000.png", bad / "000.png"):
        path.rename(path.with_name(f"{stem}.png"))
    (good / "001.png").rename(good / f"{stem[:-1]}y.png")  # equal but for the last letter
    mask = source / "nut/ground_truth/spot/000_mask.png"
    mask.rename(mask.with_name(f"{stem}.png"))  # _mask would be too long
    samples = scan_category(source, "nut")
    assert sum(s.mask is not None for s in samples) == 6
    manifest = write_shifted({"test": samples}, tmp_path / "out", config(), 0)
    assert verify_shifted(tmp_path / "out", "nut")["masks"] == 6
    usual = f"nut/test/images/train_good_{stem}_shifted.png"
    assert (usual in set(manifest["image"])) == (stem == "x" * 210)
    again = dict(zip(manifest["source_id"], manifest["image"], strict=True))
    assert len(set(again.values())) == len(samples)


def test_a_foreign_folder_is_left_alone(tmp_path, source, splits):
    before = tree(source)
    with pytest.raises(DataError, match="without manifest"):
        write_shifted(splits, source, config(), 0)
    assert tree(source) == before


def test_a_failed_run_leaves_the_older_set(tmp_path, splits, monkeypatch):
    write_shifted(splits, tmp_path / "out", config(), 0)
    before = tree(tmp_path / "out")

    def full(path, array):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("nbhelpers.data.shift.twins.write_png", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_shifted(splits, tmp_path / "out", config(), 1)
    monkeypatch.undo()
    assert tree(tmp_path / "out") == before
    splits["val"][0].image.write_bytes(b"no image")
    with pytest.raises(DataError, match="readable"):
        write_shifted(splits, tmp_path / "new", config(), 1)
    assert not (tmp_path / "new" / "nut").exists()


def _damage_stray(out, row):
    write_png(out / "nut/test/images/stray.png", np.zeros((*SIZE, 3), np.uint8))


def _damage_missing(out, row):
    (out / row["image"]).unlink()


def _damage_size(out, row):
    write_png(out / row["image"], np.zeros((8, 8, 3), np.uint8))


def _damage_grey_mask(out, row):
    write_png(out / row["mask"], read_mask(out / row["mask"], SIZE) * np.uint8(128))


def _damage_mask(out, row):
    write_png(out / row["mask"], np.zeros(SIZE, np.uint8))


def _damage_rows(out, row):
    table = read_manifest(out, "nut")
    pd.concat([table, table.tail(1)]).to_csv(out / "nut/manifest.csv", index=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_stray, "stray"),
        (_damage_missing, "expected one image file"),
        (_damage_size, "56x40"),
        (_damage_grey_mask, "128"),
        (_damage_mask, "defect pixels"),
        (_damage_rows, "two rows"),
    ],
)
def test_verification_finds_damage(tmp_path, splits, damage, message):
    manifest = write_shifted(splits, tmp_path, config(), 42)
    damage(tmp_path, manifest[manifest.defect_type == "spot"].iloc[0])
    with pytest.raises(DataError, match=message):
        verify_shifted(tmp_path, "nut")


def test_names_that_pandas_would_take_for_missing_values(tmp_path, source):
    for name in ("NA", "none"):
        write_png(source / f"001/test/{name}/7.png", np.zeros((*SIZE, 3), np.uint8))
    write_png(source / "001/test/good/7.png", np.zeros((*SIZE, 3), np.uint8))
    write_png(source / "001/train/good/7.png", np.zeros((*SIZE, 3), np.uint8))
    write_shifted({"test": scan_category(source, "001")}, tmp_path, config(), 42)
    samples = load_shifted(tmp_path, "001")["test"]
    assert {s.defect_type for s in samples} == {"good", "NA", "none"} and {
        s.category for s in samples
    } == {"001"}
    assert [s.mask for s in samples] == [None] * 4
