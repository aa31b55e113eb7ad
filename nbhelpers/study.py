"""Open a study and ask it for things by name: splits, shifted images, detectors, predictions, results.

Each is an artefact (see ``artefacts``): loaded if it was made from the present configuration and data, made
otherwise. So every notebook runs alone and in any order, and a killed run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from nbhelpers import artefacts
from nbhelpers.config import Config, digest, load_config
from nbhelpers.data import shift as shift_data
from nbhelpers.data import splits as split_data
from nbhelpers.data.layout import Sample, find_categories, scan_category
from nbhelpers.data.splits import Split
from nbhelpers.data.synthetic import make_synthetic
from nbhelpers.errors import ConfigError
from nbhelpers.evaluation.scenarios import SCENARIOS
from nbhelpers.files import hash_file, read_json, write_json
from nbhelpers.models.detector import Detector, Predictions
from nbhelpers.runtime import pick_device, set_seed

#: Raised by one when the code of a kind changes what it makes, so that older files are made again.
VERSIONS = {"split": 1, "shifted": 1, "detector": 1, "predictions": 1, "evaluation": 1,
            "sweep": 1}


def open_study(profile: str = "tiny", overrides: Mapping[str, Any] | None = None) -> Study:
    """Read the configuration, seed everything, choose the device; no data is touched yet.

    Raises:
        ConfigError: see ``load_config`` and ``pick_device``.
    """
    study = Study(load_config(profile, overrides))
    set_seed(study.config.seed)
    torch.set_num_threads(study.config.threads)
    return study


class Study:
    """Everything the notebooks ask for, by name."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self._samples: dict[str, list[Sample]] = {}
        self._contents: dict[str, dict[str, str]] = {}
        self._shifted: dict[str, Split] = {}
        self._detectors: dict[tuple[str, str, str], Detector] = {}

    # -- data ---------------------------------------------------------------------------------------

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

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Every (method, category) of this study."""
        return [(method, category) for method in self.config.methods for category in self.categories]

    @property
    def fit_domains(self) -> tuple[str, ...]:
        """Domains that detectors are fitted on for the configured scenarios."""
        return tuple(dict.fromkeys(SCENARIOS[name].fit_domain for name in self.config.scenarios))

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

    # -- detectors and predictions ------------------------------------------------------------------

    def new_detector(self, method: str) -> Detector:
        """An unfitted detector with the configured settings."""
        config = self.config
        if method != "patchcore":
            raise ConfigError(f"unknown method '{method}'; known: patchcore")
        # here, since the network libraries take seconds to import and whoever only evaluates needs none
        from nbhelpers.models.backbones import Backbone
        from nbhelpers.models.patchcore import PatchCore

        settings = config.patchcore
        backbone = Backbone(settings.backbone.name, settings.backbone.layers, settings.backbone.weights)
        return PatchCore(
            backbone, image_size=config.data.image_size, seed=config.seed, device=self.device,
            loader=config.loader.model_dump(), **settings.model_dump(exclude={"backbone"}),
        )

    def detector(self, method: str, category: str, fit_domain: str = "clean") -> Detector:
        """A detector fitted on one category's training images of a domain; kept in memory while the study is open."""
        key = (method, category, fit_domain)
        if key not in self._detectors:

            def make(path: Path) -> None:
                self.new_detector(method).fit(self.split(category, fit_domain)["train"]).save(path)

            self._detectors[key] = artefacts.ask(
                self.model_path(*key), self.detector_recipe(*key), make,
                lambda path: type(self.new_detector(method)).load(path, device=self.device), device=self.device,
            )
        return self._detectors[key]

    def predictions(self, method: str, category: str, fit_domain: str, domain: str, split: str) -> Predictions:
        """What a fitted detector says of a split; stored once, read by everything after."""
        recipe = self.predictions_recipe(method, category, fit_domain, domain, split)
        return artefacts.ask(
            self.predictions_path(method, category, fit_domain, domain, split), recipe,
            lambda path: self.detector(method, category, fit_domain)
            .predict(self.split(category, domain)[split]).save(path),
            Predictions.load, device=self.device,
        )

    def needed_predictions(self, fit_domain: str) -> list[tuple[str, str]]:
        """(domain, split) of every prediction that the configured scenarios need of a detector fitted there."""
        used = [SCENARIOS[name] for name in self.config.scenarios if SCENARIOS[name].fit_domain == fit_domain]
        parts = [part[1:] for scenario in used for part in scenario.parts]
        return list(dict.fromkeys([(fit_domain, "val"), *parts]))

    def predictions_path(self, method: str, category: str, fit_domain: str, domain: str, split: str) -> Path:
        folder = self.config.output_dir / "predictions" / f"{method}_{category}_{fit_domain}"
        return folder / f"{domain}_{split}.npz"

    def model_path(self, method: str, category: str, fit_domain: str) -> Path:
        return self.config.output_dir / "models" / f"{method}_{category}_{fit_domain}"

    def detector_recipe(self, method: str, category: str, fit_domain: str) -> dict[str, Any]:
        return self.recipe(
            "detector", method=method, category=category, trained_on=self._domain_digest(category, fit_domain),
            settings=getattr(self.config, method).model_dump(mode="json"), threads=self.config.threads,
            image_size=self.config.data.image_size, batch_size=self.config.loader.batch_size, device=self.device,
        )

    def predictions_recipe(self, method: str, category: str, fit_domain: str, domain: str,
                            split: str) -> dict[str, Any]:
        fitted = digest(self.detector_recipe(method, category, fit_domain))
        tested = self._domain_digest(category, domain)
        return self.recipe("predictions", detector=fitted, images=tested, split=split)

    def _domain_digest(self, category: str, domain: str) -> str:
        return self._split_digest(category) if domain == "clean" else digest(self._shift_recipe(category))

    # -- housekeeping -------------------------------------------------------------------------------

    def recipe(self, kind: str, **inputs: Any) -> dict[str, Any]:
        """What an artefact of a kind is made from."""
        return {"kind": kind, "version": VERSIONS[kind], "seed": self.config.seed, **inputs}

    def describe(self) -> None:
        """Print what this study is about."""
        data = self.config.data
        print(f"profile {self.config.profile}: {', '.join(self.categories)} at {data.image_size} px, "
              f"seed {self.config.seed}")

    def describe_machine(self) -> None:
        """Print where it runs."""
        facts = artefacts.provenance(self.device, 0.0)
        print(f"Python {facts['python']}, {facts['platform']}, device {self.device}, code {facts['git']}")
        print(", ".join(f"{name} {number}" for name, number in facts["packages"].items()))

    def describe_cost(self, method: str, category: str, fit_domain: str) -> None:
        """Print what fitting a detector took, from its provenance."""
        facts = (artefacts.read_sidecar(self.model_path(method, category, fit_domain)) or {})["provenance"]
        print(f"fitted in {facts['seconds']:.1f} s on {facts['device']}, peak memory {facts['peak_memory_mb']:.0f} MB")

    def figure_path(self, notebook: str, name: str) -> Path:
        """``outputs/<profile>/figures/<notebook>/<name>.png``."""
        return self.config.output_dir / "figures" / notebook / f"{name}.png"
