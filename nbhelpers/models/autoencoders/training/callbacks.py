"""What happens at the end of each epoch: history, progress, checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from nbhelpers.files import replacing, write_json, write_text
from nbhelpers.models.autoencoders.training.files import HISTORY

METRICS, LAST = "metrics.csv", "last.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Checkpoints are there whole or not at all; Lightning's own way builds each in memory first,
    at three times the time.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Path, storage_options: Any = None
    ) -> None:
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class History(Callback):
    """One row an epoch, written at its end as JSON and CSV, to the trackers, and to the bar on the
    standard error.

    Args:
        folder: Where the two files go.

    Attributes:
        rows: See ``trainer.Trained``. They are part of the checkpoints, so a resumed training has
            them all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []
        self._started, self._bar = 0.0, None

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._bar = tqdm(
            total=trainer.max_epochs, initial=len(self.rows), desc="train", unit="epoch"
        )

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        row = {
            "epoch": trainer.current_epoch + 1,
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
                {name: value for name, value in row.items() if name != "epoch"}, step=row["epoch"]
            )
        self._bar.set_postfix(
            {name: f"{row[name]:.4g}" for name in ("train_loss", "held_out_loss")}, refresh=False
        )
        self._bar.update()

    def teardown(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class Checkpoints(Checkpoint):
    """After each epoch: ``best-<epoch>.ckpt`` (weights), where the held-out loss is the lowest so
    far, then ``last.ckpt`` (all that is needed to go on); every so many epochs a copy of the
    weights that stays.

    Lightning's ModelCheckpoint would note absolute paths, and start the search for the best anew in
    a folder that was moved. Here an older best goes when ``last.ckpt`` knows of the newer one:
    killed in between, both are there.

    Args:
        folder: Where they go.
        every: Epochs between those that stay; 0 is none.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.best_epoch, self.best_loss = 0, float("inf")

    @property
    def best(self) -> Path:
        """The best epoch's weights and metrics."""
        return self.folder / f"best-{self.best_epoch:04d}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best_epoch": self.best_epoch, "best_loss": self.best_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        early = next((c for c in trainer.callbacks if isinstance(c, EarlyStopping)), None)
        if (
            early is not None and early.wait_count >= early.patience
        ):  # resumed where it had just stopped
            trainer.should_stop = True

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        loss, epoch = float(trainer.callback_metrics["held_out_loss"]), trainer.current_epoch + 1
        if loss < self.best_loss:
            self.best_epoch, self.best_loss = epoch, loss
            trainer.save_checkpoint(self.best, weights_only=True)
        if self.every and epoch % self.every == 0:
            trainer.save_checkpoint(self.folder / f"epoch-{epoch:04d}.ckpt", weights_only=True)
        trainer.save_checkpoint(self.folder / LAST)
        for older in set(self.folder.glob("best-*.ckpt")) - {self.best}:
            older.unlink()
