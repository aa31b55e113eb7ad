"""What every detector keeps: the protocol, whole predictions, images that do not depend on their
batch, round trips.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from nbhelpers.config import load_config
from nbhelpers.data.reading import Reading
from nbhelpers.errors import ConfigError, DataError, ModelError
from nbhelpers.models.autoencoders.detector import Autoencoder
from nbhelpers.models.autoencoders.networks.registry import ARCHITECTURES
from nbhelpers.models.detector import Detector
from nbhelpers.models.padim import Padim
from nbhelpers.models.patchcore.detector import PatchCore
from nbhelpers.predictions import Predictions

#: The smallest of each architecture, trained for seconds.
NETWORKS = {
    "cnn": {"channels": [8, 16], "latent": 16},
    "resnet": {"backbone": "test_resnet", "latent": 16},
    "vit": {
        "patch": 8,
        "dim": 32,
        "depth": 1,
        "decoder_depth": 1,
        "heads": 2,
        "corruption": "none",
    },
    "unet_lite": {"base": 8, "corruption": "none"},
    "unet": {"channels": [8, 16], "corruption": "none"},
    "reversed": {"channels": [8, 16], "bottleneck": 16},
    "diffusion": {"dim": 8, "mults": [1, 2], "steps": 3, "noise_to": 400},
}
CHANGES = {
    "autoencoder.networks": {
        name: {**sizes, "head": "pixel_l2"} for name, sizes in NETWORKS.items()
    },
    "autoencoder.loss": {"ssim": 0.0, "perceptual": 0.0},
    "autoencoder.training": {
        "precision": "32",
        "epochs": 6,
        "batch_size": 4,
        "warmup_epochs": 0,
        "learning_rate": 0.005,
    },
}


@dataclass(frozen=True)
class Kind:
    """How one of the nine is made: ``new(size, **options)``; ``options`` are those of its own."""

    name: str
    cls: type
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def new(self, image_size: int = 64, **options: Any) -> Detector:
        return self.cls(*self.arguments, image_size=image_size, **self.options, **options)

    @property
    def load(self):
        return self.cls.load


def kinds(backbone) -> dict[str, Kind]:
    config = load_config("tiny", CHANGES)
    detectors = [
        Kind("patchcore", PatchCore, (backbone,), {"coreset_ratio": 0.25}),
        Kind("padim", Padim, (backbone,), {"n_features": 20}),
    ]
    detectors += [
        Kind(f"ae_{name}", Autoencoder, (name, config.autoencoder, config.backbone), {})
        for name in ARCHITECTURES
    ]
    return {kind.name: kind for kind in detectors}


@pytest.fixture(
    scope="module", params=["patchcore", "padim", *(f"ae_{name}" for name in ARCHITECTURES)]
)
def kind(request, backbone):
    return kinds(backbone)[request.param]


@pytest.fixture(scope="module")
def fitted(kind, samples):
    return kind.new().fit(samples["train"])


def test_predictions_are_whole_and_find_the_defect(fitted, samples):
    assert isinstance(fitted, Detector)
    predictions = fitted.predict(samples["test"])
    assert predictions.ids == tuple(s.id for s in samples["test"])
    assert predictions.labels.tolist() == [0, 0, 1, 1]
    assert predictions.defect_types == ("good", "good", "spot", "spot")
    assert predictions.pixel_valid.all()
    assert predictions.image_scores[2:].min() > predictions.image_scores[:2].max()
    for i in (2, 3):
        peak = np.unravel_index(predictions.anomaly_maps[i].argmax(), (64, 64))
        assert predictions.masks[i][peak] == 1


def test_an_image_s_score_does_not_depend_on_the_others(kind, fitted, samples):
    together = fitted.predict(samples["test"])
    for order in ([2], [3, 0, 2, 1]):
        other = fitted.predict([samples["test"][i] for i in order])
        np.testing.assert_allclose(other.image_scores, together.image_scores[order], rtol=1e-4)
        np.testing.assert_allclose(
            other.anomaly_maps, together.anomaly_maps[order], rtol=1e-3, atol=1e-3
        )
    by_three = kind.new(loader={"batch_size": 3})
    by_three.restore(fitted.tensors(), "memory")
    np.testing.assert_allclose(
        by_three.predict(samples["test"]).image_scores, together.image_scores, rtol=1e-4
    )


def test_fit_does_not_depend_on_global_generators(kind, fitted, samples):
    torch.manual_seed(1)
    again = kind.new().fit(samples["train"])
    state = torch.random.get_rng_state()
    kind.new()
    assert torch.random.get_rng_state().equal(state), "the global generator was drawn from"
    assert all(again.tensors()[name].equal(tensor) for name, tensor in fitted.tensors().items())


def test_round_trip_gives_identical_scores(kind, fitted, samples, tmp_path):
    model = kind.new(
        aggregation="topk",
        topk_percentile=0.9,
        smoothing_sigma=2,
        tta="flips",
        loader={"batch_size": 4},
    )
    model.restore(fitted.tensors(), "memory")
    model.stats = fitted.stats
    model.readings = {"c": Reading(4095, (1, 2, 3), False, True), "d": Reading()}
    model.save(tmp_path / "m")
    loaded = kind.load(tmp_path / "m")
    before, after = model.predict(samples["test"]), loaded.predict(samples["test"])
    for name in ("image_scores", "anomaly_maps", "nearest"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert loaded.stats == model.stats and loaded.loader == model.loader
    assert loaded.readings == model.readings and fitted.readings == {"c": Reading()}
    assert all(getattr(loaded, name) == getattr(model, name) for name in kind.cls.settings)
    before.save(tmp_path / "p.npz")
    stored = Predictions.load(tmp_path / "p.npz")
    assert np.array_equal(stored.nearest, before.nearest) and stored.ids == before.ids
    assert len(stored.subset(stored.labels == 1)) == 2


def test_another_detector_s_folder_is_refused(kind, fitted, tmp_path):
    fitted.save(tmp_path / "m")
    other = Padim if kind.cls is PatchCore else PatchCore
    with pytest.raises(
        ModelError, match=f"expected a stored '{other.kind}.*found '{kind.cls.kind}.*fit it again"
    ):
        other.load(tmp_path / "m")


def test_smoothing_and_image_score_are_options_of_all(kind, fitted, samples):
    def changed(**options):
        model = kind.new(**options)
        model.restore(fitted.tensors(), "memory")
        return model.predict(samples["test"])

    assert (
        changed(smoothing_sigma=0).anomaly_maps.max()
        > changed(smoothing_sigma=4).anomaly_maps.max()
    )
    scores = {name: changed(aggregation=name).image_scores for name in ("max", "topk", "mean")}
    assert (scores["max"] > scores["mean"]).all() and (scores["topk"] > scores["mean"]).all()


def test_bad_input_is_refused(kind, fitted, samples):
    fresh = kind.new()
    with pytest.raises(DataError, match="good images only"):
        fresh.fit(samples["test"])
    for ask in (fresh.fit, fitted.predict):
        with pytest.raises(DataError, match="at least one image"):
            ask([])
    with pytest.raises(ModelError, match="call fit or load first"):
        fresh.predict(samples["test"])


@pytest.mark.parametrize(
    "setting",
    [
        {"aggregation": "median"},
        {"topk_percentile": 1.0},
        {"smoothing_sigma": -1},
        {"tta": "rotations"},
    ],
)
def test_shared_settings_out_of_range_are_refused(kind, setting):
    with pytest.raises(ConfigError, match=f"{kind.name} {next(iter(setting))}: expected"):
        kind.new(**setting)
