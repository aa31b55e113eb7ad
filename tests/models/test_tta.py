"""Test-time augmentation: views are flipped back before they are averaged; every detector has it."""

import numpy as np
import pytest
import torch

from nbhelpers.config import load_config
from nbhelpers.models.detector import Detector
from nbhelpers.models.factory import new_detector
from nbhelpers.models.patchcore import PatchCore

SIZE = 32


class Given(Detector):
    """A detector whose anomaly map is a given function of the image; the score is the map's mean."""

    name, kind = "given", "given 1"

    def __init__(self, map_of, **options):
        super().__init__(SIZE, **options)
        self.map_of, self.seen = map_of, []

    def save(self, path):
        raise NotImplementedError("it learns nothing")

    load = classmethod(save)

    def fit(self, samples):
        return self

    def score(self, images):
        self.seen.append(images)
        maps = self.map_of(images).numpy()
        nearest = np.full((len(images), 1, 1), len(self.seen), np.int32)
        return maps, maps.mean(axis=(1, 2)), nearest

    def tensors(self):
        return {}

    def restore(self, tensors, path):
        pass


def corner(images):
    """4 in the top left corner of whatever is seen, 0 elsewhere."""
    maps = torch.zeros(len(images), *images.shape[-2:])
    maps[:, 0, 0] = 4
    return maps


def brightness(images):
    """A function of each pixel alone, so that it commutes with every flip."""
    return images.mean(dim=1) ** 2


def test_maps_are_flipped_back_before_they_are_averaged(samples):
    plain = Given(corner).predict(samples["test"][:2])
    flips = Given(corner, tta="flips").predict(samples["test"][:2])
    expected = np.zeros((2, SIZE, SIZE))
    expected[:, 0, 0] = 4
    assert np.array_equal(plain.anomaly_maps, expected)
    # each view's own top left corner is another corner of the image; a quarter of 4 is left in each
    expected[:, [0, 0, -1, -1], [0, -1, 0, -1]] = 1
    assert np.array_equal(flips.anomaly_maps, expected)


def test_a_map_that_follows_the_image_and_its_score_stay(samples):
    plain = Given(brightness).predict(samples["test"])
    flips = Given(brightness, tta="flips").predict(samples["test"])
    np.testing.assert_allclose(flips.anomaly_maps, plain.anomaly_maps, rtol=1e-6)
    np.testing.assert_allclose(flips.image_scores, plain.image_scores, rtol=1e-5)
    assert flips.anomaly_maps.dtype == np.float32


def test_image_scores_are_averaged_over_the_four_views(samples):
    left_half = lambda images: images[:, 0] * (torch.arange(SIZE) < SIZE // 2)  # noqa: E731
    detector = Given(left_half, tta="flips")
    predictions = detector.predict(samples["test"][:1])
    (batch,) = detector.batches(samples["test"][:1], "", "test")
    # two views show the left half of the image there, two the right half: half of the mean of all
    assert predictions.image_scores[0] == pytest.approx(batch.images[0, 0].mean().item() / 2)
    image, mirrored, upside_down, turned = (view[0] for view in detector.seen)
    assert mirrored.equal(image.flip(-1)) and upside_down.equal(image.flip(-2))
    assert turned.equal(image.flip(-1).flip(-2))


def test_without_augmentation_an_image_is_seen_once_as_it_is(samples):
    detector = Given(corner)
    predictions = detector.predict(samples["test"])
    assert len(detector.seen) == 1 and predictions.nearest.ravel().tolist() == [1] * 4
    assert Given(corner, tta="flips").predict(samples["test"]).nearest.ravel().tolist() == [1] * 4


def test_flips_of_a_mirrored_image_give_the_mirrored_map(backbone, samples):
    """A property of the whole detector: what is averaged over all flips does not know left from
    right.
    """
    model = PatchCore(backbone, image_size=64, coreset_ratio=0.25, tta="flips")
    model.fit(samples["train"])
    (batch,) = model.batches(samples["test"], "", "test")
    scorers = {"score": model.score}
    one = model._scores_of_views(lambda images: images, scorers, batch.images)["score"]
    other = model._scores_of_views(lambda images: images, scorers, batch.images.flip(-1))["score"]
    np.testing.assert_allclose(one[0], other[0][..., ::-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-4)


def test_the_setting_reaches_every_detector():
    config = load_config("tiny", {"tta": "flips"})
    assert load_config("tiny").tta == "none"
    for method in ("patchcore", "padim", "ae_cnn"):
        assert new_detector(config, method, 42, "cpu").tta == "flips"
