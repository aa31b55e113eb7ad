"""Finds the mask file of each defect image, by its folder and its name.

The usual place is ``ground_truth/<defect type>/<stem>_mask.<ext>``. Masks in other places and of
other names are found by one rule. A mask lies in the folder of its defect type, at the same sub-path
as its image or without a sub-path, or in one folder for all types. Its name is the stem of its
image, alone or with a word such as ``_mask``, ``_gt`` or ``_label`` behind it or ``mask_`` before
it; in a folder for all types the defect type may stand before it. A mask that fits two images and an
image that has two masks are refused. The setting ``data.masks_pattern`` replaces this rule.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from nbhelpers.data.findings import Finding, named
from nbhelpers.data.tree import GOOD, IMAGE_SUFFIXES, TRUTH, is_image_name
from nbhelpers.errors import DataError

WORDS = r"masks?|gt|labels?|seg|segmentation|annotations?|(?:ground[ _-]?)?truth"
WORD_BEHIND = re.compile(rf"[ ._-]+(?:{WORDS})$", re.IGNORECASE)
WORD_BEFORE = re.compile(rf"^(?:{WORDS})[ ._-]+", re.IGNORECASE)


class MaskSearch:
    """The masks of one category.

    Args:
        base: The category's folder.
        images: The defect images by defect type, each below ``base / "test" / type``.
        files: Every image file below ``base / "ground_truth"``.
        pattern: The setting ``data.masks_pattern``; empty for the rule of this module.

    Attributes:
        masks: The mask by image.
        findings: What is odd about the masks' names and number.

    Raises:
        DataError: A mask has no image or fits several, an image has several masks, or there are
            masks and none of them fits.
    """

    def __init__(
        self,
        base: Path,
        images: Mapping[str, Sequence[Path]],
        files: Sequence[Path],
        pattern: str = "",
    ) -> None:
        self.base, self.images, self.pattern = base, images, pattern
        self.masks: dict[Path, Path] = {}
        self.findings: list[Finding] = []
        self._types = {path: kind for kind, members in images.items() for path in members}
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self._types:
            self._by_stem[path.stem].append(path)
        if pattern:
            self._find_by_pattern()
        else:
            self._find_by_rule(files)
        missing = [path for path in self._types if path not in self.masks]
        if self.masks and missing:
            self._say(
                missing,
                f"{len(missing)} of {len(self._types)} defect images have no mask",
                "image metrics count all images, pixel metrics those that have a mask",
                "nothing to do, or add the masks",
            )

    def _find_by_pattern(self) -> None:
        for image, kind in self._types.items():
            path = self.base / self.pattern.format(
                defect=kind, folder=self._folder(image), stem=image.stem
            )
            guesses = [path.with_name(path.name + suffix) for suffix in IMAGE_SUFFIXES]
            for mask in [path] if is_image_name(path) else guesses:
                if mask.is_file():
                    self._take(mask, image)
        if self._types and not self.masks:
            raise DataError(
                f"{path}: expected a mask, found none for any of {len(self._types)} defect images; correct "
                f"data.masks_pattern '{self.pattern}'"
            )

    def _find_by_rule(self, files: Sequence[Path]) -> None:
        foreign, named_otherwise = [], []
        for mask in files:
            kind, *folders = mask.relative_to(self.base / TRUTH).parts[:-1] or ("",)
            fitting = [] if kind == GOOD else self._images_of(mask, kind, "/".join(folders))
            if len(fitting) > 1:
                raise DataError(
                    f"{mask}: expected one image that it fits, found {fitting[0]} and {fitting[1]}, which share a "
                    "stem; rename one of these images, or put masks in folders like their images"
                )
            if fitting:
                self._take(mask, fitting[0])
                if mask.stem.removesuffix("_mask") != fitting[0].stem:
                    named_otherwise.append(mask)
            elif kind in self.images:
                without = [path.name for path in self.images[kind] if path not in self.masks]
                raise DataError(
                    f"{mask}: this mask has no image in {self.base / 'test' / kind}, found {len(without)} images "
                    f"without a mask ({', '.join(without[:3]) or 'none'}); add the image, rename or remove the mask, "
                    "or set data.masks_pattern"
                )
            else:
                foreign.append(mask)
        if named_otherwise:
            first = named_otherwise[0]
            image = next(image for image, mask in self.masks.items() if mask == first)
            self._say(
                named_otherwise,
                f"masks have other names than <stem>_mask; {first.name} is read for {image.name}",
                "none if the pairs are right",
                "nothing to do; or set data.masks_pattern",
            )
        of_good = [m for m in foreign if m.relative_to(self.base / TRUTH).parts[0] == GOOD]
        others = [mask for mask in foreign if mask not in of_good]
        if others and self._types and not self.masks:
            raise DataError(
                f"{others[0]}: expected {TRUTH}/<defect type>/<stem>_mask.png, found no image for any of "
                f"{len(others)} masks; rename them, set data.masks_pattern, or remove {TRUTH} to work with image "
                "labels only"
            )
        for files, whose in ((of_good, "good images"), (others, "images that are not in test")):
            self._say(files, f"masks of {whose}", "they are not used", "nothing to do")

    def _images_of(self, mask: Path, kind: str, folder: str) -> list[Path]:
        """The images that a mask fits by the first of its possible stems that fits any."""
        for stem in _stems(mask.stem):
            if kind in self.images:
                fitting = [path for path in self._by_stem[stem] if self._types[path] == kind]
                same = [path for path in fitting if self._folder(path) == folder]
                fitting = same or ([] if folder else fitting)
            else:  # a folder for all types
                fitting = [
                    path
                    for name in self.images
                    if stem.lower().startswith((f"{name}_".lower(), f"{name}-".lower()))
                    for path in self._by_stem[stem[len(name) + 1 :]]
                    if self._types[path] == name
                ] or self._by_stem[stem]
            if fitting:
                return fitting
        return []

    def _folder(self, image: Path) -> str:
        """The sub-path of an image below the folder of its defect type, empty when it has none."""
        folder = image.parent.relative_to(self.base / "test" / self._types[image]).as_posix()
        return "" if folder == "." else folder

    def _take(self, mask: Path, image: Path) -> None:
        if image in self.masks:
            raise DataError(
                f"{image}: two masks for one image, {self.masks[image]} and {mask.name}; keep one"
            )
        self.masks[image] = mask

    def _say(self, files: Sequence[Path], what: str, effect: str, remedy: str) -> None:
        if files:
            names = [path.relative_to(self.base.parent).as_posix() for path in files]
            self.findings.append(Finding(named(names), what, effect, remedy))


def _stems(stem: str) -> list[str]:
    """The stems that the image of a mask may have, the most usual first."""
    shorter = [
        stem.removesuffix("_mask"),
        stem,
        WORD_BEHIND.sub("", stem),
        WORD_BEFORE.sub("", stem),
    ]
    return list(dict.fromkeys(shorter))
