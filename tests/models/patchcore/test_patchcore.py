"""PatchCore: the paper's formulas by hand, anomalib's scores on the same bank, and a whole
detector.
"""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from nbhelpers.data.layout import Sample
from nbhelpers.errors import ConfigError, DataError, ModelError, ResourceError
from nbhelpers.models import memory
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.patchcore import PatchCore, reference
from nbhelpers.models.patchcore.detector import density_weight
from nbhelpers.models.patchcore.neighbours import Centres

LITE, LAYERS = "tf_efficientnet_lite0", ["blocks.1", "blocks.2"]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class GivenMaps(nn.Module):
    """A backbone that answers with maps made beforehand."""

    def __init__(self, *maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images):
        return {str(i): m for i, m in enumerate(self.maps)}


@pytest.fixture(scope="module")
def fitted(backbone, samples):
    return PatchCore(backbone, image_size=64, coreset_ratio=0.25).fit(samples["train"])


def with_bank(bank: torch.Tensor, **settings) -> PatchCore:
    model = PatchCore(GivenMaps(), **settings)
    model.bank = Centres(bank)
    return model


# -- features --


def test_locally_aware_features_by_hand():
    fine = torch.arange(25.0).view(1, 1, 5, 5)
    coarse = torch.tensor([[10.0]]).view(1, 1, 1, 1)
    features = PatchCore(GivenMaps(coarse, fine)).extract(torch.zeros(1, 3, 8, 8))
    assert features.shape == (1, 5, 5, 2)  # the finest grid, channels in the layers' order
    torch.testing.assert_close(
        features[0, :, :, 0], torch.full((5, 5), 10 / 9)
    )  # one cell, eight zeros
    assert features[0, 2, 2, 1] == (6 + 7 + 8 + 11 + 12 + 13 + 16 + 17 + 18) / 9
    assert features[0, 0, 0, 1] == pytest.approx((0 + 1 + 5 + 6) / 9)  # zeros beyond the border
    assert features[0, 4, 2, 1] == pytest.approx((16 + 17 + 18 + 21 + 22 + 23) / 9)


def test_features_are_anomalib_s(backbone):
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    peer = PatchcoreModel(layers=LAYERS, backbone=LITE, pre_trained=False)
    peer.feature_extractor = backbone
    images = torch.randn(3, 3, 64, 96, generator=rng(0))
    theirs = peer.train()(images)
    ours = PatchCore(backbone).extract(images).flatten(0, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# -- scores --


def test_scores_by_hand():
    bank = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [30.0, 0.0]])
    features = torch.tensor([[3.0, 0.0], [0.0, 1.5], [0.0, 0.0], [1.0, 2.0]]).view(1, 2, 2, 2)
    patches, score, nearest = with_bank(bank, num_neighbors=3).score_features(features)
    assert nearest.flatten().tolist() == [0, 1, 0, 2]  # (0, 1.5) lies amid two: the first of them
    assert patches.flatten().tolist() == [3.0, 0.5, 0.0, 1.0]  # Euclidean, not squared
    # arg-max patch (3, 0), m* = (0, 0), its 3 nearest in the bank: itself, (0, 1), (0, 2)
    distances = [3.0, math.sqrt(10), math.sqrt(13)]
    weight = 1 - math.exp(3) / sum(math.exp(d) for d in distances)
    assert score.item() == pytest.approx(3 * weight, rel=1e-6)
    plain = with_bank(bank, num_neighbors=3, reweight=False).score_features(features)[1]
    assert plain.item() == 3.0
    assert with_bank(bank, num_neighbors=1).score_features(features)[1].item() == 3.0


def test_aggregations_differ_as_documented():
    bank = torch.zeros(2, 1)
    features = torch.arange(100.0).view(1, 10, 10, 1)
    score = {
        name: with_bank(bank, aggregation=name, reweight=False).score_features(features)[1].item()
        for name in ("max", "mean", "topk")
    }
    assert score == {"max": 99.0, "mean": 49.5, "topk": 97.0}  # the highest 5 % are 95 to 99
    half = with_bank(bank, aggregation="topk", topk_percentile=0.5)
    assert half.score_features(features)[1].item() == 74.5


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_scores_are_anomalib_s_on_the_same_bank(scale):
    """Patch scores, image scores and smoothed maps, also where exp(distance) would overflow."""
    from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    bank = scale * torch.randn(300, 24, generator=rng(1))
    features = scale * torch.randn(5, 7, 7, 24, generator=rng(2))
    model = with_bank(bank, image_size=64)
    patches, scores, _ = model.score_features(features)
    peer = PatchcoreModel(layers=["layer1"], backbone="resnet18", pre_trained=False)
    peer.memory_bank = bank
    embedding = features.flatten(0, 2)
    their_patches, where = (t.view(5, -1) for t in peer.nearest_neighbors(embedding, n_neighbors=1))
    their_scores = peer.compute_anomaly_score(their_patches, where, embedding)
    torch.testing.assert_close(patches.flatten(1), their_patches, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(scores, their_scores, rtol=1e-5, atol=1e-4)
    assert scores.isfinite().all()
    enlarged = nn.functional.interpolate(
        their_patches.view(5, 1, 7, 7), size=(64, 64), mode="bilinear"
    )
    their_maps = AnomalyMapGenerator(sigma=4)(enlarged)[:, 0]
    np.testing.assert_allclose(model.anomaly_maps(patches), their_maps, rtol=1e-5, atol=1e-4)


def test_weight_falls_where_the_bank_is_dense():
    patch, index, distance = torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.tensor([2.0])
    alone = torch.tensor([[0.0, 0.0], [-9.0, 0.0], [-9.0, 1.0]])
    amid = torch.tensor([[0.0, 0.0], [-0.1, 0.0], [0.0, -0.1]])
    assert density_weight(patch, index, distance, alone, 3) > 0.99
    weight = density_weight(patch, index, distance, amid, 3)
    assert 0.6 < weight < 0.7
    assert density_weight(patch, index, distance, amid, 50) == weight  # the bank has only three


def test_the_plain_formulas_by_hand():
    bank = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [30.0, 0.0]])
    patches = torch.tensor([[3.0, 0.0], [0.0, 1.5], [0.0, 0.0], [1.0, 2.0]])
    distance, index = reference.nearest_neighbour(patches, bank)
    assert distance.tolist() == [3.0, 0.5, 0.0, 1.0] and index.tolist() == [0, 1, 0, 2]
    # m^test,* is (3, 0), m* is (0, 0) and N_3(m*) is itself, (0, 1) and (0, 2)
    weight = 1 - math.exp(3) / (math.exp(3) + math.exp(10**0.5) + math.exp(13**0.5))
    assert reference.density_weight(patches[0], 0, bank, 3) == pytest.approx(weight, rel=1e-6)
    assert reference.image_score(patches, bank, 3) == pytest.approx(3 * weight, rel=1e-6)


@pytest.mark.parametrize("b", [2, 9, 200])
def test_scores_are_those_of_the_plain_formulas(b):
    bank = torch.randn(200, 12, generator=rng(3))
    features = 3 * torch.randn(6, 5, 4, 12, generator=rng(4))
    patches, scores, nearest = with_bank(bank, num_neighbors=b).score_features(features)
    for image in range(6):
        plain = features[image].flatten(0, 1).double()
        distance, index = reference.nearest_neighbour(plain, bank.double())
        torch.testing.assert_close(patches[image].flatten().double(), distance, rtol=1e-5, atol=0)
        assert nearest[image].flatten().equal(index)
        expected = reference.image_score(plain, bank.double(), b)
        assert scores[image].item() == pytest.approx(expected, rel=1e-5)


def test_maps_are_bilinear_and_smoothing_is_explicit():
    scores = torch.zeros(1, 4, 4)
    scores[0, 1, 2] = 8.0
    raw = with_bank(torch.zeros(1, 2), image_size=16, smoothing_sigma=0).anomaly_maps(scores)[0]
    assert raw.shape == (16, 16) and raw.dtype == np.float32
    assert np.unravel_index(raw.argmax(), raw.shape) in {(y, x) for y in (5, 6) for x in (9, 10)}
    assert raw[5, 9] == pytest.approx(8 * 0.875**2)
    smooth = with_bank(torch.zeros(1, 2), image_size=16, smoothing_sigma=1.5).anomaly_maps(scores)[
        0
    ]
    assert smooth.max() < raw.max() and smooth.sum() == pytest.approx(raw.sum(), rel=0.05)


# -- fit and predict --


def test_every_bank_feature_knows_its_image_and_every_patch_its_nearest(fitted, samples):
    features = fitted.patch_features(samples["train"])
    places = torch.cdist(fitted.memory_bank, features).argmin(dim=1)
    assert fitted.origins.tolist() == (places // 256).tolist()
    predictions = fitted.predict(samples["test"])
    assert predictions.nearest.shape == (4, 16, 16)
    (batch,) = fitted.batches(samples["test"], "", "test")
    patches = fitted.extract(batch.images).flatten(0, 2)
    nearest = torch.cdist(
        patches, fitted.memory_bank, compute_mode="donot_use_mm_for_euclid_dist"
    ).argmin(dim=1)
    assert (predictions.nearest.ravel() == fitted.origins[nearest].numpy()).mean() > 0.999


def test_a_training_patch_that_is_kept_scores_zero(backbone, samples):
    model = PatchCore(backbone, image_size=64, coreset_ratio=1.0).fit(samples["train"])
    features = model.extract(torch.randn(2, 3, 64, 64, generator=rng(0)))
    model.bank = Centres(features.flatten(0, 2))
    assert model.score_features(features)[0].eq(0).all()


def test_fit_is_repeatable_and_says_what_it_did(fitted, backbone, samples):
    again = PatchCore(backbone, image_size=64, coreset_ratio=0.25).fit(samples["train"])
    assert again.memory_bank.equal(fitted.memory_bank)
    other = PatchCore(backbone, image_size=64, coreset_ratio=0.25, seed=7).fit(samples["train"])
    assert not other.memory_bank[0].equal(fitted.memory_bank[0])
    numbers = {key: value for key, value in fitted.stats.items() if not key.startswith("seconds")}
    assert numbers == {
        "n_images": 8,
        "n_patches": 8 * 16 * 16,
        "dimension": 24 + 40,
        "bank_size": 512,
        "bank_size/c": 512,
    }
    assert fitted.memory_bank.shape == (512, 64)
    assert {"seconds_features", "seconds_coreset"} < fitted.stats.keys()


def test_a_category_called_size_does_not_replace_the_size_of_the_bank(backbone, samples):
    names = ["size", "size", "size", "neighbors"]
    train = [
        replace(sample, category=name)
        for sample, name in zip(samples["train"], names, strict=False)
    ]
    stats = PatchCore(backbone, image_size=64, coreset_ratio=0.25).fit(train).stats
    assert stats["bank_size"] == 4 * 16 * 16 * 0.25
    assert stats["bank_size/size"] + stats["bank_size/neighbors"] == stats["bank_size"]


def test_labels_that_are_unknown_leave_the_pixel_metrics(fitted, samples, tmp_path):
    good, spot = samples["test"][0], samples["test"][2]
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((80, 72), np.uint8))
    no_mask = Sample("c/test/spot/x.png", spot.image, None, "c", "spot")
    left_the_frame = Sample("c/test/spot/y.png", spot.image, tmp_path / "empty.png", "c", "spot")
    predictions = fitted.predict([good, spot, no_mask, left_the_frame])
    assert predictions.pixel_valid.tolist() == [True, True, False, False]


def test_bad_input_is_refused(fitted, backbone, samples, tmp_path):
    with pytest.raises(ModelError, match="of 64 numbers.*found 3"):
        fitted.score_features(torch.zeros(1, 2, 2, 3))
    broken = Sample("c/test/good/z.png", tmp_path / "missing.png", None, "c", "good")
    with pytest.raises(DataError, match="missing.png"):
        fitted.predict([broken])


def test_what_does_not_fit_in_memory_is_refused_before_an_image_is_read(
    backbone, monkeypatch, tmp_path
):
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**8)
    unread = [
        Sample(f"c/train/good/{i}", tmp_path / "none.png", None, "c", "good") for i in range(20_000)
    ]
    with pytest.raises(
        ResourceError, match="15680000 patches of 64 numbers.*found 0.10 GB.*coreset_ratio"
    ):
        PatchCore(backbone, image_size=112).fit(unread)


@pytest.mark.parametrize(
    "setting", [{"coreset_ratio": 0}, {"coreset_ratio": 1.5}, {"num_neighbors": 0}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=f"patchcore {next(iter(setting))}: expected"):
        PatchCore(GivenMaps(), **setting)


# -- save and load --


def test_loading_what_does_not_fit_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    settings = tmp_path / "m" / "settings.json"
    good = json.loads(settings.read_text())

    def changed(**changes):
        settings.write_text(json.dumps({**good, **changes}))
        return tmp_path / "m"

    with pytest.raises(
        ModelError, match="expected backbone resnet.*, with which it was fitted.*fit it again"
    ):
        PatchCore.load(changed(fingerprint="resnet50|torchvision:IMAGENET1K_V2|layer2"))
    one_layer = Backbone(LITE, ["blocks.2"])
    with pytest.raises(ModelError, match=r"expected a memory bank \(M, 40\).*found \(512, 64\)"):
        PatchCore.load(
            changed(
                backbone={**good["backbone"], "layers": ["blocks.2"]},
                fingerprint=one_layer.fingerprint(),
            )
        )
    with pytest.raises(ModelError, match="expected a stored 'patchcore"):
        PatchCore.load(changed(kind="padim 1"))
    with pytest.raises(ModelError, match="no such file"):
        PatchCore.load(tmp_path / "nothing")
    PatchCore.load(changed())
