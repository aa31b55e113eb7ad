"""Train, validation and test of one category: seeded, verified, written once with relative paths.

Train is ``train_ratio`` of train/good; validation the rest of it plus ``val_anomaly_ratio`` of the
defect images, which calibrate thresholds; test is all of test/good plus the other defect images
(F026). Counts are floors. Images of one object (a group) never stand in two splits.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nbhelpers.config.sections import GroupRule
from nbhelpers.data.layout import Sample
from nbhelpers.errors import DataError

SPLITS = ("train", "val", "test")
Split = dict[str, list[Sample]]


def group_keys(samples: Sequence[Sample], rule: GroupRule | None) -> dict[str, int]:
    """Number the groups: images of one object share a number.

    Without a rule each image is its own group. With one, the numbers found in the file stems are
    sorted and cut wherever a step is larger than ``max_gap``. Train and test of the official layout
    are grouped apart.

    Raises:
        DataError: a file name without the number that the rule's pattern promises.
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
    group, previous = -1, None
    for source, number, identity in sorted(numbered):
        if previous is None or source != previous[0] or number - previous[1] > rule.max_gap:
            group += 1
        keys[identity], previous = group, (source, number)
    return keys


def _draw(
    samples: Sequence[Sample], count: int, groups: Mapping[str, int], rng: np.random.Generator
) -> set[str]:
    """Draw whole groups until ``count`` images are taken; a group that would overshoot is passed
    over.
    """
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
    """Share ``total`` out in proportion to ``counts``, by largest remainder (ties: by name)."""
    exact = {name: total * n / sum(counts.values()) for name, n in counts.items()}
    quotas = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: (quotas[n] - exact[n], n))[
        : total - sum(quotas.values())
    ]:
        quotas[name] += 1
    return quotas


def create_clean_split(
    samples: Sequence[Sample],
    train_ratio: float = 0.8,
    val_anomaly_ratio: float = 0.3,
    seed: int = 42,
    stratify: str = "none",
    groups: GroupRule | None = None,
) -> Split:
    """Split one category's samples (from ``scan_category``) into train, val and test.

    Args:
        samples: All samples of one category.
        train_ratio: Share of train/good that trains, floored.
        val_anomaly_ratio: Share of the defect images that calibrates, floored.
        seed: Seeds one generator for the good and one for the defect images.
        stratify: ``none``, or ``defect`` to draw the defect images in proportion within each defect
            type.
        groups: How to tell images of one object by their names; None if each stands alone.

    Returns:
        ``{"train": [...], "val": [...], "test": [...]}``, each in the order of ``samples``. Defect
        images that share a group with a test/good image are tested, never used to calibrate.

    Raises:
        DataError: nothing would be left in one of the splits.
    """
    keys = group_keys(samples, groups)
    train_good = [s for s in samples if s.source == "train"]
    defects = [s for s in samples if s.label]
    good_rng, defect_rng = (np.random.default_rng([seed, part]) for part in (0, 1))
    train = _draw(train_good, int(train_ratio * len(train_good)), keys, good_rng)
    tested = {keys[s.id] for s in samples if s.source == "test" and not s.label}
    free = [s for s in defects if keys[s.id] not in tested]
    wanted = int(val_anomaly_ratio * len(defects))
    if stratify == "defect":
        quotas = _quotas(Counter(s.defect_type for s in defects), wanted)
        val_defects: set[str] = set()
        for name, quota in sorted(quotas.items()):
            # a group may hold several types: what is drawn already, or held back, is not drawn
            # again
            held = {keys[i] for i in val_defects}
            own = [s for s in free if s.defect_type == name and keys[s.id] not in held]
            picked = _draw(own, quota, keys, defect_rng)
            groups_picked = {keys[i] for i in picked}
            val_defects |= {s.id for s in free if keys[s.id] in groups_picked}
    else:
        val_defects = _draw(free, wanted, keys, defect_rng)
    split: Split = {name: [] for name in SPLITS}
    for sample in samples:
        if sample.source == "train":
            split["train" if sample.id in train else "val"].append(sample)
        else:
            split["val" if sample.id in val_defects else "test"].append(sample)
    for name, part in split.items():
        classes = {s.label for s in part}
        if classes != ({0} if name == "train" else {0, 1}):
            found = Counter(s.defect_type for s in part)
            raise DataError(
                f"category '{samples[0].category}': split '{name}' needs good"
                f"{'' if name == 'train' else ' and defect'} images, found {dict(found) or 'none'}; "
                f"{len(train_good)} train/good and {len(defects)} defect images are too few for train_ratio "
                f"{train_ratio} and val_anomaly_ratio {val_anomaly_ratio}"
            )
    return split


def verify_split(
    split: Split, groups: GroupRule | None = None, content: Mapping[str, str] | None = None
) -> dict[str, tuple[int, int]]:
    """Check that nothing leaks and nothing is missing; return ``{split: (good, anomalous)}``.

    Args:
        split: What ``create_clean_split`` gave, or what was loaded.
        groups: The rule it was drawn with.
        content: Sample id to a hash of the file's bytes; byte-identical images must not stand in
            two splits.

    Raises:
        DataError: an image, its bytes or its object in two splits; a file missing; a mask on a good
            image, or none on a defect image though others of its category have one; an anomalous
            training image.
    """
    everything = [(name, sample) for name in SPLITS for sample in split[name]]
    keys = group_keys([sample for _, sample in everything], groups)
    has_masks = any(sample.mask for _, sample in everything)
    seen: dict[object, tuple[str, Sample]] = {}
    for name, sample in everything:
        marks = [("image", sample.id), ("object (group)", keys[sample.id])]
        if content is not None:
            marks.append(("image content", content[sample.id]))
        for what, mark in marks:
            other = seen.setdefault((what, mark), (name, sample))
            if other[0] != name or (what == "image" and other[1] is not sample):
                raise DataError(
                    f"the same {what} stands in two splits: {other[1].id} ({other[0]}) and {sample.id} ({name}); "
                    "remove one of the files, or delete the stored split and make it again"
                )
        if not sample.image.is_file():
            raise DataError(
                f"{sample.image}: in split '{name}' but there is no such file; restore it"
            )
        if name == "train" and sample.label:
            raise DataError(
                f"{sample.image}: a defect image ({sample.defect_type}) in the training split"
            )
        if (sample.mask is not None) != (has_masks and bool(sample.label)):
            raise DataError(
                f"{sample.image}: expected {'a' if sample.label else 'no'} mask for defect type "
                f"'{sample.defect_type}', found {sample.mask or 'none'}"
            )
    return {n: (sum(not s.label for s in split[n]), sum(s.label for s in split[n])) for n in SPLITS}


def to_ids(split: Split) -> dict[str, list[str]]:
    """The split as sample ids, for JSON."""
    return {name: [sample.id for sample in split[name]] for name in SPLITS}


def from_ids(ids: Mapping[str, Sequence[str]], samples: Sequence[Sample]) -> Split:
    """The split's samples back from their ids.

    Raises:
        DataError: an id that the data root no longer has.
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
    """Images per category, split and defect type: columns category, split, defect, images."""
    rows = [
        {"category": category, "split": name, "defect": defect, "images": count}
        for category, split in splits.items()
        for name in SPLITS
        for defect, count in Counter(s.defect_type for s in split[name]).items()
    ]
    return pd.DataFrame(rows)
