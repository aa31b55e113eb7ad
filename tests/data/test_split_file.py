"""The file of the splits is the authority: read, verified, never replaced but when asked."""

import json

import numpy as np
import pytest
from PIL import Image

from nbhelpers.data.images import write_png
from nbhelpers.errors import ConfigError, DataError
from nbhelpers.files import read_json, write_json
from nbhelpers.study import open_study

SMALL = {
    "data.categories": ["carpet", "hazelnut"],
    "data.synthetic": {"size": 64, "train_good": 8, "test_good": 3, "per_defect": 2},
}


@pytest.fixture
def drawn(tmp_path):
    """A workspace whose images lie in a folder and whose splits are drawn."""
    study = open_study("tiny", {**SMALL, "workspace": str(tmp_path)})
    assert study.splits.keys() == {"carpet", "hazelnut"}
    return study.config.splits_path


def reopen(path, **changes):
    settings = {**SMALL, "workspace": str(path.parents[3]), "data.source": "folder", **changes}
    return open_study("tiny", settings)


def read(path, **changes):
    """The splits as another study of the same workspace has them."""
    return reopen(path, **changes).splits


def test_file_says_who_is_where_by_which_rules_and_with_which_pixels(drawn):
    stored = read_json(drawn)
    assert stored["metadata"]["train_ratio"] == 0.8 and stored["metadata"]["seed"] == 42
    assert stored["metadata"]["created_at"][:2] == "20" and stored["metadata"]["image_size"] == 160
    ids = [i for part in stored["categories"]["carpet"].values() for i in part]
    assert sorted(stored["images"]["carpet"]) == sorted(ids)
    moments = stored["training_pixels"]["carpet"]
    assert all(0 < value < 1 for value in [*moments["mean"], *moments["std"]])


def test_it_is_read_and_never_written_again(drawn):
    before = drawn.read_bytes()
    assert {c: s["train"] for c, s in read(drawn).items()}.keys() == {"carpet", "hazelnut"}
    read(drawn, seed=7)
    assert drawn.read_bytes() == before


def test_an_edit_by_hand_is_honoured(drawn):
    stored = read_json(drawn)
    train, val = (stored["categories"]["carpet"][name] for name in ("train", "val"))
    train[0], val[0] = val[0], train[0]
    write_json(drawn, stored)
    assert [s.id for s in read(drawn)["carpet"]["train"]] == train


def test_a_file_from_elsewhere_without_hashes_is_honoured(drawn):
    stored = read_json(drawn)
    drawn.write_text(json.dumps({"categories": stored["categories"]}))
    assert [s.id for s in read(drawn)["carpet"]["val"]] == stored["categories"]["carpet"]["val"]


def test_a_leak_by_hand_is_refused(drawn):
    stored = read_json(drawn)
    stored["categories"]["carpet"]["test"].append(stored["categories"]["carpet"]["train"][0])
    write_json(drawn, stored)
    with pytest.raises(DataError, match="the same image stands in two splits"):
        read(drawn)


def test_an_image_more_or_less_is_named(drawn):
    study = reopen(drawn)
    extra = study.data_root / "carpet/train/good/900.png"
    sample = study.samples("carpet")[0].image
    extra.write_bytes(sample.read_bytes()[:-1] + b"x")
    with pytest.raises(
        DataError, match=r"no image that was added .*carpet/train/good/900.png.*--resplit"
    ):
        read(drawn)
    extra.unlink()
    sample.unlink()
    with pytest.raises(DataError, match=f"no image that is gone .*{sample.name}"):
        read(drawn)


def test_other_pixels_are_named_and_another_packing_is_not(drawn):
    sample = reopen(drawn).samples("carpet")[0].image
    with Image.open(sample) as image:
        pixels = image.copy()
    pixels.save(sample, compress_level=0)
    read(drawn)
    array = np.asarray(pixels).copy()
    array[0, 0] ^= 1
    write_png(sample, array)
    with pytest.raises(
        DataError, match=f"the pixels that it lists in category 'carpet'.*{sample.name}"
    ):
        read(drawn)


def test_other_rules_are_refused_until_resplit(drawn):
    study = reopen(drawn, **{"splits.train_ratio": 0.5})
    with pytest.raises(ConfigError, match="splits.train_ratio 0.5, found 0.8.*--resplit"):
        read(drawn, **{"splits.train_ratio": 0.5})
    study.resplit()
    assert len(study.splits["carpet"]["train"]) == 4
    assert read_json(drawn)["metadata"]["train_ratio"] == 0.5


def test_a_new_category_is_added_and_the_others_stay(drawn):
    before = read_json(drawn)["categories"]["carpet"]
    settings = {
        **SMALL,
        "data.categories": ["carpet", "zipper"],
        "workspace": str(drawn.parents[3]),
    }
    assert open_study("tiny", settings).splits.keys() == {"carpet", "zipper"}
    stored = read_json(drawn)["categories"]
    assert stored.keys() == {"carpet", "hazelnut", "zipper"} and stored["carpet"] == before


def test_what_is_no_split_file_is_named(drawn):
    drawn.write_text('{"categories": {"carpet": {"train": []}}}')
    with pytest.raises(DataError, match=f"{drawn.name}: expected the splits of each category"):
        read(drawn)
    drawn.write_text("{half")
    with pytest.raises(DataError, match="JSONDecodeError.*--resplit"):
        read(drawn)
    reopen(drawn).resplit()  # the advice helps
    assert read(drawn).keys() == {"carpet", "hazelnut"}


def test_variants_of_the_shift_and_data_roots_stand_side_by_side(tmp_path):
    here = {**SMALL, "workspace": str(tmp_path)}
    studies = [
        open_study("tiny", {**here, **changes})
        for changes in (
            {},
            {"shift.severity": "severe"},
            {"shift.only": ["rotation"]},
            {"shift.only": ["blur", "noise"]},
            {"data.root": "elsewhere"},
        )
    ]
    for attribute in ("shifted_dir", "output_dir"):
        assert len({getattr(study.config, attribute) for study in studies}) == 5
    assert len({study.config.splits_path for study in studies}) == 2
    shared = {study.fitted("padim", "carpet").path for study in studies}
    assert len(shared) == 2  # what is fitted on clean images serves every shift
    names = [study.config.output_dir.name for study in studies]
    assert names[0] == "tiny" and names[1].startswith("tiny+severe-")
    assert names[2].startswith("tiny+moderate-rotation-") and names[4].startswith("tiny@elsewhere-")


def test_a_training_image_that_is_in_the_test_set_is_listed_as_left_out(drawn):
    study = reopen(drawn)
    test = next(s for s in study.samples("carpet") if s.source == "test" and not s.label)
    copy = study.data_root / "carpet/train/good/900.png"
    copy.write_bytes(test.image.read_bytes())
    reopen(drawn).resplit()
    stored = read_json(drawn)
    assert stored["left_out"]["carpet"] == ["carpet/train/good/900.png"]
    assert (
        stored["images"]["carpet"]["carpet/train/good/900.png"]
        == stored["images"]["carpet"][test.id]
    )
    splits = read(drawn)["carpet"]
    assert copy not in [s.image for part in splits.values() for s in part]
    assert test.image in [s.image for s in splits["test"]]
    write_png(copy, np.zeros((64, 64, 3), np.uint8))  # no copy any more: it must be drawn for
    with pytest.raises(DataError, match="the pixels that it lists.*900.png"):
        read(drawn)
