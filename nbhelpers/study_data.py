"""The data side of a study: categories, samples, splits and shifted twins, each made once and asked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from nbhelpers import artefacts
from nbhelpers.config import Config, digest
from nbhelpers.data import shift as shift_data
from nbhelpers.data import splits as split_data
from nbhelpers.data.layout import Sample, find_categories, scan_category
from nbhelpers.data.splits import Split
from nbhelpers.data.synthetic import make_synthetic
from nbhelpers.errors import ConfigError
from nbhelpers.files import hash_file, read_json, write_json

#: Raised by one when the code of a kind changes what it makes, so that older files are made again.
VERSIONS = {"split": 1, "shifted": 1, "detector": 2, "predictions": 2, "cross_scores": 1, "evaluation": 2, "rows": 1,
            "sweep": 1, "errors": 1, "figures": 1}


class StudyData:
    """What a study asks of its images; nothing here knows of detectors."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._samples: dict[str, list[Sample]] = {}
        self._contents: dict[str, dict[str, str]] = {}
        self._shifted: dict[str, Split] = {}

    def recipe(self, kind: str, **inputs: Any) -> dict[str, Any]:
        """What an artefact of a kind is made from."""
        return {"kind": kind, "version": VERSIONS[kind], "seed": self.config.seed, **inputs}

    @cached_property
    def data_root(self) -> Path:
        """The folder of categories; the synthetic set is drawn here at first use.

        Raises:
            DataError: the synthetic set would take the place of images that this study did not draw.
        """
        data, root = self.config.data, self.config.data_root
        if data.source == "synthetic":
            with artefacts.locked(root):
                make_synthetic(root, data.categories, seed=self.config.seed, **data.synthetic.model_dump())
        return root

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories of this study: the configured ones, or all that are in the data root."""
        return self.config.data.categories or tuple(find_categories(self.data_root))

    def samples(self, category: str) -> list[Sample]:
        """All clean samples of a category, in a fixed order."""
        if category not in self._samples:
            self._samples[category] = scan_category(self.data_root, category)
        return self._samples[category]

    def contents(self, category: str) -> dict[str, str]:
        """Hash of each image's (and its mask's) bytes by sample id; files that did not change are not read again."""
        if category not in self._contents:
            path = self.config.output_dir / "index" / f"{category}.json"
            known = read_json(path) if path.is_file() else {}
            index = {}
            for sample in self.samples(category):
                for file in filter(None, (sample.image, sample.mask)):
                    key = file.relative_to(self.data_root).as_posix()
                    stamp = [file.stat().st_size, file.stat().st_mtime_ns]
                    old = known.get(key)
                    index[key] = old if old and old[:2] == stamp else [*stamp, hash_file(file)]
            if index != known:
                write_json(path, index)
            self._contents[category] = {key: entry[2] for key, entry in index.items()}
        return self._contents[category]

    @property
    def splits_path(self) -> Path:
        """``data/processed/<profile>/clean_splits.json``."""
        return self.config.workspace_dir / "data" / "processed" / self.config.profile / "clean_splits.json"

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The clean split of every category; written once to ``splits_path``."""
        config = self.config
        recipe = self.recipe(
            "split", image_size=config.data.image_size, splits=config.splits.model_dump(mode="json"),
            contents={category: digest(self.contents(category)) for category in self.categories},
        )
        stored = artefacts.ask(self.splits_path, recipe, self._make_splits, read_json)
        return {name: split_data.from_ids(ids, self.samples(name)) for name, ids in stored["categories"].items()}

    def _make_splits(self, path: Path) -> None:
        rules, ids = self.config.splits, {}
        for category in self.categories:
            split = split_data.create_clean_split(
                self.samples(category), rules.train_ratio, rules.val_anomaly_ratio, self.config.seed,
                rules.stratify, rules.groups.get(category),
            )
            self.verify(category, split)
            ids[category] = split_data.to_ids(split)
        metadata = {
            "seed": self.config.seed, "image_size": self.config.data.image_size,
            "categories": list(self.categories), **rules.model_dump(mode="json"),
        }
        write_json(path, {"metadata": metadata, "categories": ids})

    def verify(self, category: str, split: Split) -> dict[str, tuple[int, int]]:
        """``verify_split`` with this study's group rules and the images' contents."""
        return split_data.verify_split(split, self.config.splits.groups.get(category), self.contents(category))

    def split(self, category: str, domain: str = "clean") -> Split:
        """Train, val and test samples of a category in one domain.

        Raises:
            ConfigError: a category that is not part of this study.
        """
        if category not in self.categories:
            raise ConfigError(f"unknown category '{category}'; this study has: {', '.join(self.categories)}")
        if domain == "clean":
            return self.splits[category]
        if category not in self._shifted:
            self.shifted(category)
            self._shifted[category] = shift_data.load_shifted(self.config.shifted_dir, category)
        return self._shifted[category]

    def shifted(self, category: str) -> pd.DataFrame:
        """Manifest of a category's shifted twins, one row an image; draws and verifies them first where needed."""
        config = self.config

        def make(path: Path) -> None:
            manifest = shift_data.write_shifted(self.split(category), path, config.shift, config.seed)
            shift_data.verify_shifted(path, category)
            pairs = {split: part.set_index("id").source_id.to_dict() for split, part in manifest.groupby("split")}
            write_json(path / category / "shifted_splits.json", {
                "source_splits": self.splits_path.name, "shift": config.shift.model_dump(mode="json"),
                "seed": config.seed, "seed_strategy": "SHA-256 of seed, category, split and source id",
                "source_of_each_image": pairs,
            })
            for part in (path / category).iterdir():  # it was written to <path>/<category>: lift it to <path>
                part.rename(path / part.name)
            (path / category).rmdir()

        return artefacts.ask(
            config.shifted_dir / category, self._shift_recipe(category), make,
            lambda path: shift_data.read_manifest(path.parent, category),
        )

    def source_ids(self, category: str, ids: Sequence[str]) -> list[str]:
        """The clean image behind each id: its own for a clean one, its source's for a shifted twin."""
        if all(identity in self.contents(category) for identity in ids):
            return list(ids)
        manifest = self.shifted(category)
        sources = dict(zip(manifest.id, manifest.source_id, strict=True))
        return [sources.get(identity, identity) for identity in ids]

    def _split_digest(self, category: str) -> str:
        return digest({"ids": split_data.to_ids(self.split(category)), "contents": self.contents(category)})

    def _shift_recipe(self, category: str) -> dict[str, Any]:
        shift = self.config.shift.model_dump(mode="json")
        return self.recipe("shifted", category=category, split=self._split_digest(category), shift=shift)

    def domain_digest(self, category: str, domain: str) -> str:
        """Hash of the images of a category in one domain, and of which split each is in."""
        return self._split_digest(category) if domain == "clean" else digest(self._shift_recipe(category))
