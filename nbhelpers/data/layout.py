"""The folder layout of MVTec AD: finds categories, lists their samples, and names faults in a folder.

Layout (Bergmann et al., CVPR 2019): ``<root>/<category>/train/good``, ``test/good``,
``test/<defect type>``, ``ground_truth/<defect type>/<stem>_mask.<ext>``. Masks are optional: a
category without any ``ground_truth`` folder has image labels only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nbhelpers.data.reading import AS_STORED, Reading
from nbhelpers.errors import DataError

GOOD = "good"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

#: Images in train/good, in test/good and with test defects in the official archive (Table 1 of the
#: MVTec AD paper).
OFFICIAL_COUNTS = {"hazelnut": (391, 40, 70), "carpet": (280, 28, 89), "zipper": (240, 32, 119)}


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    Attributes:
        id: POSIX path of the image below its data root; unique in a study and the same on every
            machine.
        image: Path of the image.
        mask: Path of its ground-truth mask; None for good images and where no mask exists.
        category: Object or texture, for example ``hazelnut``.
        defect_type: ``good`` or the name of the defect's folder, for example ``crack``.
        domain: ``clean`` or ``shift``.
        reading: How its files are read.
    """

    id: str
    image: Path
    mask: Path | None
    category: str
    defect_type: str
    domain: str = "clean"
    reading: Reading = AS_STORED

    @property
    def label(self) -> int:
        """0 for good, 1 for anomalous."""
        return int(self.defect_type != GOOD)

    @property
    def source(self) -> str:
        """The official split that the image comes from: ``train`` or ``test``."""
        return self.id.split("/")[1]


def natural_key(name: str) -> list[int | str]:
    """Sort key that puts ``img_10`` after ``img_9`` and ignores case; equal names in other case are
    sorted by the name itself.
    """
    key: list[int | str] = []
    for index, piece in enumerate(re.split(r"(\d+)", name)):  # text and digits take turns
        key.append(int(piece) if index % 2 else piece.lower())
    return [*key, name]


def find_categories(root: Path) -> list[str]:
    """The sorted names of all folders in ``root`` that hold a folder ``train/good``.

    Raises:
        DataError: ``root`` is not a folder, or holds no category.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"data root {root}: expected a folder of categories in MVTec AD layout, found "
            f"{'a file' if root.exists() else 'nothing'}; give an existing folder with --data-root, "
            "or fetch MVTec AD with scripts/download_dataset.py"
        )
    folders = [child for child in root.iterdir() if not child.name.startswith(".")]
    categories = sorted(child.name for child in folders if (child / "train" / GOOD).is_dir())
    if not categories:
        inside = ", ".join(sorted(child.name for child in folders)[:6]) or "nothing"
        raise DataError(
            f"data root {root}: expected at least one folder <category>/train/good, found {inside}; "
            "point --data-root at the folder that holds the categories"
        )
    return categories


def _images_in(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    files = [p for p in files if not p.name.startswith(".")]
    return sorted(files, key=lambda path: natural_key(path.name))


def _masks_of(truth: Path) -> dict[str, Path]:
    """The mask files of one folder ``ground_truth/<defect type>``, by the stem of their image."""
    masks: dict[str, Path] = {}
    for path in _images_in(truth) if truth.is_dir() else []:
        stem = path.stem.removesuffix("_mask")
        if stem in masks:
            raise DataError(
                f"{truth}: two masks for one image, {masks[stem].name} and {path.name}; keep one"
            )
        masks[stem] = path
    return masks


def scan_category(root: Path, category: str) -> list[Sample]:
    """List the samples of one category.

    Returns:
        The samples in a fixed order: train before test, good before defects, files in natural
        order.

    Raises:
        DataError: The category or one of its folders is missing or empty, a defect image has no
            mask although the category has masks, a mask has no image, or two images share a stem.
    """
    root, base = Path(root), Path(root) / category
    if not base.is_dir():
        known = ", ".join(find_categories(root))
        raise DataError(
            f"unknown category '{category}': no folder {base}; this data root has: {known}"
        )
    for folder in (base / "train" / GOOD, base / "test", base / "test" / GOOD):
        if not folder.is_dir():
            raise DataError(
                f"category '{category}': expected the folder {folder}, found none; MVTec AD layout needs "
                "train/good, test/good and test/<defect type>"
            )
    has_masks = (base / "ground_truth").is_dir()
    defects = sorted(p.name for p in (base / "test").iterdir() if p.is_dir() and p.name != GOOD)
    samples: list[Sample] = []
    folders = [("train", GOOD), ("test", GOOD), *(("test", name) for name in defects)]
    for split, defect_type in folders:
        images = _images_in(base / split / defect_type)
        if not images:
            raise DataError(
                f"{base / split / defect_type}: expected images ({' '.join(IMAGE_SUFFIXES)}), found none; "
                "add images or remove the folder"
            )
        masks = _masks_of(base / "ground_truth" / defect_type) if defect_type != GOOD else {}
        stems: dict[str, Path] = {}
        for path in images:
            if path.stem in stems:
                raise DataError(
                    f"{path.parent}: {stems[path.stem].name} and {path.name} share a stem, so their mask "
                    "is ambiguous; rename one"
                )
            stems[path.stem] = path
            mask = masks.pop(path.stem, None)
            if has_masks and defect_type != GOOD and mask is None:
                expected = base / "ground_truth" / defect_type / f"{path.stem}_mask.png"
                raise DataError(
                    f"{path}: expected its mask {expected}, found none although category '{category}' has "
                    "masks; add the mask, or remove ground_truth to work with image labels only"
                )
            samples.append(
                Sample(path.relative_to(root).as_posix(), path, mask, category, defect_type)
            )
        if masks:
            raise DataError(
                f"{next(iter(masks.values()))}: this mask has no image in {base / split / defect_type}; "
                "add the image or remove the mask"
            )
    return samples


def to_table(samples: Iterable[Sample]) -> pd.DataFrame:
    """The samples as a table.

    Returns:
        One row per sample, with the columns category, split (the official one), defect, label,
        image (the sample's id), and mask (whether it has one).
    """
    rows = [
        {
            "category": s.category,
            "split": s.source,
            "defect": s.defect_type,
            "label": s.label,
            "image": s.id,
            "mask": s.mask is not None,
        }
        for s in samples
    ]
    return pd.DataFrame(rows, columns=["category", "split", "defect", "label", "image", "mask"])


def count_parts(samples: Iterable[Sample]) -> tuple[int, int, int]:
    """Counts of one category in the order of the paper: train good, test good, test defects."""
    samples = list(samples)
    train = sum(s.source == "train" for s in samples)
    defects = sum(s.label for s in samples)
    return train, len(samples) - train - defects, defects
