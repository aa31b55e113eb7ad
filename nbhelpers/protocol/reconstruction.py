"""What reconstruction sees: an autoencoder with each of its heads, the quality of its reconstructions, its cost."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from nbhelpers import artefacts
from nbhelpers.config import digest
from nbhelpers.evaluation.scenarios import stated, to_rows
from nbhelpers.protocol.cells import fitted_stats
from nbhelpers.protocol.refits import ranking
from nbhelpers.protocol.table import Part, is_made, rows
from nbhelpers.reporting.reconstruction_plots import METRICS, OWN
from nbhelpers.reporting.results import split_metric
from nbhelpers.settings_autoencoder import AUTOENCODER, NetworksConfig, architecture_of
from nbhelpers.study import Study

#: The heads that are put side by side; ``pixel_l1`` ranks much like ``pixel_l2``.
HEADS = ("pixel_l2", "ssim", "feature")
STATS = ("model_mb", "epochs", "seconds_training", "seconds_epoch")
TIMED_BATCH, TIMED_REPEATS = 8, 5


def reconstruction_part(study: Study, architecture: str, category: str) -> Part:
    """Rows of scenario ``reconstruction``: fitted on clean train; heads on clean test, reconstructions of clean val.

    They judge, nothing is chosen by them.
    """
    method = AUTOENCODER + architecture

    def make() -> list[dict[str, Any]]:
        from nbhelpers.models.residuals import reconstruction_quality  # needs the network libraries

        detector, split = study.detector(method, category), study.split(category)
        found = {"parameters": stated(detector.network.n_parameters, len(split["train"]))}
        for head, test in detector.predict_heads(split["test"], HEADS).items():
            found |= {f"{name}[head={head}]": entry for name, entry in ranking(test, METRICS).items()}
        for images, label in (("good", 0), ("defect", 1)):
            part = [sample for sample in split["val"] if sample.label == label]
            quality = reconstruction_quality(*map(torch.from_numpy, detector.reconstruct(part)))
            found |= {f"{name}[images={images}]": stated(values.mean(), len(part)) for name, values in quality.items()}
        return to_rows("reconstruction", method, category, study.config.seed, found)

    fitted = digest(study.detector_recipe(method, category, "clean"))
    recipe = study.recipe("rows", part="reconstruction", fitted=fitted, heads=HEADS)
    optional = architecture not in study.config.architectures
    return Part(f"reconstruction_{architecture}_{category}", recipe, make, optional)


def parts(study: Study) -> list[Part]:
    """All of this module's rows: of every architecture, for the table takes those that are made."""
    return [reconstruction_part(study, architecture, category)
            for architecture in NetworksConfig.model_fields for category in study.categories]


def reconstruction_rows(study: Study, architecture: str) -> pd.DataFrame:
    """``reconstruction_part`` of every category as rows."""
    return pd.concat([rows(study, reconstruction_part(study, architecture, name)) for name in study.categories],
                     ignore_index=True)


def current_rows(study: Study, architecture: str, category: str) -> list[Any]:
    """The rows of ``reconstruction_part`` where they are made and current, else none; nothing is computed."""
    part = reconstruction_part(study, architecture, category)
    return list(rows(study, part).itertuples()) if is_made(study, part) else []


def _qualified(study: Study, architecture: str, qualifier: str) -> list[tuple[str, str, str, float]]:
    """Category, value of the qualifier, metric and value of the rows whose metric has that qualifier."""
    named = [(row, *split_metric(row.metric)) for row in reconstruction_rows(study, architecture).itertuples()]
    return [(row.category, found[qualifier], metric, row.value) for row, metric, found in named if qualifier in found]


def heads_table(study: Study, architecture: str) -> pd.DataFrame:
    """An autoencoder's heads beside the study's other methods (head ``own``), on clean test.

    Returns:
        Columns method, category, head, and ``METRICS`` (NaN where there are no masks).
    """
    found = [(AUTOENCODER + architecture, *row) for row in _qualified(study, architecture, "head")]
    for method, category in study.cells:
        if architecture_of(method) is None:
            own = ranking(study.predictions(method, category, "clean", "clean", "test"), METRICS)
            found += [(method, category, OWN, metric, entry["value"]) for metric, entry in own.items()]
    table = pd.DataFrame(found, columns=["method", "category", "head", "metric", "value"])
    wide = table.pivot(index=["method", "category", "head"], columns="metric", values="value").reset_index()
    return wide.rename_axis(columns=None).reindex(columns=["method", "category", "head", *METRICS])


def quality_table(study: Study, architecture: str) -> pd.DataFrame:
    """Mean SSIM, MSE and L1 of the reconstructions of clean val, good images and defects apart; pixels in [-1, 1]."""
    found = _qualified(study, architecture, "images")
    table = pd.DataFrame(found, columns=["category", "images", "metric", "value"])
    return table.pivot(index=["category", "images"], columns="metric", values="value").rename_axis(columns=None)


def costs(study: Study) -> pd.DataFrame:
    """What each autoencoder that is trained cost, a row an architecture and category; nothing is trained for it.

    Returns:
        Columns architecture, category, parameters, model_mb, epochs, seconds_training, seconds_epoch; mse_good: of the
        reconstructions of good val images, NaN until they are made; forward_ms: a reconstruction of one image in a
        batch of 8 on the study's device (median of 5).
    """
    found = []
    for architecture in NetworksConfig.model_fields:
        method = AUTOENCODER + architecture
        for category in study.categories:
            path, recipe = study.model_path(method, category, "clean"), study.detector_recipe(method, category, "clean")
            if artefacts.is_current(path, recipe):
                stats = fitted_stats(study, method, category, "clean")
                quality = {row.metric: row.value for row in current_rows(study, architecture, category)}
                found.append((architecture, category, stats["n_parameters"], *(stats[name] for name in STATS),
                              quality.get("mse[images=good]")))
    table = pd.DataFrame(found, columns=["architecture", "category", "parameters", *STATS, "mse_good"])
    times = {name: forward_ms(study, name) for name in dict.fromkeys(table.architecture)}
    return table.assign(forward_ms=table.architecture.map(times))


def forward_ms(study: Study, architecture: str) -> float:
    """Milliseconds that a reconstruction takes, an image; the weights do not matter for it."""
    network = study.new_detector(AUTOENCODER + architecture).network
    size = study.config.data.image_size
    images = torch.zeros(TIMED_BATCH, 3, size, size, device=study.device)
    taken = []
    for _ in range(TIMED_REPEATS + 1):
        begin = time.perf_counter()
        network.reconstruct(images).cpu()
        taken.append(time.perf_counter() - begin)
    return 1000 * float(np.median(taken[1:])) / TIMED_BATCH
