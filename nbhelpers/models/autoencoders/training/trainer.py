"""Train an autoencoder once: a training that was killed goes on, one that is done is loaded.

Lightning, which takes seconds to import, is imported when something is trained, and not before.
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
    """What a training has to say of itself.

    Attributes:
        history: One row an epoch: epoch (from 1); train_loss and train_<part> (means over the
            epoch's images); held_out_loss; learning_rate; gradient_norm and gradient_norm_clipped
            (the largest of the epoch, before and after clipping); seconds.
        stats: n_images and n_held_out (trained on, and held out), epochs, best_epoch,
            best_held_out_loss, batch_size (after halving), seconds_training, seconds_epoch (mean),
            and on CUDA peak_device_mb.
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
    """Train ``network`` in place; it ends on ``device``, in evaluation mode, with its best weights.

    The best are those of the epoch with the lowest loss of the held-out images, a random share of
    ``samples``. No other image is seen. On a CPU with one thread a training that was killed ends
    with the very weights that it would have had. The global generators are left as they were.

    Args:
        network: Untrained.
        criterion: See ``BaseAutoencoder.loss``; None for a network that uses none.
        samples: Good images.
        settings: Optimiser, schedule, precision, early stopping, augmentation.
        corruption: What the network sees in place of the image: ``none``, ``noise`` or ``mask``
            (``batches.corrupt``).
        groups: A key for each sample; samples of one are held out together (``batches.hold_out``).
        seed: Of everything random.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        loader: Arguments of ``make_loader``; ``batch_size`` is taken from the settings.
        folder: This training's own; its name must change with anything that the training depends
            on. Afterwards it holds history.json, metrics.csv, weights.safetensors, and the
            trackers' files.
        recipe: All that the training depends on, JSON-able; for who finds the folder. It is written
            to recipe.json as the training starts, with where and with what that was.

    Raises:
        DataError: fewer than two images or groups, an anomalous image, or a file that cannot be
            read.
        ConfigError: a precision that the device lacks, or a tracker that is not installed.
        DivergenceError: the loss or its gradient is not finite.
        ModelError: what is stored in ``folder`` is damaged or does not fit.
        ResourceError: a single image does not fit in memory, or ``folder`` cannot be written.
    """
    target, folder = torch.device(device), Path(folder)
    training, held_out = hold_out(samples, settings.held_out_share, seed, "held-out", groups)
    with locked(folder):
        if not (folder / WEIGHTS).is_file():
            strategy = (settings.augmentation, settings.augmentation_strength, seed)
            batches = Batches(
                TrainingImages(training, network.image_size, *strategy),
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
                f"{folder}: expected the weights of network {network.name} and their {HISTORY}, found "
                f"others or damaged ones ({type(error).__name__}: {str(error).splitlines()[0]}); remove "
                "the folder and train again"
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
    """Fit, with smaller batches if memory runs out, and leave weights and history in ``folder``."""
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
    for left_over in [
        *folder.glob(".*.tmp*"),
        *checkpoints.glob(".*.tmp*"),
    ]:  # of a killed run: we hold the lock
        remove(left_over)
    loggers = make_trackers(settings, folder)
    if recipe is not None:
        facts = provenance(str(device), 0.0)
        write_json(
            folder / RECIPE,
            {"recipe": dict(recipe), "provenance": {name: facts[name] for name in ORIGIN}},
        )
    network.gradient_checkpointing = settings.gradient_checkpointing
    first = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    if device.type == "cuda":
        torch.cuda.init()  # or an index is not known yet
        torch.cuda.reset_peak_memory_stats(device)
    with generators_kept(device):
        while True:
            if criterion is not None:
                criterion.to(device)
            try:
                history, kept = fit(
                    network, criterion, batches, settings, corruption, seed, device, folder, loggers
                )
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                batches = _halved(batches, network, device, error)
            network.zero_grad()
            garbage_collection_cuda()  # the failed run's trainer is full of cycles
            network.load_state_dict(first)  # where there is a checkpoint, it is loaded over these
    network.zero_grad()
    best = torch.load(kept.best, map_location="cpu", weights_only=True)
    network.load_state_dict(
        {name.removeprefix("network."): tensor for name, tensor in best["state_dict"].items()}
    )
    network.to(device)  # Lightning left it on the CPU
    seconds = [row["seconds"] for row in history.rows]
    stats = {
        "n_images": len(batches.training),
        "n_held_out": len(batches.held_out),
        "epochs": len(history.rows),
        "best_epoch": kept.best_epoch,
        "best_held_out_loss": kept.best_loss,
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
    """Half the images a batch, twice the batches a step; says so.

    Raises:
        ResourceError: there is nothing to halve.
    """
    size = batches.size
    if size == 1:
        first = (
            ""
            if network.gradient_checkpointing
            else "autoencoder.training.gradient_checkpointing=true, "
        )
        raise ResourceError(
            f"training of {network.name}: expected memory for one image of {network.image_size} px on {device}, found "
            f"too little; set {first}a smaller data.image_size or network"
        ) from error
    smaller = replace(batches, size=size // 2, accumulate=batches.accumulate * 2)
    print(
        f"training of {network.name}: out of memory with batches of {size}; on with {smaller.size}, "
        f"{smaller.accumulate} a step",
        flush=True,
    )
    return smaller
