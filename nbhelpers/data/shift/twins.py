"""Writes the shifted twin of a data set with its masks and a manifest, verifies it, and reads it.

The folders are ``<out_dir>/<category>/{train,val,test}/{images,masks}/``, beside the file
``<out_dir>/<category>/manifest.csv``. Images are named ``<official split>_<defect
type>_<stem>_shifted.png``, because files of different folders share their numbers, and
``train/good/000`` and ``test/good/000`` may be in one split. Where such a name is too long, or two
images would have it, a short hash of the image's id stands behind the stem.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from nbhelpers.config.sections import ShiftConfig
from nbhelpers.data.images import read_image, read_mask, write_png
from nbhelpers.data.layout import Sample
from nbhelpers.data.shift.apply import apply_shift, illumination_gain, mirrored_pixels
from nbhelpers.data.shift.parameters import ShiftParameters, image_seed, sample_parameters
from nbhelpers.errors import DataError
from nbhelpers.files import cannot_write

MANIFEST = "manifest.csv"
LONGEST_NAME = (
    230  # bytes: with _mask.png and what a temporary name adds, below the 255 of a file system
)
TEXT_COLUMNS = (
    "id",
    "source_id",
    "split",
    "category",
    "defect_type",
    "image",
    "mask",
    "severity",
    "illumination_kind",
    "illumination_direction",
)
FLOAT_COLUMNS = (
    *(name for name, value in ShiftParameters().to_row().items() if isinstance(value, float)),
    "gain_min",
    "gain_max",
)

Row = dict[str, Any]  # one row of the manifest: text, numbers and truth values by column


def _name(sample: Sample, tagged: bool = False) -> str:
    """The name of a sample's shifted image without its suffix, of at most ``LONGEST_NAME`` bytes."""
    start, tag = f"{sample.source}_{sample.defect_type}_", ""
    stem = sample.image.stem
    if tagged or len(f"{start}{stem}_shifted".encode()) > LONGEST_NAME:
        tag = "_" + hashlib.sha256(sample.id.encode()).hexdigest()[:12]
    room = LONGEST_NAME - len(f"{start}{tag}_shifted".encode())
    stem = stem.encode()[:room].decode(errors="ignore")  # not half a character
    return f"{start}{stem}{tag}_shifted"


def _names(samples: Iterable[Sample]) -> dict[str, str]:
    """The name of each sample's shifted image by sample id; no two are equal, in small letters too,
    since macOS and Windows do not tell letters' cases.
    """
    plain = {sample.id: _name(sample) for sample in samples}
    count = Counter(name.casefold() for name in plain.values())
    return {
        sample.id: _name(sample, tagged=count[plain[sample.id].casefold()] > 1)
        for sample in samples
    }


def shift_sample(
    sample: Sample, split: str, config: ShiftConfig, base_seed: int, name: str | None = None
) -> tuple[np.ndarray, np.ndarray | None, Row]:
    """Read one sample and shift it.

    The result depends on the arguments alone, so an image can also be shifted without being written.

    Args:
        sample: The clean sample.
        split: Its split, ``train``, ``val`` or ``test``.
        config: The settings of the shift.
        base_seed: The study's seed.
        name: The name of its shifted image without the suffix; None for the usual one.

    Returns:
        The ``(H, W, 3)`` uint8 image, its ``(H, W)`` 0/1 mask (None if the sample has none), and its
        row of the manifest. The row holds the names of the image and its source, every parameter,
        ``gain_min`` and ``gain_max`` of the illumination, ``mask_pixels_before`` and
        ``mask_pixels_after`` the shift, ``mask_pixels_mirrored`` (those of the latter that are
        copies in the mirrored strip), and ``defect_lost`` (whether the defect left the frame).
        Without a mask file ``mask`` is empty and the counts are 0.

    Raises:
        DataError: The image or its mask cannot be read.
        ConfigError: As ``sample_parameters``.
    """
    seed = image_seed(base_seed, sample.category, split, sample.id)
    parameters = sample_parameters(config, seed)
    image = read_image(sample.image, sample.reading)
    mask = None
    if sample.mask is not None:
        mask = read_mask(sample.mask, image.shape[:2], sample.reading)
    shifted, shifted_mask = apply_shift(image, mask, parameters)
    gain = illumination_gain(image.shape[:2], parameters)
    before = 0 if mask is None else int(mask.sum())
    after = 0 if shifted_mask is None else int(shifted_mask.sum())
    name = name or _name(sample)
    folder = f"{sample.category}/{split}"
    image_path, mask_path = f"{folder}/images/{name}.png", f"{folder}/masks/{name}_mask.png"
    row: Row = {
        "id": image_path,
        "source_id": sample.id,
        "split": split,
        "category": sample.category,
        "defect_type": sample.defect_type,
        "label": sample.label,
        "image": image_path,
        "mask": "" if mask is None else mask_path,
        "height": image.shape[0],
        "width": image.shape[1],
        "seed": seed,
        "severity": config.severity,
        **parameters.to_row(),
        "gain_min": float(gain.min()),
        "gain_max": float(gain.max()),
        "mask_pixels_before": before,
        "mask_pixels_after": after,
        "mask_pixels_mirrored": 0 if mask is None else mirrored_pixels(mask, parameters),
        "defect_lost": before > 0 and after == 0,
    }
    return shifted, shifted_mask, row


def _check_samples(samples_by_split: Mapping[str, Sequence[Sample]]) -> str:
    """The category of the samples; refuses several categories, and an image that is listed twice."""
    samples = [(split, sample) for split, members in samples_by_split.items() for sample in members]
    categories = sorted({sample.category for _, sample in samples})
    if len(categories) != 1:
        raise DataError(
            f"shifted set: expected samples of one category, found {categories or 'no sample'}; write one "
            "category at a time"
        )
    listed: dict[str, str] = {}
    for split, sample in samples:
        if sample.id in listed:
            raise DataError(
                f"shifted set: expected each image once, found {sample.id} in '{listed[sample.id]}' and "
                f"{sample.id} in '{split}'; list an image in one split only"
            )
        listed[sample.id] = split
    return categories[0]


def write_shifted(
    samples_by_split: Mapping[str, Sequence[Sample]],
    out_dir: Path,
    config: ShiftConfig,
    base_seed: int,
    progress: Callable[[list], Iterable] = iter,
) -> pd.DataFrame:
    """Write the shifted twin of one category.

    It is written into a hidden folder, the manifest last, and renamed when it is complete; an older
    shifted set of the category is replaced. The same arguments give the same bytes.

    Args:
        samples_by_split: The category's samples by ``train``, ``val`` and ``test``.
        out_dir: The folder of the shifted sets.
        config: The settings of the shift.
        base_seed: The study's seed.
        progress: Wraps the list of images, for example ``tqdm``.

    Returns:
        The manifest, as ``read_manifest`` returns it.

    Raises:
        DataError: An image is listed twice, there are several categories, an image or a mask cannot be read, or
            the category's folder exists and is not a shifted set (it is not touched).
        ResourceError: The folder may not be written, or the disk is full.
    """
    category = _check_samples(samples_by_split)
    target, partial = Path(out_dir) / category, Path(out_dir) / f".{category}.partial"
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise DataError(
            f"{target}: expected no folder or an older shifted set, found a folder without {MANIFEST}; "
            "choose another output folder or move that one away"
        )
    jobs = [(split, sample) for split, samples in samples_by_split.items() for sample in samples]
    names = _names([sample for _, sample in jobs])
    try:
        shutil.rmtree(partial, ignore_errors=True)
        rows = []
        for split, sample in progress(jobs):
            image, mask, row = shift_sample(sample, split, config, base_seed, names[sample.id])
            write_png(partial / Path(row["image"]).relative_to(category), image)
            if mask is not None:
                write_png(partial / Path(row["mask"]).relative_to(category), mask * np.uint8(255))
            rows.append(row)
        pd.DataFrame(rows).to_csv(partial / MANIFEST, index=False, lineterminator="\n")
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise cannot_write(target, error) from error
    return read_manifest(out_dir, category)


def read_manifest(out_dir: Path, category: str) -> pd.DataFrame:
    """Read the manifest of one category: one row per image, with exactly the values written.

    Raises:
        DataError: The manifest does not exist, so the shifted set was never completed.
    """
    path = Path(out_dir) / category / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{path}: expected the manifest of a shifted set, found none; generate the set first"
        )
    # "NA" and "none" may be names of defects; the float parser of pandas below version 3 may err in
    # the last digit
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT_COLUMNS, str),
        keep_default_na=False,
        converters=dict.fromkeys(FLOAT_COLUMNS, float),
    )


def load_shifted(out_dir: Path, category: str) -> dict[str, list[Sample]]:
    """The samples of a shifted set by split, in the order in which they were written.

    An image whose defect left the frame keeps its label but gets no mask, so that pixel metrics
    leave it out. The manifest marks it as ``defect_lost``, and names the clean image of each shifted
    one as ``source_id``.

    Raises:
        DataError: The shifted set was never completed.
    """
    splits: dict[str, list[Sample]] = {}
    for row in read_manifest(out_dir, category).itertuples():
        mask = Path(out_dir) / row.mask if row.mask and not row.defect_lost else None
        sample = Sample(
            row.id, Path(out_dir) / row.image, mask, category, row.defect_type, domain="shift"
        )
        splits.setdefault(row.split, []).append(sample)
    return splits


def verify_shifted(out_dir: Path, category: str) -> dict[str, int]:
    """Compare every file of a shifted set with its manifest.

    Returns:
        The numbers of ``images``, ``masks`` and ``defects_lost``.

    Raises:
        DataError: A row has no file, a file has no row, two rows have one file, an image is
            unreadable or differs in size from its source, or a mask has other values than 0 and 255
            or does not fit its row.
    """
    out_dir = Path(out_dir)
    manifest = read_manifest(out_dir, category)
    for column, folder in (("image", "images"), ("mask", "masks")):
        listed = [path for path in manifest[column] if path]
        files = {
            path.relative_to(out_dir).as_posix()
            for path in (out_dir / category).glob(f"*/{folder}/*")
        }
        if len(set(listed)) != len(listed) or set(listed) != files:
            odd = sorted(set(listed) ^ files)[:3] or "two rows for one file"
            raise DataError(
                f"{out_dir / category}: expected one {column} file for each of the manifest's {len(listed)}, "
                f"found {len(files)} files ({odd}); generate the shifted images again"
            )
    for row in manifest.itertuples():
        shape = read_image(out_dir / row.image).shape[:2]
        if shape != (row.height, row.width):
            raise DataError(
                f"{out_dir / row.image}: expected {row.width}x{row.height} pixels like its source, found "
                f"{shape[1]}x{shape[0]}; generate the shifted images again"
            )
        if not row.mask:
            continue
        pixels = int(read_mask(out_dir / row.mask, shape).sum())
        with Image.open(out_dir / row.mask) as stored:
            levels = set(np.unique(np.asarray(stored)).tolist())
        if (
            not levels <= {0, 255}
            or pixels != row.mask_pixels_after
            or row.defect_lost != (row.mask_pixels_before > 0 and pixels == 0)
        ):
            raise DataError(
                f"{out_dir / row.mask}: expected 0 and 255 with {row.mask_pixels_after} defect pixels, found "
                f"{sorted(levels)[:5]} with {pixels}; generate the shifted images again"
            )
    return {
        "images": len(manifest),
        "masks": int((manifest["mask"] != "").sum()),
        "defects_lost": int(manifest["defect_lost"].sum()),
    }
