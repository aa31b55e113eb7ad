"""What reconstruction sees: an autoencoder with each of its heads, the quality of its
reconstructions, its cost.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.refits import ranking
from nbhelpers.analyses.scenarios import fitted_stats
from nbhelpers.config.autoencoders import NetworksConfig
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.methods import AUTOENCODER, architecture_of
from nbhelpers.results.table import HEAD_METRICS, OWN_HEAD, as_table, detailed, to_rows
from nbhelpers.study import Study

#: The heads that are put side by side; ``pixel_l1`` ranks much like ``pixel_l2``.
HEADS = ("pixel_l2", "ssim", "feature")
STATS = ("model_mb", "epochs", "seconds_training", "seconds_epoch")
TIMED_BATCH, TIMED_REPEATS = 8, 5


def reconstruction_part(study: Study, architecture: str, category: str) -> Part:
    """Rows of scenario ``reconstruction``: fitted on clean train; heads on clean test,
    reconstructions of clean val.

    They judge, nothing is chosen by them.
    """
    method = AUTOENCODER + architecture

    def make() -> list[dict[str, Any]]:
        from nbhelpers.models.autoencoders.heads import (
            reconstruction_quality,
        )  # needs the network libraries

        detector, split = study.detector(method, category), study.split(category)
        found = {"parameters": stated(detector.network.n_parameters, len(split["train"]))}
        for head, test in detector.predict_heads(split["test"], HEADS).items():
            found |= {
                detailed(name, head=head): entry
                for name, entry in ranking(test, HEAD_METRICS).items()
            }
        for images, label in (("good", 0), ("defect", 1)):
            part = [sample for sample in split["val"] if sample.label == label]
            quality = reconstruction_quality(*map(torch.from_numpy, detector.reconstruct(part)))
            found |= {
                detailed(name, images=images): stated(values.mean(), len(part))
                for name, values in quality.items()
            }
        return to_rows("reconstruction", method, category, study.config.seed, found)

    return make_part(
        study,
        __name__,
        f"reconstruction_{architecture}_{category}",
        make,
        optional=architecture not in study.config.architectures,
        fitted=study.fitted(method, category).key,
        heads=HEADS,
    )


def parts(study: Study) -> list[Part]:
    """All of this module's rows: of every architecture, for the table takes those that are made."""
    return [
        reconstruction_part(study, architecture, category)
        for architecture in NetworksConfig.model_fields
        for category in study.categories
    ]


def reconstruction_rows(study: Study, architecture: str) -> pd.DataFrame:
    """``reconstruction_part`` of every category as rows."""
    return pd.concat(
        [reconstruction_part(study, architecture, name).rows() for name in study.categories],
        ignore_index=True,
    )


def current_rows(study: Study, architecture: str, category: str) -> pd.DataFrame:
    """The rows of ``reconstruction_part`` where they are made and current, else none; nothing is
    computed.
    """
    part = reconstruction_part(study, architecture, category)
    return part.rows() if part.is_made() else as_table([])


def _restricted(study: Study, architecture: str, detail: str) -> pd.DataFrame:
    """Category, the detail, metric and value of the rows that have that detail."""
    table = reconstruction_rows(study, architecture)
    own = table[table.detail == detail].rename(columns={"detail_value": detail})
    return own[["category", detail, "metric", "value"]]


def heads_table(study: Study, architecture: str) -> pd.DataFrame:
    """An autoencoder's heads beside the study's other methods (head ``own``), on clean test.

    Returns:
        Columns method, category, head, and ``HEAD_METRICS`` (NaN where there are no masks).
    """
    found = []
    for method, category in study.cells:
        if architecture_of(method) is None:
            own = ranking(
                study.predictions(
                    method, category, fitted_on="clean", domain="clean", split="test"
                ),
                HEAD_METRICS,
            )
            found += [
                (method, category, OWN_HEAD, metric, entry["value"])
                for metric, entry in own.items()
            ]
    others = pd.DataFrame(found, columns=["method", "category", "head", "metric", "value"])
    heads = _restricted(study, architecture, "head").assign(method=AUTOENCODER + architecture)
    table = pd.concat([heads, others])
    wide = table.pivot(
        index=["method", "category", "head"], columns="metric", values="value"
    ).reset_index()
    return wide.rename_axis(columns=None).reindex(
        columns=["method", "category", "head", *HEAD_METRICS]
    )


def quality_table(study: Study, architecture: str) -> pd.DataFrame:
    """Mean SSIM, MSE and L1 of the reconstructions of clean val, good images and defects apart;
    pixels in [-1, 1].
    """
    table = _restricted(study, architecture, "images")
    wide = table.pivot(index=["category", "images"], columns="metric", values="value")
    return wide.rename_axis(columns=None)


def costs(study: Study) -> pd.DataFrame:
    """What each autoencoder that is trained cost, one row per architecture and category; nothing is
    trained for it.

    Returns:
        Columns architecture, category, parameters, model_mb, epochs, seconds_training,
        seconds_epoch; mse_good: of the reconstructions of good val images, NaN until they are made;
        forward_ms: a reconstruction of one image in a batch of 8 on the study's device (median of
        5).
    """
    found = []
    for architecture in NetworksConfig.model_fields:
        method = AUTOENCODER + architecture
        for category in study.categories:
            if study.fitted(method, category).is_current():
                stats = fitted_stats(study, method, category, "clean")
                made = current_rows(study, architecture, category)
                good = made[(made.metric == "mse") & (made.detail_value == "good")].value
                found.append(
                    (
                        architecture,
                        category,
                        stats["n_parameters"],
                        *(stats[name] for name in STATS),
                        good.iloc[0] if len(good) else None,
                    )
                )
    table = pd.DataFrame(
        found, columns=["architecture", "category", "parameters", *STATS, "mse_good"]
    )
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
