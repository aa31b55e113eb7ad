"""A training that is killed goes on and ends with the very weights and rows of one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nbhelpers.config import ROOT, load_config
from nbhelpers.config.autoencoders import TrainingConfig
from nbhelpers.data.layout import Sample
from nbhelpers.models.autoencoders.networks.registry import ARCHITECTURES, build_network
from nbhelpers.models.autoencoders.training.trainer import train
from tests.models.autoencoders.training.small_networks import same_weights

# all that is random at once: order, dropout, augmentation, corruption; and a rate that changes
# every epoch
SETTINGS = {
    "epochs": 5,
    "warmup_epochs": 1,
    "batch_size": 3,
    "augmentation": "industrial",
    "accumulate": 2,
    "scheduler": "cosine",
    "patience": 0,
    "precision": "auto",
}
SMALLEST = {
    "cnn": {"channels": (4, 8), "latent": 8},
    "resnet": {"backbone": "test_resnet", "latent": 8},
    "vit": {"patch": 8, "dim": 16, "depth": 1, "decoder_depth": 1, "heads": 2},
    "unet_lite": {"base": 4},
    "unet": {"channels": (4, 8), "dropout": 0.2},
    "reversed": {"channels": (4, 8), "bottleneck": 8},
    "diffusion": {"dim": 8, "mults": (1, 2)},
}
# calls of the criterion an epoch: seven images in batches of three, the last sits out; and the
# held-out one
STEPS = 3


class Stop(BaseException):
    """Not an error that anybody handles."""


class Counting(nn.Module):
    """Squares; at a given call it does something else first."""

    def __init__(self, at=0, act=None):
        super().__init__()
        self.calls, self.at, self.act = 0, at, act

    def forward(self, reconstructions, targets):
        self.calls += 1
        if self.calls == self.at:
            self.act()
        error = (reconstructions - targets).square().mean()
        return error, {"mse": error.detach()}


def stop():
    raise Stop


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def go(samples, folder, criterion=None, loader=None, **changes):
    """Train the small network; returns it, its rows without the seconds, and the criterion."""
    network = build_network("cnn", 32, seed=1, channels=(4, 8), latent=8, dropout=0.3)
    criterion = criterion or Counting()
    base = load_config().autoencoder.training.model_dump()
    result = train(
        network,
        criterion,
        samples,
        TrainingConfig(**{**base, **SETTINGS, **changes}),
        corruption="mask",
        seed=3,
        device="cpu",
        loader=loader or {},
        folder=folder,
    )
    rows = [
        {name: value for name, value in row.items() if name != "seconds"} for row in result.history
    ]
    return network, rows, criterion


@pytest.fixture(autouse=True, scope="module")
def one_thread():  # of the module, or what its other fixtures train would come before it
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(samples, tmp_path_factory):
    """The training that nothing interrupts."""
    return go(samples["train"], tmp_path_factory.mktemp("whole") / "run")


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


@pytest.mark.slow
def test_a_killed_process_goes_on_in_another(samples, whole, tmp_path):
    folder, environment = tmp_path / "run", {**os.environ, "PYTHONPATH": str(ROOT)}
    paths = [str(sample.image) for sample in samples["train"]]
    done = subprocess.run(
        [sys.executable, __file__, str(folder), *paths], env=environment, timeout=150, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert files(folder)[1:] == [
        "checkpoints/last.ckpt",
        "history.json",
        "metrics.csv",
    ]  # behind the best so far
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (
        checkpoint["epoch"] == 1
        and checkpoint["metrics"]["held_out_loss"] == whole[1][1]["held_out_loss"]
    )
    torn = folder / "checkpoints" / ".last.1.tmp.ckpt"
    torn.write_bytes(b"half a checkpoint")

    network, rows, criterion = go(samples["train"], folder)
    assert same_weights(network, whole[0]) and rows == whole[1]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert criterion.calls == 3 * STEPS  # no epoch twice
    assert files(folder) == ["history.json", "metrics.csv", "weights.safetensors"]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("at", [1, STEPS + 2, 3 * STEPS])
def test_wherever_it_stops_it_ends_alike(samples, whole, tmp_path, at):
    with pytest.raises(Stop):
        go(samples["train"], tmp_path / "run", Counting(at, stop))
    network, rows, _ = go(samples["train"], tmp_path / "run")
    assert same_weights(network, whole[0]) and rows == whole[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_ends_alike(samples, tmp_path, architecture):
    def once(folder, at=0):
        network = build_network(architecture, 32, seed=1, **SMALLEST[architecture])
        loss, calls = network.loss, iter(range(1, 100))
        network.loss = lambda *given, **named: (
            stop() if next(calls) == at else loss(*given, **named)
        )
        base = load_config().autoencoder.training.model_dump()
        settings = TrainingConfig(**{**base, **SETTINGS, "epochs": 3})
        result = train(
            network,
            Counting(),
            samples["train"],
            settings,
            seed=3,
            device="cpu",
            loader={},
            folder=folder,
        )
        return network, [row["held_out_loss"] for row in result.history]

    network, losses = once(tmp_path / "whole")
    with pytest.raises(Stop):
        once(tmp_path / "run", at=2 * STEPS + 2)
    again, same = once(tmp_path / "run")
    assert same_weights(network, again) and losses == same and len(set(losses)) == 3


def test_workers_change_nothing_and_resume_alike(samples, whole, tmp_path):
    loader = {"num_workers": 1, "persistent_workers": True, "prefetch_factor": 2}
    with pytest.raises(Stop):
        go(samples["train"], tmp_path / "run", Counting(2 * STEPS + 1, stop), loader)
    network, rows, _ = go(samples["train"], tmp_path / "run", loader=loader)
    assert same_weights(network, whole[0]) and rows == whole[1]


@pytest.mark.parametrize(
    "changes",
    [
        {
            "scheduler": "plateau",
            "plateau_epochs": 1,
            "min_delta": 9.0,
            "optimizer": "sgd",
            "epochs": 6,
        },
        {"scheduler": "step", "step_epochs": 1, "patience": 2, "min_delta": 9.0, "epochs": 6},
    ],
)
def test_rates_and_patience_go_on_where_they_were(samples, tmp_path, changes):
    network, rows, _ = go(samples["train"], tmp_path / "whole", **changes)
    assert len({row["learning_rate"] for row in rows}) > 2
    for at in (2 * STEPS + 1, 3 * STEPS - 1):
        with pytest.raises(Stop):
            go(samples["train"], tmp_path / f"run{at}", Counting(at, stop), **changes)
        again, same, _ = go(samples["train"], tmp_path / f"run{at}", **changes)
        assert same_weights(network, again) and rows == same


@pytest.mark.parametrize("changes", [{}, {"patience": 1, "min_delta": 9.0}])
def test_killed_after_the_last_epoch_trains_no_more(samples, tmp_path, changes):
    network, rows, _ = go(samples["train"], tmp_path / "run", keep_checkpoints=True, **changes)
    assert len(rows) == (2 if changes else 5)
    (tmp_path / "run" / "weights.safetensors").unlink()
    again, same, criterion = go(
        samples["train"], tmp_path / "run", keep_checkpoints=True, **changes
    )
    assert same_weights(network, again) and rows == same and criterion.calls == 0


def test_a_folder_may_be_moved_and_its_best_is_not_forgotten(samples, tmp_path):
    def rising():  # a loss that gets worse and worse
        class Rising(Counting):
            def forward(self, *pair):
                loss, parts = super().forward(*pair)
                return loss * 0 + loss.detach() * self.calls, parts

        return Rising(2 * STEPS + 1, stop)

    with pytest.raises(Stop):
        go(samples["train"], tmp_path / "there", rising())
    assert files(tmp_path / "there")[0] == "checkpoints/best-0001.ckpt"
    first = torch.load(tmp_path / "there" / "checkpoints" / "best-0001.ckpt", weights_only=True)
    (tmp_path / "there").rename(tmp_path / "here")
    criterion = rising()
    criterion.calls, criterion.at = 2 * STEPS, 0  # as many as the killed one had seen
    network, rows, _ = go(samples["train"], tmp_path / "here", criterion)
    assert min(rows, key=lambda row: row["held_out_loss"])["epoch"] == 1
    assert all(
        torch.equal(tensor, first["state_dict"][f"network.{name}"])
        for name, tensor in network.state_dict().items()
    )


def test_checkpoints_that_stay(samples, tmp_path):
    go(samples["train"], tmp_path / "run", keep_checkpoints=True, checkpoint_every=2)
    kept = [name for name in files(tmp_path / "run") if name.startswith("checkpoints")]
    assert [name for name in kept if "best" not in name] == [
        "checkpoints/epoch-0002.ckpt",
        "checkpoints/epoch-0004.ckpt",
        "checkpoints/last.ckpt",
    ]
    assert len(kept) == 4
    stored = torch.load(tmp_path / "run" / "checkpoints" / "epoch-0004.ckpt", weights_only=True)
    assert stored["epoch"] == 3 and set(stored["metrics"]) >= {
        "held_out_loss",
        "train_loss",
        "gradient_norm",
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = [
        Sample(f"c/train/good/{i}.png", Path(path), None, "c", "good")
        for i, path in enumerate(sys.argv[2:])
    ]
    go(given, Path(sys.argv[1]), Counting(2 * STEPS + 2, kill))
