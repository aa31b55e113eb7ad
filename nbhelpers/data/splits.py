"""Draws train, validation and test of one category, and verifies them.

Train is a share ``train_ratio`` of train/good. Validation is the rest of train/good and a share
``val_anomaly_ratio`` of the defect images, which calibrate thresholds. Test is all of test/good and
the remaining defect images. Counts are rounded down. Images of one object (a group) are never in
two splits, nor are images with the same pixels. An image of train/good that is also in the official
test set is in no split: the test set stays the official one, and nobody learns from it.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nbhelpers.config.sections import GroupRule
from nbhelpers.data.findings import Finding
from nbhelpers.data.layout import Sample
from nbhelpers.errors import DataError

SPLITS = ("train", "val", "test")
Split = dict[str, list[Sample]]


def group_keys(samples: Sequence[Sample], rule: GroupRule | None) -> dict[str, int]:
    """The number of each image's group; images of one object share a number.

    Without a rule each image is a group of its own. With a rule, the numbers in the file stems are
    sorted, and a new group starts wherever a step is larger than ``max_gap``. The official train and
    test folders are grouped separately.

    Returns:
        The number of the group by sample id.

    Raises:
        DataError: The rule's pattern does not find a number in a file name.
    """
    if rule is None:
        return {sample.id: index for index, sample in enumerate(samples)}
    numbered = []
    for sample in samples:
        match = re.search(rule.pattern, sample.image.stem)
        if match is None or not match.group(1).isdigit():
            raise DataError(
                f"{sample.image}: expected a number where the pattern '{rule.pattern}' looks (setting "
                f"splits.groups.{sample.category}), found none; correct the pattern or rename the file"
            )
        numbered.append((sample.source, int(match.group(1)), sample.id))
    keys: dict[str, int] = {}
    group = -1
    previous: tuple[str, int] | None = None
    for source, number, identity in sorted(numbered):
        if previous is None or source != previous[0] or number - previous[1] > rule.max_gap:
            group += 1
        keys[identity] = group
        previous = (source, number)
    return keys


def copies_of_test(samples: Sequence[Sample], content: Mapping[str, str]) -> list[Sample]:
    """The images of train/good that have the same pixels as an image of the official test set."""
    tested = {content[s.id] for s in samples if s.source == "test"}
    return [s for s in samples if s.source == "train" and content[s.id] in tested]


def _with_equal_pixels(keys: Mapping[str, int], content: Mapping[str, str]) -> dict[str, int]:
    """The groups of ``keys``, where those that have an image in common become one."""
    merged = dict(keys)
    first: dict[str, str] = {}
    for identity in keys:
        other = first.setdefault(content[identity], identity)
        if merged[other] != merged[identity]:
            old, new = sorted((merged[other], merged[identity]), reverse=True)
            merged = {name: new if group == old else group for name, group in merged.items()}
    return merged


def _share(ratio: float, count: int) -> int:
    """``ratio * count`` rounded down; 0.57 of 100 is 57, though the product of floats is less."""
    return math.floor(ratio * count + 1e-9)


def _draw(
    samples: Sequence[Sample], count: int, groups: Mapping[str, int], rng: np.random.Generator
) -> set[str]:
    """Draw whole groups until ``count`` images are drawn; skip a group that would exceed it."""
    members: dict[int, list[str]] = defaultdict(list)
    for sample in samples:
        members[groups[sample.id]].append(sample.id)
    order = list(members)
    drawn: set[str] = set()
    for index in rng.permutation(len(order)):
        group = members[order[index]]
        if len(drawn) + len(group) <= count:
            drawn.update(group)
    return drawn


def _quotas(counts: Mapping[str, int], total: int) -> dict[str, int]:
    """Distribute ``total`` in proportion to ``counts``, by largest remainder (ties by name)."""
    exact = {name: total * n / sum(counts.values()) for name, n in counts.items()}
    quotas = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    missing = total - sum(quotas.values())
    for name in by_remainder[:missing]:
        quotas[name] += 1
    return quotas


def create_clean_split(
    samples: Sequence[Sample],
    train_ratio: float = 0.8,
    val_anomaly_ratio: float = 0.3,
    seed: int = 42,
    stratify: str = "none",
    groups: GroupRule | None = None,
    content: Mapping[str, str] | None = None,
) -> Split:
    """Split the samples of one category into train, val and test.

    Args:
        samples: All samples of one category, from ``scan_category``.
        train_ratio: Share of train/good that trains, rounded down to whole images.
        val_anomaly_ratio: Share of the defect images that calibrates, rounded down.
        seed: Seeds one generator for the good and one for the defect images.
        stratify: ``none``, or ``defect`` to draw the same share of each defect type.
        groups: The rule that tells images of one object by their names; None if each image shows
            an object of its own.
        content: The hash of each image's pixels by sample id. Images with equal pixels are kept in
            one split, and ``copies_of_test`` are left out. None does not look for them.

    Returns:
        ``{"train": [...], "val": [...], "test": [...]}``, each in the order of ``samples``. Defect
        images that share a group with a test/good image are always in test. Where there are few or
        no defect images, val or test has none, see ``split_findings``.

    Raises:
        DataError: Train or val would have no good images.
    """
    keys = group_keys(samples, groups)
    if content is not None:
        copies = {s.id for s in copies_of_test(samples, content)}
        samples = [s for s in samples if s.id not in copies]
        keys = _with_equal_pixels({s.id: keys[s.id] for s in samples}, content)
    train_good = [s for s in samples if s.source == "train"]
    defects = [s for s in samples if s.label]
    good_rng, defect_rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    train = _draw(train_good, _share(train_ratio, len(train_good)), keys, good_rng)
    tested = {keys[s.id] for s in samples if s.source == "test" and not s.label}
    free = [s for s in defects if keys[s.id] not in tested]
    count = _share(val_anomaly_ratio, len(defects))
    if stratify == "defect":
        quotas = _quotas(Counter(s.defect_type for s in defects), count)
        val_defects: set[str] = set()
        for name, quota in sorted(quotas.items()):
            # a group may hold several defect types, so it may be drawn already
            drawn_groups = {keys[identity] for identity in val_defects}
            of_type = [s for s in free if s.defect_type == name and keys[s.id] not in drawn_groups]
            new_groups = {keys[identity] for identity in _draw(of_type, quota, keys, defect_rng)}
            val_defects |= {s.id for s in free if keys[s.id] in new_groups}
    else:
        val_defects = _draw(free, count, keys, defect_rng)
    split: Split = {name: [] for name in SPLITS}
    for sample in samples:
        if sample.source == "train":
            split["train" if sample.id in train else "val"].append(sample)
        else:
            split["val" if sample.id in val_defects else "test"].append(sample)
    for name in ("train", "val"):
        if all(s.label for s in split[name]):
            whole = len({keys[s.id] for s in train_good})
            raise DataError(
                f"category '{samples[0].category}': expected good images in split '{name}', found none; "
                f"{len(train_good)} images of train/good in {whole} groups of one object or equal pixels are too "
                f"few for train_ratio {train_ratio}; add images or change this setting"
            )
    return split


def verify_split(
    split: Split, groups: GroupRule | None = None, content: Mapping[str, str] | None = None
) -> dict[str, tuple[int, int]]:
    """Check that no image leaks from one split into another, and that no file is missing.

    Args:
        split: A split that ``create_clean_split`` made or that was read from a file.
        groups: The rule with which it was drawn.
        content: The hash of each image's pixels by sample id; images with equal pixels must not be
            in two splits. None does not check this.

    Returns:
        The number of good and of anomalous images by split.

    Raises:
        DataError: An image, its pixels or its object is in two splits; a file is missing; a good
            image has a mask; a training image is anomalous.
    """
    everything = [(name, sample) for name in SPLITS for sample in split[name]]
    keys = group_keys([sample for _, sample in everything], groups)
    seen: dict[object, tuple[str, Sample]] = {}
    for name, sample in everything:
        marks: dict[str, object] = {"image": sample.id, "object (group)": keys[sample.id]}
        if content is not None:
            marks["image content"] = content[sample.id]
        for kind, mark in marks.items():
            other_name, other = seen.setdefault((kind, mark), (name, sample))
            if other_name != name or (kind == "image" and other is not sample):
                raise DataError(
                    f"the same {kind} stands in two splits: {other.id} ({other_name}) and {sample.id} ({name}); "
                    "remove one of the files, or delete the stored split and make it again"
                )
        if not sample.image.is_file():
            raise DataError(
                f"{sample.image}: expected this file of split '{name}', but there is no such file; restore it"
            )
        if name == "train" and sample.label:
            raise DataError(
                f"{sample.image}: expected good images, found a defect image ({sample.defect_type}) in the "
                "training split; move it to another split"
            )
        if sample.mask is not None and not sample.label:
            raise DataError(
                f"{sample.image}: expected no mask for a good image, found {sample.mask}"
            )
    anomalous = {name: sum(sample.label for sample in split[name]) for name in SPLITS}
    return {name: (len(split[name]) - anomalous[name], anomalous[name]) for name in SPLITS}


def split_findings(split: Split) -> list[Finding]:
    """Name what val and test cannot give because they have no defect images."""
    members = [sample for name in SPLITS for sample in split[name]]
    defects = sum(sample.label for sample in members)
    lacking = {
        "val": "thresholds that need defect images cannot be set, those from good images can",
        "test": "detection and localisation cannot be measured",
    }
    return [
        Finding(
            f"{members[0].category}/test",
            f"split '{name}' has no defect images ({defects} in the category)",
            effect,
            "add defect images, or change splits.val_anomaly_ratio",
        )
        for name, effect in lacking.items()
        if not any(sample.label for sample in split[name])
    ]


def to_ids(split: Split) -> dict[str, list[str]]:
    """The sample ids of each split, as JSON stores them."""
    return {name: [sample.id for sample in split[name]] for name in SPLITS}


def from_ids(ids: Mapping[str, Sequence[str]], samples: Sequence[Sample]) -> Split:
    """The samples of each split, from their ids.

    Raises:
        DataError: The data root does not have an image of this id.
    """
    known = {sample.id: sample for sample in samples}
    missing = [identity for name in SPLITS for identity in ids[name] if identity not in known]
    if missing:
        raise DataError(
            f"{missing[0]}: in the stored split but not in the data root ({len(missing)} missing in all); restore "
            "the images, or delete the stored split and make it again"
        )
    return {name: [known[identity] for identity in ids[name]] for name in SPLITS}


def split_counts(splits: Mapping[str, Split]) -> pd.DataFrame:
    """Count images by category, split and defect type.

    Returns:
        Columns category, split, defect, images.
    """
    rows = [
        {"category": category, "split": name, "defect": defect, "images": count}
        for category, split in splits.items()
        for name in SPLITS
        for defect, count in Counter(s.defect_type for s in split[name]).items()
    ]
    return pd.DataFrame(rows)
