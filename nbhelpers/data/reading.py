"""How the files of one category are read: decided once, from its training images and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """What a file does not say itself about its pixels, and how they are shown to a network.

    It travels with each ``Sample``, so that every reader sees the same pixels.

    Attributes:
        full_scale: The value that is white in images of more than 8 bits and of floats, the same for
            all images of a category; None for the largest value that the file's type holds, which
            is 65535 for 16 bits and 1 for floats. Images of 8 bits do not need it.
        background: Red, green and blue (0 to 255) of the flat colour that is seen through
            transparent pixels.
        inverted_masks: Whether masks are painted the other way round: defects are zero.
        letterbox: Whether an image keeps its aspect when it is resized, with bars of ``background``
            along two sides, instead of being stretched to the square.
    """

    full_scale: int | None = None
    background: tuple[int, int, int] = (128, 128, 128)
    inverted_masks: bool = False
    letterbox: bool = False

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Reading:
        """The reading whose fields ``dataclasses.asdict`` gave and JSON stored."""
        return cls(**{**stored, "background": tuple(stored["background"])})


#: How files are read where nothing was decided.
AS_STORED = Reading()
