"""Draws a small data set in the folder layout of MVTec AD: hazelnut, carpet, zipper, their defects.

It replaces MVTec AD (Bergmann et al., IJCV 2021) where no download is possible. It has the same
categories, defect types and folders, and its masks are exact because they come from the drawing.
Every picture depends only on (seed, category, split, defect type, index), so any subset in any order
has the same pixels on every processor.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbhelpers.data.images import write_png
from nbhelpers.data.synthetic import carpet as synthetic_carpet
from nbhelpers.data.synthetic import hazelnut as synthetic_hazelnut
from nbhelpers.data.synthetic import zipper as synthetic_zipper
from nbhelpers.data.synthetic.draw import photograph
from nbhelpers.errors import ConfigError, DataError, ResourceError
from nbhelpers.sources import code_of

_CATEGORIES = {
    "hazelnut": synthetic_hazelnut,
    "carpet": synthetic_carpet,
    "zipper": synthetic_zipper,
}
DEFECT_TYPES: dict[str, tuple[str, ...]] = {
    name: module.DEFECTS for name, module in _CATEGORIES.items()
}
RECORD = "synthetic.json"  # the parameters of a category, written last into its folder
_MIN_SIZE = 64  # below this the teeth and yarns are thinner than a pixel


def draw_sample(
    category: str,
    split: str,
    defect_type: str,
    index: int,
    size: int,
    seed: int,
    with_defect: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture.

    Args:
        category: ``hazelnut``, ``carpet`` or ``zipper``.
        split: ``train`` or ``test``.
        defect_type: ``good`` or one of the category's ``DEFECT_TYPES``.
        index: Number of the picture.
        size: Side of the picture, at least 64 pixels.
        seed: The data set's seed.
        with_defect: If False, draw the same scene, camera and noise without the defect; the two
            pictures are equal outside the mask.

    Returns:
        The image ``(size, size, 3)`` uint8 RGB, and the mask ``(size, size)`` uint8 0/255 of the
        defect's pixels.

    Raises:
        ConfigError: The category or the defect type is unknown, or ``size`` is below 64.
    """
    _check([category], size, {})
    if defect_type not in ("good", *DEFECT_TYPES[category]):
        raise ConfigError(
            f"defect type of {category}: expected good, {', '.join(DEFECT_TYPES[category])}, "
            f"found {defect_type!r}; choose one of them"
        )
    key = f"{seed}|{category}|{split}|{defect_type}|{index}".encode()
    entropy = int.from_bytes(hashlib.sha256(key).digest()[:16], "little")
    scene, defect, camera = (
        np.random.default_rng(s) for s in np.random.SeedSequence(entropy).spawn(3)
    )
    drawn = defect_type if with_defect and defect_type != "good" else None
    return photograph(camera, *_CATEGORIES[category].draw(scene, defect, size, drawn))


def make_synthetic(
    root: Path,
    categories: Sequence[str] = ("hazelnut", "carpet", "zipper"),
    size: int = 256,
    train_good: int = 30,
    test_good: int = 10,
    per_defect: int = 4,
    seed: int = 42,
) -> None:
    """Draw the categories below ``root`` in the layout of MVTec AD.

    The images ``<category>/{train/good,test/good,test/<defect>}/NNN.png`` are RGB; the masks
    ``<category>/ground_truth/<defect>/NNN_mask.png`` have one channel with 0 and 255.

    A category is drawn into a hidden folder and renamed when it is complete. A category that was
    drawn with the same parameters and code is kept; any other drawn one is replaced. Only one
    process may draw at a time.

    Args:
        root: The folder of categories.
        categories: Names of the categories to draw.
        size: Side of the images, at least 64 pixels.
        train_good: Good training images per category, 1 to 1000.
        test_good: Good test images per category, 1 to 1000.
        per_defect: Test images per defect type, 1 to 1000.
        seed: The data set's seed.

    Raises:
        ConfigError: A parameter is out of range, or a category is unknown.
        DataError: The folder of a category exists and was not drawn by this function.
        ResourceError: The images cannot be written.
    """
    counts = {"train_good": train_good, "test_good": test_good, "per_defect": per_defect}
    _check(categories, size, counts)
    record = {"code": _code(), "size": size, "seed": seed, **counts}
    for category in categories:
        folder = Path(root) / category
        partial = folder.with_name(f".{category}.partial")
        replaced = folder.with_name(f".{category}.replaced")
        try:
            if _is_drawn(folder, category, record):
                continue
            for leftover in (partial, replaced):  # from a run that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            _draw_category(partial, category, record)
            if folder.exists():
                os.replace(folder, replaced)
            os.replace(partial, folder)
            shutil.rmtree(replaced, ignore_errors=True)
        except OSError as error:
            raise ResourceError(
                f"expected to write the synthetic {category} images to {folder}, found: {error}; "
                "free some space or choose a folder that you may write to"
            ) from error


def _check(categories: Sequence[str], size: int, counts: dict[str, int]) -> None:
    unknown = [name for name in categories if name not in _CATEGORIES]
    if unknown:
        raise ConfigError(
            f"categories: expected some of {', '.join(_CATEGORIES)}, found {', '.join(map(repr, unknown))}; "
            "only these can be drawn; for others give a data root with images"
        )
    if size < _MIN_SIZE:
        raise ConfigError(f"size: expected at least {_MIN_SIZE} px, found {size}; raise it")
    for name, count in counts.items():
        if not 1 <= count <= 1000:
            raise ConfigError(
                f"{name}: expected 1 to 1000 images (their names have three digits), found {count}; change it"
            )


def _code() -> str:
    """Hash of the code that draws, so that folders drawn by older code are replaced."""
    drawing = json.dumps(code_of("data.synthetic.dataset"), sort_keys=True)
    return hashlib.sha256(drawing.encode()).hexdigest()[:16]


def _plan(category: str, record: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Split, defect type and index of every image of a category."""
    for split in ("train", "test"):
        yield from ((split, "good", index) for index in range(record[f"{split}_good"]))
    for defect in DEFECT_TYPES[category]:
        yield from (("test", defect, index) for index in range(record["per_defect"]))


def _is_drawn(folder: Path, category: str, record: dict[str, Any]) -> bool:
    """Whether ``folder`` holds all images of the category, drawn as ``record`` says.

    Raises:
        DataError: The folder was not drawn by ``make_synthetic``, so it must not be replaced.
    """
    if not folder.exists():
        return False
    if not (folder / RECORD).is_file():
        raise DataError(
            f"expected no folder {folder}, or one drawn by make_synthetic (with {RECORD}), found another; "
            "choose another root for the synthetic set, or move that folder away"
        )
    if (folder / RECORD).read_text() != _text(record):
        return False
    return all(
        (folder / name).is_file() for step in _plan(category, record) for name in _names(*step)
    )


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True) + "\n"


def _names(split: str, defect: str, index: int) -> list[str]:
    """Paths of an image and, for a defect, of its mask, relative to the category's folder."""
    image, mask = f"{split}/{defect}/{index:03d}.png", f"ground_truth/{defect}/{index:03d}_mask.png"
    return [image] if defect == "good" else [image, mask]


def _draw_category(folder: Path, category: str, record: dict[str, Any]) -> None:
    for step in _plan(category, record):
        image, mask = draw_sample(category, *step, size=record["size"], seed=record["seed"])
        for name, pixels in zip(_names(*step), (image, mask), strict=False):
            write_png(folder / name, pixels)
    (folder / RECORD).write_text(_text(record))
