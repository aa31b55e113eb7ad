"""The file that says which image is in which split: written once, then only read and verified.

Splits are data, not a cache: another seed, library or version of this code must not move an image
from test to train. So the file is the authority, also when it was edited by hand or copied from
another machine. A file that does not fit the images or the settings is an error that says what to
do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.config.sections import SplitConfig
from nbhelpers.data.images import read_image
from nbhelpers.data.layout import Sample
from nbhelpers.data.splits import SPLITS, Split, from_ids, to_ids
from nbhelpers.errors import ConfigError, DataError
from nbhelpers.files import read_json, write_json

#: Rules that decided which image is in which split; a file drawn by other rules is refused.
RULES = ("train_ratio", "val_anomaly_ratio", "stratify")
SHOWN = 5  # most names of images in one error
RESPLIT = "or draw the splits again with --resplit (every result made from them is then made again)"


def write_splits(
    path: Path,
    splits: Mapping[str, Split],
    rules: SplitConfig,
    pixels: Mapping[str, Mapping[str, str]],
    **metadata: Any,
) -> None:
    """Write the splits of these categories; the file keeps its splits of other categories.

    Args:
        path: The file. Its paths are relative to the data root, so that it is valid on any machine.
        splits: The splits by category.
        rules: The rules by which they were drawn.
        pixels: By category, the hash of each image's pixels by sample id. Images that are in no
            split are listed as left out.
        metadata: Further facts to store, for example the seed.

    Raises:
        ResourceError: The file cannot be written.
    """
    try:
        stored = read_json(path)
    except (FileNotFoundError, JSONDecodeError):  # no file, or a torn one after --resplit
        stored = {}
    sections: dict[str, dict[str, Any]] = {
        "categories": {name: to_ids(split) for name, split in splits.items()},
        "training_pixels": {name: _moments(split["train"]) for name, split in splits.items()},
        "images": {
            name: {identity: pixels[name][identity] for identity in sorted(pixels[name])}
            for name in splits
        },
        "left_out": {
            name: sorted(pixels[name].keys() - {i for ids in to_ids(split).values() for i in ids})
            for name, split in splits.items()
        },
    }
    content = {key: {**stored.get(key, {}), **section} for key, section in sections.items()}
    content["metadata"] = {
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "categories": list(content["categories"]),
        **metadata,
        **rules.model_dump(mode="json"),
    }
    write_json(path, content)


def read_splits(
    path: Path,
    samples: Mapping[str, Sequence[Sample]],
    rules: SplitConfig,
    pixels: Mapping[str, Mapping[str, str]],
) -> dict[str, Split]:
    """Read the stored splits, and check them against the images and the rules.

    Args:
        path: A file that ``write_splits`` wrote, possibly edited since. Hashes of images may be
            missing; those that it holds must be right.
        samples: By category, all images of the data root.
        rules: The rules of the current settings.
        pixels: By category, the hash of each image's pixels by sample id.

    Returns:
        The splits of those categories that the file has.

    Raises:
        ConfigError: The splits were drawn by other rules.
        DataError: The file does not hold splits; or images were added, are gone, or have other
            pixels, and the error lists them.
    """
    try:
        stored = read_json(path)
        categories, metadata = stored["categories"], stored.get("metadata", {})
        if not all(set(ids) == set(SPLITS) for ids in categories.values()):
            raise KeyError("train, val and test")
    except (JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected the splits of each category (categories: name: train, val, test), "
            f"found {type(error).__name__}: {error}; restore the file, {RESPLIT}"
        ) from error
    for name in RULES:
        if name in metadata and metadata[name] != getattr(rules, name):
            raise ConfigError(
                f"{path}: expected splits drawn with splits.{name} {getattr(rules, name)}, found "
                f"{metadata[name]}; set splits.{name} back, {RESPLIT}"
            )
    splits = {}
    for name in samples:
        if name not in categories:
            continue
        listed = [identity for split in SPLITS for identity in categories[name][split]]
        known = {sample.id for sample in samples[name]}
        _check(path, name, "no image that is gone", [i for i in listed if i not in known])
        left_out = [i for i in stored.get("left_out", {}).get(name, []) if i in known]
        _check(path, name, "no image that was added", sorted(known - {*listed, *left_out}))
        hashes = stored.get("images", {}).get(name, {})
        changed = [i for i in listed + left_out if i in hashes and hashes[i] != pixels[name][i]]
        _check(path, name, "the pixels that it lists", changed)
        splits[name] = from_ids(categories[name], samples[name])
    return splits


def _check(path: Path, category: str, expected: str, images: Sequence[str]) -> None:
    """Refuse the file when it lists images that are not as expected."""
    if images:
        more = f" and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
        raise DataError(
            f"{path}: expected {expected} in category '{category}', found {len(images)}: "
            f"{', '.join(images[:SHOWN])}{more}; bring the images back to what the file lists, {RESPLIT}"
        )


def _moments(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Mean and standard deviation of the pixels of these images in [0, 1], by channel."""
    count, sums, squares = 0, np.zeros(3), np.zeros(3)
    for sample in samples:
        image = read_image(sample.image, sample.reading) / 255.0
        count += image.shape[0] * image.shape[1]
        sums += image.sum(axis=(0, 1))
        squares += (image**2).sum(axis=(0, 1))
    mean = sums / count
    deviation = np.sqrt(squares / count - mean**2)
    return {"mean": mean.round(6).tolist(), "std": deviation.round(6).tolist()}
