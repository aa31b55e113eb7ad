"""What a training does when a number, the memory, the device or a package is missing; and what
trackers get.
"""

import importlib.util
import signal
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from nbhelpers.errors import ConfigError, DivergenceError, ModelError, ResourceError
from nbhelpers.models.autoencoders.training import fitting
from nbhelpers.models.autoencoders.training.module import SKIPPED
from tests.models.autoencoders.training.small_networks import Plain, Small, Squares, same_weights


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_says_where(run, value):
    class Fifth(Squares):
        calls = 0

        def forward(self, *pair):
            self.calls += 1  # two batches and one of held-out images an epoch
            loss, parts = super().forward(*pair)
            return (loss * value if self.calls == 5 else loss), parts

    with pytest.raises(
        ModelError, match=r"epoch 2: expected a finite loss.*c/train/good/\d.png.*learning_rate.*32"
    ):
        run("run", criterion=Fifth())


def test_a_held_out_loss_that_is_not_finite_stops_too(run):
    class Third(Squares):
        calls = 0

        def forward(self, *pair):
            self.calls += 1
            loss, parts = super().forward(*pair)
            return (loss * float("nan") if self.calls == 3 else loss), parts

    with pytest.raises(ModelError, match="epoch 1: expected a finite loss"):
        run("run", criterion=Third())


def test_a_gradient_that_is_not_finite_stops(run):
    class Root(nn.Module):  # finite at 0, its slope is not
        def forward(self, reconstructions, targets):
            return (reconstructions * 0).abs().sum().sqrt(), {}

    with pytest.raises(ModelError, match="epoch 1: expected a finite gradient"):
        run("run", criterion=Root())


def test_half_precision_skips_some_steps_and_no_more(run, monkeypatch):
    """On a CPU, with the scaler of a GPU's half precision."""

    class Half(MixedPrecision):
        def autocast_context_manager(self):
            return torch.autocast("cpu", dtype=torch.bfloat16)

    def trainer(precision, plugins, **options):
        half = Half("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        return Trainer(plugins=[*plugins, half], **options)

    class Root(Squares):  # finite at 0, its slope is not; in all steps but some
        steps, broken = 0, 0

        def forward(self, reconstructions, targets):
            self.steps += torch.is_grad_enabled()
            loss, parts = super().forward(reconstructions, targets)
            bad = torch.is_grad_enabled() and self.steps <= self.broken
            return loss + ((reconstructions * 0).abs().sum().sqrt() if bad else 0), parts

    monkeypatch.setattr(fitting.lightning, "Trainer", trainer)
    some, all_of_them = Root(), Root()
    some.broken, all_of_them.broken = 1, 10**6
    network, result = run("some", criterion=some)
    assert [("gradient_norm" in row) for row in result.history] == [True, True]
    assert not same_weights(network, Plain())
    with pytest.raises(
        DivergenceError, match="epoch 10: expected a finite gradient, found norm .*precision to 32"
    ):
        run("all", criterion=all_of_them, epochs=30)
    assert all_of_them.steps == SKIPPED == 20


def test_out_of_memory_halves_the_batch_and_keeps_the_step(run, capsys):
    network, result = run("small", Small(), batch_size=8)
    assert capsys.readouterr().out.splitlines() == [
        "training of plain: out of memory with batches of 8; continues with batches of 4, 2 per step",
        "training of plain: out of memory with batches of 4; continues with batches of 2, 4 per step",
    ]
    twin, other = run("twin", batch_size=2, accumulate=4)
    assert capsys.readouterr().out == ""
    assert (
        same_weights(network, twin) and result.stats["batch_size"] == other.stats["batch_size"] == 2
    )
    with pytest.raises(ResourceError, match="one image of 32 px on cpu.*gradient_checkpointing"):
        run("none", Small(fits=0), batch_size=2)
    with pytest.raises(
        ResourceError, match=r"found too little; set a smaller data.image_size or network$"
    ):
        run("on already", Small(fits=0), batch_size=2, gradient_checkpointing=True)


def test_out_of_memory_later_goes_on_from_the_checkpoint(run):
    _, whole = run("whole", epochs=3)
    _, result = run("late", Small(calls=3), epochs=3)  # an epoch is two batches and one held out
    assert [row["epoch"] for row in result.history] == [1, 2, 3] and result.stats["batch_size"] == 2
    assert result.history[0]["held_out_loss"] == whole.history[0]["held_out_loss"]
    assert result.history[1]["held_out_loss"] != whole.history[1]["held_out_loss"]


def test_ctrl_c_stays_ctrl_c(run):
    class Interrupted(nn.Module):
        def forward(self, *_):
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run("run", criterion=Interrupted())
    assert signal.getsignal(signal.SIGINT) is before


def test_says_nothing_but_the_bar(run, capfd, monkeypatch):
    from nbhelpers.models.autoencoders.training import callbacks

    monkeypatch.setattr(
        callbacks, "tqdm", partial(callbacks.tqdm, disable=False)
    )  # whatever TQDM_DISABLE says
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run("run")
    output = capfd.readouterr()
    assert output.out == "" and "2/2" in output.err and "held_out_loss=" in output.err
    assert all(
        line.startswith("train:") for line in output.err.replace("\r", "\n").splitlines() if line
    )
    assert [str(warning.message) for warning in caught if "lightning" in warning.filename] == []


def test_precision(run):
    from nbhelpers.models.autoencoders.training.fitting import lightning_precision

    names = [lightning_precision(name, torch.device("cpu")) for name in ("auto", "32", "bf16")]
    assert names == ["32-true", "32-true", "bf16-mixed"]
    assert lightning_precision("16", torch.device("cuda")) == "16-mixed"
    full, _ = run("full", precision="auto")
    half, result = run("half", precision="bf16")
    assert all(tensor.dtype == torch.float32 for tensor in half.state_dict().values())
    assert (
        not same_weights(full, half)
        and result.history[-1]["held_out_loss"] < result.history[0]["held_out_loss"]
    )
    with pytest.raises(
        ConfigError, match="precision: expected a CUDA device for 16, found cpu.*bf16 or 32"
    ):
        run("sixteen", precision="16")


def test_tensorboard_has_the_rows_and_the_reconstructions(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result = run("run", trackers=("tensorboard",))
    scalars, images = {}, []
    for file in (tmp_path / "run" / "tensorboard").glob("events.*"):
        events = EventAccumulator(str(file)).Reload()
        scalars |= {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        images += [image for tag in events.Tags()["images"] for image in events.Images(tag)]
    for name in ("held_out_loss", "train_mse", "learning_rate"):
        assert [event.step for event in scalars[name]] == [1, 2]
        assert [event.value for event in scalars[name]] == pytest.approx(
            [row[name] for row in result.history]
        )
    assert [(image.width, image.height) for image in images] == [
        (36, 70)
    ]  # one held-out image above its twin


def test_a_tracker_that_is_not_installed_is_refused_at_once(run, tmp_path, monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "wandb" else original(name, *more),
    )
    text = (
        r"tracker 'wandb': expected the package wandb, found none; pip install wandb or remove it"
    )
    with pytest.raises(ConfigError, match=text):
        run("run", trackers=("wandb",))
    assert not list((tmp_path / "run").glob("*"))
