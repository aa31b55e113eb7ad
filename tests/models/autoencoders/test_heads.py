"""Residuals: each head finds what was changed and nothing else; masks on one scale; quality as
skimage has it.
"""

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import grey_opening
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity
from skimage.morphology import label
from torch import nn

from nbhelpers.errors import ConfigError, DataError, ModelError
from nbhelpers.evaluation.pixel_masks import binary_mask, pixel_threshold
from nbhelpers.models.autoencoders.heads import (
    CHUNK,
    HEADS,
    Residual,
    morphology,
    reconstruction_quality,
)


def smooth(seed: int, n: int = 2, size: int = 64) -> torch.Tensor:
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
    return nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(-1, 1)


@pytest.fixture
def residual(backbone):
    return lambda head: Residual(head, backbone)


@pytest.mark.parametrize("head", HEADS)
def test_a_changed_square_is_found_at_its_place(residual, head):
    reconstructions = smooth(0)
    images = reconstructions.clone()
    images[1, :, 40:56, 8:24] = torch.tensor([0.9, -0.9, 0.9]).view(3, 1, 1)
    maps = residual(head)(images, reconstructions)
    assert maps.shape == (2, 64, 64) and maps.dtype == torch.float32 and (maps >= 0).all()
    assert not maps.requires_grad
    # a batch of one: another size of batch rounds otherwise
    torch.testing.assert_close(
        maps[:1], residual(head)(images[:1], reconstructions[:1]), rtol=1e-4, atol=1e-6
    )
    assert maps[0].max() < 1e-6  # the image that was not changed
    row, column = divmod(int(maps[1].argmax()), 64)
    assert 35 <= row < 61 and 3 <= column < 29  # SSIM is least where its window crosses the border
    inside = maps[1, 40:56, 8:24].mean()
    outside = maps[1].clone()
    outside[32:64, 0:32] = 0
    assert inside > 10 * outside.sum() / (64 * 64 - 32 * 32)


@pytest.mark.parametrize("head", HEADS)
def test_equal_images_have_no_residual_and_a_larger_change_has_a_larger_one(residual, head):
    images = smooth(0)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    steps = [
        residual(head)(images, images + share * noise).mean().item() for share in (0, 0.1, 0.3, 0.9)
    ]
    assert steps[0] == pytest.approx(0, abs=1e-7)
    assert (
        residual(head)(images, images + 1e-4 * noise) >= 0
    ).all()  # where SSIM is rounded above 1, too
    assert all(lower < higher for lower, higher in zip(steps, steps[1:], strict=False))


def test_pixel_heads_are_their_formulas():
    images, reconstructions = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    images[0, :, 0, 1] = torch.tensor([0.1, -0.2, 0.6])
    assert Residual("pixel_l1")(images, reconstructions)[0].flatten().tolist() == pytest.approx(
        [0, 0.3, 0, 0]
    )
    squares = (0.01 + 0.04 + 0.36) / 3
    assert Residual("pixel_l2")(images, reconstructions)[0].flatten().tolist() == pytest.approx(
        [0, squares, 0, 0]
    )


def test_ssim_head_is_skimage_s_map():
    images, reconstructions = smooth(0), smooth(1)
    maps = Residual("ssim")(images, reconstructions).numpy()
    for residuals, x, y in zip(maps, images.numpy(), reconstructions.numpy(), strict=True):
        similarity = structural_similarity(
            x,
            y,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=2,
            channel_axis=0,
            full=True,
        )[1]
        expected = (1 - similarity).mean(axis=0) / 2
        assert residuals[5:-5, 5:-5] == pytest.approx(
            expected[5:-5, 5:-5], abs=1e-4
        )  # borders are mirrored otherwise


def test_feature_head_averages_cosine_distances():
    class Known(nn.Module):
        """Two layers: the images themselves, not normalised, and the mean of each quarter."""

        def forward(self, images):
            std, mean = torch.tensor([0.229, 0.224, 0.225]), torch.tensor([0.485, 0.456, 0.406])
            pixels = (images * std.view(1, 3, 1, 1) + mean.view(1, 3, 1, 1)) * 2 - 1
            return {"fine": pixels, "zeros": torch.zeros_like(pixels[..., :2, :2])}

    images, reconstructions = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    images[0, 0], reconstructions[0, 0] = 0.5, 0.9  # parallel: no distance
    reconstructions[0, :, 0, 0] = torch.tensor([0.0, 0.7, 0.0])  # at a right angle: distance 1
    reconstructions[0, :, 3, 3] = torch.tensor([-0.2, 0.0, 0.0])  # opposite: distance 2
    distances = Residual("feature", Known())(images, reconstructions)[0]
    expected = torch.zeros(4, 4)
    expected[0, 0], expected[3, 3] = (
        1 / 2,
        2 / 2,
    )  # a mean over two layers, the other without any distance
    torch.testing.assert_close(distances, expected, rtol=1e-4, atol=1e-6)


def test_the_backbone_is_never_trained_and_follows_to_another_type():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    class List(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, images):
            return [self.inner(images)]

    module = Residual("feature", List()).train()
    assert not any(m.training for m in network.modules())
    assert not any(p.requires_grad for p in module.parameters())
    images, reconstructions = smooth(0), smooth(1)
    single = module(images, reconstructions)
    double = module.to(torch.float64)(images.double(), reconstructions.double())
    assert double.dtype == torch.float32
    torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-6)
    # a device without storage: a tensor that was left behind would be refused
    assert (
        module.to("meta")(
            images.double().to("meta"), reconstructions.double().to("meta")
        ).device.type
        == "meta"
    )


def test_half_precision_is_computed_in_float32(residual):
    images, reconstructions = smooth(0).bfloat16(), smooth(1).bfloat16()
    for head in HEADS:
        expected = residual(head)(images.float(), reconstructions.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert residual(head)(images, reconstructions).equal(expected), head


def test_wrong_heads_and_images_are_refused():
    with pytest.raises(
        ConfigError, match="head: expected one of pixel_l1, pixel_l2, ssim, feature, found 'l1'"
    ):
        Residual("l1")
    with pytest.raises(ConfigError, match="head feature: expected a backbone, found none"):
        Residual("feature")
    for a, b in ((smooth(0, 2), smooth(0, 1)), (smooth(0)[:, :1], smooth(0)[:, :1])):
        with pytest.raises(ModelError, match="of one shape"):
            Residual("pixel_l1")(a, b)
        with pytest.raises(ModelError, match="of one shape"):
            reconstruction_quality(a, b)


# -- morphology
# ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_morphology_is_a_grey_opening(size):
    maps = (
        np.random.default_rng(0).standard_normal((2, 24, 30), np.float32) - 1
    )  # standardised ones have negatives
    opened = morphology(maps, size)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    expected = np.stack([grey_opening(m, footprint=ellipse) for m in maps])
    assert opened.dtype == np.float32 and np.array_equal(opened, expected)
    assert (opened <= maps).all() and np.array_equal(morphology(opened, size), opened)


def test_morphology_removes_a_small_peak_and_keeps_a_wide_one():
    maps = np.zeros((1, 32, 32), np.float32)
    maps[0, 4:6, 4:6], maps[0, 16:26, 16:26] = 5.0, 1.0
    opened = morphology(maps, 5)
    assert opened[0, :10, :10].max() == 0
    assert (opened[0, 18:24, 18:24] == 1).all()
    assert np.array_equal(morphology(maps, 0), maps)
    with pytest.raises(ConfigError, match="morphology: expected a size of 0 or more, found -1"):
        morphology(maps, -1)


# -- quality
# ------------------------------------------------------------------------------------------


def test_quality_is_that_of_skimage_and_numpy():
    images, reconstructions = smooth(0, 3), smooth(1, 3)
    reconstructions[2] = images[2]
    quality = reconstruction_quality(images, reconstructions)
    assert list(quality) == ["ssim", "mse", "l1"] and all(
        values.shape == (3,) for values in quality.values()
    )
    pairs = list(zip(images.numpy(), reconstructions.numpy(), strict=True))
    expected_ssim = [
        structural_similarity(
            x,
            y,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=2,
            channel_axis=0,
        )
        for x, y in pairs
    ]
    assert quality["ssim"] == pytest.approx(np.array(expected_ssim), abs=1e-4)
    assert quality["mse"] == pytest.approx(
        np.array([((x - y) ** 2).mean() for x, y in pairs]), rel=1e-5
    )
    assert quality["l1"] == pytest.approx(
        np.array([np.abs(x - y).mean() for x, y in pairs]), rel=1e-5
    )
    assert (quality["ssim"][2], quality["mse"][2], quality["l1"][2]) == (
        pytest.approx(1, abs=1e-6),
        0,
        0,
    )


def test_quality_of_many_images_is_that_of_each():
    images, reconstructions = smooth(4, n=CHUNK + 3, size=32), smooth(5, n=CHUNK + 3, size=32)
    together = reconstruction_quality(images, reconstructions)
    alone = [
        reconstruction_quality(images[i : i + 1], reconstructions[i : i + 1])
        for i in range(CHUNK + 3)
    ]
    for name, values in together.items():
        assert values == pytest.approx(
            np.concatenate([quality[name] for quality in alone]), rel=1e-5
        )


# -- masks
# --------------------------------------------------------------------------------------------


def test_small_regions_are_dropped_and_the_threshold_belongs_to_the_mask():
    scores = np.zeros((20, 20), np.float32)
    scores[0:3, 0:5] = 1.0  # 15 pixels
    scores[10:12, 0:7] = 1.0  # 14 pixels
    scores[range(3, 17), range(6, 20)] = 1.0  # 14 pixels, joined by their corners alone ...
    scores[17, 19] = 1.0  # ... and one more below the last
    mask = binary_mask(scores, 1.0, 15)
    assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
    assert mask[0:3, 0:5].all() and mask.sum() == 30
    assert not mask[10:12, 0:7].any()
    assert (
        binary_mask(scores, 1.0, min_area=0).sum()
        == binary_mask(scores, 1.0, min_area=14).sum()
        == 44
    )
    assert binary_mask(scores, 1.001, 15).sum() == 0
    assert binary_mask(scores, -1.0, 15).all()  # all of it is one region


def test_masks_keep_the_regions_that_skimage_counts_as_large():
    scores = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    regions = label(scores >= 0.7, connectivity=2)
    sizes = np.bincount(regions.ravel())
    large = (sizes >= 15) & (np.arange(len(sizes)) > 0)
    assert 0 < large.sum() < len(sizes) - 1
    assert np.array_equal(binary_mask(scores, 0.7, 15), large[regions])


def test_a_good_image_has_no_defect_on_the_scale_of_good_images():
    """With a separate scale for each image, every image would have one."""
    draw = np.random.default_rng(0)
    good = draw.normal(1, 0.1, (8, 32, 32)).astype(np.float32)
    defect = good[0].copy()
    defect[8:16, 8:16] += 2
    threshold = pixel_threshold(good, 99.5)
    assert threshold == pytest.approx(
        np.sort(good.ravel())[round(0.995 * (good.size - 1))], abs=1e-3
    )
    assert [binary_mask(m, threshold, 15).any() for m in good] == [False] * 8
    assert np.array_equal(binary_mask(defect, threshold, min_area=15)[8:16, 8:16], np.ones((8, 8)))
    assert all(binary_mask(m, threshold_otsu(m), 15).any() for m in good)


@pytest.mark.parametrize("percentile", [0, 100, -1, float("nan")])
def test_a_percentile_out_of_range_is_refused(percentile):
    with pytest.raises(ConfigError, match=r"percentile: expected a number in \(0, 100\)"):
        pixel_threshold(np.ones((1, 4, 4)), percentile)


def test_a_threshold_needs_maps():
    with pytest.raises(DataError, match="expected maps of good validation images, found none"):
        pixel_threshold(np.empty((0, 4, 4), np.float32), 99.5)
