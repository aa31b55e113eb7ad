"""Trackers beside the CSV file: TensorBoard, MLflow and Weights & Biases.

All of them work offline and write to the training's folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torchvision.utils import make_grid

from nbhelpers.config.autoencoders import TrainingConfig
from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.pixels import PIXELS
from nbhelpers.models.autoencoders.training.batches import TrainingImages

SHOWN = 4  # how many reconstructions are sent to the trackers
PROJECT = "autoencoders"


def make_trackers(settings: TrainingConfig, folder: Path) -> list[Logger]:
    """Start the trackers that ``settings.trackers`` names; each run has the name of the folder.

    A training that was killed and resumes is the same run for TensorBoard and Weights & Biases, and
    a new run for MLflow.

    Args:
        settings: The training's settings; all of them are sent to the trackers.
        folder: The training's folder.

    Raises:
        ConfigError: If the package of a tracker is not installed.
    """
    for name in settings.trackers:
        package = importlib.util.find_spec(name)
        if package is None or package.origin is None:  # without an origin it is a mere folder
            raise ConfigError(
                f"tracker '{name}': expected the package {name}, found none; pip install {name} or "
                "remove it from autoencoder.training.trackers"
            )
    loggers = [_make(name, folder) for name in settings.trackers]
    for logger in loggers:
        logger.log_hyperparams(settings.model_dump())
    return loggers


def _make(name: str, folder: Path) -> Logger:
    """Start one tracker, whose files go below ``folder``."""
    tracker_folder = folder / name
    tracker_folder.mkdir(parents=True, exist_ok=True)
    if name == "tensorboard":
        return TensorBoardLogger(folder, name=None, version=name, default_hp_metric=False)
    if name == "mlflow":
        return MLFlowLogger(
            PROJECT,
            run_name=folder.name,
            tracking_uri=f"sqlite:///{tracker_folder / 'mlflow.db'}",
            artifact_location=(tracker_folder / "artefacts").resolve().as_uri(),
        )
    return WandbLogger(
        folder.name,
        save_dir=folder,
        offline=True,
        id=folder.name,
        project=PROJECT,
        settings={"silent": True, "console": "off"},
    )


def show_reconstructions(
    loggers: Sequence[Logger], network: BaseAutoencoder, images: TrainingImages
) -> None:
    """Send the first images and their reconstructions to all trackers, and end their runs.

    Args:
        loggers: The trackers.
        network: The trained network.
        images: The held-out images. The first few are shown in a row, above a row of their
            reconstructions.
    """
    if not loggers:
        return
    device = next(network.parameters()).device
    shown = torch.stack([images[0, index][0] for index in range(min(SHOWN, len(images)))]).to(
        device
    )
    rows = torch.cat([shown, network.reconstruct(shown)]).float().cpu()
    grid = make_grid(rows, nrow=len(shown), normalize=True, value_range=(PIXELS.low, PIXELS.high))
    picture = (grid.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image("reconstructions", picture, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, "reconstructions.png")
        elif isinstance(logger, WandbLogger):
            logger.log_image("reconstructions", [picture])
            logger.experiment.finish()
        logger.finalize("success")
