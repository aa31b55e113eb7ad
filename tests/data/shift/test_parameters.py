"""What is drawn for one shifted image: ranges, rates, seeds, single parts and severities."""

from dataclasses import fields

import numpy as np
import pytest

from nbhelpers.config import load_config
from nbhelpers.config.sections import ShiftConfig
from nbhelpers.data.shift.parameters import (
    GEOMETRIC,
    PARTS,
    PHOTOMETRIC,
    ShiftParameters,
    expand_parts,
    image_seed,
    sample_parameters,
)
from nbhelpers.errors import ConfigError

STILL = ShiftParameters()
SHIFT = load_config("mvtec").shift.model_dump()


def config(**changes):
    return ShiftConfig(**{**SHIFT, **changes})


def test_a_thousand_draws_stay_inside_the_ranges_and_fill_them():
    draws = [sample_parameters(config(), seed) for seed in range(1000)]
    ranges = {
        "rotation_degrees": (-10, 10),
        "crop_scale": (0.9, 1),
        "crop_aspect": (0.9, 1.1),
        "crop_x": (0, 1),
        "crop_y": (0, 1),
        "translation_x": (-0.1, 0.1),
        "translation_y": (-0.1, 0.1),
        "brightness": (0.7, 1.3),
        "contrast": (0.7, 1.3),
        "saturation": (0.7, 1.3),
    }
    for name, (low, high) in ranges.items():
        values = np.array([getattr(p, name) for p in draws])
        assert low <= values.min() and values.max() <= high, name
        assert np.ptp(values) > 0.8 * (high - low), name
        assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low), name
    chances = (
        ("blur", "blur_sigma", (0.1, 2.0)),
        ("noise", "noise_sigma", (0.01, 0.05)),
        ("illumination", "illumination_strength", (0.4, 0.7)),
    )
    for part, name, (low, high) in chances:
        applied = np.array([getattr(p, f"{part}_applied") for p in draws])
        values = np.array([getattr(p, name) for p in draws])
        assert 0.45 <= applied.mean() <= 0.55, part
        assert low <= values[applied].min() and values[applied].max() <= high, name
        assert set(values[~applied]) == {getattr(STILL, name)}
    assert {p.blur_kernel for p in draws} == {0, 3, 5}
    kinds = {(p.illumination_kind, p.illumination_direction) for p in draws}
    assert len(kinds) == 7 and ("none", "none") in kinds  # four sides, two radial, none


def test_the_crop_window_always_fits_the_image():
    for severity in ("mild", "moderate", "severe"):
        for seed in range(300):
            p = sample_parameters(config(severity=severity), seed)
            assert (
                p.crop_scale * p.crop_aspect <= 1 + 1e-9
                and p.crop_scale / p.crop_aspect <= 1 + 1e-9
            )


def test_seed_is_a_stable_hash_of_who_the_image_is():
    assert image_seed(42, "hazelnut", "test", "hazelnut/test/crack/000.png") == 7182635152446070981
    seeds = {
        image_seed(base, category, split, f"{number:03}")
        for base in (0, 1)
        for category in ("a", "b")
        for split in ("train", "val")
        for number in range(200)
    }
    assert len(seeds) == 1600
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_same_seed_same_values_in_any_order():
    forward = [sample_parameters(config(), seed) for seed in range(20)]
    backward = [sample_parameters(config(), seed) for seed in reversed(range(20))]
    assert forward == backward[::-1]


@pytest.mark.parametrize("part", PARTS)
def test_a_single_part_keeps_its_values_and_nothing_else(part):
    for seed in range(30):
        whole, single = (sample_parameters(config(only=only), seed) for only in ((), (part,)))
        for name in (field.name for field in fields(ShiftParameters)):
            expected = whole if name.startswith(part) else STILL
            assert getattr(single, name) == getattr(expected, name), name


def test_groups_and_refused_settings():
    assert expand_parts(()) == PARTS == GEOMETRIC + PHOTOMETRIC
    assert expand_parts(("geometric", "noise")) == (*GEOMETRIC, "noise")
    with pytest.raises(ConfigError, match="expected names among .* found hue"):
        expand_parts(("rotation", "hue"))
    for bad in ({"blur_kernel": (4, 4)}, {"crop_aspect": (1.2, 1.5)}):
        with pytest.raises(ConfigError, match="expected"):
            sample_parameters(config(**bad), 0)


def test_two_configurations_cannot_affect_each_other():
    first = config()
    before = [sample_parameters(first, seed) for seed in range(10)]
    second = first.model_copy(update={"illumination_probability": 1.0, "rotation_degrees": 0.0})
    assert all(
        p.illumination_applied and p.rotation_degrees == 0
        for p in (sample_parameters(second, seed) for seed in range(10))
    )
    assert [sample_parameters(first, seed) for seed in range(10)] == before


def test_severity_scales_the_same_draws():
    certain = {"blur_probability": 1.0, "noise_probability": 1.0, "illumination_probability": 1.0}
    mild, moderate, severe = (
        sample_parameters(config(severity=severity, **certain), 3)
        for severity in ("mild", "moderate", "severe")
    )
    for name in (
        "rotation_degrees",
        "crop_scale",
        "translation_x",
        "translation_y",
        "brightness",
        "contrast",
        "saturation",
        "blur_sigma",
        "noise_sigma",
        "illumination_strength",
    ):
        unchanged = getattr(STILL, name)
        step = getattr(moderate, name) - unchanged
        assert getattr(mild, name) - unchanged == pytest.approx(0.5 * step), name
        assert getattr(severe, name) - unchanged == pytest.approx(1.5 * step), name
    for name in (
        "crop_x",
        "blur_kernel",
        "noise_seed",
        "illumination_kind",
        "illumination_direction",
    ):
        assert getattr(mild, name) == getattr(moderate, name) == getattr(severe, name)
