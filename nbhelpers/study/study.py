"""Open a study and ask it for things by name: splits, shifted images, detectors, predictions, results.

Each is an artefact (see ``artefacts``): loaded if it was made from the present configuration, data
and code, made otherwise. So every notebook runs alone and in any order, and a killed run goes on
where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from nbhelpers.config import NO_PRESET, Config, digest, load_config
from nbhelpers.data import split_file
from nbhelpers.data import splits as split_data
from nbhelpers.data.full_scale import with_reading
from nbhelpers.data.images import fingerprint
from nbhelpers.data.layout import Sample, find_categories, scan_category
from nbhelpers.data.reading import Reading
from nbhelpers.data.shift import twins
from nbhelpers.data.splits import Split
from nbhelpers.data.synthetic.dataset import make_synthetic
from nbhelpers.errors import ConfigError
from nbhelpers.evaluation.thresholds.rules import get_rule
from nbhelpers.files import hash_file, locked, read_json, write_json
from nbhelpers.methods import METHODS
from nbhelpers.models.detector import Detector
from nbhelpers.models.factory import method_settings, new_detector
from nbhelpers.models.storage import SETTINGS_FILE
from nbhelpers.predictions import Predictions
from nbhelpers.runtime import pick_device, provenance, set_seed
from nbhelpers.scenarios import GLOBAL, SCENARIOS, fit_domains
from nbhelpers.sources import code_of
from nbhelpers.study.artefacts import Artefact

DETECTORS_IN_MEMORY = 4  # a PaDiM of 224 px takes 125 MB


def open_study(profile: str = "tiny", overrides: Mapping[str, Any] | None = None) -> Study:
    """Read the configuration, seed everything, choose the device; no data is touched yet.

    Raises:
        ConfigError: See ``load_config`` and ``pick_device``, or a threshold rule that is not known.
    """
    study = Study(load_config(profile, overrides))
    get_rule(study.config.evaluation.threshold_rule)
    set_seed(study.config.seed)
    torch.set_num_threads(study.config.threads)
    return study


class Study:
    """Everything that the notebooks ask for, by name.

    Detectors, and predictions by them, are named by method, category and what they were *fitted
    on*: the category's ``clean`` or ``shift`` training images, or, ``global``, the clean ones of all
    categories pooled.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self._samples: dict[str, list[Sample]] = {}
        self._index: dict[str, dict[str, list[Any]]] = {}
        self._shifted: dict[str, Split] = {}
        self._detectors: dict[Path, Detector] = {}

    def recipe(
        self,
        kind: str,
        *modules: str,
        functions: tuple[Callable[..., Any], ...] = (),
        **inputs: Any,
    ) -> dict[str, Any]:
        """What an artefact is made from: its inputs, and the code that makes it.

        Args:
            kind: What sort of artefact it is.
            modules: Those that make it, see ``code_of``.
            functions: Functions that take part, see ``code_of``.
            inputs: JSON-able; everything else that its content depends on.
        """
        code = code_of(*modules, functions=functions)
        return {"kind": kind, "seed": self.config.seed, **inputs, **code}

    # -- images ---------------------------------------------------------------------------------

    @cached_property
    def data_root(self) -> Path:
        """The folder of categories; the synthetic set is drawn here at first use.

        Raises:
            DataError: The synthetic set would take the place of images that this study did not draw.
        """
        data, root = self.config.data, self.config.data_root
        if data.source == "synthetic":
            with locked(root):
                make_synthetic(
                    root, data.categories, seed=self.config.seed, **data.synthetic.model_dump()
                )
        return root

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories of this study: the configured ones, or all that are in the data root."""
        return self.config.data.categories or tuple(find_categories(self.data_root))

    def samples(self, category: str) -> list[Sample]:
        """All clean samples of a category, in a fixed order."""
        if category not in self._samples:
            pattern = self.config.data.masks_pattern
            found = scan_category(self.data_root, category, pattern)
            index = self._indexed(category, found)
            keys = {s.id: s.image.relative_to(self.data_root).as_posix() for s in found}
            peaks = {identity: index[key][4] for identity, key in keys.items()}
            self._samples[category] = with_reading(found, self.config.data, peaks)
        return self._samples[category]

    def contents(self, category: str) -> dict[str, str]:
        """Hash of the bytes of each image and mask of a category, by its path below the data root."""
        self.samples(category)
        return {key: entry[2] for key, entry in self._index[category].items()}

    def pixels(self, category: str) -> dict[str, str]:
        """Hash of each image's pixels by sample id; of a file that is only packed anew, the same."""
        self.samples(category)
        return {key: entry[3] for key, entry in self._index[category].items() if entry[3]}

    def _indexed(self, category: str, samples: Sequence[Sample]) -> dict[str, list[Any]]:
        """Size, time, hash of bytes, hash of pixels and largest value (see ``fingerprint``) of each
        file; unchanged ones are not read again.
        """
        if category not in self._index:
            path = self.config.shared_dir / "index" / f"{category}.json"
            known = read_json(path) if path.is_file() else {}
            index = {}
            for sample in samples:
                for file in filter(None, (sample.image, sample.mask)):
                    key = file.relative_to(self.data_root).as_posix()
                    stamp = [file.stat().st_size, file.stat().st_mtime_ns]
                    entry = known.get(key)
                    if not entry or entry[:2] != stamp or len(entry) != 5:
                        seen = fingerprint(file) if file == sample.image else ("", None)
                        entry = [*stamp, hash_file(file), *seen]
                    index[key] = entry
            if index != known:
                write_json(path, index)
            self._index[category] = index
        return self._index[category]

    # -- splits ---------------------------------------------------------------------------------

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The clean split of every category, as the file has it; drawn where it has none.

        Raises:
            ConfigError: The file was drawn by other rules.
            DataError: Images were added, are gone or have changed since, or a split leaks.
        """
        path, rules = self.config.splits_path, self.config.splits
        samples = {name: self.samples(name) for name in self.categories}
        pixels = {name: self.pixels(name) for name in self.categories}
        with locked(path):
            stored = split_file.read_splits(path, samples, rules, pixels) if path.is_file() else {}
            splits = {name: stored.get(name) or self._draw_split(name) for name in self.categories}
            for name, split in splits.items():
                self.verify(name, split)
            if splits.keys() - stored.keys():
                self._write_splits(splits)
        return splits

    def resplit(self) -> None:
        """Draw the clean splits of this study's categories anew, whatever is stored."""
        with locked(self.config.splits_path):
            self._write_splits({name: self._draw_split(name) for name in self.categories})
        self.__dict__.pop("splits", None)  # read before, perhaps
        self._shifted = {}

    def _draw_split(self, category: str) -> Split:
        rules = self.config.splits
        return split_data.create_clean_split(
            self.samples(category),
            rules.train_ratio,
            rules.val_anomaly_ratio,
            self.config.seed,
            rules.stratify,
            rules.groups.get(category),
            self.pixels(category),
        )

    def _write_splits(self, splits: Mapping[str, Split]) -> None:
        """Write these splits, and keep what the file has of other categories."""
        split_file.write_splits(
            self.config.splits_path,
            splits,
            self.config.splits,
            {name: self.pixels(name) for name in splits},
            seed=self.config.seed,
            image_size=self.config.data.image_size,
        )

    def verify(self, category: str, split: Split) -> dict[str, tuple[int, int]]:
        """``verify_split`` with this study's group rules and the images' contents."""
        groups = self.config.splits.groups.get(category)
        return split_data.verify_split(split, groups, self.pixels(category))

    def split(self, category: str, domain: str = "clean") -> Split:
        """Train, val and test samples of a category in one domain.

        Raises:
            ConfigError: A category that is not part of this study.
        """
        if category not in self.categories:
            raise ConfigError(
                f"category '{category}': expected one of this study's "
                f"({', '.join(self.categories)}), found another; choose one of them"
            )
        if domain == "clean":
            return self.splits[category]
        if category not in self._shifted:
            self.shifted(category)
            shifted = twins.load_shifted(self.config.shifted_dir, category)
            # written as 8 bit, so only their way into the network is that of the clean images
            reading = Reading(
                letterbox=self.config.data.resize == "letterbox",
                background=self.samples(category)[0].reading.background,
            )
            self._shifted[category] = {
                name: [replace(sample, reading=reading) for sample in members]
                for name, members in shifted.items()
            }
        return self._shifted[category]

    # -- the shifted domain ---------------------------------------------------------------------

    def shifted(self, category: str) -> pd.DataFrame:
        """Manifest of a category's shifted twins, one row per image; drawn and verified at first use."""
        return self.shifted_set(category).get()

    def shifted_set(self, category: str) -> Artefact[pd.DataFrame]:
        """A category's shifted twins as an artefact."""
        config = self.config
        return Artefact(
            config.shifted_dir / category,
            self.recipe(
                "shifted",
                "data.shift.twins",
                functions=(Study._draw_twins,),
                category=category,
                split=self._split_key(category),
                shift=config.shift.model_dump(mode="json"),
            ),
            lambda path: self._draw_twins(category, path),
            lambda path: twins.read_manifest(path.parent, category),
        )

    def _draw_twins(self, category: str, path: Path) -> None:
        config = self.config
        manifest = twins.write_shifted(self.split(category), path, config.shift, config.seed)
        twins.verify_shifted(path, category)
        sources = {
            name: rows.set_index("id").source_id.to_dict()
            for name, rows in manifest.groupby("split")
        }
        write_json(
            path / category / "shifted_splits.json",
            {
                "source_splits": self.config.splits_path.name,
                "shift": config.shift.model_dump(mode="json"),
                "seed": config.seed,
                "seed_strategy": "SHA-256 of seed, category, split and source id",
                "source_of_each_image": sources,
            },
        )
        for entry in (path / category).iterdir():  # it was written to <path>/<category>
            entry.rename(path / entry.name)
        (path / category).rmdir()

    def source_ids(self, category: str, ids: Sequence[str]) -> list[str]:
        """The clean image behind each id: its own for a clean one, its source's for a shifted twin."""
        clean = {sample.id for sample in self.samples(category)}
        if all(identity in clean for identity in ids):
            return list(ids)
        manifest = self.shifted(category)
        sources = dict(zip(manifest.id, manifest.source_id, strict=True))
        return [sources.get(identity, identity) for identity in ids]

    def _split_key(self, category: str) -> str:
        ids = split_data.to_ids(self.split(category))
        reading = asdict(self.samples(category)[0].reading)
        return digest({"ids": ids, "contents": self.contents(category), "reading": reading})

    def domain_key(self, category: str, domain: str) -> str:
        """Hash of the images of a category in one domain, and of which split each is in."""
        return self._split_key(category) if domain == "clean" else self.shifted_set(category).key

    # -- what is asked of it --------------------------------------------------------------------

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Every (method, category) of this study."""
        return [
            (method, category) for method in self.config.methods for category in self.categories
        ]

    @property
    def fit_domains(self) -> tuple[str, ...]:
        """Domains that per-category detectors are fitted on for the configured scenarios."""
        return fit_domains(self.config.scenarios)

    @property
    def test_domains(self) -> tuple[str, ...]:
        """Domains that the configured scenarios test on."""
        return tuple(dict.fromkeys(SCENARIOS[name].test_domain for name in self.config.scenarios))

    def needed_predictions(self, fitted_on: str) -> list[tuple[str, str]]:
        """(domain, split) of each prediction that the scenarios need of a detector fitted there."""
        used = [
            row for name in self.config.scenarios if (row := SCENARIOS[name]).fitted_on == fitted_on
        ]
        needed = [
            (asked["domain"], asked["split"])
            for row in used
            for asked in (row.calibrates, row.tests)
        ]
        own = "clean" if fitted_on == GLOBAL else fitted_on
        return list(dict.fromkeys([(own, "val"), *needed]))

    # -- detectors ------------------------------------------------------------------------------

    def new_detector(self, method: str, seed: int | None = None) -> Detector:
        """An unfitted detector with the configured settings; with the study's seed unless one is given.

        Raises:
            ConfigError: A method that is not known.
        """
        return new_detector(
            self.config, method, self.config.seed if seed is None else seed, self.device
        )

    def training(self, category: str, *, fitted_on: str) -> list[Sample]:
        """The images that a detector is fitted on, in its order."""
        if fitted_on == GLOBAL:
            return [sample for name in self.categories for sample in self.split(name)["train"]]
        return self.split(category, fitted_on)["train"]

    def detector(self, method: str, category: str, *, fitted_on: str = "clean") -> Detector:
        """A fitted detector; the last few are kept in memory while the study is open."""
        artefact = self.fitted(method, category, fitted_on=fitted_on)
        if artefact.path not in self._detectors:
            loaded = artefact.get()
            while len(self._detectors) >= DETECTORS_IN_MEMORY:
                self._detectors.pop(next(iter(self._detectors)))
            self._detectors[artefact.path] = loaded
        return self._detectors[artefact.path]

    def detector_stats(self, method: str, category: str, *, fitted_on: str) -> dict[str, float]:
        """Fit statistics (sizes, counts, seconds) of a detector, without loading its network."""
        artefact = self.fitted(method, category, fitted_on=fitted_on)
        return Artefact(
            artefact.path,
            artefact.recipe,
            artefact.make,
            lambda folder: read_json(folder / SETTINGS_FILE)["stats"],
            device=self.device,
        ).get()

    def fitted(self, method: str, category: str, *, fitted_on: str = "clean") -> Artefact[Detector]:
        """A fitted detector as an artefact."""
        config = self.config
        pooled = fitted_on == GLOBAL
        trained_on = dict.fromkeys(self.categories, "clean") if pooled else {category: fitted_on}
        name = f"{method}_{GLOBAL}" if pooled else f"{method}_{category}_{fitted_on}"
        return Artefact(
            self._store(fitted_on) / "models" / name,
            self.recipe(
                "detector",
                *_modules(method),
                functions=(new_detector, method_settings, Study.training),
                method=method,
                trained_on=[self.domain_key(*images) for images in trained_on.items()],
                settings=method_settings(config, method),
                backbone=config.backbone.model_dump(),
                threads=config.threads,
                smoothing_sigma=config.smoothing_sigma,
                tta=config.tta,
                image_size=config.data.image_size,
                batch_size=config.loader.batch_size,
                device=self.device,
            ),
            lambda folder: (
                self.new_detector(method)
                .fit(self.training(category, fitted_on=fitted_on))
                .save(folder)
            ),
            lambda folder: type(self.new_detector(method)).load(folder, device=self.device),
            device=self.device,
        )

    def _store(self, *domains: str) -> Path:
        """Where to keep what depends on these domains: the clean ones serve every variant of the shift."""
        return self.config.output_dir if "shift" in domains else self.config.shared_dir

    # -- predictions ----------------------------------------------------------------------------

    def predictions(
        self, method: str, category: str, *, fitted_on: str, domain: str, split: str
    ) -> Predictions:
        """What a fitted detector says of a category's split in a domain; stored once."""
        return self.predicted(
            method, category, fitted_on=fitted_on, domain=domain, split=split
        ).get()

    def predicted(
        self, method: str, category: str, *, fitted_on: str, domain: str, split: str
    ) -> Artefact[Predictions]:
        """Predictions as an artefact."""
        folder = self._store(fitted_on, domain) / "predictions" / f"{method}_{category}_{fitted_on}"
        return Artefact(
            folder / f"{domain}_{split}.npz",
            self.recipe(
                "predictions",
                detector=self.fitted(method, category, fitted_on=fitted_on).key,
                images=self.domain_key(category, domain),
                split=split,
            ),
            lambda path: (
                self.detector(method, category, fitted_on=fitted_on)
                .predict(self.split(category, domain)[split])
                .save(path)
            ),
            Predictions.load,
            device=self.device,
        )

    # -- housekeeping ---------------------------------------------------------------------------

    def describe(self) -> None:
        """Print what this study is about."""
        config = self.config
        preset = "" if config.preset == NO_PRESET else f", preset {config.preset}"
        print(
            f"profile {config.profile}{preset}: {', '.join(self.categories)} at "
            f"{config.data.image_size} px, seed {config.seed}"
        )

    def describe_machine(self) -> None:
        """Print where it runs."""
        facts = provenance(self.device, 0.0)
        print(
            f"Python {facts['python']}, {facts['platform']}, device {self.device}, code {facts['git']}"
        )
        print(", ".join(f"{name} {number}" for name, number in facts["packages"].items()))

    def describe_cost(self, method: str, category: str, *, fitted_on: str) -> None:
        """Print what fitting a detector took, from its provenance."""
        facts = self.fitted(method, category, fitted_on=fitted_on).provenance
        if facts is not None:
            print(
                f"fitted in {facts['seconds']:.1f} s on {facts['device']}, peak memory "
                f"{facts['peak_memory_mb']:.0f} MB"
            )

    def figure_path(self, notebook: str, name: str) -> Path:
        """``outputs/<profile>/figures/<notebook>/<name>.png``."""
        return self.config.output_dir / "figures" / notebook / f"{name}.png"


def _modules(method: str) -> tuple[str, ...]:
    """The modules that make a method's detector and its scores."""
    module = METHODS[method].class_path.partition(":")[0] if method in METHODS else ""
    if METHODS[method].architecture:
        return f"models.{module}", "models.autoencoders.detector"
    return (f"models.{module}",)
