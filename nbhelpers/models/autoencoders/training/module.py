"""One training step and one validation step, as Lightning asks for them; Lightning runs them."""

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
    "lower autoencoder.training.learning_rate, set clip_norm to 1 or less, or set precision to 32 if it is 16 or "
    "bf16"
)
#: Steps in a row that half precision may skip: its first scale, 2^16, is halved by each, and below
#: 1 there is no use.
SKIPPED = 20


class TrainingModule(lightning.LightningModule):
    """An autoencoder, what it is compared by, and the images. Trackers get their numbers from
    ``History``, not here.

    Args:
        network: What is trained.
        criterion: See ``BaseAutoencoder.loss``; on the right device already.
        batches: The images.
        settings: Optimiser, schedule, clipping.
        corruption: See ``batches.corrupt``; of the held-out images too, or copying would look best.
        seed: Of all that is random.

    Raises:
        DivergenceError: while training, for a loss or a gradient that is not finite.
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
        # bound, so that the criterion is no submodule: its frozen network has no place in a
        # checkpoint
        self.compare = partial(network.loss, criterion=criterion)
        self.batches, self.settings, self.corruption, self.seed = (
            batches,
            settings,
            corruption,
            seed,
        )
        self._restored: dict[str, Any] | None = None
        self._skipped = 0

    def train_dataloader(self) -> DataLoader:
        return self.batches.training_loader(self.trainer.fit_loop.epoch_progress.current.processed)

    def val_dataloader(self) -> DataLoader:
        return self.batches.held_out_loader()

    def configure_optimizers(self) -> Optimizer:
        optimizer = make_optimizer(
            (p for p in self.network.parameters() if p.requires_grad), self.settings
        )
        self.schedule = Schedule(optimizer, self.settings)
        return optimizer

    # -- state
    # --------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["schedule"] = self.schedule.state_dict()
        checkpoint["metrics"] = {
            name: float(value) for name, value in self.trainer.callback_metrics.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint["schedule"]

    def on_train_start(self) -> None:
        if (
            self._restored is not None
        ):  # here, since there is no optimiser yet when a checkpoint is loaded
            self.schedule.load_state_dict(self._restored)

    def on_train_epoch_start(self) -> None:
        # dropout, and the diffusion's noise, draw from the global generators
        seed = derived_seed(self.seed, "epoch", self.current_epoch)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":  # torch.manual_seed would seed those of other GPUs too
            torch.get_device_module(self.device).manual_seed(seed)

    def on_train_epoch_end(self) -> None:
        self.schedule.step(
            self.current_epoch, float(self.trainer.callback_metrics["held_out_loss"])
        )

    # -- steps
    # --------------------------------------------------------------------------------------

    def training_step(self, batch: tuple[Tensor, list[str]], index: int) -> Tensor:
        targets, names = batch
        inputs = corrupt(
            targets, self.corruption, derived_seed(self.seed, "corrupt", self.current_epoch, index)
        )
        loss, parts = self.compare(inputs, targets)
        self._check(loss, names)
        values = {"train_loss": loss.detach()} | {
            f"train_{name}": part.detach() for name, part in parts.items()
        }
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(targets), logger=False)
        return loss * self.batches.share(index)

    def validation_step(self, batch: tuple[Tensor, list[str]], index: int) -> None:
        targets, names = batch
        inputs = corrupt(
            targets, self.corruption, derived_seed(self.seed, "corrupt held-out", index)
        )
        loss, _ = self.compare(inputs, targets)
        self._check(loss, names)
        self.log("held_out_loss", loss, batch_size=len(targets), logger=False)

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip the whole gradient's norm; the largest norm of the epoch, before and after, goes to
        the history.
        """
        weights = list(self.network.parameters())
        norm = nn.utils.clip_grad_norm_(weights, self.settings.clip_norm or torch.inf)
        if not torch.isfinite(norm):
            self._skipped += 1
            if (
                getattr(self.trainer.precision_plugin, "scaler", None) is not None
                and self._skipped < SKIPPED
            ):
                # the scale of half precision was too large: this step is skipped, the next one has
                # a smaller
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
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"epoch {self.current_epoch + 1}: expected a finite loss, found {loss.item()} for "
                f"{', '.join(names)}; look at these images, or {ADVICE}"
            )
