"""Run the scenario table over a study: evaluate each cell once, and write a scenario's results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
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
        folder: Where to.
        scenario: Its row of the protocol.
        cells: The evaluation of each method and category.
        macros: The macro averages of each method.
        provenance: See ``scenario_provenance``.
    """
    for method, categories in cells.items():
        thresholds = {name: cell["threshold"] for name, cell in categories.items()}
        write_json(folder / "thresholds" / f"{method}_{scenario.name}_thresholds.json", thresholds)
    pooled = scenario.fitted_on == GLOBAL
    protocol = {
        "model_fitted_on": "clean, all categories pooled" if pooled else scenario.fitted_on,
        "threshold_from": f"val {scenario.threshold_domain}"
        + scenario.one_threshold * ", one for all categories",
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
    """One row a test image: id, defect type, label, score, decision, margin (score minus
    threshold).
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
    """The validation predictions that calibrate a cell: its own, or those of all categories for one
    threshold.
    """
    names = study.categories if SCENARIOS[scenario].one_threshold else (category,)
    return [study.predictions(method, name, **SCENARIOS[scenario].calibrates) for name in names]


def cell(study: Study, scenario: str, method: str, category: str) -> Artefact[Path]:
    """An evaluated cell as an artefact: the folder that holds its results and its resamples."""
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
            np.savez_compressed(temporary, **draws)

    names = study.categories if row.one_threshold else (category,)
    recipe = study.recipe(
        "evaluation",
        "evaluation.cell",
        functions=(calibrated_on, tested, cell),
        scenario=scenario,
        category=category,
        calibrated_on=[study.predicted(method, name, **row.calibrates).key for name in names],
        tested_on=study.predicted(method, category, **row.tests).key,
        bootstrap_draws=settings.bootstrap_draws,
        confidence=settings.confidence,
        threshold_rule=settings.threshold_rule,
    )
    folder = study.config.output_dir / "results" / "evaluations"
    return Artefact(folder / f"{scenario}_{method}_{category}", recipe, make, lambda path: path)


def evaluate_cell(study: Study, scenario: str, method: str, category: str) -> dict[str, Any]:
    """One cell of the study: threshold, metrics with intervals, what was left out and why."""
    return read_json(cell(study, scenario, method, category).get() / "result.json")


def cell_draws(study: Study, scenario: str, method: str, category: str) -> Draws:
    """The bootstrap sample of each of a cell's metrics, ``(draws,)``, and ``aupimo_per_image``."""
    with np.load(cell(study, scenario, method, category).get() / "draws.npz") as stored:
        return {name: stored[name] for name in stored.files}


def scenario_part(study: Study, scenario: str, method: str) -> Part:
    """Rows of a scenario for one method: every category, and their macro average."""

    def make() -> list[dict[str, Any]]:
        cells = [
            (
                evaluate_cell(study, scenario, method, name),
                cell_draws(study, scenario, method, name),
            )
            for name in study.categories
        ]
        found = dict(zip(study.categories, (result["metrics"] for result, _ in cells), strict=True))
        found[MACRO] = evaluation.macro(cells, study.config.evaluation.confidence)
        return [
            row
            for name, metrics in found.items()
            for row in to_rows(scenario, method, name, study.config.seed, metrics)
        ]

    keys = [cell(study, scenario, method, name).key for name in study.categories]
    return make_part(study, __name__, f"{scenario}_{method}", make, cells=keys)


def data_part(study: Study) -> Part:
    """Rows that count the images of each split; the shifted twins have the same."""

    def make() -> list[dict[str, Any]]:
        found = []
        for category in study.categories:
            split = study.split(category)
            counts = {
                "train_good": len(split["train"]),
                **{
                    f"{name}_{kind}": sum(s.label == label for s in split[name])
                    for name in ("val", "test")
                    for label, kind in ((0, "good"), (1, "defect"))
                },
                "test_masks": sum(s.mask is not None for s in split["test"]),
            }
            entries = {name: stated(count, count) for name, count in counts.items()}
            found += to_rows("data", "-", category, study.config.seed, entries)
        return found

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
    """What fitting took, a row a fitted detector: from what is stored, nothing is fitted for it.

    Columns: method, category, fitted_on, what the fit says of itself (``Detector.stats``: counts,
    seconds of the features and of the rest apart), device, peak_memory_mb (of the process that
    fitted it), model_mb.
    """
    places = [
        (method, category, domain)
        for method, category in study.cells
        for domain in study.fit_domains
    ]
    if any(SCENARIOS[name].fitted_on == GLOBAL for name in study.config.scenarios):
        places += [(method, GLOBAL, GLOBAL) for method in study.config.methods]
    found = []
    for place in places:
        stats = fitted_stats(study, *place)
        if stats is not None:
            found.append(
                {**dict(zip(("method", "category", "fitted_on"), place, strict=True)), **stats}
            )
    return pd.DataFrame(found)


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


def scenario_provenance(study: Study, scenario: str) -> dict[str, Any]:
    """Configuration, code and machine, and the seconds and memory of all that the scenario's
    numbers stand on.
    """
    used: dict[Path, Artefact] = {}
    for method, category in study.cells:
        for asked in (SCENARIOS[scenario].calibrates, SCENARIOS[scenario].tests):
            fitted = study.fitted(method, category, fitted_on=asked["fitted_on"])
            predicted = study.predicted(method, category, **asked)
            used |= {fitted.path: fitted, predicted.path: predicted}
    made = [facts for path in sorted(used) if (facts := used[path].provenance)]
    facts = provenance(study.device, sum(each["seconds"] for each in made))
    facts["peak_memory_mb"] = max(
        [facts["peak_memory_mb"], *(each["peak_memory_mb"] for each in made)]
    )
    config = study.config.model_dump(mode="json", exclude={"workspace"})
    return facts | {
        "config": config,
        "config_hash": study.config.digest(),
        "seed": study.config.seed,
    }
