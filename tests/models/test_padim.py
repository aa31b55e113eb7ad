"""PaDiM: the paper's formulas by hand, anomalib's scores with the same feature subset, its own
seeded choice.
"""

import json

import numpy as np
import pytest
import torch

from nbhelpers.data.layout import Sample
from nbhelpers.errors import ConfigError, DataError, ModelError, ResourceError
from nbhelpers.models import memory
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.padim import Padim

LITE = "tf_efficientnet_lite0"


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def peer(backbone):
    """anomalib's own model on our backbone, with the subset that it drew from the global generator."""
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel(
        backbone=LITE, layers=list(backbone.layers), pre_trained=False, n_features=15
    )
    model.feature_extractor = backbone
    return model


def test_distance_by_hand(backbone):
    """Two uncorrelated features; 0.01 is added to their variances, and 0.00001 before they are
    inverted.
    """
    model = Padim(backbone, image_size=16, n_features=2, smoothing_sigma=0)
    assert model.grid == (4, 4)
    embeddings = torch.zeros(4, 2, 4, 4)
    embeddings[:, 0, 0, 0] = torch.tensor(
        [3.0, 3.0, 1.0, 1.0]
    )  # mean 2, sum of squares 4: variance 4/3
    embeddings[:, 1, 0, 0] = torch.tensor([2.0, -2.0, 2.0, -2.0])  # mean 0, variance 16/3
    model.fit_embeddings(embeddings)
    probe = torch.zeros(1, 2, 4, 4)
    probe[0, :, 0, 0] = torch.tensor([5.0, 4.0])
    expected = (3**2 / (4 / 3 + 0.01001) + 4**2 / (16 / 3 + 0.01001)) ** 0.5
    distance = model.patch_scores(probe)
    assert distance.shape == (1, 4, 4)
    assert distance[0, 0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert distance[0, 1:].abs().max() == 0  # at the mean


def test_scores_are_anomalib_s_with_its_subset(peer, backbone, samples):
    ours = Padim(backbone, image_size=64, n_features=15)
    ours._model.idx = peer.idx
    ours.fit(samples["train"])
    with torch.no_grad():
        peer.train()
        for batch in ours.batches(samples["train"], "", "train"):
            peer(batch.images)
        peer.fit()
        (batch,) = ours.batches(samples["test"], "", "test")
        theirs = peer.eval()(batch.images)
    predictions = ours.predict(samples["test"])
    np.testing.assert_allclose(
        predictions.anomaly_maps, theirs.anomaly_map[:, 0].numpy(), rtol=2e-3, atol=2e-3
    )
    np.testing.assert_allclose(
        predictions.image_scores, theirs.pred_score.numpy().ravel(), rtol=2e-3
    )


def test_subset_is_its_seed_s_and_is_distinct(backbone):
    torch.manual_seed(5)
    first = Padim(backbone, 64, n_features=20, seed=3).feature_indices
    torch.manual_seed(6)
    Padim(backbone, 64, n_features=20, seed=4)
    assert Padim(backbone, 64, n_features=20, seed=3).feature_indices.equal(
        first
    )  # in any order of construction
    assert not Padim(backbone, 64, n_features=20, seed=4).feature_indices.equal(first)
    assert len(first.unique()) == 20 and first.min() >= 0 and first.max() < 64


def test_order_of_the_layers_does_not_matter(samples):
    scores = [
        Padim(Backbone(LITE, layers), 64, n_features=20)
        .fit(samples["train"])
        .predict(samples["test"])
        .image_scores
        for layers in (["blocks.1", "blocks.2"], ["blocks.2", "blocks.1"])
    ]
    np.testing.assert_array_equal(*scores)


def test_weights_are_those_of_any_other_detector():
    deep, shallow = (
        Backbone(LITE, ["blocks.1", "blocks.2", "blocks.4"]),
        Backbone(LITE, ["blocks.2", "blocks.4"]),
    )
    assert deep.weights_id == shallow.weights_id
    network = Padim(deep, 64).backbone.network
    shared = shallow.network.state_dict()
    assert (
        all(network.state_dict()[name].equal(tensor) for name, tensor in shared.items())
        and len(shared) > 100
    )


def test_fit_says_what_it_did(backbone, samples):
    model = Padim(backbone, 64, n_features=20).fit(samples["train"])
    numbers = {key: value for key, value in model.stats.items() if not key.startswith("seconds")}
    assert numbers == {"n_images": 8, "n_locations": 256, "dimension": 20}
    assert model.tensors()["inv_covariance"].shape == (256, 20, 20)


def test_what_cannot_be_done_is_refused(backbone, samples, monkeypatch, tmp_path):
    for n_features in (0, 65):
        with pytest.raises(
            ConfigError, match="padim n_features: expected 1 to 64, the channels of tf_efficientnet"
        ):
            Padim(backbone, n_features=n_features)
    with pytest.raises(DataError, match="at least two images"):
        Padim(backbone, 64, n_features=20).fit(samples["train"][:1])
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**8)
    unread = [
        Sample(f"c/train/good/{i}", tmp_path / "none.png", None, "c", "good") for i in range(2000)
    ]
    with pytest.raises(
        ResourceError, match="784 locations of 60 features and 2000 images.*padim.n_features"
    ):
        Padim(backbone, 112, n_features=60).fit(unread)


def test_loading_what_does_not_fit_is_refused(backbone, samples, tmp_path):
    Padim(backbone, 64, n_features=20).fit(samples["train"]).save(tmp_path / "m")
    settings = tmp_path / "m" / "settings.json"
    good = json.loads(settings.read_text())
    settings.write_text(json.dumps({**good, "settings": {**good["settings"], "n_features": 21}}))
    with pytest.raises(
        ModelError, match=r"expected tensors .*\(21, 256\).*found .*\(20, 256\).*fit it again"
    ):
        Padim.load(tmp_path / "m")
