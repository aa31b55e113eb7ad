"""What happens at the end of each epoch: the history, the progress bar, the checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from nbhelpers.files import replacing, write_json, write_text
from nbhelpers.models.autoencoders.training.files import HISTORY

METRICS, LAST = "metrics.csv", "last.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints atomically.

    Lightning's own way builds each checkpoint in memory first, which takes three times as long.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the checkpoint to a temporary name and rename it to ``path``."""
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class History(Callback):
    """Keeps one row per epoch.

    At the end of each epoch the rows are written as JSON and CSV, and the row is sent to the
    trackers and to the progress bar.

    Args:
        folder: Where the two files go.

    Attributes:
        rows: One dictionary per epoch; see ``trainer.Trained``. The checkpoints hold them, so a
            resumed training has all of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self._started = 0.0
        self._bar = tqdm(disable=True)  # shows nothing; ``on_train_start`` replaces it

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of the history."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.rows = list(state["rows"])

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Show the progress bar."""
        self._bar = tqdm(
            total=trainer.max_epochs, initial=len(self.rows), desc="train", unit="epoch"
        )

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Start the clock of the epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Write the row of the epoch."""
        epoch = trainer.current_epoch + 1
        row = {
            "epoch": epoch,
            **{name: float(value) for name, value in trainer.callback_metrics.items()},
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self._started, 4),
        }
        self.rows.append(row)
        write_json(self.folder / HISTORY, {"epochs": self.rows})
        write_text(
            self.folder / METRICS, pd.DataFrame(self.rows).to_csv(index=False, lineterminator="\n")
        )
        for logger in trainer.loggers:
            logger.log_metrics(
                {name: value for name, value in row.items() if name != "epoch"}, step=epoch
            )
        self._bar.set_postfix(
            {name: f"{row[name]:.4g}" for name in ("train_loss", "held_out_loss")}, refresh=False
        )
        self._bar.update()

    def teardown(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str
    ) -> None:
        """Close the progress bar."""
        self._bar.close()


class Checkpoints(Checkpoint):
    """Writes the checkpoints after each epoch.

    ``best-<epoch>.ckpt`` has the weights of the epoch with the lowest held-out loss so far. After
    it ``last.ckpt`` is written, which has everything that is needed to resume. Every ``every``
    epochs ``epoch-<epoch>.ckpt`` keeps a copy of the weights.

    Lightning's ModelCheckpoint would store absolute paths, and forget the best epoch in a folder
    that was moved. Here an older best checkpoint is removed only after ``last.ckpt`` names the
    newer one; a training that is killed in between leaves both.

    Args:
        folder: Where the checkpoints go.
        every: Number of epochs between two copies that are kept; 0 keeps none.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.best_epoch, self.best_loss = 0, float("inf")

    @property
    def best(self) -> Path:
        """Path of the best epoch's checkpoint."""
        return self.folder / f"best-{self.best_epoch:04d}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of the best epoch."""
        return {"best_epoch": self.best_epoch, "best_loss": self.best_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Keep a training stopped that had stopped early before it was killed."""
        early = trainer.early_stopping_callback
        if early is not None and early.wait_count >= early.patience:
            trainer.should_stop = True

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Write the checkpoints of the epoch, then remove an older best one."""
        loss, epoch = float(trainer.callback_metrics["held_out_loss"]), trainer.current_epoch + 1
        if loss < self.best_loss:
            self.best_epoch, self.best_loss = epoch, loss
            trainer.save_checkpoint(self.best, weights_only=True)
        if self.every and epoch % self.every == 0:
            trainer.save_checkpoint(self.folder / f"epoch-{epoch:04d}.ckpt", weights_only=True)
        trainer.save_checkpoint(self.folder / LAST)
        for older in set(self.folder.glob("best-*.ckpt")) - {self.best}:
            older.unlink()
