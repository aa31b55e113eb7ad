"""Optimisers and learning rates: a linear warm-up, then constant, cosine, steps, or down where the
loss stays.
"""

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
    """``adam``, ``adamw`` (decay apart from the gradient) or ``sgd`` with momentum."""
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, **options)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer](
        parameters, **options
    )


def rate_factor(settings: TrainingConfig, epoch: int) -> float:
    """What the learning rate is multiplied with in an epoch, counted from 0.

    The warm-up rises linearly over ``warmup_epochs`` and would reach 1 in the epoch after them,
    where the scheduler takes over: ``cosine`` falls from 1 along half a period that would end at 0
    after the last epoch; ``step`` multiplies with ``step_factor`` every ``step_epochs``.
    ``plateau`` does it after more than ``plateau_epochs`` epochs without a lower loss, and is no
    part of this.
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
    """Sets the optimiser's rate after each epoch, before the checkpoint.

    Not left to Lightning, which moves a plateau's rate after the checkpoint was written: a training
    that resumed there would go on with the old one.
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
        """After an epoch, counted from 0: on to the next one's rate. A plateau is looked for after
        the warm-up only.
        """
        if self.settings.scheduler == "plateau" and epoch >= self.settings.warmup_epochs:
            self.plateau.step(held_out_loss)
        else:
            self.planned.step()

    def state_dict(self) -> dict[str, Any]:
        return {"planned": self.planned.state_dict(), "plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.planned.load_state_dict(state["planned"])
        self.plateau.load_state_dict(state["plateau"])
