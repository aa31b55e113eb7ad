"""The file that says which image is in which split: written once, read and verified ever after.

A split is data and no cache: another seed, library or version of this code must not move an image
from test to train. So the file is the authority, also where it was edited by hand or brought from
elsewhere; what does not fit the images or the settings is an error that says what to do.
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

#: Rules that decided which image went where; a file drawn by others is refused.
RULES = ("train_ratio", "val_anomaly_ratio", "stratify")
SHOWN = 5  # names of images in an error
ANEW = "or make the splits anew with --resplit (every result made from them is then made again)"


def write_splits(
    path: Path,
    splits: Mapping[str, Split],
    rules: SplitConfig,
    pixels: Mapping[str, Mapping[str, str]],
    **metadata: Any,
) -> None:
    """Write the splits of these categories; what the file has of others stays.

    Args:
        path: The file; its paths are relative to the data root, so that it holds elsewhere.
        splits: By category.
        rules: What they were drawn by.
        pixels: By category, the hash of each image's pixels by sample id.
        metadata: What else is worth knowing (seed, image size).
    """
    try:
        stored = read_json(path)
    except (
        FileNotFoundError,
        JSONDecodeError,
    ):  # none, or a torn one that is drawn anew on request
        stored = {}
    sections = {
        "categories": {name: to_ids(split) for name, split in splits.items()},
        "training_pixels": {name: _moments(split["train"]) for name, split in splits.items()},
        "images": {
            name: {sample.id: pixels[name][sample.id] for part in SPLITS for sample in split[part]}
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
    """The stored splits of those categories that the file has, checked against images and rules.

    Args:
        path: A file that ``write_splits`` wrote, perhaps edited since. Hashes of images may be left
            out; those that are there must hold.
        samples: By category, all that the data root has.
        rules: What the settings say now.
        pixels: By category, the hash of each image's pixels by sample id.

    Raises:
        ConfigError: The file was drawn by other rules.
        DataError: It is not such a file, or images were added, are gone, or have other pixels; lists
            them.
    """
    try:
        stored = read_json(path)
        categories, metadata = stored["categories"], stored.get("metadata", {})
        if not all(set(ids) == set(SPLITS) for ids in categories.values()):
            raise KeyError("train, val and test")
    except (JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected the splits of each category (categories: name: train, val, test), "
            f"found {type(error).__name__}: {error}; restore the file, {ANEW}"
        ) from error
    for name in RULES:
        if name in metadata and metadata[name] != getattr(rules, name):
            raise ConfigError(
                f"{path}: expected splits drawn with splits.{name} {getattr(rules, name)}, found "
                f"{metadata[name]}; set splits.{name} back, {ANEW}"
            )
    splits = {}
    for name in samples:
        if name not in categories:
            continue
        listed = [identity for part in SPLITS for identity in categories[name][part]]
        known = {sample.id for sample in samples[name]}
        _check(path, name, "no image that is gone", [i for i in listed if i not in known])
        _check(path, name, "no image that was added", sorted(known - set(listed)))
        hashes = stored.get("images", {}).get(name, {})
        changed = [i for i in listed if i in hashes and hashes[i] != pixels[name][i]]
        _check(path, name, "the pixels that it lists", changed)
        splits[name] = from_ids(categories[name], samples[name])
    return splits


def _check(path: Path, category: str, expected: str, images: Sequence[str]) -> None:
    if images:
        more = f" and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
        raise DataError(
            f"{path}: expected {expected} in category '{category}', found {len(images)}: "
            f"{', '.join(images[:SHOWN])}{more}; bring the images back to what the file lists, {ANEW}"
        )


def _moments(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Mean and standard deviation of the training images' pixels in [0, 1], by channel."""
    count, sums, squares = 0, np.zeros(3), np.zeros(3)
    for sample in samples:
        image = read_image(sample.image) / 255.0
        count += image.shape[0] * image.shape[1]
        sums += image.sum(axis=(0, 1))
        squares += (image**2).sum(axis=(0, 1))
    mean = sums / count
    deviation = np.sqrt(squares / count - mean**2)
    return {"mean": mean.round(6).tolist(), "std": deviation.round(6).tolist()}
