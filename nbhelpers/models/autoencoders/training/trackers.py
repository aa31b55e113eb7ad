"""Trackers beside the CSV: TensorBoard, MLflow and Weights & Biases, all in the training's own
folder, all offline.
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

SHOWN = 4  # reconstructions
PROJECT = "autoencoders"


def make_trackers(settings: TrainingConfig, folder: Path) -> list[Logger]:
    """The trackers that ``settings.trackers`` names; a run has the folder's name.

    A training that was killed and goes on is the same run for TensorBoard and Weights & Biases,
    another for MLflow.

    Raises:
        ConfigError: one's package is not installed.
    """
    for name in settings.trackers:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a mere folder of that name is no package
            raise ConfigError(
                f"tracker '{name}': wanted the package {name}, found none; pip install {name} or take it "
                "out of autoencoder.training.trackers"
            )
    loggers = [_make(name, folder) for name in settings.trackers]
    for logger in loggers:
        logger.log_hyperparams(settings.model_dump())
    return loggers


def _make(name: str, folder: Path) -> Logger:
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    if name == "tensorboard":
        return TensorBoardLogger(folder, name=None, version=name, default_hp_metric=False)
    if name == "mlflow":
        return MLFlowLogger(
            PROJECT,
            run_name=folder.name,
            tracking_uri=f"sqlite:///{own / 'mlflow.db'}",
            artifact_location=(own / "artefacts").resolve().as_uri(),
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
    """Send the first held-out images, above their reconstructions, to all trackers, and end their
    runs.
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
