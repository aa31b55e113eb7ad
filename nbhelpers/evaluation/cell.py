"""Evaluate a cell: one method on one category in one scenario.

A cell is evaluated once, and gives values and a bootstrap sample of each metric. Everything else
about uncertainty is arithmetic on those samples. A macro average is the mean of its categories'
samples. Two cells on the same images (or on their shifted twins) have the same resamples, so that
the difference of their samples is the paired bootstrap.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbhelpers.config.sections import EvaluationConfig
from nbhelpers.errors import DataError
from nbhelpers.evaluation.aupimo import mean_aupimo_draws, per_image_aupimo
from nbhelpers.evaluation.bootstrap import entry, image_draws, pixel_draws
from nbhelpers.evaluation.calibration import expected_calibration_error, platt
from nbhelpers.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    RATE_METRICS,
    Array,
    image_metrics,
    pixel_metrics,
)
from nbhelpers.evaluation.thresholds.calibrate import calibrate_threshold
from nbhelpers.evaluation.thresholds.compare import threshold_draws
from nbhelpers.predictions import Predictions

Draws = dict[str, Array]


def draw_seed(seed: int, category: str) -> tuple[int, int]:
    """The seed of a category's resamples, so that categories are redrawn independently."""
    return seed, zlib.crc32(category.encode())


def evaluate(
    vals: Sequence[Predictions],
    test: Predictions,
    settings: EvaluationConfig,
    seed: tuple[int, ...],
) -> tuple[dict[str, Any], Draws]:
    """Calibrate the threshold on ``vals`` and measure every metric on ``test``.

    Image metrics use all test images, and their intervals redraw test and calibration images.
    Pixel metrics use the images whose pixel labels are known, good images included. Without any
    mask they are skipped, and ``pixel_skipped`` gives the reason.

    Args:
        vals: Validation predictions; those of several categories, by one model, calibrate one
            threshold.
        test: Test predictions.
        settings: Rule, number of draws, and level.
        seed: See ``draw_seed``.

    Returns:
        First a dictionary: ``threshold`` (see ``Threshold.to_dict``), ``metrics`` (name to value,
        ci_low, ci_high, n_images), ``pixel_skipped`` and ``aupimo_skipped`` (a reason, or None),
        ``left_out`` (ids of the images that pixel metrics leave out). Second the bootstrap sample
        of each metric, ``(draws,)``, and ``aupimo_per_image``, ``(N,)``, NaN for an image that has
        none.

    Raises:
        ConfigError: The rule does not exist.
        DataError: The images are not those that the rule or the metrics need.
    """
    labels = np.concatenate([val.labels for val in vals])
    scores = np.concatenate([val.image_scores for val in vals])
    threshold = calibrate_threshold(labels, scores, settings.threshold_rule)
    size = settings.bootstrap_draws
    thresholds = threshold_draws(
        labels, scores, settings.threshold_rule, draws=size, seed=(*seed, 1)
    )
    draws: Draws = {"threshold": thresholds}
    draws |= image_draws(test.labels, test.image_scores, thresholds, draws=size, seed=seed)
    values = {"threshold": threshold.value} | {
        name: value
        for name, value in image_metrics(test.labels, test.image_scores, threshold.value).items()
        if name in IMAGE_METRICS
    }
    counts = dict.fromkeys(values, len(test)) | {"threshold": labels.size}
    probabilities = platt(labels, scores).probabilities(
        test.image_scores, prior=float(test.labels.mean())
    )
    values["ece"] = expected_calibration_error(test.labels, probabilities)
    counts["ece"] = len(test)
    seen = test.subset(test.pixel_valid)
    skipped: str | None = None
    aupimo_skipped: str | None = None
    if seen.masks.any():
        pixel_values, pixel_sample, per_image = evaluate_pixels(seen, settings, seed)
        values, draws = values | pixel_values, draws | pixel_sample
        counts |= dict.fromkeys(pixel_values, len(seen)) | {"aupimo": int(seen.labels.sum())}
        if isinstance(per_image, str):
            aupimo_skipped = per_image
        else:
            draws["aupimo_per_image"] = np.full(len(test), np.nan)
            draws["aupimo_per_image"][test.pixel_valid] = per_image
    else:
        skipped = aupimo_skipped = (
            "no test image has a defect mask, so nothing can be said about localisation"
        )
    left_out = [
        identity for identity, valid in zip(test.ids, test.pixel_valid, strict=True) if not valid
    ]
    metrics = {
        name: entry(value, draws.get(name), counts[name], settings.confidence)
        for name, value in values.items()
    }
    result = {
        "threshold": threshold.to_dict(),
        "metrics": metrics,
        "pixel_skipped": skipped,
        "aupimo_skipped": aupimo_skipped,
        "left_out": left_out,
    }
    return result, draws


def evaluate_pixels(
    seen: Predictions, settings: EvaluationConfig, seed: tuple[int, ...]
) -> tuple[dict[str, float], Draws, Array | str]:
    """``PIXEL_METRICS`` and mean AUPIMO.

    Args:
        seen: Predictions of images whose pixel labels are known.
        settings: Number of draws.
        seed: See ``draw_seed``.

    Returns:
        The values, their bootstrap samples, and the AUPIMO of each image, ``(N,)``. Where AUPIMO
        cannot be computed (too few good images, say) it is left out, and the third is the reason.

    Raises:
        DataError: See ``metrics.check_maps``.
    """
    size = settings.bootstrap_draws
    values = {
        name: value
        for name, value in pixel_metrics(seen.anomaly_maps, seen.masks).items()
        if name in PIXEL_METRICS
    }
    draws = pixel_draws(seen.anomaly_maps, seen.masks, draws=size, seed=seed)
    try:
        per_image = per_image_aupimo(seen.anomaly_maps, seen.masks)
    except DataError as reason:  # a finding about these images, stored with the cell
        return values, draws, str(reason)
    draws["aupimo"] = mean_aupimo_draws(per_image, draws=size, seed=seed)
    return values | {"aupimo": float(np.nanmean(per_image))}, draws, per_image


def macro(cells: Sequence[tuple[dict[str, Any], Draws]], level: float) -> dict[str, dict[str, Any]]:
    """Macro averages over categories, with their intervals.

    Only rates are averaged: a mean threshold or a mean count means nothing. A metric that one
    category lacks (without masks, say) is left out, because a mean of fewer categories would be
    read as a mean of all.

    Args:
        cells: What ``evaluate`` gave for each category; each was redrawn independently.
        level: Level of the intervals.

    Returns:
        Metric to its entry of the tidy table.
    """
    shared = [
        name for name in RATE_METRICS if all(name in result["metrics"] for result, _ in cells)
    ]
    entries = {name: [result["metrics"][name] for result, _ in cells] for name in shared}
    sampled = [name for name in shared if all(name in draws for _, draws in cells)]
    means = {name: np.mean([draws[name] for _, draws in cells], axis=0) for name in sampled}
    return {
        name: entry(
            float(np.mean([each["value"] for each in entries[name]])),
            means.get(name),
            sum(each["n_images"] for each in entries[name]),
            level,
        )
        for name in shared
    }


def difference(
    before: tuple[Mapping[str, float], Draws],
    after: tuple[Mapping[str, float], Draws],
    counts: Mapping[str, int],
    level: float,
) -> tuple[dict[str, dict[str, Any]], Draws]:
    """``after`` minus ``before``, with paired intervals.

    Args:
        before: Values and bootstrap samples. Both sides have the same resamples: image i and its
            twin i are redrawn together.
        after: Values and bootstrap samples of the other side.
        counts: Metric to its number of images; a metric that one side has no sample of is left
            out.
        level: Level of the intervals.

    Returns:
        Metric to its entry of the tidy table, and the bootstrap samples of the differences.
    """
    (values_before, draws_before), (values_after, draws_after) = before, after
    shared = [name for name in counts if name in draws_before and name in draws_after]
    draws = {name: draws_after[name] - draws_before[name] for name in shared}
    return {
        name: entry(values_after[name] - values_before[name], draws[name], counts[name], level)
        for name in shared
    }, draws


def check_twins(before: Sequence[str], after: Sequence[str]) -> None:
    """Check that two lists of clean source ids are the same images in the same order.

    Raises:
        DataError: They are not.
    """
    if list(before) != list(after):
        raise DataError(
            f"expected twins of the same images in the same order, found {len(before)} and "
            f"{len(after)} images that "
            "differ; delete the stored shifted images and predictions, and run again"
        )
