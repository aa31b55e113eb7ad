"""What shift parameters do to an image and its mask: alignment, exact gains, rounding, every image
size.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.transforms import functional

from nbhelpers.config import load_config
from nbhelpers.config.sections import ShiftConfig
from nbhelpers.data.images import resize_image
from nbhelpers.data.shift.apply import (
    apply_shift,
    geometric_matrix,
    illumination_gain,
    mirrored_pixels,
)
from nbhelpers.data.shift.parameters import PARTS, ShiftParameters, sample_parameters

STILL = ShiftParameters()
SHIFT = load_config("mvtec").shift.model_dump()


def config(**changes):
    return ShiftConfig(**{**SHIFT, **changes})


def scene(height=180, width=240):
    """A smooth coloured field with a bright square, and the square's mask."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.stack([60 + 40 * x, 80 + 30 * y, 70 + 30 * np.sin(9 * x + 5 * y)], -1).astype(
        np.uint8
    )
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : height // 2, width // 3 : width // 2] = 1
    image[mask == 1] = 240
    return image, mask


@pytest.mark.parametrize(
    "only", [(), ("geometric",), ("photometric",), *((part,) for part in PARTS)]
)
def test_severity_is_monotone_in_the_pixels(only):
    image, mask = scene(96, 128)
    certain = {"blur_probability": 1.0, "noise_probability": 1.0, "illumination_probability": 1.0}
    changes = np.array(
        [
            [
                np.abs(
                    apply_shift(
                        image,
                        mask,
                        sample_parameters(config(severity=severity, only=only, **certain), seed),
                    )[0].astype(float)
                    - image
                ).mean()
                for severity in ("mild", "moderate", "severe")
            ]
            for seed in range(12)
        ]
    )
    assert (np.diff(changes.mean(0)) > 0).all()
    # one image may cancel brightness with contrast; most may not
    assert (np.diff(changes, axis=1) >= 0).mean() > 0.9


# -- geometry
# -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(224, 224), (60, 90), (301, 77), (5, 7)])
def test_unchanged_means_byte_identical(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = (image[:, :, 0] > 200).astype(np.uint8)
    shifted, shifted_mask = apply_shift(image, mask, STILL)
    assert shifted.tobytes() == image.tobytes() and shifted_mask.tobytes() == mask.tobytes()
    assert apply_shift(image, None, STILL)[1] is None


def test_matrix_by_hand():
    # a 20 x 10 image has its centre at (9.5, 4.5)
    def where(x, y, **values):
        return (geometric_matrix((10, 20), replace(STILL, **values)) @ [x, y, 1]).tolist()

    assert where(3, 4) == pytest.approx([3, 4])
    assert where(9.5, 4.5, rotation_degrees=30.0) == pytest.approx([9.5, 4.5])
    assert where(10.5, 4.5, rotation_degrees=90.0) == pytest.approx(
        [9.5, 3.5]
    )  # to the right becomes up
    assert where(3, 4, translation_x=0.1, translation_y=-0.2) == pytest.approx([5, 2])
    # a quarter of the area in the top left corner: pixel centre -0.5 + 0.5 becomes -0.5 + 1
    corner = {"crop_scale": 0.25, "crop_x": 0.0, "crop_y": 0.0}
    assert where(-0.5, -0.5, **corner) == pytest.approx([-0.5, -0.5])
    assert where(9.5, 4.5, **corner) == pytest.approx([19.5, 9.5])
    wide = {"crop_scale": 0.5, "crop_aspect": 2.0}  # full width, half the height
    assert where(0, 4.5, **wide) == pytest.approx([0, 4.5])
    assert where(0, 5.5, **wide) == pytest.approx([0, 6.5])


def test_nothing_is_zoomed_beyond_the_crop():
    for seed in range(50):
        p = sample_parameters(config(), seed)
        matrix = geometric_matrix((300, 400), p)
        assert np.linalg.det(matrix[:, :2]) == pytest.approx(1 / p.crop_scale)


def test_warp_agrees_with_scipy():
    rng = np.random.default_rng(1)
    image = np.repeat(rng.integers(0, 256, (70, 110, 1), dtype=np.uint8), 3, axis=2)
    mask = (rng.random((70, 110)) > 0.5).astype(np.uint8)
    p = replace(
        STILL,
        rotation_degrees=-7.0,
        crop_scale=0.93,
        crop_aspect=1.04,
        crop_x=0.2,
        translation_x=0.08,
    )
    matrix = geometric_matrix(mask.shape, p)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    yx = back[[1, 0]][:, [1, 0, 2]]
    expected = ndimage.affine_transform(mask, yx[:, :2], yx[:, 2], order=0, mode="mirror")
    shifted, shifted_mask = apply_shift(image, mask, p)
    assert (shifted_mask != expected).mean() < 1e-3  # ties of a coordinate at .5
    # cubic kernels differ (Keys' -1 here, a spline there): noise agrees in the main only
    smooth = ndimage.affine_transform(
        image[:, :, 0].astype(float), yx[:, :2], yx[:, 2], order=3, mode="mirror"
    )
    assert np.corrcoef(shifted[:, :, 0].ravel(), smooth.ravel())[0, 1] > 0.98


def test_photometric_parts_leave_the_mask_bytes():
    image, mask = scene()
    for seed in range(5):
        _, same = apply_shift(image, mask, sample_parameters(config(only=("photometric",)), seed))
        assert same.tobytes() == mask.tobytes()


@pytest.mark.parametrize("shape", [(180, 240), (400, 150)])
@pytest.mark.parametrize("severity", ["mild", "moderate", "severe"])
def test_mask_stays_on_its_patch(shape, severity):
    image, mask = scene(*shape)
    for seed in range(25):
        shifted, shifted_mask = apply_shift(
            image, mask, sample_parameters(config(severity=severity, only=("geometric",)), seed)
        )
        assert shifted_mask.shape == mask.shape and set(np.unique(shifted_mask)) <= {0, 1}
        seen = shifted[:, :, 0] > 165
        both, either = (seen & (shifted_mask == 1)).sum(), (seen | (shifted_mask == 1)).sum()
        assert both / either > 0.95


def test_area_of_thin_and_tiny_defects_is_kept():
    mask = np.zeros((300, 300), np.uint8)
    mask[60:240, 150] = 1  # a scratch of one pixel
    rng = np.random.default_rng(0)
    dots = np.zeros_like(mask)
    dots[rng.integers(50, 250, 200), rng.integers(50, 250, 200)] = 1
    blank = np.zeros((300, 300, 3), np.uint8)
    ratio = []
    for angle in np.linspace(-10, 10, 21):
        p = replace(STILL, rotation_degrees=float(angle), crop_scale=0.95)
        scratch = apply_shift(blank, mask, p)[1]
        assert (
            cv2.connectedComponents(scratch, connectivity=8)[0] == 2
        )  # the background and one scratch
        ratio.append(apply_shift(blank, dots, p)[1].sum() / dots.sum() * 0.95)
    assert np.mean(ratio) == pytest.approx(1, abs=0.03)


def test_a_mirrored_defect_is_labelled_and_counted():
    image, mask = np.full((100, 100, 3), 60, np.uint8), np.zeros((100, 100), np.uint8)
    mask[40:60, 2:6] = 1
    image[mask == 1] = 240
    p = replace(
        STILL, translation_x=0.1
    )  # ten columns to the right: columns 12-15, mirrored at 10 to 5-8
    shifted, shifted_mask = apply_shift(image, mask, p)
    assert np.flatnonzero(shifted_mask[50]).tolist() == [5, 6, 7, 8, 12, 13, 14, 15]
    assert np.array_equal(shifted[:, :, 0] == 240, shifted_mask == 1)
    assert mirrored_pixels(mask, p) == 20 * 4


def test_a_defect_pushed_out_of_the_frame_leaves_an_empty_mask():
    image, mask = np.full((100, 100, 3), 60, np.uint8), np.zeros((100, 100), np.uint8)
    mask[40:60, 95:] = 1
    assert apply_shift(image, mask, replace(STILL, translation_x=0.1))[1].sum() == 0


# -- light, camera, sensor
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(224, 224), (225, 301), (64, 400), (2, 2)])
@pytest.mark.parametrize(
    ("kind", "direction"),
    [
        ("linear", "left"),
        ("linear", "right"),
        ("linear", "top"),
        ("linear", "bottom"),
        ("radial", "center_dark"),
        ("radial", "edges_dark"),
    ],
)
@pytest.mark.parametrize("strength", [0.4, 0.7])
def test_realised_gain_is_exactly_the_strength_and_one(shape, kind, direction, strength):
    if shape == (2, 2) and kind == "radial":
        return  # all four pixels are equally far from the centre
    gain = illumination_gain(
        shape,
        replace(
            STILL,
            illumination_applied=True,
            illumination_kind=kind,
            illumination_direction=direction,
            illumination_strength=strength,
            illumination_sigma=80.0,
        ),
    )
    assert gain.min() == strength and gain.max() == 1
    h, w = (side - 1 for side in shape)
    bright = {
        "left": (0, 0),
        "right": (0, w),
        "top": (0, 0),
        "bottom": (h, 0),
        "center_dark": (0, 0),
        "edges_dark": (h // 2, w // 2),
    }[direction]
    assert gain[bright] == pytest.approx(1, abs=1e-6)


def test_ramp_is_smooth_and_rounded_at_its_ends():
    lit = replace(
        STILL,
        illumination_applied=True,
        illumination_kind="linear",
        illumination_direction="left",
        illumination_strength=0.4,
        illumination_sigma=80.0,
    )
    row = illumination_gain((10, 449), lit)[0]
    steps = -np.diff(row)
    assert (steps > 0).all() and steps[0] < 0.1 * steps[224] and steps[-1] < 0.1 * steps[224]
    assert row[224] == pytest.approx(0.7, abs=1e-4)  # the middle has the mean of both ends
    sharp = illumination_gain((10, 449), replace(lit, illumination_sigma=0.01))[0]
    assert np.allclose(sharp, np.linspace(1, 0.4, 449), atol=1e-3)


def test_image_takes_the_illumination_pixel_by_pixel():
    p = replace(
        STILL,
        illumination_applied=True,
        illumination_kind="linear",
        illumination_direction="top",
        illumination_strength=0.5,
        illumination_sigma=80.0,
    )
    shifted, _ = apply_shift(np.full((101, 30, 3), 200, np.uint8), None, p)
    assert (shifted[0] == 200).all() and (shifted[-1] == 100).all()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("brightness", functional.adjust_brightness),
        ("contrast", functional.adjust_contrast),
        ("saturation", functional.adjust_saturation),
    ],
)
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_color_agrees_with_torchvision(name, reference, factor):
    image = np.random.default_rng(0).integers(60, 180, (40, 50, 3), dtype=np.uint8)
    expected = (
        reference(torch.from_numpy(image).permute(2, 0, 1) / 255.0, factor).permute(1, 2, 0).numpy()
        * 255
    )
    shifted, _ = apply_shift(image, None, replace(STILL, **{name: factor}))
    assert (
        np.abs(shifted - expected).max() <= 0.505
    )  # rounding alone (torchvision's luma weights: 4 digits)


def test_rounding_is_unbiased():
    image = np.random.default_rng(0).integers(20, 180, (300, 300, 3), dtype=np.uint8)
    shifted, _ = apply_shift(image, None, replace(STILL, brightness=1.137))
    assert abs((shifted - image * 1.137).mean()) < 0.01  # truncation would give -0.5


def test_values_are_clipped_and_not_wrapped():
    image = np.full((10, 10, 3), 250, np.uint8)
    assert (apply_shift(image, None, replace(STILL, brightness=1.3))[0] == 255).all()
    image[:, :5] = 5
    assert apply_shift(image, None, replace(STILL, contrast=1.3))[0][:, 0].max() == 0


@pytest.mark.parametrize("size", [224, 300, 512, 900])
def test_noise_has_its_sigma_and_survives_the_resize(size):
    image = np.full((size, size, 3), 128, np.uint8)
    p = replace(STILL, noise_applied=True, noise_sigma=0.05, noise_seed=5)
    shifted = apply_shift(image, None, p)[0]
    assert shifted.std() / 255 == pytest.approx(0.05, rel=0.02)
    assert 0.75 <= resize_image(shifted, 224).std() / 255 / 0.05 <= 1.02
    assert abs(shifted.mean() - 128) < 0.3
    assert not np.array_equal(shifted, apply_shift(image, None, replace(p, noise_seed=6))[0])


def test_blur_means_the_same_at_every_image_size():
    p = replace(STILL, blur_applied=True, blur_kernel=5, blur_sigma=1.5)
    edges = []
    for size in (224, 448, 896):
        image = np.zeros((size, size, 3), np.uint8)
        image[:, size // 2 :] = 200
        edges.append(resize_image(apply_shift(image, None, p)[0], 224)[112, 100:124, 0].astype(int))
    assert np.abs(edges[0] - edges[1]).max() <= 8 and np.abs(edges[1] - edges[2]).max() <= 8
    assert ((edges[0] > 10) & (edges[0] < 190)).sum() >= 3


@pytest.mark.parametrize("shape", [(60, 90), (300, 240)])
def test_grey_stays_grey(shape):
    image = np.repeat(
        np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8), 3, axis=2
    )
    for seed in range(10):
        shifted, _ = apply_shift(
            image, None, sample_parameters(config(noise_probability=1.0), seed)
        )
        assert shifted.shape == image.shape and (shifted == shifted[:, :, :1]).all()
