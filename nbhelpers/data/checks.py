"""Finds in the files of a category what would change results without a word, or is read by a rule.

Every image and every mask is read once. Nothing here changes how they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from nbhelpers.data.decode import ORIENTATION, decode, open_header
from nbhelpers.data.findings import Finding, named
from nbhelpers.data.full_scale import FULL_SCALES
from nbhelpers.data.layout import Sample
from nbhelpers.data.masks import interpret_mask
from nbhelpers.errors import DataError

#: Shares of the image above which a mask is named.
INVERTED, WHOLE = 0.5, 0.95
#: Longer over shorter side, from which stretching to a square is named.
OBLONG = 3.0


@dataclass
class _Group:
    """Files with one and the same oddity, which become one finding."""

    what: str  # with {top} or {percent}, of the largest value
    effect: str
    remedy: str
    harmful: bool
    files: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, file: str, value: float = 0.0) -> None:
        self.files.append(file)
        self.values.append(value)

    def finding(self) -> Finding:
        top = max(self.values)
        what = self.what.format(top=top, percent=100 * top)
        return Finding(named(self.files), what, self.effect, self.remedy, self.harmful)


def check_files(samples: Sequence[Sample]) -> list[Finding]:
    """What is odd about the images and masks of one category.

    Args:
        samples: All samples of the category, with their reading (see ``with_reading``).

    Returns:
        One finding for each kind of oddity, whose ``file`` names the first of its files.
    """
    return check_images(samples) + check_masks(samples)


def check_images(samples: Sequence[Sample]) -> list[Finding]:
    """What is odd about the images, see ``check_files``."""
    reading = samples[0].reading
    scale = reading.full_scale or 0
    groups = {
        "unreadable": _Group(
            "cannot be read", "the study stops at this file", "replace or remove the file", True
        ),
        "turned": _Group(
            "the camera's orientation (EXIF) says that the picture is turned",
            "none: it is put upright, as viewers show it",
            "nothing to do where masks were painted on what a viewer showed",
            False,
        ),
        "sheets": _Group(
            "holds {top:.0f} pictures in one file",
            "only the first is used",
            "save each picture as a file of its own",
            True,
        ),
        "transparent": _Group(
            "opacity varies",
            f"transparent pixels show the colour {reading.background}",
            "set data.background to another colour, or export the images without transparency",
            False,
        ),
        "deep": _Group(
            "has more than 8 bits, values up to {top:g}",
            f"in all images of the category {scale} becomes white",
            "set data.bit_depth if the camera has other bits",
            False,
        ),
        "above": _Group(
            f"has values up to {{top:g}}, above the full scale {scale}",
            "they are cut off to white, so that a bright defect may vanish",
            "set data.bit_depth to the bits of the camera",
            True,
        ),
        "dark": _Group(
            "has more than 8 bits, but no value above {top:g}",
            f"the images are dark: white is {scale}, and few grey levels are used",
            "set data.bit_depth: 8 if values of 8 bits were stored",
            True,
        ),
        "oblong": _Group(
            "one side is {top:.1f} times as long as the other",
            "stretched to a square, thin defects across the long side vanish",
            "set data.resize: letterbox to keep the aspect, or cut the images into squares",
            False,
        ),
    }
    depths: dict[bool, str] = {}
    for sample in samples:
        try:
            with open_header(sample.image) as image:
                turned, sheets = _header(image)
            picture = decode(sample.image)
        except DataError:
            groups["unreadable"].add(sample.id)
            continue
        if turned:
            groups["turned"].add(sample.id)
        if sheets > 1:
            groups["sheets"].add(sample.id, sheets)
        if picture.alpha is not None and picture.alpha.min() != picture.alpha.max():
            groups["transparent"].add(sample.id)
        deep = picture.values.dtype != np.uint8
        depths.setdefault(deep, sample.id)
        if deep:
            peak = float(picture.values.max())
            groups["deep"].add(sample.id, peak)
            if scale and peak > scale * 1.05:
                groups["above"].add(sample.id, peak)
        height, width = picture.values.shape[:2]
        aspect = max(height, width) / min(height, width)
        if aspect > OBLONG and not reading.letterbox:
            groups["oblong"].add(sample.id, aspect)
    deep_group = groups["deep"]
    if scale in FULL_SCALES and deep_group.files and max(deep_group.values) <= 255:
        groups["dark"].files, groups["dark"].values = deep_group.files, deep_group.values
    findings = [group.finding() for group in groups.values() if group.files]
    if len(depths) == 2:
        findings.append(
            Finding(
                samples[0].category,
                f"images of 8 bits ({depths[False]}) beside images of more ({depths[True]})",
                "the two are scaled in two ways, so that one kind may look anomalous",
                "save all images of the category in one way",
                True,
            )
        )
    return findings


def _header(image: Image.Image) -> tuple[bool, int]:
    """Whether the file says that its picture is turned, and how many pictures it holds."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        # a phone's JPEG may hold a preview besides; only TIFF, WEBP, PNG and GIF hold equal ones
        sheets = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    except Exception:  # what cannot be read of a header is not odd: ``decode`` judges the file
        return False, 1
    return orientation in range(2, 9), sheets


def check_masks(samples: Sequence[Sample]) -> list[Finding]:
    """What is odd about the masks, see ``check_files``."""
    masked = [sample for sample in samples if sample.mask is not None]
    inverted = masked[0].reading.inverted_masks if masked else False
    groups = {
        "unreadable": _Group(
            "the mask cannot be read",
            "the study stops at this file",
            "replace or remove the file",
            True,
        ),
        "empty": _Group(
            "the mask marks no pixel",
            "the image is left out of pixel metrics",
            "paint the defect, or remove the mask",
            True,
        ),
        "whole": _Group(
            "the mask covers {percent:.0f} % of the image",
            "every pixel counts as a defect, so that pixel metrics mean nothing",
            "export the mask with the defect in white on black",
            True,
        ),
        "inverted": _Group(
            "the mask covers {percent:.0f} % of the image: inverted?",
            "if it is inverted, pixel metrics are those of the background",
            f"set data.masks: {'auto' if inverted else 'invert'} if the defect is the part that is not marked",
            True,
        ),
    }
    rules: dict[str, _Group] = {}
    for sample in masked:
        assert sample.mask is not None
        name = _below_root(sample, sample.mask)
        try:
            mask, how = interpret_mask(sample.mask)
        except DataError:
            groups["unreadable"].add(name)
            continue
        share = float(mask.mean())
        share = 1 - share if inverted else share
        for kind, applies in (
            ("empty", share == 0),
            ("whole", share > WHOLE),
            ("inverted", INVERTED < share <= WHOLE),
        ):
            if applies:
                groups[kind].add(name, share)
        if how:
            kind = "".join(letter for letter in how if not letter.isdigit())
            rule = _Group(
                how,
                "none if this is how the mask is meant",
                "export the mask with 255 for the defect and 0 for the rest, without soft edges",
                False,
            )
            rules.setdefault(kind, rule).add(name)
    return [group.finding() for group in (*groups.values(), *rules.values()) if group.files]


def _below_root(sample: Sample, path: Path) -> str:
    """A path below the data root, which is where the sample's id starts."""
    if sample.image.as_posix().endswith(f"/{sample.id}"):
        root = sample.image.parents[sample.id.count("/")]
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return path.as_posix()
