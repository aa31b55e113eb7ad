"""What is in a data set: counts, sizes, intensities, colour modes and defect areas, over every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from nbhelpers.data.images import read_image, read_mask
from nbhelpers.data.layout import OFFICIAL_COUNTS, Sample, count_parts, to_table


def count_table(samples: Sequence[Sample]) -> pd.DataFrame:
    """Images by category, official split and defect type: columns category, split, defect, images, masks."""
    grouped = to_table(samples).groupby(["category", "split", "defect"], sort=False)
    return grouped.agg(images=("image", "size"), masks=("mask", "sum")).reset_index()


def describe_images(samples: Sequence[Sample]) -> pd.DataFrame:
    """Read every image in full: one row each, with size, colour mode and intensity statistics.

    Columns: category, defect, image, width, height, aspect_ratio, megapixels, mode, mean, std, minimum, maximum
    (intensities of the grey image, 0 to 255).

    Raises:
        DataError: an image cannot be read; a damaged file never passes for an image.
    """
    rows = []
    for sample in samples:
        pixels = read_image(sample.image)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        with Image.open(sample.image) as file:
            mode = file.mode
        height, width = grey.shape
        rows.append({
            "category": sample.category, "defect": sample.defect_type, "image": sample.id, "width": width,
            "height": height, "aspect_ratio": width / height, "megapixels": width * height / 1e6, "mode": mode,
            "mean": float(grey.mean()), "std": float(grey.std()), "minimum": int(grey.min()),
            "maximum": int(grey.max()),
        })
    return pd.DataFrame(rows)


def describe_defects(samples: Sequence[Sample]) -> pd.DataFrame:
    """One row a masked defect image: area in pixels and percent of the image, regions, touches the border."""
    rows = []
    for sample in samples:
        if sample.mask is None:
            continue
        with Image.open(sample.image) as file:
            width, height = file.size
        mask = read_mask(sample.mask, (height, width))
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        rows.append({
            "category": sample.category, "defect": sample.defect_type, "image": sample.id,
            "area_pixels": int(mask.sum()), "area_percent": 100.0 * float(mask.mean()),
            "regions": cv2.connectedComponents(mask, connectivity=8)[0] - 1, "touches_border": bool(border.any()),
        })
    columns = ["category", "defect", "image", "area_pixels", "area_percent", "regions", "touches_border"]
    return pd.DataFrame(rows, columns=columns)


def find_duplicates(contents: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Groups of files with the same bytes, by id; ``contents`` maps an id to the hash of its bytes."""
    groups: dict[str, list[str]] = {}
    for identity, content in contents.items():
        groups.setdefault(content, []).append(identity)
    return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]


def metadata(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts and defect types of each category, and whether they are those of the official archive."""
    result = {}
    for category in dict.fromkeys(s.category for s in samples):
        own = [s for s in samples if s.category == category]
        train, good, defects = count_parts(own)
        result[category] = {
            "train_good": train, "test_good": good, "test_defect": defects,
            "defect_types": sorted({s.defect_type for s in own if s.label}),
            "masks": sum(s.mask is not None for s in own),
            "official_counts": OFFICIAL_COUNTS.get(category) == (train, good, defects),
        }
    return result


def report(samples: Sequence[Sample], images: pd.DataFrame, defects: pd.DataFrame) -> str:
    """The data set in plain text, every defect type named."""
    lines = ["Data analysis", "============="]
    for category, facts in metadata(samples).items():
        own = images[images.category == category]
        lines += [
            "", category, "-" * len(category),
            f"train good {facts['train_good']}, test good {facts['test_good']}, test defect {facts['test_defect']}",
            f"widths {own.width.min()}-{own.width.max()}, heights {own.height.min()}-{own.height.max()}, "
            f"modes {', '.join(sorted(own['mode'].unique()))}",
            f"mean intensity {own['mean'].mean():.1f} (image to image: {own['mean'].std():.1f})",
        ]
        for name in facts["defect_types"]:
            areas = defects[(defects.category == category) & (defects.defect == name)].area_percent
            count = sum(s.category == category and s.defect_type == name for s in samples)
            size = f"median area {areas.median():.2f} % of the image" if len(areas) else "no masks"
            lines.append(f"  {name}: {count} images, {size}")
    return "\n".join(lines) + "\n"
