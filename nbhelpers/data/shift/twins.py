"""The shifted twin of a data set: written once with its masks, a manifest row for each image, and
read back.

Tree: ``<out_dir>/<category>/{train,val,test}/{images,masks}/`` and
``<out_dir>/<category>/manifest.csv``. Images are called ``<official part>_<defect
type>_<stem>_shifted.png``: files of different folders share their numbers, and ``train/good/000``
and ``test/good/000`` may stand in one split.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from nbhelpers.config.sections import ShiftConfig
from nbhelpers.data.images import read_image, read_mask, write_png
from nbhelpers.data.layout import Sample
from nbhelpers.data.shift.apply import (
    apply_shift,
    geometric_matrix,
    illumination_gain,
    mirrored_pixels,
)
from nbhelpers.data.shift.parameters import (
    GEOMETRIC,
    GROUPS,
    PARTS,
    PHOTOMETRIC,
    SEVERITIES,
    ShiftParameters,
    expand_parts,
    image_seed,
    sample_parameters,
)
from nbhelpers.errors import DataError
from nbhelpers.files import cannot_write

__all__ = [
    "GEOMETRIC",
    "GROUPS",
    "PARTS",
    "PHOTOMETRIC",
    "SEVERITIES",
    "ShiftParameters",
    "apply_shift",
    "expand_parts",
    "geometric_matrix",
    "illumination_gain",
    "image_seed",
    "load_shifted",
    "read_manifest",
    "sample_parameters",
    "shift_sample",
    "verify_shifted",
    "write_shifted",
]

MANIFEST = "manifest.csv"
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

Row = dict[str, float | int | bool | str]


def _paths(sample: Sample, split: str) -> tuple[str, str]:
    """Image and mask of a sample's shifted twin, below the output folder."""
    name = f"{sample.source}_{sample.defect_type}_{sample.image.stem}_shifted"
    folder = f"{sample.category}/{split}"
    return f"{folder}/images/{name}.png", f"{folder}/masks/{name}_mask.png"


def shift_sample(
    sample: Sample, split: str, config: ShiftConfig, base_seed: int
) -> tuple[np.ndarray, np.ndarray | None, Row]:
    """Read one sample and shift it; a pure function of its arguments, for use on the fly as well.

    Returns:
        The ``(H, W, 3)`` uint8 image, its ``(H, W)`` 0/1 mask (None where the sample has none), and
        its
        manifest row: who it is, every sampled value, ``gain_min`` and ``gain_max`` as measured on
            the
        illumination, ``mask_pixels_before`` and ``_after``, how many of the latter are
        ``mask_pixels_mirrored`` copies, and ``defect_lost`` (a defect that left the frame). Without
        a mask file ``mask`` is empty and the counts are 0.
    """
    seed = image_seed(base_seed, sample.category, split, sample.id)
    parameters = sample_parameters(config, seed)
    image = read_image(sample.image)
    mask = None if sample.mask is None else read_mask(sample.mask, image.shape[:2])
    shifted, shifted_mask = apply_shift(image, mask, parameters)
    gain = illumination_gain(image.shape[:2], parameters)
    before, after = (0 if m is None else int(m.sum()) for m in (mask, shifted_mask))
    image_path, mask_path = _paths(sample, split)
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


def _check_names(samples_by_split: Mapping[str, Sequence[Sample]]) -> str:
    """Refuse samples of several categories, and two samples with one name; gives the category."""
    samples = [(split, sample) for split, members in samples_by_split.items() for sample in members]
    categories = sorted({sample.category for _, sample in samples})
    if len(categories) != 1:
        raise DataError(
            f"shifted set: expected samples of one category, found {categories or 'no sample'}"
        )
    taken: dict[str, Sample] = {}
    for split, sample in samples:
        # without the split: one image in two splits is refused as well; without case, for macOS and
        # Windows
        key = Path(_paths(sample, split)[0]).name.casefold()
        if key in taken:
            raise DataError(
                f"{taken[key].id} and {sample.id}: expected a name of its own for each shifted image, found "
                f"{key} for both; rename one of the two files, or list an image in one split only"
            )
        taken[key] = sample
    return categories[0]


def write_shifted(
    samples_by_split: Mapping[str, Sequence[Sample]],
    out_dir: Path,
    config: ShiftConfig,
    base_seed: int,
    progress: Callable[[list], Iterable] = iter,
) -> pd.DataFrame:
    """Write the shifted twin of one category, and give its manifest.

    The tree grows in a hidden folder beside its place and is moved there when complete, manifest
    last; an older shifted set of the category is replaced. The same arguments give the same bytes.

    Args:
        samples_by_split: The category's samples by ``train``, ``val`` and ``test``.
        progress: Wraps the list of images, e.g. ``tqdm``.

    Raises:
        DataError: names that collide, several categories, an unreadable image or mask, or a folder
            in the place of the tree that is not a shifted set (it is left alone).
        ResourceError: no permission to write, or the disk is full.
    """
    category = _check_names(samples_by_split)
    target, partial = Path(out_dir) / category, Path(out_dir) / f".{category}.partial"
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise DataError(
            f"{target}: expected a free place or an older shifted set, found a folder without {MANIFEST}; "
            "choose another output folder or move that one away"
        )
    jobs = [(split, sample) for split, samples in samples_by_split.items() for sample in samples]
    try:
        shutil.rmtree(partial, ignore_errors=True)
        rows = []
        for split, sample in progress(jobs):
            image, mask, row = shift_sample(sample, split, config, base_seed)
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
    """The manifest of one category, one row an image, values exactly as they were written.

    Raises:
        DataError: there is none, so the shifted set was never completed.
    """
    path = Path(out_dir) / category / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{path}: expected the manifest of a shifted set, found none; generate the set first"
        )
    # "NA" or "none" may be a defect's name; pandas' own float parser is off by a digit before
    # version 3
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT_COLUMNS, str),
        keep_default_na=False,
        converters=dict.fromkeys(FLOAT_COLUMNS, float),
    )


def load_shifted(out_dir: Path, category: str) -> dict[str, list[Sample]]:
    """Samples of a shifted set by split, in the order in which they were written.

    A defect that left the frame keeps its label but gets no mask, so that pixel metrics leave the
    image out; ``read_manifest`` has the flag, and ``source_id`` to pair each image with its clean
    twin.
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
        Counts: ``images``, ``masks``, ``defects_lost``.

    Raises:
        DataError: a row without its file, a file without its row, two rows with one file, an
            unreadable image, a size other than the source's, a mask that is not 0/255 or does not
            fit its row.
    """
    out_dir = Path(out_dir)
    manifest = read_manifest(out_dir, category)
    for column, folder in (("image", "images"), ("mask", "masks")):
        listed = [path for path in manifest[column] if path]
        found = {
            p.relative_to(out_dir).as_posix() for p in (out_dir / category).glob(f"*/{folder}/*")
        }
        if len(set(listed)) != len(listed) or set(listed) != found:
            odd = sorted(set(listed) ^ found)[:3] or "two rows for one file"
            raise DataError(
                f"{out_dir / category}: expected one {column} file for each of the manifest's {len(listed)}, "
                f"found {len(found)} files ({odd}); generate the shifted images again"
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
