"""What reconstruction can see: an autoencoder's heads, its reconstructions, and its cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from nbhelpers.analyses.parts import Part, make_part
from nbhelpers.analyses.refits import ranking
from nbhelpers.analyses.scenarios import fitted_stats
from nbhelpers.config.autoencoders import NetworksConfig
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.methods import AUTOENCODER, architecture_of
from nbhelpers.models.detector import Detector
from nbhelpers.results.table import HEAD_METRICS, OWN_HEAD, as_table, detailed, to_rows
from nbhelpers.study import Study

if TYPE_CHECKING:
    from nbhelpers.models.autoencoders.detector import Autoencoder

#: The heads that are compared; ``pixel_l1`` is left out because it ranks much like ``pixel_l2``.
HEADS = ("pixel_l2", "ssim", "feature")
STATS = ("model_mb", "epochs", "seconds_training", "seconds_epoch")
#: How many images a timed batch has, and how many batches are timed.
TIMED_BATCH, TIMED_REPEATS = 8, 5


def _autoencoder(detector: Detector) -> Autoencoder:
    """The detector of an autoencoder's method, which can do more than a ``Detector``."""
    from nbhelpers.models.autoencoders.detector import Autoencoder  # needs the network libraries

    assert isinstance(detector, Autoencoder), f"{detector.name} is not an autoencoder"
    return detector


def reconstruction_part(study: Study, architecture: str, category: str) -> Part:
    """Rows of scenario ``reconstruction``, of an autoencoder that was fitted on clean train.

    Its heads are measured on clean test and its reconstructions on clean val. Nothing is chosen
    by these numbers.
    """
    method = AUTOENCODER + architecture

    def make() -> list[dict[str, Any]]:
        # imported here: it needs the network libraries
        from nbhelpers.models.autoencoders.heads import reconstruction_quality

        detector, split = _autoencoder(study.detector(method, category)), study.split(category)
        parameters = stated(detector.network.n_parameters, len(split["train"]))
        metrics = {detailed("parameters"): parameters}
        for head, test in detector.predict_heads(split["test"], HEADS).items():
            for name, entry in ranking(test, HEAD_METRICS).items():
                metrics[detailed(name, head=head)] = entry
        for images, label in (("good", 0), ("defect", 1)):
            samples = [sample for sample in split["val"] if sample.label == label]
            quality = reconstruction_quality(*map(torch.from_numpy, detector.reconstruct(samples)))
            for name, values in quality.items():
                metrics[detailed(name, images=images)] = stated(values.mean(), len(samples))
        return to_rows("reconstruction", method, category, study.config.seed, metrics)

    return make_part(
        study,
        __name__,
        f"reconstruction_{architecture}_{category}",
        make,
        optional=architecture not in study.config.architectures,
        fitted=study.fitted(method, category),
        heads=HEADS,
    )


def parts(study: Study) -> list[Part]:
    """The rows of every architecture; the table takes those that are made."""
    return [
        reconstruction_part(study, architecture, category)
        for architecture in NetworksConfig.model_fields
        for category in study.categories
    ]


def reconstruction_rows(study: Study, architecture: str) -> pd.DataFrame:
    """``reconstruction_part`` of every category as rows of the tidy table."""
    return pd.concat(
        [reconstruction_part(study, architecture, name).rows() for name in study.categories],
        ignore_index=True,
    )


def current_rows(study: Study, architecture: str, category: str) -> pd.DataFrame:
    """The rows of ``reconstruction_part`` if they are current, else none; nothing is computed."""
    part = reconstruction_part(study, architecture, category)
    return part.rows() if part.is_made() else as_table([])


def _restricted(study: Study, architecture: str, detail: str) -> pd.DataFrame:
    """The rows that have this detail, with the columns category, the detail, metric and value."""
    table = reconstruction_rows(study, architecture)
    chosen = table[table.detail == detail].rename(columns={"detail_value": detail})
    return chosen[["category", detail, "metric", "value"]]


def heads_table(study: Study, architecture: str) -> pd.DataFrame:
    """An autoencoder's heads beside the study's other methods (head ``own``), on clean test.

    Returns:
        One row per method, category and head, with the columns method, category, head, and
        ``HEAD_METRICS`` (NaN where there are no masks).
    """
    rows = []
    for method, category in study.cells:
        if architecture_of(method) is None:
            test = study.predictions(
                method, category, fitted_on="clean", domain="clean", split="test"
            )
            rows += [
                (method, category, OWN_HEAD, metric, entry["value"])
                for metric, entry in ranking(test, HEAD_METRICS).items()
            ]
    others = pd.DataFrame(rows, columns=["method", "category", "head", "metric", "value"])
    heads = _restricted(study, architecture, "head").assign(method=AUTOENCODER + architecture)
    table = pd.concat([heads, others])
    wide = table.pivot(
        index=["method", "category", "head"], columns="metric", values="value"
    ).reset_index()
    return wide.rename_axis(columns=None).reindex(
        columns=["method", "category", "head", *HEAD_METRICS]
    )


def quality_table(study: Study, architecture: str) -> pd.DataFrame:
    """Mean SSIM, MSE and L1 of the reconstructions of clean val; pixels lie in [-1, 1].

    Returns:
        One row per category and kind of image (``good``, ``defect``), one column per measure.
    """
    table = _restricted(study, architecture, "images")
    wide = table.pivot(index=["category", "images"], columns="metric", values="value")
    return wide.rename_axis(columns=None)


def costs(study: Study) -> pd.DataFrame:
    """What each trained autoencoder cost; nothing is trained for it.

    Returns:
        One row per architecture and category: architecture, category, parameters, model_mb,
        epochs, seconds_training, seconds_epoch; mse_good, the error of the reconstructions of good
        validation images (NaN until they are made); forward_ms, see ``forward_ms``.
    """
    rows = []
    for architecture in NetworksConfig.model_fields:
        method = AUTOENCODER + architecture
        for category in study.categories:
            if not study.fitted(method, category).is_current():
                continue
            stats = fitted_stats(study, method, category, "clean")
            if stats is None:  # removed since it was asked for
                continue
            made = current_rows(study, architecture, category)
            good = made[(made.metric == "mse") & (made.detail_value == "good")].value
            rows.append(
                {
                    "architecture": architecture,
                    "category": category,
                    "parameters": stats["n_parameters"],
                    **{name: stats[name] for name in STATS},
                    "mse_good": good.iloc[0] if len(good) else None,
                }
            )
    columns = ["architecture", "category", "parameters", *STATS, "mse_good"]
    table = pd.DataFrame(rows, columns=columns)
    times = {name: forward_ms(study, name) for name in dict.fromkeys(table.architecture)}
    return table.assign(forward_ms=table.architecture.map(times))


def forward_ms(study: Study, architecture: str) -> float:
    """Milliseconds per image that a reconstruction takes, with weights as they are initialised.

    It is the median over 5 batches of 8 images on the study's device.
    """
    network = _autoencoder(study.new_detector(AUTOENCODER + architecture)).network
    size = study.config.data.image_size
    images = torch.zeros(TIMED_BATCH, 3, size, size, device=study.device)
    seconds = []
    for _ in range(TIMED_REPEATS + 1):
        begin = time.perf_counter()
        network.reconstruct(images).cpu()
        seconds.append(time.perf_counter() - begin)
    return 1000 * float(np.median(seconds[1:])) / TIMED_BATCH
