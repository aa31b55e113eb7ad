"""Refits: other settings, judged on validation, and other seeds, which show the random part."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.evaluation.metrics import image_metrics, pixel_metrics
from nbhelpers.files import write_csv
from nbhelpers.predictions import Predictions
from nbhelpers.results.table import to_rows
from nbhelpers.study import Artefact, Study

#: The method whose seeds are varied: PaDiM draws its feature dimensions at random.
METHOD = "padim"
CLEAN_TEST = {"fitted_on": "clean", "domain": "clean", "split": "test"}
METRICS = ("image_auroc", "image_ap", "pixel_auroc", "aupro")


def ranking(predictions: Predictions, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The named threshold-free metrics of test predictions, as entries of the tidy table.

    Without masks there are only those that need no masks.
    """
    values = image_metrics(predictions.labels, predictions.image_scores, threshold=0.0)
    counts = dict.fromkeys(values, len(predictions))
    seen = predictions.subset(predictions.pixel_valid)
    if seen.masks.any():
        values |= pixel_metrics(seen.anomaly_maps, seen.masks)
        counts |= dict.fromkeys(values, len(seen)) | counts
    return {name: stated(values[name], counts[name]) for name in names if name in values}


def seeds_part(study: Study, category: str) -> Part:
    """Rows of scenario ``seeds``: PaDiM fitted on clean train with each seed, on clean test.

    They hold ranking metrics only, so that no threshold is involved. Nothing is chosen by them.
    """
    seeds = study.config.padim.seeds

    def make() -> list[dict[str, Any]]:
        split = study.split(category)
        rows = []
        for seed in seeds:
            if seed == study.config.seed:
                test = study.predictions(METHOD, category, **CLEAN_TEST)
            else:
                test = study.new_detector(METHOD, seed).fit(split["train"]).predict(split["test"])
            rows += to_rows("seeds", METHOD, category, seed, ranking(test, METRICS))
        return rows

    tested = study.predicted(METHOD, category, **CLEAN_TEST)
    return make_part(study, __name__, f"seeds_{category}", make, tested=tested, seeds=seeds)


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    if METHOD not in study.config.methods:
        return []
    return [seeds_part(study, category) for category in study.categories]


def seeds(study: Study, *categories: str) -> pd.DataFrame:
    """``seeds_part`` of the named categories (all by default) as rows of the tidy table."""
    return pd.concat(
        [seeds_part(study, name).rows() for name in categories or study.categories],
        ignore_index=True,
    )


def sweep(
    study: Study, method: str, category: str, domain: str, setting: str, values: Sequence[Any]
) -> pd.DataFrame:
    """Fit a detector for each value of one setting, and judge it on validation, never on test.

    Args:
        study: The study.
        method: Method to fit.
        category: Category to fit it on.
        domain: Domain to fit it on.
        setting: Dotted name of the setting.
        values: Values of the setting.

    Returns:
        One row per value: the setting, the fit statistics (``Detector.stats``: sizes, counts,
        seconds), and ``image_auroc``, ``image_ap`` and ``f1_max`` on the validation split.
    """

    def make(path: Path) -> None:
        split = study.split(category, domain)
        configured = attrgetter(setting)(study.config)
        rows = []
        for value in values:
            if value == configured:  # the study has fitted this one
                val = study.predictions(
                    method, category, fitted_on=domain, domain=domain, split="val"
                )
                stats = study.detector_stats(method, category, fitted_on=domain)
            else:
                detector = (
                    Study(study.config.changed({setting: value}))
                    .new_detector(method)
                    .fit(split["train"])
                )
                val, stats = detector.predict(split["val"]), detector.stats
            metrics = image_metrics(val.labels, val.image_scores, threshold=0.0)
            ranked = {name: metrics[name] for name in ("image_auroc", "image_ap", "f1_max")}
            rows.append({setting: value, **stats, **ranked})
        write_csv(path, pd.DataFrame(rows))

    recipe = study.recipe(
        "sweep",
        "analyses.refits",
        detector=study.fitted(method, category, fitted_on=domain),
        setting=setting,
        values=list(values),
    )
    path = (
        study.config.output_dir
        / "results"
        / "sweeps"
        / f"{setting}_{method}_{category}_{domain}.csv"
    )
    return Artefact(path, recipe, make, pd.read_csv, device=study.device).get()
