"""One run of Lightning's trainer: it resumes from a checkpoint, is quiet and can be interrupted."""

from __future__ import annotations

import logging
import random
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.memory import is_oom_error
from torch import nn

from nbhelpers.config.autoencoders import TrainingConfig
from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.training.batches import Batches
from nbhelpers.models.autoencoders.training.callbacks import LAST, Checkpoints, History, WholeFiles
from nbhelpers.models.autoencoders.training.module import TrainingModule

#: Lightning's name of a precision, by the name in our settings.
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}
#: Lightning's warnings about settings that are intended.
CHATTER = (
    r".*does not have many workers.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*GPU available but not used.*",
    r".*MPS available but not used.*",
    r".*treespec, LeafSpec.* is deprecated.*",  # Lightning itself uses it
    # appears if half precision skips all steps of the first epoch
    r".*Detected call of `lr_scheduler.step\(\)` before.*",
)


def lightning_precision(
    name: str, device: torch.device
) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return Lightning's name of a precision.

    Args:
        name: ``32``, ``bf16``, ``16`` or ``auto``. The last one is mixed precision on a CUDA device
            (bfloat16 if the device has it, else float16), and 32 on any other.
        device: Where the network is trained.

    Raises:
        ConfigError: If ``16`` is set for a device other than a CUDA device.
    """
    if name == "16" and device.type != "cuda":
        raise ConfigError(
            f"autoencoder.training.precision: expected a CUDA device for 16, found {device.type}; "
            "set it to auto, bf16 or 32"
        )
    if name == "auto" and device.type != "cuda":
        name = "32"
    elif name == "auto":
        name = "bf16" if torch.cuda.is_bf16_supported(False) else "16"
    return PRECISIONS[name]


def fit(
    network: BaseAutoencoder,
    criterion: nn.Module | None,
    batches: Batches,
    settings: TrainingConfig,
    corruption: str,
    seed: int,
    device: torch.device,
    folder: Path,
    loggers: Sequence[Logger],
) -> tuple[History, Checkpoints]:
    """Train until the last epoch, or until the held-out loss no longer falls.

    A training that was killed resumes from the last checkpoint in ``folder``.

    Args:
        network: What is trained, in place.
        criterion: See ``BaseAutoencoder.loss``.
        batches: The images.
        settings: Optimiser, schedule, precision, early stopping.
        corruption: See ``batches.corrupt``.
        seed: Seed of everything random.
        device: Where the network is trained.
        folder: The training's folder.
        loggers: Trackers.

    Returns:
        The history and the checkpoints.

    Raises:
        DivergenceError: If the loss or its gradient is not finite; see ``TrainingModule``.
        ConfigError: If the device lacks the precision; see ``lightning_precision``.
    """
    history = History(folder)
    checkpoints = Checkpoints(folder / "checkpoints", settings.checkpoint_every)
    callbacks: list[Callback] = [history, checkpoints]
    if settings.patience:
        callbacks.append(EarlyStopping("held_out_loss", settings.min_delta, settings.patience))
    with quiet():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision=lightning_precision(settings.precision, device),
            max_epochs=settings.epochs,
            accumulate_grad_batches=batches.accumulate,
            callbacks=callbacks,
            logger=list(loggers) or False,
            plugins=[WholeFiles()],
            default_root_dir=folder,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = TrainingModule(network.train(), criterion, batches, settings, corruption, seed)
        last = checkpoints.folder / LAST
        with interruptible():
            trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
    return history, checkpoints


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's notes and tips, and the warnings of ``CHATTER``; other warnings appear."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for text in CHATTER:
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, which Lightning turns into an exit.

    Lightning would also ignore any further Ctrl-C.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Restore the global generators of torch (CPU and CUDA), NumPy and ``random`` afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [device.index or 0] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
