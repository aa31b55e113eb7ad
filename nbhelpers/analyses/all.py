"""All analyses together: a scenario run whole, and the one tidy table that gathers every finding."""

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
from nbhelpers.scenarios import GLOBAL, SCENARIOS, Scenario
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
    """Every part that the configured scenarios, methods and categories have."""
    return [part for analysis in ANALYSES for part in analysis.parts(study)]


def stored_artefacts(study: Study) -> list[Artefact]:
    """Every artefact of this study that was made some time, current or not; none is made for it."""
    domains = dict.fromkeys(["clean", *study.fit_domains])
    asked: list[Artefact] = []
    if "shift" in {*study.fit_domains, *study.test_domains}:
        asked += [study.shifted_set(category) for category in study.categories]
    for method, category in study.cells:
        fitted_on = [*domains]
        fitted_on += [GLOBAL] if any(row.fitted_on == GLOBAL for row in _rows(study)) else []
        for place in fitted_on:
            asked.append(study.fitted(method, category, fitted_on=place))
            asked += [
                study.predicted(method, category, fitted_on=place, domain=domain, split=split)
                for domain, split in study.needed_predictions(place)
            ]
        asked.append(crossed_scores(study, method, category))
        asked += [cell(study, row.name, method, category) for row in _rows(study)]
    asked += [part.stored for part in all_parts(study)]
    known = {artefact.path: artefact for artefact in asked}
    return [artefact for artefact in known.values() if artefact.provenance is not None]


def _rows(study: Study) -> list[Scenario]:
    return [SCENARIOS[name] for name in study.config.scenarios]


def write_metrics(study: Study) -> pd.DataFrame:
    """Bring ``metrics.csv`` up to date with all parts that are made and still current, whoever made
    them.
    """
    target = study.config.output_dir / "results" / "metrics.csv"
    with locked(target):  # read and written in one go: two notebooks may be at it
        made = [part.rows() for part in all_parts(study) if part.is_made()]
        table = results_table(row for part in made for row in part.to_dict("records"))
        write_csv(target, table)
    return table


def run_scenario(study: Study, scenario: str) -> pd.DataFrame:
    """Evaluate a scenario for every method and category, and return its rows of the tidy table.

    Writes its JSON view, thresholds and per-image decisions below ``outputs/<profile>/results``,
    and brings ``metrics.csv`` up to date.
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
        own = table[(table.method == method) & table.macro]
        fields = own[list(NUMBERS)].astype(object)
        entries = fields.where(fields.notna(), None).to_dict("records")
        macros[method] = {"metrics": dict(zip(own.metric, entries, strict=True))}
    data_part(study).rows()
    write_csv(folder / "training_stats.csv", training_stats(study))
    provenance = scenario_provenance(study, scenario)
    write_scenario(folder, SCENARIOS[scenario], cells, macros, provenance)
    write_metrics(study)
    return results_table(table.to_dict("records"))
