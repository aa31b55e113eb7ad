"""A scenario is a row of a table: which domain the model, the threshold and the test images come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nbhelpers.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS, image_metrics, macro_average, pixel_metrics
from nbhelpers.evaluation.statistics import (
    bootstrap_difference,
    bootstrap_image,
    bootstrap_pixel,
    image_draws,
    percentile_interval,
    pixel_draws,
)
from nbhelpers.evaluation.thresholds import Threshold, f1_optimal
from nbhelpers.models.detector import Predictions
from nbhelpers.settings import EvaluationConfig

COLUMNS = ("scenario", "method", "category", "seed", "metric", "value", "ci_low", "ci_high", "n_images")
MACRO = "macro"


@dataclass(frozen=True)
class Scenario:
    """One row of the study's protocol.

    Attributes:
        name: What it is called in every table.
        fit_domain: Domain of the training images.
        threshold_domain: Domain of the validation images that calibrate the threshold.
        test_domain: Domain of the test images.
        results_file: The JSON view of its results.
    """

    name: str
    fit_domain: str
    threshold_domain: str
    test_domain: str
    results_file: str

    @property
    def parts(self) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
        """(fit domain, domain, split) of the predictions that calibrate, and of those that are tested."""
        return (self.fit_domain, self.threshold_domain, "val"), (self.fit_domain, self.test_domain, "test")


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("clean", "clean", "clean", "clean", "clean_results.json"),
        Scenario("no_adaptation", "clean", "clean", "shift", "shifted_no_adaptation_results.json"),
        Scenario("threshold_only", "clean", "shift", "shift", "shift_threshold_only_results.json"),
        Scenario("full_adaptation", "shift", "shift", "shift", "shift_with_adaptation_results.json"),
    )
}


def evaluate(val: Predictions, test: Predictions, settings: EvaluationConfig, seed: int) -> dict[str, Any]:
    """Calibrate on ``val``, measure on ``test``: every metric with its interval and image count.

    Image metrics count all test images. Pixel metrics count those whose pixel labels are known, good images
    included; without any mask they are skipped, and ``pixel_skipped`` says so.

    Returns:
        ``threshold`` (see ``Threshold.to_dict``), ``metrics`` (name to value, ci_low, ci_high, n_images),
        ``pixel_skipped`` (reason, or None), ``left_out`` (ids of images left out of pixel metrics).
    """
    threshold: Threshold = f1_optimal(val.labels, val.image_scores)
    draws = {"draws": settings.bootstrap_draws, "level": settings.confidence, "seed": seed}
    values = image_metrics(test.labels, test.image_scores, threshold.value)
    intervals = bootstrap_image(test.labels, test.image_scores, threshold.value, **draws)
    metrics = {
        name: _entry(value, intervals.get(name), len(test)) for name, value in values.items() if name in IMAGE_METRICS
    }
    metrics["threshold"] = _entry(threshold.value, None, len(val))
    seen = test.subset(test.pixel_valid)
    skipped = None
    if seen.masks.any():
        values = pixel_metrics(seen.anomaly_maps, seen.masks)
        intervals = bootstrap_pixel(seen.anomaly_maps, seen.masks, **draws)
        metrics |= {
            name: _entry(value, intervals.get(name), len(seen))
            for name, value in values.items() if name in PIXEL_METRICS
        }
    else:
        skipped = "no test image has a defect mask, so nothing can be said about localisation"
    left_out = [identity for identity, valid in zip(test.ids, test.pixel_valid, strict=True) if not valid]
    return {"threshold": threshold.to_dict(), "metrics": metrics, "pixel_skipped": skipped, "left_out": left_out}


def macro(cells: Sequence[dict[str, Any]], tests: Sequence[Predictions], settings: EvaluationConfig,
          seed: int) -> dict[str, dict[str, Any]]:
    """Macro averages over categories with their intervals; of rates only: thresholds and counts have no mean.

    Args:
        cells: What ``evaluate`` gave for each category.
        tests: The test predictions of each, in the same order. Each category is redrawn on its own.
    """
    values = macro_average([{name: entry["value"] for name, entry in cell["metrics"].items()} for cell in cells])
    draws = []
    for index, (cell, test) in enumerate(zip(cells, tests, strict=True)):
        size = {"draws": settings.bootstrap_draws, "seed": seed + index}
        sample = image_draws(test.labels, test.image_scores, cell["threshold"]["value"], **size)
        if cell["pixel_skipped"] is None:
            seen = test.subset(test.pixel_valid)
            sample |= pixel_draws(seen.anomaly_maps, seen.masks, **size)
        draws.append(sample)
    means = {name: np.mean([sample[name] for sample in draws], axis=0) for name in values}
    return {
        name: _entry(value, percentile_interval(means[name], settings.confidence),
                     sum(cell["metrics"][name]["n_images"] for cell in cells))
        for name, value in values.items()
    }


def degradation(before: tuple[Predictions, float], after: tuple[Predictions, float], settings: EvaluationConfig,
                seed: int) -> dict[str, dict[str, Any]]:
    """Image metrics of ``after`` minus ``before`` with paired intervals: image i and its twin i are redrawn together.

    Args:
        before: Predictions and their threshold, the images in one order.
        after: The same images (or their twins) in the same order.
    """
    (a, threshold_a), (b, threshold_b) = before, after
    values_a = image_metrics(a.labels, a.image_scores, threshold_a)
    values_b = image_metrics(b.labels, b.image_scores, threshold_b)
    intervals = bootstrap_difference(
        a.labels, a.image_scores, threshold_a, b.labels, b.image_scores, threshold_b,
        draws=settings.bootstrap_draws, level=settings.confidence, seed=seed,
    )
    return {name: _entry(values_b[name] - values_a[name], intervals[name], len(a)) for name in IMAGE_METRICS}


def _entry(value: float, interval: tuple[float, float] | None, n_images: int) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"value": float(value), "ci_low": low, "ci_high": high, "n_images": n_images}


def to_rows(scenario: str, method: str, category: str, seed: int, result: dict[str, Any]) -> list[dict[str, Any]]:
    """One category's result as rows of the tidy table."""
    head = {"scenario": scenario, "method": method, "category": category, "seed": seed}
    return [{**head, "metric": name, **entry} for name, entry in result["metrics"].items()]


def results_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The tidy table with the columns of ``COLUMNS`` in a fixed order, macro averages after their categories."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    order = {name: index for index, name in enumerate(SCENARIOS)}
    table = table.assign(_s=table.scenario.map(order), _m=table.category.eq(MACRO))
    table = table.sort_values(["_s", "method", "_m", "category", "seed", "metric"], kind="stable")
    return table[list(COLUMNS)].reset_index(drop=True)
