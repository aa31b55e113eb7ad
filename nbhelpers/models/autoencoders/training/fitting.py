"""One run of Lightning's trainer, from the last checkpoint if there is one, quiet and
interruptible.
"""

from __future__ import annotations

import logging
import random
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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

#: What Lightning has to say of settings that are meant to be as they are.
CHATTER = (
    r".*does not have many workers.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*GPU available but not used.*",
    r".*MPS available but not used.*",
    r".*treespec, LeafSpec.* is deprecated.*",  # Lightning's own use of torch
    # half precision skipped all steps of the first epoch
    r".*Detected call of `lr_scheduler.step\(\)` before.*",
)


def lightning_precision(name: str, device: torch.device) -> str:
    """Lightning's name of a precision; ``auto`` is mixed on a CUDA device (bfloat16 where it has
    that), else 32.

    Raises:
        ConfigError: ``16`` elsewhere than on a CUDA device.
    """
    if name == "16" and device.type != "cuda":
        raise ConfigError(
            f"autoencoder.training.precision: expected a CUDA device for 16, found {device.type}; set it "
            "to auto, bf16 or 32"
        )
    if name == "auto":
        name = (
            "32"
            if device.type != "cuda"
            else "bf16"
            if torch.cuda.is_bf16_supported(False)
            else "16"
        )
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[name]


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
    """Train to the end, or until the held-out loss stays; goes on from the last checkpoint in
    ``folder``.

    Raises:
        DivergenceError: see ``TrainingModule``.
        ConfigError: see ``lightning_precision``.
    """
    history, checkpoints = (
        History(folder),
        Checkpoints(folder / "checkpoints", settings.checkpoint_every),
    )
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
    """Whether a device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's notes and tips off; its warnings stay but for those of ``CHATTER``."""
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
    """Ctrl-C stays what it is: Lightning makes an exit of it and ignores all that follow."""
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
    """The global generators of torch (CPU and CUDA), numpy and random are afterwards what they were
    before.
    """
    states = random.getstate(), np.random.get_state()
    devices = [device.index or 0] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
