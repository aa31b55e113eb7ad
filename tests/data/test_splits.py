"""Splits: counts of the reference study, no leak, repeatable, groups kept whole."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nbhelpers.config.sections import GroupRule
from nbhelpers.data.duplicates import duplicate_findings
from nbhelpers.data.layout import OFFICIAL_COUNTS, Sample
from nbhelpers.data.splits import (
    create_clean_split,
    from_ids,
    group_keys,
    split_counts,
    split_findings,
    to_ids,
    verify_split,
)
from nbhelpers.errors import DataError

RULE = GroupRule(pattern=r"_num_(\d+)", max_gap=200)


def make(train, good, defects, category="nut", name="{i:03d}"):
    """Samples without files; ``defects`` maps a defect type to a count."""
    parts = [
        ("train", "good", train),
        ("test", "good", good),
        *(("test", d, n) for d, n in defects.items()),
    ]
    return [
        Sample(
            f"{category}/{part}/{d}/{name.format(i=i)}.png",
            Path(f"{name.format(i=i)}.png"),
            Path("m.png") if d != "good" else None,
            category,
            d,
        )
        for part, d, n in parts
        for i in range(n)
    ]


def sizes(split):
    return {
        n: (sum(not s.label for s in part), sum(s.label for s in part)) for n, part in split.items()
    }


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("hazelnut", {"train": (312, 0), "val": (79, 21), "test": (40, 49)}),
        ("carpet", {"train": (224, 0), "val": (56, 26), "test": (28, 63)}),
        ("zipper", {"train": (192, 0), "val": (48, 35), "test": (32, 84)}),
    ],
)
@pytest.mark.parametrize("stratify", ["none", "defect"])
def test_counts_of_the_reference_study(category, expected, stratify):
    train, good, defect = OFFICIAL_COUNTS[category]
    samples = make(train, good, {"a": defect // 2, "b": defect - defect // 2})
    split = create_clean_split(samples, stratify=stratify)
    assert sizes(split) == expected
    assert sorted(s.id for part in split.values() for s in part) == sorted(s.id for s in samples)


def test_same_seed_same_split_whatever_else_is_drawn():
    samples = make(50, 10, {"a": 20, "b": 10})
    assert to_ids(create_clean_split(samples, seed=3)) == to_ids(
        create_clean_split(samples, seed=3)
    )
    assert to_ids(create_clean_split(samples, seed=3)) != to_ids(
        create_clean_split(samples, seed=4)
    )
    other = create_clean_split(samples, seed=3, val_anomaly_ratio=0.5)
    assert to_ids(other)["train"] == to_ids(create_clean_split(samples, seed=3))["train"]


def test_stratified_by_defect_type():
    split = create_clean_split(make(50, 10, {"a": 20, "b": 10, "c": 4}), stratify="defect")
    # 30 % of 34 is 10; shares 5.88, 2.94, 1.18 by largest remainder
    assert Counter(s.defect_type for s in split["val"] if s.label) == {"a": 6, "b": 3, "c": 1}


def numbered(numbers, part="train", defect="good"):
    return [
        Sample(
            f"tile/{part}/{defect}/exp1_num_{n}.jpg",
            Path(f"exp1_num_{n}.jpg"),
            Path("m.png") if defect != "good" else None,
            "tile",
            defect,
        )
        for n in numbers
    ]


def test_groups_are_chains_of_close_numbers():
    keys = group_keys(numbered([5, 100, 250, 900, 1100, 1301]), RULE)
    assert list(keys.values()) == [0, 0, 0, 1, 1, 2]
    with pytest.raises(DataError, match="expected a number where the pattern"):
        group_keys(make(1, 0, {}), RULE)


def test_groups_are_never_cut():
    train = numbered([base + shot for base in range(0, 40000, 1000) for shot in (0, 50, 100)])
    good = numbered(range(100000, 110000, 1000), "test")
    defects = numbered(
        [base + shot for base in range(200000, 220000, 1000) for shot in (0, 60)], "test", "crack"
    )
    defects += numbered(
        [100050], "test", "crack"
    )  # the tile of a test/good image: never used to calibrate
    split = create_clean_split(train + good + defects, groups=RULE)
    keys = group_keys(train + good + defects, RULE)
    homes = {}
    for name, part in split.items():
        for sample in part:
            assert homes.setdefault(keys[sample.id], name) == name
    assert abs(len(split["train"]) - 96) <= 2
    assert "tile/test/crack/exp1_num_100050.jpg" in to_ids(split)["test"]


def test_too_few_good_images_are_refused():
    with pytest.raises(DataError, match="good images in split 'train', found none; 1 images"):
        create_clean_split(make(1, 5, {"a": 10}))


@pytest.mark.parametrize(
    ("good", "defects", "expected", "lacking"),
    [
        (5, {"a": 3}, {"train": (8, 0), "val": (2, 0), "test": (5, 3)}, ["val"]),
        (5, {}, {"train": (8, 0), "val": (2, 0), "test": (5, 0)}, ["val", "test"]),
        (0, {"a": 4}, {"train": (8, 0), "val": (2, 1), "test": (0, 3)}, []),
        (0, {}, {"train": (8, 0), "val": (2, 0), "test": (0, 0)}, ["val", "test"]),
    ],
)
@pytest.mark.parametrize("stratify", ["none", "defect"])
def test_few_or_no_test_images_are_split_and_said(good, defects, expected, lacking, stratify):
    split = create_clean_split(make(10, good, defects), stratify=stratify)
    assert sizes(split) == expected
    findings = split_findings(split)
    assert [f.what.split("'")[1] for f in findings] == lacking
    assert not any(f.harmful for f in findings)


@pytest.mark.parametrize(
    ("ratio", "count", "drawn"), [(0.57, 100, 57), (0.29, 100, 29), (0.8, 391, 312), (0.07, 99, 6)]
)
def test_shares_are_rounded_down_exactly(ratio, count, drawn):
    assert len(create_clean_split(make(count, 1, {"a": 9}), train_ratio=ratio)["train"]) == drawn
    split = create_clean_split(make(9, 1, {"a": count}), val_anomaly_ratio=ratio)
    assert sizes(split)["val"][1] == drawn


def contents(samples, *copies):
    """The hash of each sample's pixels: its id, but equal for those that are given together."""
    return {s.id: s.id for s in samples} | {i: c[0] for c in copies for i in c}


def homes(split, identities):
    return {name for name, part in split.items() for s in part if s.id in identities}


@pytest.mark.parametrize("seed", range(10))
def test_images_with_equal_pixels_stay_in_one_split(seed):
    samples = make(20, 5, {"a": 10, "b": 6})
    good = [f"nut/train/good/{i:03d}.png" for i in (0, 7, 9)]
    bad = ["nut/test/a/001.png", "nut/test/b/002.png"]
    content = contents(samples, good, bad)
    split = create_clean_split(samples, seed=seed, content=content)
    assert len(homes(split, good)) == len(homes(split, bad)) == 1
    assert sum(map(len, split.values())) == len(samples)
    assert 13 < len(split["train"]) <= 16
    verify_split(as_files(split), content=content)
    (finding,) = duplicate_findings(samples, content)
    assert finding.what == "3 images have the same pixels as another" and not finding.harmful


def as_files(split):
    """The split with a file that exists behind every image."""
    return {name: [replace(s, image=Path(__file__)) for s in part] for name, part in split.items()}


def test_without_equal_pixels_the_split_does_not_change():
    samples = make(50, 10, {"a": 20, "b": 10})
    assert create_clean_split(samples, content=contents(samples)) == create_clean_split(samples)


def test_a_training_image_that_is_in_the_test_set_is_left_out():
    samples = make(20, 5, {"a": 10})
    both = ["nut/test/good/003.png", "nut/train/good/004.png"]
    content = contents(samples, both)
    split = create_clean_split(samples, content=content)
    assert homes(split, both[:1]) == {"test"} and homes(split, both[1:]) == set()
    assert sizes(split) == {"train": (15, 0), "val": (4, 3), "test": (5, 7)}
    verify_split(as_files(split), content=content)
    (finding,) = duplicate_findings(samples, content)
    assert finding.file == both[1] and "also in the test set" in finding.what


def test_a_picture_that_is_good_and_a_defect_is_harmful():
    samples = make(20, 5, {"a": 10})
    both = ["nut/test/a/001.png", "nut/test/good/003.png"]
    content = contents(samples, both)
    assert homes(create_clean_split(samples, content=content), both) == {"test"}
    findings = duplicate_findings(samples, content)
    assert [f.harmful for f in findings] == [True, False]
    assert findings[0].file == " = ".join(both)


def test_equal_pixels_and_objects_are_one_group_together():
    train = numbered([base + shot for base in range(0, 20000, 1000) for shot in (0, 50)])
    copies = ["tile/train/good/exp1_num_50.jpg", "tile/train/good/exp1_num_9000.jpg"]
    content = contents(train, copies)
    for seed in range(5):
        split = create_clean_split(train, groups=RULE, seed=seed, content=content)
        objects = {f"tile/train/good/exp1_num_{n}.jpg" for n in (0, 50, 9000, 9050)}
        assert len(homes(split, objects)) == 1


def test_a_category_of_one_picture_says_why_it_cannot_be_split():
    samples = make(12, 5, {"a": 4})
    content = contents(samples, [s.id for s in samples if s.source == "train"])
    with pytest.raises(DataError, match="12 images of train/good in 1 groups"):
        create_clean_split(samples, content=content)


@pytest.fixture
def sound(tmp_path):
    samples = []
    for sample in make(20, 5, {"a": 10}):
        path = tmp_path / sample.id.replace("/", "_")
        path.write_bytes(b"x")
        samples.append(replace(sample, image=path))
    return create_clean_split(samples)


def test_verify_counts_and_round_trip(sound):
    assert verify_split(sound) == {"train": (16, 0), "val": (4, 3), "test": (5, 7)}
    everything = [s for part in sound.values() for s in part]
    assert from_ids(to_ids(sound), everything) == sound
    with pytest.raises(DataError, match="in the stored split but not in the data root"):
        from_ids(to_ids(sound), everything[1:])
    assert split_counts({"nut": sound}).images.sum() == 35


def test_an_image_in_two_splits_is_found(sound):
    with pytest.raises(DataError, match="the same image stands in two splits: .*train.*val"):
        verify_split({**sound, "val": sound["val"] + sound["train"][:1]})
    content = {s.id: s.id for part in sound.values() for s in part}
    content[sound["test"][0].id] = content[sound["train"][0].id]
    with pytest.raises(DataError, match="the same image content stands in two splits"):
        verify_split(sound, content=content)


def test_missing_files_and_masks_are_found(sound):
    without = replace(sound["test"][-1], mask=None)  # some images may have no mask
    verify_split({**sound, "test": [*sound["test"][:-1], without]})
    bad = replace(sound["train"][-1], mask=Path("m.png"))
    with pytest.raises(DataError, match="expected no mask for a good image, found m.png"):
        verify_split({**sound, "train": [*sound["train"][:-1], bad]})
    sound["train"][0].image.unlink()
    with pytest.raises(DataError, match="no such file"):
        verify_split(sound)
