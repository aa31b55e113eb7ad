"""The sections of the configuration: the type and the range of each value.

What a key sets, and its unit, is said by its comment in ``configs/``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("[low, high] with low <= high")
    return pair


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
ShareRange = Annotated[tuple[Positive, Share], AfterValidator(_ascending)]
KernelRange = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_ascending)]
Domain = Literal["clean", "shift"]
ShiftPart = Literal[
    "rotation",
    "crop",
    "translation",
    "brightness",
    "contrast",
    "saturation",
    "blur",
    "noise",
    "illumination",
    "geometric",
    "photometric",
]
Layers = Annotated[tuple[str, ...], Field(min_length=1)]
Aggregation = Literal["max", "mean", "topk"]


def _bit_depth(value: Any) -> Any:
    if value != "auto" and not (type(value) is int and 8 <= value <= 16):
        raise ValueError("auto, or the bits of the camera's values, 8 to 16")
    return value


def _background(value: Any) -> Any:
    levels = value if isinstance(value, tuple) and len(value) == 3 else (value,)
    if not all(type(level) is int and 0 <= level <= 255 for level in levels):
        raise ValueError("a grey level of 0 to 255, or three: [red, green, blue]")
    return value


# Checked before pydantic, which would report each member of a union as a setting of its own
BitDepth = Annotated[int | str, BeforeValidator(_bit_depth)]
Background = Annotated[int | tuple[int, int, int], BeforeValidator(_background)]


def _mask_place(pattern: str) -> str:
    """Check ``data.masks_pattern``: a path below the category's folder with known names in it."""
    names = {"defect", "folder", "stem"}
    try:
        used = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
    except ValueError:  # a brace without its partner
        used = {pattern}
    parts = pattern.replace("\\", "/").split("/")
    if pattern and (not used <= names or "stem" not in used or ".." in parts or parts[0] == ""):
        raise ValueError(
            "an empty text, or a path below the category's folder with {stem} in it, and if needed {defect} and "
            "{folder}, for example ground_truth/{defect}/{stem}_gt.png"
        )
    return pattern


class Settings(BaseModel):
    """Base of all sections: frozen, without unknown keys, and strict about types.

    A string is never read as a number or as a truth value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: Any) -> Any:
        # YAML and JSON have only lists, and strict mode does not accept a list as a tuple
        if not isinstance(values, Mapping):
            return values
        return {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }


class SyntheticConfig(Settings):
    """The size and the number of images of the synthetic data set."""

    size: Annotated[int, Field(ge=64)]
    train_good: Annotated[int, Field(ge=5)]
    test_good: PositiveInt
    per_defect: PositiveInt


class DataConfig(Settings):
    """Which images are used, where they come from, and at which size a network sees them."""

    source: Literal["folder", "synthetic"]
    root: str
    categories: tuple[str, ...]
    image_size: Annotated[int, Field(ge=32)]
    bit_depth: BitDepth
    masks: Literal["auto", "invert"]
    masks_pattern: Annotated[str, AfterValidator(_mask_place)]
    background: Background
    resize: Literal["stretch", "letterbox"]
    synthetic: SyntheticConfig


class GroupRule(Settings):
    """How file names of a category tell which images show the same object.

    Attributes:
        pattern: Regular expression with one group, which is a number in the stem of the file.
        max_gap: Largest step between two numbers of one object.
    """

    pattern: str
    max_gap: Annotated[int, Field(ge=0)]

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        if groups != 1:
            raise ValueError(
                "a regular expression with one group, the number of the object or frame"
            )
        return pattern


class SplitConfig(Settings):
    """The shares of train, val and test, and the rules by which they are drawn."""

    train_ratio: OpenShare
    val_anomaly_ratio: OpenShare
    stratify: Literal["none", "defect"]
    groups: dict[str, GroupRule]


class LoaderConfig(Settings):
    """How batches of images are read."""

    batch_size: PositiveInt
    num_workers: Annotated[int, Field(ge=0)]
    pin_memory: bool
    persistent_workers: bool
    prefetch_factor: PositiveInt


class ShiftConfig(Settings):
    """The parts of the domain shift, and their ranges at severity ``moderate``."""

    severity: Literal["mild", "moderate", "severe"]
    only: tuple[ShiftPart, ...]
    rotation_degrees: Annotated[float, Field(ge=0, le=45)]
    crop_scale: ShareRange
    crop_aspect: Range
    translation: Annotated[float, Field(ge=0, lt=0.5)]
    brightness: Range
    contrast: Range
    saturation: Range
    blur_kernel: KernelRange
    blur_sigma: Range
    blur_probability: Share
    noise_sigma: Range
    noise_probability: Share
    illumination_probability: Share
    illumination_strength: ShareRange
    illumination_sigma: Positive


class BackboneConfig(Settings):
    """The pretrained network from which every method reads features."""

    name: str
    weights: Literal["packaged", "imagenet", "random"]


class PatchCoreConfig(Settings):
    """Hyper-parameters of PatchCore."""

    layers: Layers
    coreset_ratio: Annotated[float, Field(gt=0, le=1)]
    num_neighbors: PositiveInt
    reweight: bool
    aggregation: Aggregation
    topk_percentile: OpenShare


class PadimConfig(Settings):
    """Hyper-parameters of PaDiM."""

    layers: Layers
    n_features: PositiveInt
    aggregation: Aggregation
    topk_percentile: OpenShare
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class EvaluationConfig(Settings):
    """Thresholds, and the intervals of the metrics."""

    bootstrap_draws: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    threshold_rule: str
    target_fprs: Annotated[tuple[OpenShare, ...], Field(min_length=1)]
    conformal_folds: Annotated[int, Field(ge=2)]
