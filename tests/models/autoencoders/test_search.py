"""The search for training settings: on held-out training images, killed and resumed, ranked, drawn."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nbhelpers.config import digest, load_config
from nbhelpers.data import images as image_module
from nbhelpers.errors import ConfigError, DivergenceError
from nbhelpers.figures.search import plot_search
from nbhelpers.models.autoencoders import search as search_module
from nbhelpers.models.autoencoders.networks.registry import build_network
from nbhelpers.models.autoencoders.search import importance, open_trials, search
from nbhelpers.models.autoencoders.training import batches as batches_module
from nbhelpers.models.autoencoders.training.batches import TrainingImages, hold_out
from nbhelpers.runner import commands
from nbhelpers.runner import search as search_command

CONFIG = load_config().autoencoder
SPACE = CONFIG.search.model_copy(update={"trials": 4, "epochs": 2, "batch_size": (4, 8)})
SETTINGS = CONFIG.training.model_copy(
    update={"warmup_epochs": 0, "patience": 0, "precision": "auto"}
)


class Squares(nn.Module):
    """Squared error; at a given call it stops."""

    def __init__(self, at=0):
        super().__init__()
        self.calls, self.at = 0, at

    def forward(self, reconstructions, targets):
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("stopped")
        return (reconstructions - targets).square().mean(), {}


def build():
    return build_network("cnn", 32, seed=1, channels=(4, 8), latent=8)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def go(samples, folder, criterion=None, trials=4, groups=None):
    space = SPACE.model_copy(update={"trials": trials})
    return search(
        build,
        criterion or Squares(),
        samples["train"],
        SETTINGS,
        space,
        groups=groups,
        seed=5,
        device="cpu",
        loader={},
        folder=folder,
    )


@pytest.fixture(scope="module")
def searched(samples, tmp_path_factory):
    """A search that nothing interrupts, and its folder."""
    folder = tmp_path_factory.mktemp("search") / "whole"
    return go(samples, folder), folder


def test_ranked_within_the_space_and_written(searched):
    table, folder = searched
    assert list(table["rank"]) == [1, 2, 3, 4] and sorted(table.trial) == [1, 2, 3, 4]
    assert table.held_out_mse.is_monotonic_increasing and (table.held_out_mse > 0).all()
    assert (
        table.learning_rate.between(*SPACE.learning_rate).all()
        and table.learning_rate.nunique() == 4
    )
    assert table.weight_decay.between(*SPACE.weight_decay).all()
    assert set(table.optimizer) <= {"adam", "adamw"} and set(table.batch_size) <= {4, 8}
    assert (table.epochs == 2).all()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "trials.csv"), table)
    assert not (folder / "trial").exists()


def watch(monkeypatch):
    """The paths that trainings open from now on, and those that the measuring does."""
    trained, measured = [], []
    for module, seen in ((batches_module, trained), (image_module, measured)):

        def read(path, reading, read=module.read_image, seen=seen):
            seen.append(path)
            return read(path, reading)

        monkeypatch.setattr(module, "read_image", read)
    return trained, measured


def test_the_error_is_that_of_images_no_training_saw(samples, searched, tmp_path, monkeypatch):
    trained, measured = watch(monkeypatch)
    again = go(samples, tmp_path / "one", trials=1)
    _, held_out = hold_out(samples["train"], SETTINGS.held_out_share, 5, "search")
    assert measured == [sample.image for sample in held_out]
    assert {*trained, *measured} == {sample.image for sample in samples["train"]} and not {
        *trained
    } & {*measured}

    # the value by hand: the same network, trained by itself
    from nbhelpers.models.autoencoders.training.trainer import train

    row = again.iloc[0]
    settings = SETTINGS.model_copy(
        update={
            "learning_rate": float(row.learning_rate),
            "weight_decay": float(row.weight_decay),
            "optimizer": row.optimizer,
            "batch_size": int(row.batch_size),
            "epochs": 2,
        }
    )
    network = build()
    training = [sample for sample in samples["train"] if sample not in held_out]
    train(
        network,
        Squares(),
        training,
        settings,
        seed=5,
        device="cpu",
        loader={},
        folder=tmp_path / "twin",
    )
    image = torch.stack([TrainingImages(held_out, 32)[0, i][0] for i in range(len(held_out))])
    assert row.held_out_mse == pytest.approx(
        float((network.reconstruct(image) - image).square().mean()), rel=1e-6
    )
    assert row.held_out_mse == searched[0].set_index("trial").held_out_mse[1]


def test_a_search_that_stopped_goes_on_and_draws_the_same(samples, searched, tmp_path):
    criterion = Squares(at=7)
    with pytest.raises(RuntimeError, match="stopped"):
        go(samples, tmp_path / "run", criterion)
    assert len(pd.read_csv(tmp_path / "run" / "trials.csv")) < 4
    criterion.at = 0
    table = go(samples, tmp_path / "run", criterion)
    pd.testing.assert_frame_equal(
        table.drop(columns="seconds"), searched[0].drop(columns="seconds")
    )
    calls = criterion.calls
    pd.testing.assert_frame_equal(go(samples, tmp_path / "run", criterion), table)
    assert criterion.calls == calls  # it was done
    assert sorted(go(samples, tmp_path / "run", criterion, trials=5).trial) == [1, 2, 3, 4, 5]


class Diverges(Squares):
    """Squared error; while the rate is above a limit, it is not finite."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, reconstructions, targets):
        loss, parts = super().forward(reconstructions, targets)
        return loss * (float("nan") if self.rate > self.limit else 1), parts


def diverging(monkeypatch, limit):
    criterion, real = Diverges(limit), search_module.train

    def train(network, criterion, given, settings, **more):
        criterion.rate = settings.learning_rate
        return real(network, criterion, given, settings, **more)

    monkeypatch.setattr(search_module, "train", train)
    return criterion


def test_a_trial_that_diverges_is_a_finding_and_not_repeated(
    samples, searched, tmp_path, monkeypatch
):
    rates = searched[0].set_index("trial").learning_rate
    criterion = diverging(monkeypatch, limit=float(rates[1]) * 0.99)
    table = go(samples, tmp_path / "run", criterion)
    first = table.set_index("trial").loc[1]
    assert len(table) == 4 and np.isnan(first.held_out_mse) and first["rank"] == 4
    assert first.learning_rate == rates[1] and table.held_out_mse[:2].notna().all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "trials.csv"), table)
    calls = criterion.calls
    pd.testing.assert_frame_equal(go(samples, tmp_path / "run", criterion), table)
    assert criterion.calls == calls
    plot_search(table, {})


def test_a_search_in_which_all_diverge_says_so(samples, tmp_path, monkeypatch):
    with pytest.raises(
        DivergenceError,
        match="trials.csv: expected a trial whose loss.*none in 2; lower autoencoder",
    ):
        go(samples, tmp_path / "run", diverging(monkeypatch, limit=0.0), trials=2)
    assert pd.read_csv(tmp_path / "run" / "trials.csv").held_out_mse.isna().all()


def test_groups_are_held_out_whole_here_and_in_each_training(samples, tmp_path, monkeypatch):
    trained, measured = watch(monkeypatch)
    given_keys, real = {}, search_module.train

    def train(network, criterion, given, settings, *, groups, **more):
        given_keys.update(zip([sample.image for sample in given], groups, strict=True))
        return real(network, criterion, given, settings, groups=groups, **more)

    monkeypatch.setattr(search_module, "train", train)
    of = {sample.image: index // 2 for index, sample in enumerate(samples["train"])}  # four pairs
    go(samples, tmp_path / "run", trials=1, groups=list(of.values()))
    assert len(measured) == 2 and len({of[path] for path in measured}) == 1
    assert given_keys == {path: key for path, key in of.items() if path not in measured}
    assert {*trained} == given_keys.keys()


def test_what_a_kill_left_undone_is_done(samples, searched, tmp_path):
    shutil.copytree(searched[1], tmp_path / "run")
    (tmp_path / "run" / "trials.csv").unlink()
    (tmp_path / "run" / "trial" / "some").mkdir(parents=True)
    criterion = Squares()
    pd.testing.assert_frame_equal(go(samples, tmp_path / "run", criterion), searched[0])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "trials.csv"), searched[0])
    assert not (tmp_path / "run" / "trial").exists() and criterion.calls == 0


def test_a_search_shorter_than_the_warm_up_is_refused(samples, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"search.epochs: expected more than training.warmup_epochs \(3\), found 2",
    ):
        search(
            build,
            Squares(),
            samples["train"],
            SETTINGS.model_copy(update={"warmup_epochs": 3}),
            SPACE,
            seed=5,
            device="cpu",
            loader={},
            folder=tmp_path / "run",
        )


def test_importance_finds_the_setting_that_matters(tmp_path):
    import optuna

    study = open_trials(tmp_path / "drawn")
    assert importance(study) == {}
    draw = np.random.default_rng(0)
    space = {
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "batch_size": optuna.distributions.CategoricalDistribution((4, 8)),
    }
    for _ in range(30):
        rate, size = float(10 ** draw.uniform(-4, -2)), int(draw.choice([4, 8]))
        study.add_trial(
            optuna.trial.create_trial(
                params={"learning_rate": rate, "batch_size": size},
                distributions=space,
                value=abs(np.log10(rate) + 3),
            )
        )
    shares = importance(study)
    assert list(shares) == ["learning_rate", "batch_size"] and sum(
        shares.values()
    ) == pytest.approx(1)
    assert shares["learning_rate"] > 0.8


def test_figure(searched):
    table, _ = searched
    with_shares = plot_search(table, {"learning_rate": 0.9, "batch_size": 0.1})
    names = ["trial", "learning rate", "weight decay", "optimizer", "batch size"]
    assert [axis.get_xlabel() for axis in with_shares.axes] == [*names, "importance"]
    assert [axis.get_xlabel() for axis in plot_search(table, {}).axes if axis.get_visible()][
        :5
    ] == names
    order, rate = with_shares.axes[:2]
    assert order.collections[0].get_offsets()[:, 0].tolist() == [1, 2, 3, 4]
    best = rate.collections[1].get_offsets()[0].tolist()
    assert best == [table.learning_rate[0], table.held_out_mse[0]]
    assert [patch.get_width() for patch in with_shares.axes[-1].patches] == [0.9, 0.1]


def test_recipe_leaves_out_the_number_of_trials_and_the_bookkeeping():
    class Study:
        device = "cpu"

        def __init__(self, **changes):
            self.config = load_config("tiny", changes)

        def domain_key(self, category, domain):
            return f"{category} {domain}"

    def name(**changes):
        return digest(search_command.search_recipe(Study(**changes), "carpet", "cnn"))

    same = {
        "autoencoder.search.trials": 3,
        "autoencoder.training.keep_checkpoints": True,
        "autoencoder.networks.cnn.head": "ssim",
    }
    other = {
        "autoencoder.search.epochs": 31,
        "autoencoder.loss.ssim": 0.1,
        "seed": 1,
        "data.image_size": 96,
        "autoencoder.networks.cnn.latent": 7,
        "autoencoder.networks.cnn.corruption": "noise",
        "splits.groups": {"carpet": {"pattern": r"(\d+)", "max_gap": 1}},
    }
    assert {name(**{key: value}) for key, value in same.items()} == {name()}
    code = search_command.search_recipe(Study(), "carpet", "cnn")["code"]
    assert "models.autoencoders.networks.cnn" in code and "models.autoencoders.search" in code
    assert search_command.search_recipe(Study(), "carpet", "diffusion")["loss"] is None
    assert len({name(), *(name(**{key: value}) for key, value in other.items())}) == 1 + len(other)


def test_command_ends_with_2_and_a_reason(capsys):
    arguments = ["search", "--category", "carpet", "--architecture"]
    assert commands.main([*arguments, "cnn", "--set", "autoencoder.search.trial=3"]) == 2
    assert "did you mean autoencoder.search.trials?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        commands.main([*arguments, "gan"])
    assert "cnn" in capsys.readouterr().err
