"""One training step and one validation step of an autoencoder, as Lightning runs them."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from nbhelpers.config.autoencoders import TrainingConfig
from nbhelpers.errors import DivergenceError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.training.batches import Batches, corrupt, derived_seed
from nbhelpers.models.autoencoders.training.schedule import Schedule, make_optimizer

ADVICE = (
    "lower autoencoder.training.learning_rate, set clip_norm to 1 or less, or set precision to 32 "
    "if it is 16 or bf16"
)
#: How many steps in a row half precision may skip. Each of them halves the loss scale, which starts
#: at 2^16: after 20 it is below 1, and the training gives up.
SKIPPED = 20


class TrainingModule(lightning.LightningModule):
    """An autoencoder with its criterion and its images, as Lightning trains it.

    The trackers get their numbers from ``History``, not from here.

    Args:
        network: What is trained.
        criterion: See ``BaseAutoencoder.loss``; it is already on the network's device.
        batches: The images.
        settings: Optimiser, schedule, clipping.
        corruption: See ``batches.corrupt``. The held-out images are corrupted as well: otherwise a
            network that copies its input would seem the best.
        seed: Seed of everything random.

    Raises:
        DivergenceError: While training, if a loss or a gradient is not finite.
    """

    def __init__(
        self,
        network: BaseAutoencoder,
        criterion: nn.Module | None,
        batches: Batches,
        settings: TrainingConfig,
        corruption: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        # bound to the function, so that the criterion does not become a submodule: its frozen
        # network does not belong in a checkpoint
        self.compare = partial(network.loss, criterion=criterion)
        self.batches = batches
        self.settings = settings
        self.corruption = corruption
        self.seed = seed
        self._restored: dict[str, Any] | None = None
        self._skipped = 0

    def train_dataloader(self) -> DataLoader:
        """Make the loader of the training images, from the epoch that comes next."""
        progress = self.trainer.fit_loop.epoch_progress.current
        # the fit loop counts with a tracker that has ``processed``; the declared type lacks it
        return self.batches.training_loader(progress.processed)  # type: ignore[attr-defined]

    def val_dataloader(self) -> DataLoader:
        """Make the loader of the held-out images."""
        return self.batches.held_out_loader()

    def configure_optimizers(self) -> Optimizer:
        """Make the optimiser and the schedule of its learning rate."""
        optimizer = make_optimizer(
            (p for p in self.network.parameters() if p.requires_grad), self.settings
        )
        self.schedule = Schedule(optimizer, self.settings)
        return optimizer

    # -- state --

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the schedule and the epoch's metrics to the checkpoint."""
        checkpoint["schedule"] = self.schedule.state_dict()
        checkpoint["metrics"] = {
            name: float(value) for name, value in self.trainer.callback_metrics.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the schedule's state until the optimiser exists."""
        self._restored = checkpoint["schedule"]

    def on_train_start(self) -> None:
        """Restore the schedule: when a checkpoint is loaded, the optimiser does not exist yet."""
        if self._restored is not None:
            self.schedule.load_state_dict(self._restored)

    def on_train_epoch_start(self) -> None:
        """Seed the global generators, from which dropout and the diffusion's noise are drawn."""
        seed = derived_seed(self.seed, "epoch", self.current_epoch)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":  # torch.manual_seed would seed other GPUs as well
            torch.get_device_module(self.device).manual_seed(seed)

    def on_train_epoch_end(self) -> None:
        """Set the learning rate of the next epoch."""
        self.schedule.step(
            self.current_epoch, float(self.trainer.callback_metrics["held_out_loss"])
        )

    # -- steps --

    def training_step(self, batch: tuple[Tensor, list[str]], index: int) -> Tensor:
        """Compute the loss of one batch, weighted by its share of the optimiser's step.

        Args:
            batch: Images ``(B, 3, H, W)`` in [-1, 1] and their samples' ids.
            index: The batch's number in the epoch, from 0.
        """
        targets, names = batch
        inputs = corrupt(
            targets, self.corruption, derived_seed(self.seed, "corrupt", self.current_epoch, index)
        )
        loss, terms = self.compare(inputs, targets)
        self._check(loss, names)
        values = {"train_loss": loss.detach()} | {
            f"train_{name}": term.detach() for name, term in terms.items()
        }
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(targets), logger=False)
        return loss * self.batches.share(index)

    def validation_step(self, batch: tuple[Tensor, list[str]], index: int) -> None:
        """Measure the loss of one batch of held-out images."""
        targets, names = batch
        inputs = corrupt(
            targets, self.corruption, derived_seed(self.seed, "corrupt held-out", index)
        )
        loss, _ = self.compare(inputs, targets)
        self._check(loss, names)
        self.log("held_out_loss", loss, batch_size=len(targets), logger=False)

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip the norm of the whole gradient.

        The largest norm of the epoch, before and after clipping, goes to the history.
        """
        weights = list(self.network.parameters())
        norm = nn.utils.clip_grad_norm_(weights, self.settings.clip_norm or torch.inf)
        if not torch.isfinite(norm):
            self._skipped += 1
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None and self._skipped < SKIPPED:
                # the loss scale of half precision was too large: this step is skipped, and the
                # next one has a smaller scale
                return
            raise DivergenceError(
                f"epoch {self.current_epoch + 1}: expected a finite gradient, found norm {norm}; "
                f"{ADVICE}"
            )
        self._skipped = 0
        clipped = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        for name, value in (("gradient_norm", norm), ("gradient_norm_clipped", clipped)):
            self.log(name, value, on_step=False, on_epoch=True, reduce_fx="max", logger=False)

    def _check(self, loss: Tensor, names: list[str]) -> None:
        """Raise DivergenceError, with the images' ids, if the loss is not finite."""
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"epoch {self.current_epoch + 1}: expected a finite loss, found {loss.item()} for "
                f"{', '.join(names)}; look at these images, or {ADVICE}"
            )
