"""Autoencoders as detectors: heads, residuals in deviations, trainings that are not repeated, the
study's scenarios.
"""

import json

import numpy as np
import pytest

from nbhelpers.analyses import reconstruction
from nbhelpers.analyses.all import run_scenario, write_metrics
from nbhelpers.config import digest, load_config
from nbhelpers.errors import ConfigError, DataError, ModelError
from nbhelpers.files import read_json
from nbhelpers.models.autoencoders import detector as module
from nbhelpers.models.autoencoders.detector import FLOOR, Autoencoder, to_pixels
from nbhelpers.models.autoencoders.heads import HEADS, morphology
from nbhelpers.models.factory import method_settings, new_detector
from nbhelpers.results.table import MACRO
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import open_study

SMALL = {
    "autoencoder.networks.cnn": {"channels": [8, 16], "latent": 16, "head": "pixel_l2"},
    "autoencoder.loss": {"ssim": 0.0, "perceptual": 0.0},
    "autoencoder.training": {
        "precision": "32",
        "epochs": 3,
        "batch_size": 4,
        "warmup_epochs": 0,
        "learning_rate": 0.005,
    },
}


def make(runs=None, **changes):
    config = load_config("tiny", {**SMALL, **changes})
    return Autoencoder(
        "cnn", config.autoencoder, config.backbone, image_size=64, runs=runs, smoothing_sigma=1.0
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def fitted(samples, runs):
    return make(runs).fit(samples["train"])


def test_predict_is_one_of_the_heads(fitted, samples):
    by_head = fitted.predict_heads(samples["test"], HEADS)
    predicted = fitted.predict(samples["test"])
    assert list(by_head) == list(HEADS)
    assert np.array_equal(by_head["pixel_l2"].anomaly_maps, predicted.anomaly_maps)
    assert not np.allclose(by_head["ssim"].anomaly_maps, predicted.anomaly_maps)
    for predictions in by_head.values():
        assert np.array_equal(
            predictions.image_scores, predictions.anomaly_maps.reshape(4, -1).max(axis=1)
        )


def test_a_plain_residual_map_by_hand(fitted, samples):
    images, reconstructions = fitted.reconstruct(samples["test"])
    assert (
        images.shape == reconstructions.shape == (4, 3, 64, 64)
        and max(abs(images).max(), abs(reconstructions).max()) <= 1
    )
    raw = make(**{"autoencoder.scoring.morphology": 0})
    raw.smoothing_sigma = 0.0
    raw.restore(fitted.tensors(), "memory")
    expected = ((images - reconstructions) ** 2).mean(axis=1)
    np.testing.assert_allclose(
        raw.predict(samples["test"]).anomaly_maps, expected, rtol=1e-4, atol=1e-6
    )
    assert to_pixels(images).dtype == np.uint8 and to_pixels(np.full((1, 3, 2, 2), -1.0)).max() == 0


def test_morphology_removes_small_peaks_before_the_image_score(fitted, samples):
    opened = make(**{"autoencoder.scoring.morphology": 5})
    opened.restore(fitted.tensors(), "memory")
    images, reconstructions = fitted.reconstruct(samples["test"])
    expected = fitted.smooth(morphology(((images - reconstructions) ** 2).mean(axis=1), 5))
    np.testing.assert_allclose(
        opened.predict(samples["test"]).anomaly_maps, expected, rtol=1e-4, atol=1e-6
    )
    assert (
        opened.predict(samples["test"]).image_scores < fitted.predict(samples["test"]).image_scores
    ).all()


def test_standardised_residuals_are_deviations_of_the_training_images(samples, runs, tmp_path):
    model = make(runs, **{"autoencoder.scoring.standardize": True})
    model.smoothing_sigma = 0.0
    model.fit(samples["train"])
    images, reconstructions = model.reconstruct(samples["train"])
    residuals = ((images - reconstructions) ** 2).mean(axis=1)
    deviation = residuals.std(axis=0)
    expected = (residuals - residuals.mean(axis=0)) / (deviation + FLOOR * deviation.mean())
    np.testing.assert_allclose(
        model.predict(samples["train"]).anomaly_maps, expected, rtol=1e-2, atol=1e-2
    )
    model.save(tmp_path / "m")
    loaded = Autoencoder.load(tmp_path / "m")
    by_head = loaded.predict_heads(samples["test"], ("ssim",))["ssim"]
    assert np.array_equal(
        by_head.anomaly_maps, model.predict_heads(samples["test"], ("ssim",))["ssim"].anomaly_maps
    )
    assert loaded.history == model.history and loaded.options == model.options


def test_a_fit_that_is_interrupted_leaves_no_detector(samples, monkeypatch):
    model = make().fit(samples["train"])

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(samples["train"][:-1])
    with pytest.raises(ModelError, match="expected a trained network, found none"):
        model.predict(samples["test"])


def test_a_training_says_what_it_is(fitted, samples, runs):
    folders = {
        f"cnn_{digest(read_json(path)['recipe'])}": path for path in runs.rglob("recipe.json")
    }
    assert folders and all(path.parent.name == name for name, path in folders.items())
    stored = read_json(folders[f"cnn_{digest(fitted.training_recipe(samples['train']))}"])
    assert [name for name, _ in stored["recipe"]["images"]] == [
        sample.id for sample in samples["train"]
    ]
    assert stored["provenance"]["device"] == "cpu" and "torch" in stored["provenance"]["packages"]


def test_another_head_needs_no_second_training(fitted, samples, runs, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("weights.safetensors")}
    again = make(
        runs,
        **{
            "autoencoder.networks.cnn.head": "ssim",
            "autoencoder.training.trackers": ["tensorboard"],
        },
    )
    again.fit(samples["train"])
    assert before and before == {
        path: path.stat().st_mtime_ns for path in runs.rglob("weights.safetensors")
    }
    assert all(again.tensors()[name].equal(tensor) for name, tensor in fitted.tensors().items())
    assert again.history == fitted.history
    assert not np.allclose(
        again.predict(samples["test"]).image_scores, fitted.predict(samples["test"]).image_scores
    )


def test_another_seed_image_or_rate_is_another_training(fitted, samples):
    recipe = fitted.training_recipe(samples["train"])
    assert make().training_recipe(samples["train"]) == recipe
    others = [
        make(**{"autoencoder.training.learning_rate": 0.001}),
        make(**{"autoencoder.loss.edge": 0.1}),
        make(**{"autoencoder.networks.cnn.corruption": "mask"}),
        make(**{"autoencoder.networks.cnn.training.learning_rate": 0.001}),
    ]
    assert all(other.training_recipe(samples["train"]) != recipe for other in others)
    assert make().training_recipe(samples["train"][:-1]) != recipe
    assert (
        make(
            **{"autoencoder.scoring.morphology": 3, "autoencoder.training.keep_checkpoints": True}
        ).training_recipe(samples["train"])
        == recipe
    )


def test_how_far_a_diffusion_model_noises_needs_no_other_training(samples):
    def recipe(**changes):
        config = load_config("tiny", {"autoencoder.networks.diffusion": changes})
        return new_detector(config, "ae_diffusion", seed=1, device="cpu").training_recipe(
            samples["train"]
        )

    assert (
        recipe() == recipe(noise_to=400, steps=40, sampler="ddpm", eta=1.0) != recipe(timesteps=500)
    )


def test_the_history_and_the_stats_say_what_happened(fitted):
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3]
    assert fitted.stats["n_images"] + fitted.stats["n_held_out"] == 8
    assert fitted.stats["n_parameters"] == fitted.network.n_parameters
    assert fitted.stats["best_held_out_loss"] == min(row["held_out_loss"] for row in fitted.history)


def test_what_does_not_fit_is_refused(fitted, samples, tmp_path):
    fitted.save(tmp_path / "m")
    settings = tmp_path / "m" / "settings.json"
    stored = json.loads(settings.read_text())
    stored["options"]["networks"]["cnn"]["latent"] = 8
    settings.write_text(json.dumps(stored))
    with pytest.raises(
        ModelError, match="expected the tensors of network cnn, found others .*fit it again"
    ):
        Autoencoder.load(tmp_path / "m")
    for change, text in (
        ({"options": {**stored["options"], "sizes": 1}}, "sizes: Extra inputs.*fit it again"),
        (
            {"fingerprint": "another"},
            "expected backbone another, with which it was trained, found tf_eff",
        ),
    ):
        settings.write_text(json.dumps({**stored, **change}))
        with pytest.raises(ModelError, match=text):
            Autoencoder.load(tmp_path / "m")
    with pytest.raises(ModelError, match="found 0 for standardize=True; fit it again"):
        make(**{"autoencoder.scoring.standardize": True}).restore(fitted.tensors(), "memory")
    with pytest.raises(ModelError, match="expected a network with attention maps, found cnn"):
        fitted.attention(samples["test"])
    with pytest.raises(ConfigError, match="multiple of 8, found 60; set data.image_size=64"):
        config = load_config("tiny", SMALL)
        Autoencoder("cnn", config.autoencoder, config.backbone, image_size=60)
    with pytest.raises(ConfigError, match="unknown method 'screw'"):
        method_settings(config, "screw")
    with pytest.raises(ConfigError, match="unknown method 'ae_unets'; known: .*ae_unet, "):
        new_detector(config, "ae_unets", 42, "cpu")


def test_attention_of_a_vision_transformer(samples):
    config = load_config(
        "tiny",
        {
            **SMALL,
            "autoencoder.networks.vit": {
                "patch": 16,
                "dim": 16,
                "depth": 1,
                "decoder_depth": 1,
                "heads": 2,
            },
        },
    )
    model = Autoencoder("vit", config.autoencoder, config.backbone, image_size=64)
    with pytest.raises(ModelError, match="ae_vit: expected a trained network"):
        model.attention(samples["test"])
    weights = model.fit(samples["train"]).attention(samples["test"])
    assert weights.shape == (4, 2, 16, 16)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)


def test_images_of_one_object_are_held_out_together(samples):
    """The stems end in 0 to 7: with a gap of 1 they are one object, which cannot be held out of
    itself.
    """
    config = load_config(
        "tiny", {**SMALL, "splits.groups": {"c": {"pattern": r"(\d+)$", "max_gap": 1}}}
    )
    model = new_detector(config.changed({"data.image_size": 64}), "ae_cnn", 42, "cpu")
    model.runs = None
    with pytest.raises(DataError, match="group"):
        model.fit(samples["train"])
    assert method_settings(config, "ae_cnn") != method_settings(
        load_config("tiny", SMALL), "ae_cnn"
    )


def test_settings_that_change_no_score_are_no_part_of_the_recipe():
    def recipe(**changes):
        return method_settings(load_config("tiny", changes), "ae_cnn")

    assert recipe() == recipe(
        **{
            "autoencoder.search.trials": 3,
            "autoencoder.training.trackers": ["wandb"],
            "autoencoder.networks.vit.dim": 192,
            "autoencoder.scoring.min_area": 3,
            "autoencoder.networks.vit.training.epochs": 300,
        }
    )
    assert recipe() != recipe(**{"autoencoder.networks.cnn.head": "ssim"})
    assert recipe() != recipe(**{"autoencoder.networks.cnn.training.epochs": 300})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two methods, one of them an autoencoder, on a handful of drawn images."""
    return open_study(
        "tiny",
        {
            **SMALL,
            "methods": ["padim", "ae_cnn"],
            "data.categories": ["hazelnut", "carpet"],
            "data.image_size": 64,
            "data.synthetic": {"size": 64, "train_good": 10, "test_good": 4, "per_defect": 2},
            "padim.n_features": 20,
            "padim.layers": ["blocks.2"],
            "evaluation.bootstrap_draws": 100,
            "autoencoder.architectures": [],
            "autoencoder.networks.cnn.head": "pixel_l2",
            "workspace": str(tmp_path_factory.mktemp("workspace")),
        },
    )


@pytest.mark.slow
def test_every_scenario_takes_an_autoencoder(study):
    for scenario in study.config.scenarios:
        table = run_scenario(study, scenario)
        auroc = table[(table.method == "ae_cnn") & (table.metric == "image_auroc")]
        assert (
            set(auroc.category) == {"hazelnut", "carpet", MACRO} and auroc.value.between(0, 1).all()
        ), scenario
    assert set(write_metrics(study).scenario) >= set(SCENARIOS)


def test_heads_and_reconstructions_stand_in_the_table(study, monkeypatch):
    rows = reconstruction.reconstruction_rows(study, "cnn")
    table = reconstruction.heads_table(study, "cnn")
    assert (
        len(table) == 2 * len(reconstruction.HEADS) + 2
    )  # three heads, and PaDiM's own, of two categories
    test = study.predictions("ae_cnn", "carpet", fitted_on="clean", domain="clean", split="test")
    row = table[(table.category == "carpet") & (table["head"] == "pixel_l2")].iloc[0]
    assert row.image_auroc == pytest.approx(
        reconstruction.ranking(test, ["image_auroc"])["image_auroc"]["value"]
    )
    quality = reconstruction.quality_table(study, "cnn")
    good = [s for s in study.split("carpet")["val"] if not s.label]
    images, reconstructions = study.detector("ae_cnn", "carpet").reconstruct(good)
    assert quality.loc[("carpet", "good"), "mse"] == pytest.approx(
        ((images - reconstructions) ** 2).mean(), rel=1e-4
    )
    stored = write_metrics(study)
    assert len(stored[stored.scenario == "reconstruction"]) == len(rows)
    costs = reconstruction.costs(study)
    network = new_detector(study.config, "ae_cnn", 42, "cpu").network
    assert costs.parameters.tolist() == [network.n_parameters] * 2 and (costs.forward_ms > 0).all()
    # of architectures that nobody asked for there are parts, which the report does not have made
    asked = {part.name for part in reconstruction.parts(study) if not part.optional}
    assert asked == {"reconstruction_cnn_hazelnut", "reconstruction_cnn_carpet"}
    # nothing of it is computed twice
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(Autoencoder, "predict_by", lambda *_: pytest.fail("predicted again"))
    assert reconstruction.reconstruction_rows(study, "cnn").equals(rows)
