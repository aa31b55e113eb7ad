"""The folder layout of MVTec AD: finds categories, lists their samples, and names faults in a folder.

Layout (Bergmann et al., CVPR 2019): ``<root>/<category>/train/good``, ``test/good``,
``test/<defect type>``, ``ground_truth/<defect type>/<stem>_mask.<ext>``. Images may lie in
sub-folders of these. Only ``train/good`` is required: without a test set there are images to learn
from, and without masks there are image labels only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nbhelpers.data.findings import Finding, named
from nbhelpers.data.mask_files import MaskSearch
from nbhelpers.data.reading import AS_STORED, Reading
from nbhelpers.data.tree import (
    GOOD,
    IMAGE_SUFFIXES,
    TRUTH,
    Tree,
    children,
    is_image_name,
    printable,
    walk,
)
from nbhelpers.errors import DataError

#: Images in train/good, in test/good and with test defects in the official archive (Table 1 of the
#: MVTec AD paper).
OFFICIAL_COUNTS = {"hazelnut": (391, 40, 70), "carpet": (280, 28, 89), "zipper": (240, 32, 119)}
#: Kinds of files that lie among images without being images.
SIDE_SUFFIXES = (".txt", ".csv", ".json", ".xml", ".md", ".yaml", ".yml", ".html", ".log", ".ini")
#: Names of folders, in small letters without signs, that other data sets give their good images.
WORDS_FOR_GOOD = {
    "clean",
    "defectfree",
    "fine",
    "good",
    "goodparts",
    "gut",
    "healthy",
    "intact",
    "io",
    "negative",
    "nodefect",
    "nodefects",
    "nondefective",
    "normal",
    "ok",
    "okay",
    "pass",
    "passed",
}
#: Bytes of the name of a category or a defect type, which is a part of many names of files.
LONGEST_NAME = 120
SHOWN = 6  # most names of entries in one error


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


def find_categories(root: Path) -> list[str]:
    """The sorted names of all folders in ``root`` that hold a folder ``train/good``.

    Raises:
        DataError: ``root`` is not a folder, or holds no category; the error says what was seen and
            which command would fit.
    """
    root = Path(root)
    if printable(root) != str(root):
        raise DataError(
            f"data root {printable(root)}: expected a path in UTF-8, found other bytes (\\x..); rename the folder"
        )
    if not root.is_dir():
        raise DataError(
            f"data root {root}: expected a folder of categories in MVTec AD layout, found "
            f"{_absent(root)}; give an existing folder with --data-root, "
            "or fetch MVTec AD with scripts/download_dataset.py"
        )
    categories = sorted(path.name for path in children(root) if _is_category(path))
    if not categories:
        raise DataError(
            f"data root {root}: expected at least one folder <category>/train/good, found "
            f"{_contents(root)}; {_advice(root)}"
        )
    return categories


def _is_category(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir()


def _absent(path: Path) -> str:
    """What is found where a folder was expected."""
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which does not exist (is the disk mounted?)"
    return "a file" if path.exists() else "nothing"


def _contents(folder: Path) -> str:
    """The entries of a folder as a text, folders with what they hold."""
    entries = []
    for path in children(folder):
        name = f"{path.name}/train" if (path / "train").is_dir() else path.name
        inside = children(folder / name) if path.is_dir() else []
        names = ", ".join(child.name for child in inside[:3]) + (", ..." if inside[3:] else "")
        entries.append(f"{name}/ ({names})" if path.is_dir() else name)
    more = f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
    return ", ".join(entries[:SHOWN]) + more or "nothing"


def _advice(root: Path) -> str:
    """The command that would fit what lies in a folder without categories."""
    here = root.resolve()
    above = [
        here,
        *list(here.parents)[:2],
    ]  # the folder may be a category, its train, or train/good
    category = next((path for path in above if _is_category(path)), None)
    if category is not None:
        return (
            f"this is category '{category.name}' or a folder of it: use --data-root {category.parent} "
            f"--categories {category.name}"
        )
    for path in children(root):
        if path.is_dir() and any(_is_category(child) for child in children(path)):
            return f"the categories lie one folder deeper: use --data-root {path}"
    return (
        "point --data-root at the folder that holds the categories; or move the good images to learn from "
        "to <category>/train/good, and those to test on to <category>/test/good and "
        "<category>/test/<defect type>"
    )


def root_findings(root: Path) -> list[Finding]:
    """Name the folders of a data root that hold images and are not categories."""
    root = Path(root)
    odd = [path for path in children(root) if path.is_dir() and not _is_category(path)]
    odd = [path for path in odd if walk(path).images]
    return [
        Finding(
            path.name,
            f"a folder with images but without train/good, found {_contents(path)}",
            "it is not a category of the study",
            "move its good images to train/good, or nothing if it is no category",
        )
        for path in odd
    ]


@dataclass(frozen=True)
class Scan:
    """What was found in the folder of one category.

    Attributes:
        samples: The samples in a fixed order: train before test, good before defects, files in
            natural order.
        findings: What is odd about the folders, the files and their names.
        files: Every file that was seen, the ones that are left out included.
    """

    samples: list[Sample]
    findings: list[Finding]
    files: list[Path]


def scan_category(root: Path, category: str, masks_pattern: str = "") -> list[Sample]:
    """List the samples of one category; see ``survey_category``."""
    return survey_category(root, category, masks_pattern).samples


def survey_category(root: Path, category: str, masks_pattern: str = "") -> Scan:
    """List the samples of one category, and name what is odd about its files.

    Args:
        root: The data root.
        category: The name of the category's folder.
        masks_pattern: The setting ``data.masks_pattern``: the place of a mask below the category's
            folder, with ``{defect}``, ``{folder}`` and ``{stem}``. Empty for the usual places and
            names, see ``mask_files``.

    Raises:
        DataError: The category or its train/good is missing or empty, a folder of defects is empty,
            or masks and images do not fit together.
    """
    root, base = Path(root), Path(root) / category
    if not base.is_dir():
        known = ", ".join(find_categories(root))
        raise DataError(
            f"unknown category '{category}': expected the folder {base}, found {_absent(base)}; this data root "
            f"has: {known}"
        )
    if not _is_category(base):
        folder = base / "train" / GOOD
        raise DataError(
            f"category '{category}': expected the folder {folder}, found {_absent(folder)}; there is "
            f"{_contents(base)}; MVTec AD layout needs train/good, and test/good and test/<defect type> to test"
        )
    test = base / "test"
    kinds = [path.name for path in children(test) if path.is_dir()] if test.is_dir() else []
    defects = sorted(name for name in kinds if name != GOOD)
    for name in (category, *defects):
        if len(name.encode()) > LONGEST_NAME:
            raise DataError(
                f"{base}: expected names of categories and defect types of at most {LONGEST_NAME} bytes, found "
                f"{len(name.encode())} for '{name}'; rename the folder"
            )
    for name in defects:
        if "".join(c for c in name.lower() if c.isalnum()) in WORDS_FOR_GOOD:
            raise DataError(
                f"{test / name}: expected the name of a defect, since every folder of test but '{GOOD}' holds defects, "
                f"found '{name}'; rename it to '{GOOD}' if its images are good, or to what the defect is"
            )
    parts = [("train", GOOD), *(("test", name) for name in (GOOD, *defects) if name in kinds)]
    trees = {part: walk(base.joinpath(*part)) for part in parts}
    for part, tree in trees.items():
        if not tree.images and part != ("test", GOOD):
            raise DataError(
                f"{base.joinpath(*part)}: expected images ({' '.join(IMAGE_SUFFIXES)}), found "
                f"{_kinds_of(tree)}; add images or remove the folder"
            )
    truth = walk(base / TRUTH) if (base / TRUTH).is_dir() else Tree()
    images = {name: trees["test", name].images for name in defects}
    search = MaskSearch(base, images, truth.images, masks_pattern)
    samples = [
        Sample(
            path.relative_to(root).as_posix(), path, search.masks.get(path), category, defect_type
        )
        for (_, defect_type), tree in trees.items()
        for path in tree.images
    ]
    every = [*trees.values(), truth]
    findings = [
        *_missing_parts(category, samples, test),
        *(finding for tree in every for finding in _tree_findings(root, tree)),
        *_unused_folders(root, base),
        *search.findings,
    ]
    files = {path for tree in every for path in tree.files} | set(search.masks.values())
    return Scan(samples, findings, sorted(files))


def _kinds_of(tree: Tree) -> str:
    """The files of a folder without images as a text, by their suffix."""
    counts = Counter(path.suffix or "(no suffix)" for path in tree.others)
    counts.update({"links to what does not exist": len(tree.dead_links)})
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "none"


def _missing_parts(category: str, samples: list[Sample], test: Path) -> list[Finding]:
    """Say what a category without good or defect test images cannot give."""
    _, good, defects = count_parts(samples)
    findings = []
    if not good:
        types = ", ".join(sorted({s.defect_type for s in samples if s.label}))
        findings.append(
            Finding(
                f"{category}/test/{GOOD}",
                "no good test images"
                + (f"; all of these count as defects: {types}" if types else ""),
                "nothing can be said about false alarms in the test set, and image AUROC is undefined",
                f"put good images that are not in train/good into test/{GOOD}",
                harmful=bool(types) and not (test / GOOD).is_dir(),  # one of them may be good
            )
        )
    if not defects:
        findings.append(
            Finding(
                f"{category}/test",
                "no defect images",
                "detection and localisation cannot be measured, and thresholds can be set from good images only",
                "add defect images to test/<defect type>",
            )
        )
    return findings


def _tree_findings(root: Path, tree: Tree) -> list[Finding]:
    """Name the files of one folder that are left out."""

    def shown(paths: Iterable[Path]) -> str:
        return named([path.relative_to(root).as_posix() for path in paths])

    findings = []
    by_suffix: dict[str, list[Path]] = {}
    for path in tree.others:
        if path.suffix.lower() not in SIDE_SUFFIXES:
            by_suffix.setdefault(path.suffix.lower(), []).append(path)
    for suffix, paths in by_suffix.items():
        findings.append(
            Finding(
                shown(paths),
                f"{len(paths)} of a kind that is not read ({suffix or 'no suffix'})",
                "left out",
                f"convert them to one of {' '.join(IMAGE_SUFFIXES)}, or remove them",
                harmful=True,
            )
        )
    if tree.dead_links:
        findings.append(
            Finding(
                shown(tree.dead_links),
                f"{len(tree.dead_links)} links to what does not exist",
                "left out",
                "restore what they link to (is the disk mounted?), or remove them",
                harmful=True,
            )
        )
    if tree.repeated:
        findings.append(
            Finding(
                shown(tree.repeated),
                "links to folders that are listed already",
                "each folder is read once",
                "nothing to do, or remove the links",
            )
        )
    return findings


def _unused_folders(root: Path, base: Path) -> list[Finding]:
    """Name images of a category that lie outside the folders of the layout."""
    outside = [path for path in children(base) if path.name not in ("train", "test", TRUTH)]
    outside += [path for path in children(base / "train") if path.name != GOOD]
    if (base / "test").is_dir():
        outside += [path for path in children(base / "test") if not path.is_dir()]
    findings = []
    for path in outside:
        count = len(walk(path).images) if path.is_dir() else int(is_image_name(path))
        if count:
            findings.append(
                Finding(
                    path.relative_to(root).as_posix(),
                    f"{count} images outside train/good, test/good and test/<defect type>",
                    "left out",
                    "move them to one of these folders, or nothing if they are not of the study",
                )
            )
    return findings


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
