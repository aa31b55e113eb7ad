"""What every detector keeps: the protocol, whole predictions, images that do not depend on their batch, round trips."""

import numpy as np
import pytest
import torch

from nbhelpers.errors import ConfigError, DataError, ModelError
from nbhelpers.models.detector import Detector, Predictions
from nbhelpers.models.padim import Padim
from nbhelpers.models.patchcore import PatchCore

SETTINGS = {PatchCore: {"coreset_ratio": 0.25}, Padim: {"n_features": 20}}


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda kind: kind.name)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(kind, backbone, samples):
    return kind(backbone, image_size=64, **SETTINGS[kind]).fit(samples["train"])


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


def test_an_image_s_score_does_not_depend_on_the_others(fitted, samples):
    together = fitted.predict(samples["test"])
    for order in ([2], [3, 0, 2, 1]):
        other = fitted.predict([samples["test"][i] for i in order])
        np.testing.assert_allclose(other.image_scores, together.image_scores[order], rtol=1e-4)
        np.testing.assert_allclose(other.anomaly_maps, together.anomaly_maps[order], rtol=1e-3, atol=1e-3)
    by_three = type(fitted)(fitted.backbone, image_size=64, loader={"batch_size": 3}, **SETTINGS[type(fitted)])
    by_three.restore(fitted.tensors(), "memory")
    np.testing.assert_allclose(by_three.predict(samples["test"]).image_scores, together.image_scores, rtol=1e-4)


def test_fit_does_not_depend_on_global_generators(kind, fitted, backbone, samples):
    torch.manual_seed(1)
    again = kind(backbone, image_size=64, **SETTINGS[kind]).fit(samples["train"])
    state = torch.random.get_rng_state()
    kind(backbone, image_size=64, **SETTINGS[kind])
    assert torch.random.get_rng_state().equal(state), "the global generator was drawn from"
    assert all(again.tensors()[name].equal(tensor) for name, tensor in fitted.tensors().items())


def test_round_trip_gives_identical_scores(kind, backbone, samples, tmp_path):
    model = kind(backbone, 64, aggregation="topk", topk_percentile=0.9, smoothing_sigma=2, seed=3,
                 loader={"batch_size": 4}, **SETTINGS[kind]).fit(samples["train"])
    model.save(tmp_path / "m")
    loaded = kind.load(tmp_path / "m")
    before, after = model.predict(samples["test"]), loaded.predict(samples["test"])
    for name in ("image_scores", "anomaly_maps", "nearest"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert loaded.stats == model.stats and loaded.loader == model.loader
    assert all(getattr(loaded, name) == getattr(model, name) for name in kind.settings)
    before.save(tmp_path / "p.npz")
    stored = Predictions.load(tmp_path / "p.npz")
    assert np.array_equal(stored.nearest, before.nearest) and stored.ids == before.ids
    assert len(stored.subset(stored.labels == 1)) == 2


def test_another_detector_s_folder_is_refused(kind, fitted, tmp_path):
    fitted.save(tmp_path / "m")
    (other,) = set(SETTINGS) - {kind}
    with pytest.raises(ModelError, match=f"expected a stored '{other.name}.*found '{kind.name}.*fit it again"):
        other.load(tmp_path / "m")


def test_smoothing_and_image_score_are_options_of_all(kind, fitted, backbone, samples):
    def changed(**options):
        model = kind(backbone, 64, **SETTINGS[kind], **options)
        model.restore(fitted.tensors(), "memory")
        return model.predict(samples["test"])

    assert changed(smoothing_sigma=0).anomaly_maps.max() > changed(smoothing_sigma=4).anomaly_maps.max()
    scores = {name: changed(aggregation=name).image_scores for name in ("max", "topk", "mean")}
    assert (scores["max"] > scores["mean"]).all() and (scores["topk"] > scores["mean"]).all()


def test_bad_input_is_refused(kind, fitted, backbone, samples):
    fresh = kind(backbone, image_size=64, **SETTINGS[kind])
    with pytest.raises(DataError, match="good images only"):
        fresh.fit(samples["test"])
    for ask in (fresh.fit, fitted.predict):
        with pytest.raises(DataError, match="at least one image"):
            ask([])
    with pytest.raises(ModelError, match="call fit or load first"):
        fresh.predict(samples["test"])


@pytest.mark.parametrize("setting", [{"aggregation": "median"}, {"topk_percentile": 1.0}, {"smoothing_sigma": -1}])
def test_shared_settings_out_of_range_are_refused(kind, backbone, setting):
    with pytest.raises(ConfigError, match=f"{kind.name} {next(iter(setting))}: expected"):
        kind(backbone, **setting)
