"""Run the scenario table over a study: evaluate each cell once, and write a scenario's results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.config import digest
from nbhelpers.evaluation import cell as evaluation
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.evaluation.cell import Draws, draw_seed
from nbhelpers.evaluation.metrics import decide
from nbhelpers.files import read_json, replacing, write_json
from nbhelpers.models.storage import SETTINGS_FILE
from nbhelpers.predictions import Predictions
from nbhelpers.results.table import MACRO, to_rows
from nbhelpers.runtime import provenance
from nbhelpers.scenarios import GLOBAL, SCENARIOS, Scenario
from nbhelpers.study import Artefact, Study

Cells = Mapping[str, Mapping[str, dict[str, Any]]]  # method -> category -> evaluation


def write_scenario(
    folder: Path,
    scenario: Scenario,
    cells: Cells,
    macros: Mapping[str, dict[str, Any]],
    provenance: dict[str, Any],
) -> None:
    """Write a scenario's JSON view to ``folder``, and each method's thresholds beside it.

    Args:
        folder: The folder of all results.
        scenario: The scenario's row of the protocol.
        cells: The evaluation of each method and category.
        macros: The macro averages of each method.
        provenance: See ``scenario_provenance``.
    """
    for method, categories in cells.items():
        thresholds = {name: result["threshold"] for name, result in categories.items()}
        write_json(folder / "thresholds" / f"{method}_{scenario.name}_thresholds.json", thresholds)
    fitted_on = scenario.fitted_on
    threshold_from = f"val {scenario.threshold_domain}"
    if scenario.one_threshold:
        threshold_from += ", one for all categories"
    protocol = {
        "model_fitted_on": "clean, all categories pooled" if fitted_on == GLOBAL else fitted_on,
        "threshold_from": threshold_from,
        "tested_on": f"test {scenario.test_domain}",
    }
    view = {
        "scenario": scenario.name,
        "protocol": protocol,
        "methods": cells,
        "macro": macros,
        "provenance": provenance,
    }
    write_json(folder / scenario.results_file, view)


def per_image(test: Predictions, threshold: float) -> pd.DataFrame:
    """The decision about each test image.

    Args:
        test: Predictions.
        threshold: The deployed threshold.

    Returns:
        One row per image: id, defect_type, label, score, decision (0 or 1), margin (score minus
        threshold), pixel_valid.
    """
    scores = test.image_scores.astype("float64")
    return pd.DataFrame(
        {
            "id": test.ids,
            "defect_type": test.defect_types,
            "label": test.labels,
            "score": scores,
            "decision": decide(scores, threshold).astype(int),
            "margin": scores - threshold,
            "pixel_valid": test.pixel_valid,
        }
    )


def tested(study: Study, scenario: str, method: str, category: str) -> Predictions:
    """The test predictions of a cell."""
    return study.predictions(method, category, **SCENARIOS[scenario].tests)


def calibrated_on(study: Study, scenario: str, method: str, category: str) -> list[Predictions]:
    """The validation predictions that calibrate a cell.

    They are those of its category, or of all categories where these share one threshold.
    """
    names = study.categories if SCENARIOS[scenario].one_threshold else (category,)
    return [study.predictions(method, name, **SCENARIOS[scenario].calibrates) for name in names]


@dataclass(frozen=True)
class Evaluated:
    """A cell that was evaluated.

    Attributes:
        folder: Holds ``result.json`` and the bootstrap samples ``draws.npz``.
    """

    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        """Threshold, metrics with intervals, what was left out and why."""
        return read_json(self.folder / "result.json")

    @property
    def draws(self) -> Draws:
        """The bootstrap sample of each metric, ``(draws,)``, and ``aupimo_per_image``, ``(N,)``."""
        with np.load(self.folder / "draws.npz") as stored:
            return {name: stored[name] for name in stored.files}


def cell(study: Study, scenario: str, method: str, category: str) -> Artefact[Evaluated]:
    """An evaluated cell (one scenario, method and category) as an artefact."""
    row, settings = SCENARIOS[scenario], study.config.evaluation

    def make(folder: Path) -> None:
        result, draws = evaluation.evaluate(
            calibrated_on(study, scenario, method, category),
            tested(study, scenario, method, category),
            settings,
            draw_seed(study.config.seed, category),
        )
        write_json(folder / "result.json", result)
        with replacing(folder / "draws.npz") as temporary:
            arrays: dict[str, Any] = dict(draws)  # Any: to mypy a key could be allow_pickle
            np.savez_compressed(temporary, **arrays)

    names = study.categories if row.one_threshold else (category,)
    recipe = study.recipe(
        "evaluation",
        "evaluation.cell",
        functions=(calibrated_on, tested, cell),
        scenario=scenario,
        category=category,
        calibrated_on=[study.predicted(method, name, **row.calibrates) for name in names],
        tested_on=study.predicted(method, category, **row.tests),
        bootstrap_draws=settings.bootstrap_draws,
        confidence=settings.confidence,
        threshold_rule=settings.threshold_rule,
    )
    folder = study.config.output_dir / "results" / "evaluations"
    return Artefact(folder / f"{scenario}_{method}_{category}", recipe, make, Evaluated)


def evaluate_cell(study: Study, scenario: str, method: str, category: str) -> dict[str, Any]:
    """One cell of the study: threshold, metrics with intervals, what was left out and why."""
    return cell(study, scenario, method, category).get().result


def scenario_part(study: Study, scenario: str, method: str) -> Part:
    """Rows of a scenario for one method: every category and their macro average."""

    cells = {name: cell(study, scenario, method, name) for name in study.categories}

    def make() -> list[dict[str, Any]]:
        evaluated = [each.get() for each in cells.values()]
        results = [(each.result, each.draws) for each in evaluated]
        by_category = dict(zip(cells, (result["metrics"] for result, _ in results), strict=True))
        by_category[MACRO] = evaluation.macro(results, study.config.evaluation.confidence)
        return [
            row
            for name, metrics in by_category.items()
            for row in to_rows(scenario, method, name, study.config.seed, metrics)
        ]

    return make_part(study, __name__, f"{scenario}_{method}", make, cells=list(cells.values()))


def data_part(study: Study) -> Part:
    """Rows that count the images of each split; the shifted twins have the same counts."""

    def make() -> list[dict[str, Any]]:
        rows = []
        for category in study.categories:
            split = study.split(category)
            counts = {"train_good": len(split["train"])}
            for name in ("val", "test"):
                labels = [sample.label for sample in split[name]]
                counts |= {f"{name}_good": labels.count(0), f"{name}_defect": labels.count(1)}
            counts["test_masks"] = sum(sample.mask is not None for sample in split["test"])
            entries = {name: stated(count, count) for name, count in counts.items()}
            rows += to_rows("data", "-", category, study.config.seed, entries)
        return rows

    keys = [study.domain_key(name, "clean") for name in study.categories]
    return make_part(study, __name__, "data", make, categories=study.categories, images=keys)


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    return [
        data_part(study),
        *(
            scenario_part(study, scenario, method)
            for scenario in study.config.scenarios
            for method in study.config.methods
        ),
    ]


def training_stats(study: Study) -> pd.DataFrame:
    """Fit statistics of every stored detector; nothing is fitted for it.

    Returns:
        One row per fitted detector: method, category, fitted_on, the fit statistics
        (``Detector.stats``: sizes, counts, seconds), device, peak_memory_mb (of the process that
        fitted it), model_mb.
    """
    detectors = [
        (method, category, domain)
        for method, category in study.cells
        for domain in study.fit_domains
    ]
    if any(SCENARIOS[name].fitted_on == GLOBAL for name in study.config.scenarios):
        detectors += [(method, GLOBAL, GLOBAL) for method in study.config.methods]
    rows = []
    for method, category, fitted_on in detectors:
        stats = fitted_stats(study, method, category, fitted_on)
        if stats is not None:
            rows.append({"method": method, "category": category, "fitted_on": fitted_on, **stats})
    return pd.DataFrame(rows)


def fitted_stats(study: Study, method: str, category: str, fitted_on: str) -> dict[str, Any] | None:
    """A row of ``training_stats`` without its names; None for a detector that is not fitted."""
    artefact = study.fitted(method, category, fitted_on=fitted_on)
    facts = artefact.provenance
    if facts is None:
        return None
    return {
        **read_json(artefact.path / SETTINGS_FILE)["stats"],
        "device": facts["device"],
        "peak_memory_mb": facts["peak_memory_mb"],
        "model_mb": sum(file.stat().st_size for file in artefact.path.iterdir()) / 1e6,
    }


def cells_hash(study: Study, scenario: str) -> str:
    """Hash of what a scenario's cells are made from: settings, images and code."""
    return digest([cell(study, scenario, *asked).key for asked in study.cells])


def scenario_provenance(study: Study, scenario: str) -> dict[str, Any]:
    """Configuration, code and machine of a scenario, and its seconds and peak memory.

    Seconds and memory are those of the fits and predictions that the scenario uses.
    """
    used: dict[Path, Artefact] = {}
    for method, category in study.cells:
        for asked in (SCENARIOS[scenario].calibrates, SCENARIOS[scenario].tests):
            fitted = study.fitted(method, category, fitted_on=asked["fitted_on"])
            predicted = study.predicted(method, category, **asked)
            used |= {fitted.path: fitted, predicted.path: predicted}
    provenances = [used[path].provenance for path in sorted(used)]
    made = [each for each in provenances if each is not None]
    facts = provenance(study.device, sum(each["seconds"] for each in made))
    facts["peak_memory_mb"] = max(
        [facts["peak_memory_mb"], *(each["peak_memory_mb"] for each in made)]
    )
    config = study.config.model_dump(mode="json", exclude={"workspace"})
    return facts | {
        "config": config,
        "config_hash": study.config.digest(),
        "cells_hash": cells_hash(study, scenario),
        "seed": study.config.seed,
    }
