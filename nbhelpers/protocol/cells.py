"""Run the scenario table over a study: evaluate each cell once, and write a scenario's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers import artefacts
from nbhelpers.config import digest
from nbhelpers.evaluation import scenarios
from nbhelpers.evaluation.scenarios import GLOBAL, MACRO, SCENARIOS, Draws, draw_seed
from nbhelpers.files import read_json, replacing, write_json
from nbhelpers.models.detector import Predictions
from nbhelpers.models.storage import SETTINGS_FILE
from nbhelpers.protocol.table import Part, rows, write_metrics
from nbhelpers.reporting import tables
from nbhelpers.study import Study


def tested(study: Study, scenario: str, method: str, category: str) -> Predictions:
    """The test predictions of a cell."""
    return study.predictions(method, category, *SCENARIOS[scenario].parts[1])


def calibrated_on(study: Study, scenario: str, method: str, category: str) -> list[Predictions]:
    """The validation predictions that calibrate a cell: its own, or those of all categories for one threshold."""
    names = study.categories if SCENARIOS[scenario].one_threshold else (category,)
    return [study.predictions(method, name, *SCENARIOS[scenario].parts[0]) for name in names]


def cell_recipe(study: Study, scenario: str, method: str, category: str) -> dict[str, Any]:
    """What a cell's results depend on."""
    row = SCENARIOS[scenario]
    names = study.categories if row.one_threshold else (category,)
    inputs = [study.predictions_recipe(method, name, *row.parts[0]) for name in names]
    inputs.append(study.predictions_recipe(method, category, *row.parts[1]))
    settings = study.config.evaluation
    used = {name: getattr(settings, name) for name in ("bootstrap_draws", "confidence", "threshold_rule")}
    return study.recipe(
        "evaluation", scenario=scenario, category=category, predictions=[digest(part) for part in inputs], **used
    )


def _cell(study: Study, scenario: str, method: str, category: str) -> Path:
    """The folder of an evaluated cell."""

    def make(folder: Path) -> None:
        result, draws = scenarios.evaluate(
            calibrated_on(study, scenario, method, category), tested(study, scenario, method, category),
            study.config.evaluation, draw_seed(study.config.seed, category),
        )
        write_json(folder / "result.json", result)
        with replacing(folder / "draws.npz") as temporary:
            np.savez_compressed(temporary, **draws)

    path = study.config.output_dir / "results" / "evaluations" / f"{scenario}_{method}_{category}"
    return artefacts.ask(path, cell_recipe(study, scenario, method, category), make, lambda folder: folder)


def evaluate_cell(study: Study, scenario: str, method: str, category: str) -> dict[str, Any]:
    """One cell of the study: threshold, metrics with intervals, what was left out and why."""
    return read_json(_cell(study, scenario, method, category) / "result.json")


def cell_draws(study: Study, scenario: str, method: str, category: str) -> Draws:
    """The bootstrap sample of each of a cell's metrics, ``(draws,)``, and ``aupimo_per_image``."""
    with np.load(_cell(study, scenario, method, category) / "draws.npz") as stored:
        return {name: stored[name] for name in stored.files}


def scenario_part(study: Study, scenario: str, method: str) -> Part:
    """Rows of a scenario for one method: every category, and their macro average."""

    def make() -> list[dict[str, Any]]:
        cells = [(evaluate_cell(study, scenario, method, name), cell_draws(study, scenario, method, name))
                 for name in study.categories]
        found = dict(zip(study.categories, (result["metrics"] for result, _ in cells), strict=True))
        found[MACRO] = scenarios.macro(cells, study.config.evaluation.confidence)
        return [row for name, metrics in found.items()
                for row in scenarios.to_rows(scenario, method, name, study.config.seed, metrics)]

    inputs = [digest(cell_recipe(study, scenario, method, name)) for name in study.categories]
    return Part(f"{scenario}_{method}", study.recipe("rows", part="scenario", cells=inputs), make)


def data_part(study: Study) -> Part:
    """Rows that count the images of each split; the shifted twins have the same."""

    def make() -> list[dict[str, Any]]:
        found = []
        for category in study.categories:
            split = study.split(category)
            counts = {
                "train_good": len(split["train"]),
                **{f"{name}_{kind}": sum(s.label == label for s in split[name])
                   for name in ("val", "test") for label, kind in ((0, "good"), (1, "defect"))},
                "test_masks": sum(s.mask is not None for s in split["test"]),
            }
            entries = {name: scenarios.stated(count, count) for name, count in counts.items()}
            found += scenarios.to_rows("data", "-", category, study.config.seed, entries)
        return found

    inputs = [study.domain_digest(name, "clean") for name in study.categories]
    return Part("data", study.recipe("rows", part="data", categories=study.categories, images=inputs), make)


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    return [data_part(study), *(scenario_part(study, scenario, method) for scenario in study.config.scenarios
                                for method in study.config.methods)]


def run_scenario(study: Study, scenario: str) -> pd.DataFrame:
    """Evaluate a scenario for every method and category, and return its rows of the tidy table.

    Writes its JSON view, thresholds and per-image decisions below ``outputs/<profile>/results``, and brings
    ``metrics.csv`` up to date.
    """
    folder = study.config.output_dir / "results"
    cells: dict[str, dict[str, Any]] = {method: {} for method in study.config.methods}
    for method, category in study.cells:
        cells[method][category] = evaluate_cell(study, scenario, method, category)
        decisions = tables.per_image(
            tested(study, scenario, method, category), cells[method][category]["threshold"]["value"]
        )
        tables.write_csv(folder / "per_image" / f"{scenario}_{method}_{category}.csv", decisions)
    table = pd.concat([rows(study, scenario_part(study, scenario, method)) for method in study.config.methods])
    for method in study.config.methods:
        macro = table[(table.method == method) & (table.category == MACRO)]
        fields = macro[["value", "ci_low", "ci_high", "n_images"]].astype(object)
        entries = fields.where(fields.notna(), None).to_dict("records")
        cells[method][MACRO] = {"metrics": dict(zip(macro.metric, entries, strict=True))}
    rows(study, data_part(study))
    tables.write_csv(folder / "training_stats.csv", training_stats(study))
    tables.write_scenario(folder, SCENARIOS[scenario], cells, _provenance(study, scenario))
    write_metrics(study)
    return scenarios.results_table(table.to_dict("records"))


def training_stats(study: Study) -> pd.DataFrame:
    """What fitting took, a row a fitted detector: from what is stored, nothing is fitted for it.

    Columns: method, category, fitted_on, what the fit says of itself (``Detector.stats``: counts, seconds of the
    features and of the rest apart), device, peak_memory_mb (of the process that fitted it), model_mb.
    """
    places = [(method, category, domain) for method, category in study.cells for domain in study.fit_domains]
    if any(SCENARIOS[name].fitted_on == GLOBAL for name in study.config.scenarios):
        places += [(method, GLOBAL, GLOBAL) for method in study.config.methods]
    found = []
    for place in places:
        stats = fitted_stats(study, *place)
        if stats is not None:
            found.append({**dict(zip(("method", "category", "fitted_on"), place, strict=True)), **stats})
    return pd.DataFrame(found)


def fitted_stats(study: Study, method: str, category: str, fitted_on: str) -> dict[str, Any] | None:
    """A row of ``training_stats`` without its names; None for a detector that is not fitted."""
    path = study.model_path(method, category, fitted_on)
    meta = artefacts.read_sidecar(path)
    if meta is None or not path.is_dir():
        return None
    return {
        **read_json(path / SETTINGS_FILE)["stats"], "device": meta["provenance"]["device"],
        "peak_memory_mb": meta["provenance"]["peak_memory_mb"],
        "model_mb": sum(file.stat().st_size for file in path.iterdir()) / 1e6,
    }


def _provenance(study: Study, scenario: str) -> dict[str, Any]:
    """Configuration, code and machine, and the seconds and memory of all that the scenario's numbers stand on."""
    paths = {
        path
        for method, category in study.cells
        for part in SCENARIOS[scenario].parts
        for path in (study.model_path(method, category, part[0]), study.predictions_path(method, category, *part))
    }
    made = [meta["provenance"] for path in sorted(paths) if (meta := artefacts.read_sidecar(path))]
    facts = artefacts.provenance(study.device, sum(found["seconds"] for found in made))
    facts["peak_memory_mb"] = max([facts["peak_memory_mb"], *(found["peak_memory_mb"] for found in made)])
    config = study.config.model_dump(mode="json", exclude={"workspace"})
    return facts | {"config": config, "config_hash": study.config.digest(), "seed": study.config.seed}
