"""Train an autoencoder once: a killed training resumes, and a finished one is loaded.

Lightning takes seconds to import, so it is imported only when something is trained.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nbhelpers.config.autoencoders import TrainingConfig
from nbhelpers.data.layout import Sample
from nbhelpers.errors import ModelError, ResourceError
from nbhelpers.files import locked, read_json, remove, replacing, write_json
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.training.batches import Batches, TrainingImages, hold_out
from nbhelpers.models.autoencoders.training.files import HISTORY, ORIGIN, RECIPE, WEIGHTS
from nbhelpers.runtime import provenance


@dataclass(frozen=True)
class Trained:
    """The history of a training and its statistics.

    Attributes:
        history: One row per epoch: ``epoch`` (from 1); ``train_loss`` and ``train_<term>`` (means
            over the epoch's images); ``held_out_loss``; ``learning_rate``; ``gradient_norm`` and
            ``gradient_norm_clipped`` (the largest of the epoch, before and after clipping);
            ``seconds``.
        stats: ``n_images`` (trained on), ``n_held_out``, ``epochs``, ``best_epoch``,
            ``best_held_out_loss``, ``batch_size`` (smaller than configured if memory ran out),
            ``seconds_training``, ``seconds_epoch`` (mean) and, on CUDA, ``peak_device_mb``.
    """

    history: list[dict[str, float]]
    stats: dict[str, float]


def train(
    network: BaseAutoencoder,
    criterion: nn.Module | None,
    samples: Sequence[Sample],
    settings: TrainingConfig,
    *,
    corruption: str = "none",
    groups: Sequence[Hashable] | None = None,
    seed: int,
    device: str,
    loader: Mapping[str, Any],
    folder: Path,
    recipe: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a network in place; afterwards it has its best weights and is in evaluation mode.

    The best weights are those of the epoch with the lowest loss of the held-out images, which are a
    random share of ``samples``. No other image is read. On a CPU with one thread a training that
    was killed and resumes ends with exactly the same weights. The global random generators are left
    unchanged.

    Args:
        network: An untrained network; afterwards it is on ``device``.
        criterion: See ``BaseAutoencoder.loss``; None for a network that does not use one.
        samples: Good images.
        settings: Optimiser, schedule, precision, early stopping, augmentation.
        corruption: How the network's input is corrupted: ``none``, ``noise`` or ``mask`` (see
            ``batches.corrupt``).
        groups: A key for each sample; samples with the same key are held out together (see
            ``batches.hold_out``).
        seed: Seed of everything random.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        loader: Arguments of ``make_loader``; ``batch_size`` is taken from the settings instead.
        folder: A folder for this training only; its name must change with anything that the
            training depends on. Afterwards it holds history.json, metrics.csv, weights.safetensors
            and the trackers' files.
        recipe: Everything that the training depends on, as JSON can hold it. It is written to
            recipe.json when the training starts, together with the machine and the versions.

    Returns:
        The history and the statistics of the training.

    Raises:
        DataError: If there are fewer than two images or groups, or an image is anomalous or cannot
            be read.
        ConfigError: If the device lacks the precision, or a tracker is not installed.
        DivergenceError: If the loss or its gradient is not finite.
        ModelError: If the files in ``folder`` are damaged or do not fit the network.
        ResourceError: If a single image does not fit in memory, or ``folder`` cannot be written.
    """
    target, folder = torch.device(device), Path(folder)
    training, held_out = hold_out(samples, settings.held_out_share, seed, "held-out", groups)
    with locked(folder):
        if not (folder / WEIGHTS).is_file():
            batches = Batches(
                TrainingImages(
                    training,
                    network.image_size,
                    settings.augmentation,
                    settings.augmentation_strength,
                    seed,
                ),
                TrainingImages(held_out, network.image_size),
                settings.batch_size,
                settings.accumulate,
                seed,
                loader,
            )
            _train(network, criterion, batches, settings, corruption, seed, target, folder, recipe)
        try:
            stored = read_json(folder / HISTORY)
            trained = Trained(stored["epochs"], stored["stats"])
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (
            SafetensorError,
            RuntimeError,
            FileNotFoundError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:
            raise ModelError(
                f"{folder}: expected the weights of network {network.name} and their {HISTORY}, "
                f"found others or damaged ones ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); remove the folder and train again"
            ) from error
    network.to(target).eval()
    return trained


def _train(
    network: BaseAutoencoder,
    criterion: nn.Module | None,
    batches: Batches,
    settings: TrainingConfig,
    corruption: str,
    seed: int,
    device: torch.device,
    folder: Path,
    recipe: Mapping[str, Any] | None,
) -> None:
    """Fit, with smaller batches if memory runs out, and write weights and history to ``folder``."""
    from lightning.pytorch.utilities.memory import garbage_collection_cuda

    from nbhelpers.models.autoencoders.training.fitting import (
        fit,
        generators_kept,
        is_out_of_memory,
        lightning_precision,
    )
    from nbhelpers.models.autoencoders.training.trackers import make_trackers, show_reconstructions

    lightning_precision(settings.precision, device)  # refused before anything is written
    checkpoints = folder / "checkpoints"
    # only a killed run can have left temporary files, since this one holds the lock
    for left_over in [*folder.glob(".*.tmp*"), *checkpoints.glob(".*.tmp*")]:
        remove(left_over)
    loggers = make_trackers(settings, folder)
    if recipe is not None:
        facts = provenance(str(device), 0.0)
        write_json(
            folder / RECIPE,
            {"recipe": dict(recipe), "provenance": {name: facts[name] for name in ORIGIN}},
        )
    network.gradient_checkpointing = settings.gradient_checkpointing
    initial = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    if device.type == "cuda":
        torch.cuda.init()  # without it a device's index is not known yet
        torch.cuda.reset_peak_memory_stats(device)
    with generators_kept(device):
        while True:
            if criterion is not None:
                criterion.to(device)
            try:
                history, saved = fit(
                    network, criterion, batches, settings, corruption, seed, device, folder, loggers
                )
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                batches = _halved(batches, network, device, error)
            network.zero_grad()
            garbage_collection_cuda()  # the failed run's trainer has reference cycles
            network.load_state_dict(initial)  # a checkpoint, if there is one, is loaded over these
    network.zero_grad()
    best = torch.load(saved.best, map_location="cpu", weights_only=True)
    network.load_state_dict(
        {name.removeprefix("network."): tensor for name, tensor in best["state_dict"].items()}
    )
    network.to(device)  # Lightning left it on the CPU
    seconds = [row["seconds"] for row in history.rows]
    stats = {
        "n_images": len(batches.training),
        "n_held_out": len(batches.held_out),
        "epochs": len(history.rows),
        "best_epoch": saved.best_epoch,
        "best_held_out_loss": saved.best_loss,
        "batch_size": batches.size,
        "seconds_training": round(sum(seconds), 3),
        "seconds_epoch": round(sum(seconds) / len(seconds), 4),
    }
    if device.type == "cuda":
        stats["peak_device_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    show_reconstructions(loggers, network, batches.held_out)
    write_json(folder / HISTORY, {"epochs": history.rows, "stats": stats})
    with replacing(folder / WEIGHTS) as temporary:
        save_file(
            {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()},
            temporary,
        )
    if not settings.keep_checkpoints:
        remove(checkpoints)


def _halved(
    batches: Batches, network: BaseAutoencoder, device: torch.device, error: Exception
) -> Batches:
    """Halve the images per batch, double the batches per step, and print a message.

    Raises:
        ResourceError: If a batch has one image only.
    """
    size = batches.size
    if size == 1:
        checkpointing = (
            ""
            if network.gradient_checkpointing
            else "autoencoder.training.gradient_checkpointing=true, "
        )
        raise ResourceError(
            f"training of {network.name}: expected memory for one image of {network.image_size} px "
            f"on {device}, found too little; set {checkpointing}a smaller data.image_size or "
            "network"
        ) from error
    smaller = replace(batches, size=size // 2, accumulate=batches.accumulate * 2)
    print(
        f"training of {network.name}: out of memory with batches of {size}; continues with batches "
        f"of {smaller.size}, {smaller.accumulate} per step",
        flush=True,
    )
    return smaller
