"""Optimisers, and learning rates over the epochs: a warm-up, then one of four schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from nbhelpers.config.autoencoders import TrainingConfig


def make_optimizer(parameters: Iterable[Parameter], settings: TrainingConfig) -> Optimizer:
    """Make the optimiser that ``settings.optimizer`` names.

    Args:
        parameters: What is trained.
        settings: ``optimizer`` is ``adam``, ``adamw`` (whose weight decay is separate from the
            gradient) or ``sgd`` (with momentum).
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)


def rate_factor(settings: TrainingConfig, epoch: int) -> float:
    """Compute the factor by which the learning rate is multiplied in an epoch.

    The warm-up rises linearly over ``warmup_epochs`` and would reach 1 in the next epoch, where the
    scheduler takes over. ``none`` stays at 1. ``cosine`` falls from 1 along half a period that
    would reach 0 after the last epoch. ``step`` multiplies by ``step_factor`` every
    ``step_epochs``. ``plateau`` multiplies by ``step_factor`` after more than ``plateau_epochs``
    epochs without a lower loss; that depends on the losses, so ``Schedule`` does it.

    Args:
        settings: The schedule and its numbers.
        epoch: Counted from 0.

    Returns:
        The factor, in [0, 1].
    """
    past = epoch - settings.warmup_epochs
    if past < 0:
        return (epoch + 1) / (settings.warmup_epochs + 1)
    if settings.scheduler == "cosine":
        return (1 + math.cos(math.pi * past / (settings.epochs - settings.warmup_epochs))) / 2
    if settings.scheduler == "step":
        return settings.step_factor ** (past // settings.step_epochs)
    return 1.0


class Schedule:
    """Sets the optimiser's learning rate after each epoch, before the checkpoint is written.

    Lightning would lower the rate of ``plateau`` after the checkpoint, and a training that resumes
    from there would continue with the old rate.

    Args:
        optimizer: The optimiser whose rate is set.
        settings: The schedule and its numbers.
    """

    def __init__(self, optimizer: Optimizer, settings: TrainingConfig) -> None:
        self.settings = settings
        self.planned = LambdaLR(optimizer, lambda epoch: rate_factor(settings, epoch))
        self.plateau = ReduceLROnPlateau(
            optimizer,
            factor=settings.step_factor,
            patience=settings.plateau_epochs,
            threshold=settings.min_delta,
            threshold_mode="abs",
        )

    def step(self, epoch: int, held_out_loss: float) -> None:
        """Set the rate of the next epoch; ``plateau`` lowers it only after the warm-up.

        Args:
            epoch: The epoch that has ended, counted from 0.
            held_out_loss: Its loss of the held-out images.
        """
        if self.settings.scheduler == "plateau" and epoch >= self.settings.warmup_epochs:
            self.plateau.step(held_out_loss)
        else:
            self.planned.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for the schedule."""
        return {"planned": self.planned.state_dict(), "plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.planned.load_state_dict(state["planned"])
        self.plateau.load_state_dict(state["plateau"])
