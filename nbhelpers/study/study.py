"""Opens a study, which is asked by name for splits, shifted images, detectors and predictions.

Each of them is an artefact (see ``artefacts``): it is loaded if it was made from the present
configuration, data and code, and made otherwise. So every notebook runs alone and in any order, and
a killed run continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
from nbhelpers.data.layout import Sample, find_categories, scan_category
from nbhelpers.data.shift import twins
from nbhelpers.data.splits import SPLITS, Split
from nbhelpers.data.synthetic.dataset import make_synthetic
from nbhelpers.errors import ConfigError
from nbhelpers.evaluation.thresholds.rules import get_rule
from nbhelpers.files import locked, read_json, write_json
from nbhelpers.methods import METHODS
from nbhelpers.models.detector import Detector
from nbhelpers.models.factory import method_settings, new_detector
from nbhelpers.models.storage import SETTINGS_FILE
from nbhelpers.predictions import Predictions
from nbhelpers.runtime import pick_device, provenance, set_seed
from nbhelpers.scenarios import GLOBAL, SCENARIOS, fit_domains
from nbhelpers.sources import code_of
from nbhelpers.study.artefacts import Artefact, keys_of
from nbhelpers.study.index import FileEntry, index_files

DOMAINS = ("clean", "shift")
DETECTORS_IN_MEMORY = 4  # a PaDiM of 224 px takes 125 MB


def open_study(profile: str = "tiny", overrides: Mapping[str, Any] | None = None) -> Study:
    """Open a study: read its configuration, seed the random generators, choose the device.

    No image is read yet.

    Args:
        profile: Name of a file in ``configs/``: ``tiny``, ``mvtec`` or ``folder``.
        overrides: Settings that differ from the profile's, by dotted key, for example
            ``{"data.image_size": 256}``.

    Raises:
        ConfigError: A setting is unknown or does not fit (see ``load_config``), the device is not
            there, or the threshold rule is unknown.
    """
    study = Study(load_config(profile, overrides))
    get_rule(study.config.evaluation.threshold_rule)
    set_seed(study.config.seed)
    torch.set_num_threads(study.config.threads)
    return study


class Study:
    """A study that is asked by name for its splits, detectors and predictions.

    What is asked for the first time is computed and stored below the workspace; after that it is
    loaded. It is computed again only if a setting, an image or the code that makes it has changed.

    A **split** of a category gives the samples of ``train``, ``val`` and ``test``, in the ``clean``
    domain or, as shifted twins of the same images, in the ``shift`` domain. The split is drawn once
    and then read from its file:

    >>> split = study.split("hazelnut")
    >>> sorted(split)
    ['test', 'train', 'val']
    >>> sample = split["test"][0]
    >>> sample.category
    'hazelnut'
    >>> twins = study.split("hazelnut", "shift")["test"]
    >>> len(twins) == len(split["test"])
    True

    A **detector** is named by its method, its category and what it is fitted on: the category's
    ``clean`` or ``shift`` training images, or, for ``global``, the clean training images of all
    categories together. Asking for it fits it, if that was not done before:

    >>> detector = study.detector("patchcore", "hazelnut", fitted_on="clean")
    >>> detector.name
    'patchcore'

    **Predictions** hold the image scores and anomaly maps of one split beside the truth. They need
    no detector in memory, so thresholds, metrics and figures read them:

    >>> predictions = study.predictions(
    ...     "patchcore", "hazelnut", fitted_on="clean", domain="shift", split="test"
    ... )
    >>> len(predictions) == len(twins)
    True
    >>> predictions.anomaly_maps.shape == (len(twins), 64, 64)  # at an image size of 64
    True

    ``fitted``, ``predicted`` and ``shifted_set`` give the same things as artefacts, which also know
    their file, whether they are current, and why they are not.

    Attributes:
        config: All settings of the study.
        device: Where networks run, for example ``cpu`` or ``cuda``.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self._samples: dict[str, list[Sample]] = {}
        self._index: dict[str, dict[str, FileEntry]] = {}
        self._shifted: dict[str, Split] = {}
        self._detectors: dict[Path, Detector] = {}

    def recipe(
        self,
        kind: str,
        *modules: str,
        functions: tuple[Callable[..., Any], ...] = (),
        **inputs: Any,
    ) -> dict[str, Any]:
        """What an artefact is made from: its inputs and the code that makes it.

        Args:
            kind: What sort of artefact it is.
            modules: The modules that make it (see ``sources.code_of``).
            functions: Single functions that take part (see ``sources.code_of``).
            inputs: Everything else that its content depends on: values that JSON can hold, and
                artefacts, alone or in a list, which their keys stand for.

        Returns:
            A dictionary that JSON can hold; the seed of the study is part of it.
        """
        code = code_of(*modules, functions=functions)
        keys = {name: keys_of(value) for name, value in inputs.items()}
        return {"kind": kind, "seed": self.config.seed, **keys, **code}

    # -- images ---------------------------------------------------------------------------------

    @cached_property
    def data_root(self) -> Path:
        """The folder of categories. The synthetic images are drawn when it is asked for first.

        Raises:
            DataError: The synthetic images would replace images that this study did not draw.
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
        """The categories of this study: the configured ones, or all folders of the data root."""
        return self.config.data.categories or tuple(find_categories(self.data_root))

    def samples(self, category: str) -> list[Sample]:
        """All clean samples of a category, in a fixed order."""
        if category not in self._samples:
            pattern = self.config.data.masks_pattern
            scanned = scan_category(self.data_root, category, pattern)
            index = self._indexed(category, scanned)
            names = {s.id: s.image.relative_to(self.data_root).as_posix() for s in scanned}
            peaks = {identity: index[name].peak for identity, name in names.items()}
            self._samples[category] = with_reading(scanned, self.config.data, peaks)
        return self._samples[category]

    def contents(self, category: str) -> dict[str, str]:
        """Hash of the bytes of each image and mask of a category, by its path below the data root."""
        self.samples(category)
        return {name: entry.content for name, entry in self._index[category].items()}

    def pixels(self, category: str) -> dict[str, str]:
        """Hash of the pixels of each image of a category, by sample id.

        It stays the same if a file is only compressed in another way.
        """
        self.samples(category)
        return {name: entry.pixels for name, entry in self._index[category].items() if entry.pixels}

    def _indexed(self, category: str, samples: Sequence[Sample]) -> dict[str, FileEntry]:
        if category not in self._index:
            stored = self.config.shared_dir / "index" / f"{category}.json"
            self._index[category] = index_files(samples, self.data_root, stored)
        return self._index[category]

    # -- splits ---------------------------------------------------------------------------------

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The clean split of every category, read from its file; drawn if the file has none.

        Raises:
            ConfigError: The file was drawn by other rules than the configured ones.
            DataError: Images were added, removed or changed since, or one image is in two splits.
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
        """Draw the clean splits of this study's categories again, whatever is stored."""
        with locked(self.config.splits_path):
            self._write_splits({name: self._draw_split(name) for name in self.categories})
        self.__dict__.pop("splits", None)  # if they were read before, they are read again
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
        """Write these splits and keep those that the file has of other categories."""
        split_file.write_splits(
            self.config.splits_path,
            splits,
            self.config.splits,
            {name: self.pixels(name) for name in splits},
            seed=self.config.seed,
            image_size=self.config.data.image_size,
        )

    def verify(self, category: str, split: Split) -> dict[str, tuple[int, int]]:
        """Check a split for leaks and return how many good and anomalous images each part has.

        Args:
            category: Whose split it is; the category's rules for groups of images apply.
            split: The split.

        Returns:
            ``(good, anomalous)`` by ``train``, ``val`` and ``test``.

        Raises:
            DataError: An image, its pixels or its group is in two splits, or an anomalous image is
                in ``train``.
        """
        groups = self.config.splits.groups.get(category)
        return split_data.verify_split(split, groups, self.pixels(category))

    def split(self, category: str, domain: str = "clean") -> Split:
        """The samples of a category in one domain.

        Args:
            category: The category.
            domain: ``clean``, or ``shift`` for the shifted twins of the same images.

        Returns:
            Lists of samples by ``train``, ``val`` and ``test``.

        Raises:
            ConfigError: The category or the domain is not one of this study's.
            DataError: See ``splits``.
        """
        _expect("category", category, self.categories)
        _expect("domain", domain, DOMAINS)
        if domain == "clean":
            return self.splits[category]
        if category not in self._shifted:
            self.shifted(category)
            shifted = twins.load_shifted(self.config.shifted_dir, category)
            # Twins have 8 bits, which need no full scale; a detector that is fitted on them keeps it
            # for the clean images. Their masks are painted in the usual way.
            reading = replace(self.samples(category)[0].reading, inverted_masks=False)
            self._shifted[category] = {
                name: [replace(sample, reading=reading) for sample in members]
                for name, members in shifted.items()
            }
        return self._shifted[category]

    # -- the shifted domain ---------------------------------------------------------------------

    def shifted(self, category: str) -> pd.DataFrame:
        """The parameters of the shift of each image of a category, one row per shifted twin.

        The twins are drawn, and their masks verified, when they are asked for first.
        """
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
        """The id of the clean image behind each id; a clean image stands for itself.

        Args:
            category: The category of all of them.
            ids: Ids of clean images or of shifted twins.
        """
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
        """Hash of a category's images in one domain and of which split each image is in."""
        _expect("domain", domain, DOMAINS)
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
        """The domains on which the configured scenarios need a detector per category fitted."""
        return fit_domains(self.config.scenarios)

    @property
    def test_domains(self) -> tuple[str, ...]:
        """The domains on which the configured scenarios test."""
        return tuple(dict.fromkeys(SCENARIOS[name].test_domain for name in self.config.scenarios))

    def needed_predictions(self, fitted_on: str) -> list[tuple[str, str]]:
        """The predictions that the configured scenarios need of a detector.

        Args:
            fitted_on: What the detector is fitted on: ``clean``, ``shift`` or ``global``.

        Returns:
            (domain, split) of each prediction; the validation split of its own domain comes first.
        """
        domain = "clean" if fitted_on == GLOBAL else fitted_on
        needed = [(domain, "val")]
        for scenario in (SCENARIOS[name] for name in self.config.scenarios):
            if scenario.fitted_on == fitted_on:
                for asked in (scenario.calibrates, scenario.tests):
                    needed.append((asked["domain"], asked["split"]))
        return list(dict.fromkeys(needed))

    # -- detectors ------------------------------------------------------------------------------

    def new_detector(self, method: str, seed: int | None = None) -> Detector:
        """A detector with the configured settings that is not fitted yet.

        Args:
            method: The method, for example ``patchcore``.
            seed: Its seed; the study's own if None.

        Raises:
            ConfigError: The method is unknown.
        """
        return new_detector(
            self.config, method, self.config.seed if seed is None else seed, self.device
        )

    def training(self, category: str, *, fitted_on: str) -> list[Sample]:
        """The samples that a detector is fitted on, in the order in which it sees them."""
        if fitted_on == GLOBAL:
            return [sample for name in self.categories for sample in self.split(name)["train"]]
        return self.split(category, fitted_on)["train"]

    def detector(self, method: str, category: str, *, fitted_on: str = "clean") -> Detector:
        """A fitted detector: loaded if it is stored, fitted and stored otherwise.

        Up to four detectors stay in memory while the study is open.

        Args:
            method: The method, for example ``patchcore``.
            category: The category; any one of them for ``fitted_on="global"``.
            fitted_on: ``clean``, ``shift``, or ``global`` for the clean training images of all
                categories together.

        Raises:
            ConfigError: A name is unknown.
            ModelError: The detector cannot be fitted or loaded.
            ResourceError: It cannot be written, or needs more memory than there is.
        """
        artefact = self.fitted(method, category, fitted_on=fitted_on)
        if artefact.path not in self._detectors:
            loaded = artefact.get()
            while len(self._detectors) >= DETECTORS_IN_MEMORY:
                self._detectors.pop(next(iter(self._detectors)))
            self._detectors[artefact.path] = loaded
        return self._detectors[artefact.path]

    def detector_stats(self, method: str, category: str, *, fitted_on: str) -> dict[str, float]:
        """Fit statistics (sizes, counts, seconds) of a detector, without loading its network.

        The arguments are those of ``detector``.
        """
        artefact = self.fitted(method, category, fitted_on=fitted_on)
        return Artefact(
            artefact.path,
            artefact.recipe,
            artefact.make,
            lambda folder: read_json(folder / SETTINGS_FILE)["stats"],
            device=self.device,
        ).get()

    def fitted(self, method: str, category: str, *, fitted_on: str = "clean") -> Artefact[Detector]:
        """A fitted detector as an artefact; the arguments are those of ``detector``."""
        _expect("fitted_on", fitted_on, (*DOMAINS, GLOBAL))
        config = self.config
        settings = method_settings(config, method)
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
                settings=settings,
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
        """The folder for what depends on these domains; clean ones serve every variant of the shift."""
        return self.config.output_dir if "shift" in domains else self.config.shared_dir

    # -- predictions ----------------------------------------------------------------------------

    def predictions(
        self, method: str, category: str, *, fitted_on: str, domain: str, split: str
    ) -> Predictions:
        """Scores and anomaly maps of one split by a fitted detector; computed once, then loaded.

        Args:
            method: The detector's method, for example ``patchcore``.
            category: The category of the images, and of the detector unless that is global.
            fitted_on: What the detector is fitted on: ``clean``, ``shift`` or ``global``.
            domain: The domain of the images: ``clean`` or ``shift``.
            split: The split of the images: ``train``, ``val`` or ``test``.

        Raises:
            ConfigError: A name is unknown.
            ModelError: The detector cannot be fitted or loaded, or a score is not finite.
        """
        return self.predicted(
            method, category, fitted_on=fitted_on, domain=domain, split=split
        ).get()

    def predicted(
        self, method: str, category: str, *, fitted_on: str, domain: str, split: str
    ) -> Artefact[Predictions]:
        """Predictions as an artefact; the arguments are those of ``predictions``."""
        _expect("split", split, SPLITS)
        folder = self._store(fitted_on, domain) / "predictions" / f"{method}_{category}_{fitted_on}"
        return Artefact(
            folder / f"{domain}_{split}.npz",
            self.recipe(
                "predictions",
                detector=self.fitted(method, category, fitted_on=fitted_on),
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
        """Print the profile, the categories, the image size and the seed."""
        config = self.config
        preset = "" if config.preset == NO_PRESET else f", preset {config.preset}"
        print(
            f"profile {config.profile}{preset}: {', '.join(self.categories)} at "
            f"{config.data.image_size} px, seed {config.seed}"
        )

    def describe_machine(self) -> None:
        """Print the versions of Python, the platform, the code and the libraries."""
        facts = provenance(self.device, 0.0)
        print(
            f"Python {facts['python']}, {facts['platform']}, device {self.device}, code {facts['git']}"
        )
        print(", ".join(f"{name} {number}" for name, number in facts["packages"].items()))

    def describe_cost(self, method: str, category: str, *, fitted_on: str) -> None:
        """Print the seconds and the memory that fitting a detector took, where it is stored."""
        facts = self.fitted(method, category, fitted_on=fitted_on).provenance
        if facts is not None:
            print(
                f"fitted in {facts['seconds']:.1f} s on {facts['device']}, peak memory "
                f"{facts['peak_memory_mb']:.0f} MB"
            )

    def figure_path(self, notebook: str, name: str) -> Path:
        """The path of a notebook's figure: ``outputs/<profile>/figures/<notebook>/<name>.png``."""
        return self.config.output_dir / "figures" / notebook / f"{name}.png"


def _expect(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that is not known, with a ConfigError that lists those that are."""
    if name not in known:
        raise ConfigError(
            f"{kind} '{name}': expected one of this study's ({', '.join(known)}), found another; "
            "choose one of them"
        )


def _modules(method: str) -> tuple[str, ...]:
    """The modules that make a method's detector and its scores."""
    row = METHODS[method]
    module = f"models.{row.class_path.partition(':')[0]}"
    return (module, "models.autoencoders.detector") if row.architecture else (module,)
