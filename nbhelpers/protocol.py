"""Run the scenario table over a study: evaluate each cell once, write the results, compare scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nbhelpers import artefacts
from nbhelpers.config import digest
from nbhelpers.errors import DataError
from nbhelpers.evaluation import scenarios
from nbhelpers.evaluation.metrics import image_metrics
from nbhelpers.evaluation.scenarios import MACRO, SCENARIOS
from nbhelpers.files import read_json, write_json
from nbhelpers.models.detector import Predictions
from nbhelpers.reporting import tables
from nbhelpers.study import Study


def evaluate_cell(study: Study, scenario: str, method: str, category: str) -> dict[str, Any]:
    """One cell of the study: threshold, metrics with intervals, what was left out and why."""

    def make(path: Path) -> None:
        val, test = (study.predictions(method, category, *part) for part in SCENARIOS[scenario].parts)
        write_json(path, scenarios.evaluate(val, test, study.config.evaluation, study.config.seed))

    return artefacts.ask(
        _cell_path(study, scenario, method, category), _cell_recipe(study, scenario, method, category), make,
        read_json,
    )


def macro_average(study: Study, scenario: str, method: str) -> dict[str, Any]:
    """The macro average over the study's categories, with intervals, of all that every category has."""

    def make(path: Path) -> None:
        cells = [evaluate_cell(study, scenario, method, category) for category in study.categories]
        part = SCENARIOS[scenario].parts[1]
        tests = [study.predictions(method, category, *part) for category in study.categories]
        metrics = scenarios.macro(cells, tests, study.config.evaluation, study.config.seed)
        write_json(path, {"metrics": metrics})

    path, recipe = _cell_path(study, scenario, method, MACRO), _macro_recipe(study, scenario, method)
    return artefacts.ask(path, recipe, make, read_json)


def _macro_recipe(study: Study, scenario: str, method: str) -> dict[str, Any]:
    cells = [digest(_cell_recipe(study, scenario, method, category)) for category in study.categories]
    return study.recipe("evaluation", scenario=scenario, cells=cells)


def _cell_path(study: Study, scenario: str, method: str, category: str) -> Path:
    return study.config.output_dir / "results" / "evaluations" / f"{scenario}_{method}_{category}.json"


def _cell_recipe(study: Study, scenario: str, method: str, category: str) -> dict[str, Any]:
    inputs = [digest(study.predictions_recipe(method, category, *part)) for part in SCENARIOS[scenario].parts]
    settings = study.config.evaluation.model_dump()
    return study.recipe("evaluation", scenario=scenario, predictions=inputs, evaluation=settings)


def run_scenario(study: Study, scenario: str) -> pd.DataFrame:
    """Evaluate a scenario for every method and category, and return its rows of the tidy table.

    Writes its JSON view, thresholds and per-image decisions below ``outputs/<profile>/results``, and brings
    ``metrics.csv`` up to date.
    """
    folder = study.config.output_dir / "results"
    cells: dict[str, dict[str, Any]] = {method: {} for method in study.config.methods}
    for method, category in study.cells:
        cells[method][category] = evaluate_cell(study, scenario, method, category)
        test = study.predictions(method, category, *SCENARIOS[scenario].parts[1])
        decisions = tables.per_image(test, cells[method][category]["threshold"]["value"])
        tables.write_csv(folder / "per_image" / f"{scenario}_{method}_{category}.csv", decisions)
    for method in study.config.methods:
        cells[method][MACRO] = macro_average(study, scenario, method)
    tables.write_scenario(folder, SCENARIOS[scenario], cells, _provenance(study, scenario))
    table = write_metrics(study)
    return table[table.scenario == scenario].reset_index(drop=True)


def _provenance(study: Study, scenario: str) -> dict[str, Any]:
    """Configuration, code and machine, and the seconds and memory of all that the scenario's numbers stand on."""
    paths = {
        path
        for method, category in study.cells
        for part in SCENARIOS[scenario].parts
        for path in (study.model_path(method, category, part[0]), study.predictions_path(method, category, *part))
    }
    made = [meta["provenance"] for path in sorted(paths) if (meta := artefacts.read_sidecar(path))]
    facts = artefacts.provenance(study.device, sum(entry["seconds"] for entry in made))
    facts["peak_memory_mb"] = max([facts["peak_memory_mb"], *(entry["peak_memory_mb"] for entry in made)])
    config = study.config.model_dump(mode="json", exclude={"workspace"})
    return facts | {"config": config, "config_hash": study.config.digest(), "seed": study.config.seed}


def write_metrics(study: Study) -> pd.DataFrame:
    """``metrics.csv``: all scenarios that are evaluated and still current, whoever evaluated them; returned too."""
    target = study.config.output_dir / "results" / "metrics.csv"
    with artefacts.locked(target):  # read and written in one go: two notebooks may be at it
        rows = []
        for scenario in study.config.scenarios:
            recipes = {cell: _cell_recipe(study, scenario, *cell) for cell in study.cells}
            recipes |= {(method, MACRO): _macro_recipe(study, scenario, method) for method in study.config.methods}
            for (method, category), recipe in recipes.items():
                path = _cell_path(study, scenario, method, category)
                if artefacts.is_current(path, recipe):
                    cell = read_json(path)
                    rows += scenarios.to_rows(scenario, method, category, study.config.seed, cell)
        table = scenarios.results_table(rows)
        tables.write_csv(target, table)
    return table


def sweep(study: Study, method: str, category: str, domain: str, setting: str, values: Sequence[Any]) -> pd.DataFrame:
    """What one setting does on validation, never on test: a detector is fitted and judged for each value.

    Returns:
        One row a value: the setting, what the fit reports of itself (``Detector.stats``), ``image_auroc``,
        ``image_ap`` and ``f1_max`` on the validation split.
    """

    def make(path: Path) -> None:
        split, rows = study.split(category, domain), []
        for value in values:
            detector = Study(study.config.changed({setting: value})).new_detector(method).fit(split["train"])
            val = detector.predict(split["val"])
            metrics = image_metrics(val.labels, val.image_scores, threshold=0.0)
            ranking = {name: metrics[name] for name in ("image_auroc", "image_ap", "f1_max")}
            rows.append({setting: value, **detector.stats, **ranking})
        tables.write_csv(path, pd.DataFrame(rows))

    fitted = study.detector_recipe(method, category, domain)
    path = study.config.output_dir / "results" / "sweeps" / f"{setting}_{method}_{category}_{domain}.csv"
    return artefacts.ask(
        path, study.recipe("sweep", detector=fitted, setting=setting, values=list(values)), make, pd.read_csv
    )


def degradation(study: Study, before: str, after: str) -> pd.DataFrame:
    """Image metrics of one scenario minus another's on twin images, with paired intervals, as tidy rows.

    Raises:
        DataError: the two scenarios' test images are not twins in the same order.
    """
    rows = []
    for method, category in study.cells:
        sides: list[tuple[Predictions, float]] = []
        for scenario in (before, after):
            threshold = evaluate_cell(study, scenario, method, category)["threshold"]["value"]
            sides.append((study.predictions(method, category, *SCENARIOS[scenario].parts[1]), threshold))
        twins = [study.source_ids(category, part.ids) for part, _ in sides]
        if twins[0] != twins[1]:
            raise DataError(
                f"category '{category}': the test images of '{before}' and '{after}' are not twins in one order; "
                "delete the stored shifted images and predictions, and run again"
            )
        metrics = scenarios.degradation(*sides, study.config.evaluation, study.config.seed)
        name = f"{after} - {before}"
        rows += scenarios.to_rows(name, method, category, study.config.seed, {"metrics": metrics})
    return pd.DataFrame(rows)
