"""Refits: other settings judged on validation, and other seeds (how much of a number is the
detector's own draw?).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
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

METHOD = "padim"
CLEAN_TEST = {"fitted_on": "clean", "domain": "clean", "split": "test"}
METRICS = ("image_auroc", "image_ap", "pixel_auroc", "aupro")


def ranking(predictions: Predictions, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Those of the named threshold-free metrics that test predictions have, as entries of the tidy
    table.

    Without masks there are those of images alone.
    """
    values = image_metrics(predictions.labels, predictions.image_scores, threshold=0.0)
    counts, seen = (
        dict.fromkeys(values, len(predictions)),
        predictions.subset(predictions.pixel_valid),
    )
    if seen.masks.any():
        values |= pixel_metrics(seen.anomaly_maps, seen.masks)
        counts |= dict.fromkeys(values, len(seen)) | counts
    return {name: stated(values[name], counts[name]) for name in names if name in values}


def seeds_part(study: Study, category: str) -> Part:
    """Rows of scenario ``seeds``, one set a seed: PaDiM refitted on clean train, measured on clean
    test.

    Ranking metrics only, so that no threshold comes into it; they judge, nothing is chosen by them.
    """
    seeds = study.config.padim.seeds

    def make() -> list[dict[str, Any]]:
        split, found = study.split(category), []
        for seed in seeds:
            if seed == study.config.seed:
                test = study.predictions(METHOD, category, **CLEAN_TEST)
            else:
                test = study.new_detector(METHOD, seed).fit(split["train"]).predict(split["test"])
            found += to_rows("seeds", METHOD, category, seed, ranking(test, METRICS))
        return found

    tested = study.predicted(METHOD, category, **CLEAN_TEST).key
    return make_part(study, __name__, f"seeds_{category}", make, tested=tested, seeds=seeds)


def parts(study: Study) -> list[Part]:
    """All of this module's rows."""
    return (
        [seeds_part(study, category) for category in study.categories]
        if METHOD in study.config.methods
        else []
    )


def seeds(study: Study, *categories: str) -> pd.DataFrame:
    """``seeds_part`` of the named categories (all by default) as rows."""
    return pd.concat(
        [seeds_part(study, name).rows() for name in categories or study.categories],
        ignore_index=True,
    )


def sweep(
    study: Study, method: str, category: str, domain: str, setting: str, values: Sequence[Any]
) -> pd.DataFrame:
    """What one setting does on validation, never on test: a detector is fitted and judged for each
    value.

    Returns:
        One row a value: the setting, what the fit reports of itself (``Detector.stats``),
            ``image_auroc``,
        ``image_ap`` and ``f1_max`` on the validation split.
    """

    def make(path: Path) -> None:
        split, found = study.split(category, domain), []
        for value in values:
            if value == reduce(
                getattr, setting.split("."), study.config
            ):  # the study's own detector
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
            ranking = {name: metrics[name] for name in ("image_auroc", "image_ap", "f1_max")}
            found.append({setting: value, **stats, **ranking})
        write_csv(path, pd.DataFrame(found))

    recipe = study.recipe(
        "sweep",
        "analyses.refits",
        detector=study.fitted(method, category, fitted_on=domain).key,
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
