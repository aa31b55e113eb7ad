"""All analyses together: run a whole scenario, and write the one tidy table of all rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nbhelpers.analyses import (
    differences,
    global_model,
    method_tests,
    misses,
    reconstruction,
    refits,
    scenarios,
    thresholds,
)
from nbhelpers.analyses.cross_scores import crossed_scores
from nbhelpers.analyses.parts import Part
from nbhelpers.analyses.scenarios import (
    cell,
    data_part,
    evaluate_cell,
    per_image,
    scenario_part,
    scenario_provenance,
    tested,
    training_stats,
    write_scenario,
)
from nbhelpers.files import locked, write_csv
from nbhelpers.results.table import NUMBERS, results_table
from nbhelpers.scenarios import GLOBAL, SCENARIOS
from nbhelpers.study import Artefact, Study

ANALYSES = (
    scenarios,
    differences,
    method_tests,
    thresholds,
    global_model,
    refits,
    misses,
    reconstruction,
)


def all_parts(study: Study) -> list[Part]:
    """Every part of the tidy table for the configured scenarios, methods and categories."""
    return [part for analysis in ANALYSES for part in analysis.parts(study)]


def stored_artefacts(study: Study) -> list[Artefact]:
    """Every stored artefact of this study, current or not; nothing is made."""
    rows = [SCENARIOS[name] for name in study.config.scenarios]
    fitted_on = list(dict.fromkeys(["clean", *study.fit_domains]))
    if any(row.fitted_on == GLOBAL for row in rows):
        fitted_on.append(GLOBAL)
    artefacts: list[Artefact] = []
    if "shift" in {*study.fit_domains, *study.test_domains}:
        artefacts += [study.shifted_set(category) for category in study.categories]
    for method, category in study.cells:
        for source in fitted_on:
            artefacts.append(study.fitted(method, category, fitted_on=source))
            artefacts += [
                study.predicted(method, category, fitted_on=source, domain=domain, split=split)
                for domain, split in study.needed_predictions(source)
            ]
        artefacts.append(crossed_scores(study, method, category))
        artefacts += [cell(study, row.name, method, category) for row in rows]
    artefacts += [part.stored for part in all_parts(study)]
    by_path = {artefact.path: artefact for artefact in artefacts}
    return [artefact for artefact in by_path.values() if artefact.provenance is not None]


def write_metrics(study: Study) -> pd.DataFrame:
    """Write ``metrics.csv`` from all parts that are stored and current, and return the table."""
    target = study.config.output_dir / "results" / "metrics.csv"
    with locked(target):  # two notebooks may run at the same time
        tables = [part.rows() for part in all_parts(study) if part.is_made()]
        metrics = results_table(row for table in tables for row in table.to_dict("records"))
        write_csv(target, metrics)
    return metrics


def run_scenario(study: Study, scenario: str) -> pd.DataFrame:
    """Evaluate a scenario for every method and category.

    It writes the scenario's JSON view, thresholds and per-image decisions below
    ``outputs/<profile>/results``, and brings ``metrics.csv`` up to date.

    Args:
        study: The study.
        scenario: Name of the scenario.

    Returns:
        The scenario's rows of the tidy table.
    """
    folder = study.config.output_dir / "results"
    cells: dict[str, dict[str, Any]] = {method: {} for method in study.config.methods}
    for method, category in study.cells:
        cells[method][category] = evaluate_cell(study, scenario, method, category)
        decisions = per_image(
            tested(study, scenario, method, category), cells[method][category]["threshold"]["value"]
        )
        write_csv(folder / "per_image" / f"{scenario}_{method}_{category}.csv", decisions)
    table = pd.concat(
        [scenario_part(study, scenario, method).rows() for method in study.config.methods]
    )
    macros: dict[str, dict[str, Any]] = {}
    for method in study.config.methods:
        averages = table[(table.method == method) & table.macro]
        fields = averages[list(NUMBERS)].astype(object)
        entries = fields.where(fields.notna(), None).to_dict("records")
        macros[method] = {"metrics": dict(zip(averages.metric, entries, strict=True))}
    data_part(study).rows()
    write_csv(folder / "training_stats.csv", training_stats(study))
    provenance = scenario_provenance(study, scenario)
    write_scenario(folder, SCENARIOS[scenario], cells, macros, provenance)
    write_metrics(study)
    return results_table(table.to_dict("records"))
