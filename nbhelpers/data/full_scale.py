"""Decides how the files of a category are read: the full scale of deep images, and the settings.

A camera of 10, 12 or 14 bits stores its values in files of 16 bits, and nothing in the file says
so. Divided by 65535 they would leave few grey levels. So one full scale is set for all images of a
category, from its training images: scaled each on its own, a defect would change how bright the
rest of its image is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nbhelpers.config.sections import DataConfig
from nbhelpers.data.images import FLOAT_SLACK, fingerprint
from nbhelpers.data.layout import Sample
from nbhelpers.data.reading import Reading
from nbhelpers.errors import DataError

#: Full scales of cameras with 10, 12, 14 and 16 bits.
FULL_SCALES = (1023, 4095, 16383, 65535)

Peaks = Mapping[str, float | int | None]


def with_reading(
    samples: Sequence[Sample], settings: DataConfig, peaks: Peaks | None = None
) -> list[Sample]:
    """The samples of one category, each with the way in which all files of the category are read.

    Args:
        samples: All samples of the category.
        settings: The section ``data`` of the configuration.
        peaks: Each image's largest value by sample id, see ``fingerprint``; None reads all images.

    Raises:
        DataError: An image is unreadable, or images of integers and of floats are mixed.
    """
    if peaks is None:
        peaks = {sample.id: fingerprint(sample.image)[1] for sample in samples}
    background = settings.background
    reading = Reading(
        _full_scale(samples, peaks, settings.bit_depth),
        (background,) * 3 if isinstance(background, int) else background,
        settings.masks == "invert",
        settings.resize == "letterbox",
    )
    return [replace(sample, reading=reading) for sample in samples]


def _full_scale(samples: Sequence[Sample], peaks: Peaks, bit_depth: str | int) -> int | None:
    """The full scale of the category's deep images; None where all images have 8 bits."""
    deep = {s.id: peak for s in samples if (peak := peaks[s.id]) is not None}
    if not deep:
        return None
    kinds = {isinstance(peak, float): identity for identity, peak in deep.items()}
    if len(kinds) == 2:
        raise DataError(
            f"category '{samples[0].category}': expected integers in all deep images or floats in all, found "
            f"integers in {kinds[False]} and floats in {kinds[True]}; save them in one format"
        )
    training = [deep[s.id] for s in samples if s.id in deep and s.source == "train"]
    peak = max(training or deep.values())
    if True in kinds and peak <= 1 + FLOAT_SLACK:
        return 1
    if isinstance(bit_depth, int):
        return 2**bit_depth - 1
    scales = (255, *FULL_SCALES) if True in kinds else FULL_SCALES
    fitting = [scale for scale in scales if peak <= scale * (1 + FLOAT_SLACK * (True in kinds))]
    if not fitting:
        raise DataError(
            f"category '{samples[0].category}': expected values up to {scales[-1]}, found {peak:g} in its training "
            "images; save them with 8 or 16 bits"
        )
    return fitting[0]
