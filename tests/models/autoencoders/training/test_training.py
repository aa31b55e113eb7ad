"""Training: optimisers and rates by hand, accumulation, clipping, the best epoch, stopping, files,
generators.
"""

import ast
import csv
import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from nbhelpers.config import ROOT, load_config
from nbhelpers.errors import ConfigError, ModelError
from nbhelpers.models.autoencoders.networks.registry import build_network
from nbhelpers.models.autoencoders.training.batches import TrainingImages, hold_out
from tests.models.autoencoders.training.small_networks import (
    BASE,
    Constant,
    Level,
    Never,
    Plain,
    same_weights,
)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_two_epochs_of_one_batch_are_two_steps_of_torch(samples, run, optimizer, kind):
    network, _ = run("run", optimizer=optimizer, learning_rate=0.02, weight_decay=0.1, batch_size=8)
    training, _ = hold_out(samples["train"], BASE["held_out_share"], 3, "held-out")
    images = torch.stack([TrainingImages(training, 32)[0, i][0] for i in range(7)])
    twin = Plain()
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    steps = kind(twin.parameters(), lr=0.02, weight_decay=0.1, **options)
    for _ in range(2):
        steps.zero_grad()
        (twin(images) - images).square().mean().backward()
        steps.step()
    for name, tensor in twin.state_dict().items():
        assert torch.allclose(network.state_dict()[name], tensor, atol=1e-6), name
        assert not torch.allclose(Plain().state_dict()[name], tensor, atol=1e-5)


def test_twice_four_images_are_eight(run):
    whole, result = run("whole", batch_size=8)
    parts, other = run("parts", batch_size=4, accumulate=2)  # four and three
    single, _ = run("single", batch_size=4)
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, parts.state_dict()[name], atol=1e-6)
        assert not torch.allclose(tensor, single.state_dict()[name], atol=1e-6)
    for key in ("train_loss", "held_out_loss", "gradient_norm"):
        assert result.history[-1][key] == pytest.approx(other.history[-1][key], rel=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "factors"),
    [
        ("none", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("cosine", [1 / 3, 2 / 3, 1, 0.5 + 2**0.5 / 4, 0.5, 0.5 - 2**0.5 / 4]),
        ("step", [1 / 3, 2 / 3, 1, 1, 0.1, 0.1]),
        (
            "plateau",
            [1 / 3, 2 / 3, 1, 1, 1, 1, 0.1],
        ),  # the first after the warm-up is the best, then plateau_epochs + 1
    ],
)
def test_rates_rise_linearly_and_follow_the_scheduler(run, scheduler, factors):
    _, result = run(
        "run",
        criterion=Constant(),
        scheduler=scheduler,
        warmup_epochs=2,
        step_epochs=2,
        plateau_epochs=2,
        epochs=len(factors),
        learning_rate=0.01,
    )
    assert [row["learning_rate"] for row in result.history] == pytest.approx(
        [0.01 * factor for factor in factors]
    )


def test_a_warm_up_that_never_ends_is_refused():
    with pytest.raises(ConfigError, match=r"warmup_epochs': expected fewer than epochs \(3\)"):
        load_config("mvtec", {"autoencoder.training.epochs": 3})


def test_gradients_are_clipped(run):
    _, free = run("free")
    _, tight = run("tight", clip_norm=0.01)
    assert all(row["gradient_norm"] == row["gradient_norm_clipped"] > 0.05 for row in free.history)
    assert all(row["gradient_norm"] > 0.05 for row in tight.history)
    assert all(row["gradient_norm_clipped"] <= 0.01 * (1 + 1e-6) for row in tight.history)


def test_gradient_checkpointing_changes_no_weight(run):
    sizes = {"channels": (4, 8), "latent": 8, "seed": 1}
    first, _ = run("first", build_network("cnn", 32, **sizes))
    second, _ = run("second", build_network("cnn", 32, **sizes), gradient_checkpointing=True)
    assert second.gradient_checkpointing and same_weights(first, second)


def test_a_network_that_asks_no_criterion_needs_none(run):
    network = build_network(
        "diffusion", 32, dim=8, mults=(1, 2), timesteps=100, noise_to=20, steps=2
    )
    assert type(network).uses_criterion is False
    history = run("run", network, batch_size=8)[1].history
    assert len(history) == 2 and {"train_noise", "held_out_loss"} <= history[0].keys()


def test_the_best_epoch_is_returned_not_the_last(run):
    network, result = run(
        "run",
        Level(),
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        learning_rate=0.2,
        epochs=4,
        batch_size=8,
    )
    assert [row["held_out_loss"] for row in result.history] == pytest.approx(
        [0.25, 0.05, 0.15, 0.35]
    )
    assert float(network.level.detach()) == pytest.approx(0.4) and not network.training
    assert result.stats["best_epoch"] == 2 and result.stats["best_held_out_loss"] == pytest.approx(
        0.05
    )
    assert result.stats["epochs"] == 4 and all(p.grad is None for p in network.parameters())


def test_stops_when_the_held_out_loss_stays(run):
    _, result = run("stays", criterion=Constant(), patience=2, epochs=9)
    assert len(result.history) == result.stats["epochs"] == 3 and result.stats["best_epoch"] == 1
    assert len(run("never", criterion=Constant(), patience=0, epochs=5)[1].history) == 5
    sinks = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "learning_rate": 0.01,
        "batch_size": 8,
    }
    # by 0.01 an epoch: three together are more than the first min_delta, and less than the second
    for name, min_delta, epochs in (("quick", 0.02, 9), ("slow", 0.2, 4)):
        _, result = run(name, Level(), patience=3, min_delta=min_delta, epochs=9, **sinks)
        assert len(result.history) == epochs


def test_a_finished_training_is_loaded_and_its_files_agree(run, tmp_path):
    network, result = run("run")
    again, second = run("run", criterion=Never())
    assert same_weights(network, again) and not again.training and result == second
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.json",
        "metrics.csv",
        "weights.safetensors",
    ]
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == result.history
    assert json.loads((folder / "history.json").read_text())["stats"] == result.stats
    assert set(result.history[0]) == {
        "epoch",
        "train_loss",
        "train_mse",
        "held_out_loss",
        "learning_rate",
        "gradient_norm",
        "gradient_norm_clipped",
        "seconds",
    }
    assert [row["epoch"] for row in result.history] == [1, 2]

    with pytest.raises(ModelError, match="remove the folder and train again"):
        run("run", build_network("cnn", 32, channels=(4, 8), latent=8))
    history = (folder / "history.json").read_text()
    for text in ("", history[:-30], '{"epochs": []}', "[]", None):
        if text is None:
            (folder / "history.json").unlink()
        else:
            (folder / "history.json").write_text(text)
        with pytest.raises(
            ModelError,
            match="history.json, found others or damaged ones.*remove the folder and train",
        ):
            run("run")
    (folder / "history.json").write_text(history)
    (folder / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="remove the folder and train again"):
        run("run")


def test_who_only_loads_does_not_import_lightning():
    for name in ("trainer", "batches", "schedule"):
        folder = ROOT / "nbhelpers" / "models" / "autoencoders" / "training"
        tree = ast.parse((folder / f"{name}.py").read_text())
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        modules = {alias.name for node in imports for alias in node.names} | {
            getattr(node, "module", "") for node in imports
        }
        assert len(modules) > 5
        assert not any(
            module.split(".")[0] == "lightning"
            or module.endswith((".fitting", ".trackers", ".callbacks"))
            for module in modules
        )


def test_global_generators_are_left_alone(run, monkeypatch):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())

    monkeypatch.setattr(
        torch.cuda,
        "manual_seed_all",
        lambda seed: pytest.fail("the generators of GPUs were seeded"),
    )
    before = states()
    network = build_network("cnn", 32, channels=(4, 8), latent=8, dropout=0.5)
    run("run", network, corruption="mask", augmentation="industrial")
    assert states() == before

    class Broken(nn.Module):
        def forward(self, *_):
            torch.rand(1), random.random(), np.random.rand()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run("broken", criterion=Broken())
    assert states() == before
