"""Open a study and ask it for things by name: splits, shifted images, detectors, predictions, results.

Each is an artefact (see ``artefacts``): loaded if it was made from the present configuration and data, made
otherwise. So every notebook runs alone and in any order, and a killed run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from nbhelpers import artefacts
from nbhelpers.config import NO_PRESET, Config, digest, load_config
from nbhelpers.data.layout import Sample
from nbhelpers.data.splits import group_keys
from nbhelpers.evaluation.conformal import assign_folds
from nbhelpers.evaluation.scenarios import GLOBAL, SCENARIOS, fit_domains
from nbhelpers.evaluation.threshold_rules import get_rule
from nbhelpers.files import read_json, write_text
from nbhelpers.models.detector import Detector, Predictions
from nbhelpers.models.factory import method_settings, new_detector
from nbhelpers.models.storage import SETTINGS_FILE
from nbhelpers.runtime import pick_device, set_seed
from nbhelpers.study_data import StudyData

T = TypeVar("T")
DETECTORS_IN_MEMORY = 4  # a PaDiM of 224 px takes 125 MB


def open_study(profile: str = "tiny", overrides: Mapping[str, Any] | None = None) -> Study:
    """Read the configuration, seed everything, choose the device; no data is touched yet.

    Raises:
        ConfigError: see ``load_config`` and ``pick_device``, or a threshold rule that is not known.
    """
    study = Study(load_config(profile, overrides))
    get_rule(study.config.evaluation.threshold_rule)
    set_seed(study.config.seed)
    torch.set_num_threads(study.config.threads)
    return study


class Study(StudyData):
    """Everything the notebooks ask for, by name.

    Detectors, and predictions by them, are named by method, category and what they were *fitted on*: the
    category's ``clean`` or ``shift`` training images, or, ``global``, the clean ones of all categories pooled.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.device = pick_device(config.device)
        self._detectors: dict[Path, Detector] = {}

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Every (method, category) of this study."""
        return [(method, category) for method in self.config.methods for category in self.categories]

    @property
    def fit_domains(self) -> tuple[str, ...]:
        """Domains that per-category detectors are fitted on for the configured scenarios."""
        return fit_domains(self.config.scenarios)

    @property
    def test_domains(self) -> tuple[str, ...]:
        """Domains that the configured scenarios test on."""
        return tuple(dict.fromkeys(SCENARIOS[name].test_domain for name in self.config.scenarios))

    # -- detectors ----------------------------------------------------------------------------------

    def new_detector(self, method: str, seed: int | None = None) -> Detector:
        """An unfitted detector with the configured settings; with the study's seed unless one is given.

        Raises:
            ConfigError: a method that is not known.
        """
        return new_detector(self.config, method, self.config.seed if seed is None else seed, self.device)

    def training(self, category: str, fitted_on: str) -> list[Sample]:
        """The images that a detector is fitted on, in its order."""
        if fitted_on == GLOBAL:
            return [sample for name in self.categories for sample in self.split(name)["train"]]
        return self.split(category, fitted_on)["train"]

    def detector(self, method: str, category: str, fitted_on: str = "clean") -> Detector:
        """A fitted detector; the last few are kept in memory while the study is open."""
        path = self.model_path(method, category, fitted_on)
        if path not in self._detectors:
            found = self._fitted(method, category, fitted_on, lambda folder: type(self.new_detector(method)).load(
                folder, device=self.device
            ))
            while len(self._detectors) >= DETECTORS_IN_MEMORY:
                self._detectors.pop(next(iter(self._detectors)))
            self._detectors[path] = found
        return self._detectors[path]

    def detector_stats(self, method: str, category: str, fitted_on: str) -> dict[str, float]:
        """What a fitted detector has to say of itself (``Detector.stats``), without loading its network."""
        return self._fitted(method, category, fitted_on, lambda folder: read_json(folder / SETTINGS_FILE)["stats"])

    def _fitted(self, method: str, category: str, fitted_on: str, load: Callable[[Path], T]) -> T:
        return artefacts.ask(
            self.model_path(method, category, fitted_on), self.detector_recipe(method, category, fitted_on),
            lambda folder: self.new_detector(method).fit(self.training(category, fitted_on)).save(folder), load,
            device=self.device,
        )

    def model_path(self, method: str, category: str, fitted_on: str) -> Path:
        name = f"{method}_{GLOBAL}" if fitted_on == GLOBAL else f"{method}_{category}_{fitted_on}"
        return self.config.output_dir / "models" / name

    def detector_recipe(self, method: str, category: str, fitted_on: str) -> dict[str, Any]:
        config, trained_on = self.config, {category: fitted_on}
        if fitted_on == GLOBAL:
            trained_on = dict.fromkeys(self.categories, "clean")
        return self.recipe(
            "detector", method=method, trained_on=[self.domain_digest(*part) for part in trained_on.items()],
            settings=method_settings(config, method), backbone=config.backbone.model_dump(), threads=config.threads,
            smoothing_sigma=config.smoothing_sigma, image_size=config.data.image_size,
            batch_size=config.loader.batch_size, device=self.device,
        )

    # -- predictions --------------------------------------------------------------------------------

    def predictions(self, method: str, category: str, fitted_on: str, domain: str, split: str) -> Predictions:
        """What a fitted detector says of a category's split in a domain; stored once, read by everything after."""
        recipe = self.predictions_recipe(method, category, fitted_on, domain, split)
        return artefacts.ask(
            self.predictions_path(method, category, fitted_on, domain, split), recipe,
            lambda path: self.detector(method, category, fitted_on)
            .predict(self.split(category, domain)[split]).save(path),
            Predictions.load, device=self.device,
        )

    def needed_predictions(self, fitted_on: str) -> list[tuple[str, str]]:
        """(domain, split) of every prediction that the configured scenarios need of a detector fitted there."""
        used = [SCENARIOS[name] for name in self.config.scenarios if SCENARIOS[name].fitted_on == fitted_on]
        parts = [part[1:] for scenario in used for part in scenario.parts]
        own = "clean" if fitted_on == GLOBAL else fitted_on
        return list(dict.fromkeys([(own, "val"), *parts]))

    def predictions_path(self, method: str, category: str, fitted_on: str, domain: str, split: str) -> Path:
        folder = self.config.output_dir / "predictions" / f"{method}_{category}_{fitted_on}"
        return folder / f"{domain}_{split}.npz"

    def predictions_recipe(self, method: str, category: str, fitted_on: str, domain: str,
                           split: str) -> dict[str, Any]:
        fitted = digest(self.detector_recipe(method, category, fitted_on))
        tested = self.domain_digest(category, domain)
        return self.recipe("predictions", detector=fitted, images=tested, split=split)

    def cross_scores(self, method: str, category: str) -> pd.DataFrame:
        """Image scores by the refits of CV+: each is fitted without one fold of the good training and val images.

        Like predictions they are stored once: nothing after runs a network.

        Returns:
            Columns fold (the one that the refit did not see), part (``calibration``: that fold's own images;
            ``test clean``; ``test shift``), id, label, score.
        """
        def make(path: Path) -> None:
            split = self.split(category)
            pool = [*split["train"], *(s for s in split["val"] if not s.label)]
            groups = group_keys(pool, self.config.splits.groups.get(category))
            folds = assign_folds([groups[s.id] for s in pool], self.config.evaluation.conformal_folds, self.config.seed)
            tables = []
            for fold in range(self.config.evaluation.conformal_folds):
                seen = [s for s, own in zip(pool, folds, strict=True) if own != fold]
                detector = self.new_detector(method).fit(seen)
                parts = {"calibration": [s for s, own in zip(pool, folds, strict=True) if own == fold]}
                parts |= {f"test {domain}": self.split(category, domain)["test"] for domain in self.test_domains}
                for part, samples in parts.items():
                    said = detector.predict(samples)
                    tables.append(pd.DataFrame({
                        "fold": fold, "part": part, "id": said.ids, "label": said.labels, "score": said.image_scores,
                    }))
            # nine digits give a float32 back as it was
            write_text(path, pd.concat(tables).to_csv(index=False, float_format="%.9g", lineterminator="\n"))

        return artefacts.ask(
            self.config.output_dir / "predictions" / f"{method}_{category}_folds.csv",
            self.cross_scores_recipe(method, category), make, pd.read_csv, device=self.device,
        )

    def cross_scores_recipe(self, method: str, category: str) -> dict[str, Any]:
        return self.recipe(
            "cross_scores", detector=digest(self.detector_recipe(method, category, "clean")),
            tested_on=[self.domain_digest(category, domain) for domain in self.test_domains],
            folds=self.config.evaluation.conformal_folds,
        )

    # -- housekeeping -------------------------------------------------------------------------------

    def describe(self) -> None:
        """Print what this study is about."""
        config = self.config
        preset = "" if config.preset == NO_PRESET else f", preset {config.preset}"
        print(f"profile {config.profile}{preset}: {', '.join(self.categories)} at {config.data.image_size} px, "
              f"seed {config.seed}")

    def describe_machine(self) -> None:
        """Print where it runs."""
        facts = artefacts.provenance(self.device, 0.0)
        print(f"Python {facts['python']}, {facts['platform']}, device {self.device}, code {facts['git']}")
        print(", ".join(f"{name} {number}" for name, number in facts["packages"].items()))

    def describe_cost(self, method: str, category: str, fitted_on: str) -> None:
        """Print what fitting a detector took, from its provenance."""
        facts = (artefacts.read_sidecar(self.model_path(method, category, fitted_on)) or {})["provenance"]
        print(f"fitted in {facts['seconds']:.1f} s on {facts['device']}, peak memory {facts['peak_memory_mb']:.0f} MB")

    def figure_path(self, notebook: str, name: str) -> Path:
        """``outputs/<profile>/figures/<notebook>/<name>.png``."""
        return self.config.output_dir / "figures" / notebook / f"{name}.png"
