"""What is in a data set: counts, sizes, intensities, colour modes, and what its defects are like,
over every file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from skimage.color import deltaE_cie76, rgb2lab

from nbhelpers.data.images import read_image, read_mask
from nbhelpers.data.layout import OFFICIAL_COUNTS, Sample, count_parts, to_table

#: Width of the ring around a defect, its surroundings, as share of the shorter image side: 32 px of
#: 1024.
RING_SHARE = 1 / 32

DEFECT_COLUMNS = (
    "category",
    "defect",
    "image",
    "area_pixels",
    "area_percent",
    "regions",
    "largest_region_pixels",
    "touches_border",
    "border_distance",
    "centroid_distance",
    "contrast_delta_e",
)


def count_table(samples: Sequence[Sample]) -> pd.DataFrame:
    """Images by category, official split and defect type: columns category, split, defect, images,
    masks.
    """
    grouped = to_table(samples).groupby(["category", "split", "defect"], sort=False)
    return grouped.agg(images=("image", "size"), masks=("mask", "sum")).reset_index()


def describe_images(samples: Sequence[Sample]) -> pd.DataFrame:
    """Read every image in full: one row each, with size, colour mode and intensity statistics.

    Columns: category, defect, image, width, height, aspect_ratio, megapixels, mode, mean, std,
    minimum, maximum (intensities of the grey image, 0 to 255).

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
        rows.append(
            {
                "category": sample.category,
                "defect": sample.defect_type,
                "image": sample.id,
                "width": width,
                "height": height,
                "aspect_ratio": width / height,
                "megapixels": width * height / 1e6,
                "mode": mode,
                "mean": float(grey.mean()),
                "std": float(grey.std()),
                "minimum": int(grey.min()),
                "maximum": int(grey.max()),
            }
        )
    return pd.DataFrame(rows)


def describe_defects(samples: Sequence[Sample]) -> pd.DataFrame:
    """One row a masked defect image, clean or shifted, measured at the image's own resolution.

    Columns: category, defect, image, area_pixels, area_percent (of the image), regions
    (8-connected), largest_region_pixels, touches_border, border_distance (of the defect pixel
    nearest to the image border) and centroid_distance (of the mask's centroid), both as share of
    half the shorter image side (0 at the border, 1 in the middle), contrast_delta_e (see
    ``color_contrast``). The last three are NaN for a mask without a defect pixel.
    """
    rows = []
    for sample in samples:
        if sample.mask is None:
            continue
        image = read_image(sample.image)
        mask = read_mask(sample.mask, image.shape[:2])
        sizes = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        place = np.argwhere(mask)  # (P, 2): row and column of each defect pixel
        distances = _border_distance(place, mask.shape)
        nearest, centroid = float("nan"), float("nan")
        if len(place):
            nearest, centroid = (
                float(distances.min()),
                float(_border_distance(place.mean(axis=0), mask.shape)),
            )
        rows.append(
            {
                "category": sample.category,
                "defect": sample.defect_type,
                "image": sample.id,
                "area_pixels": len(place),
                "area_percent": 100.0 * float(mask.mean()),
                "regions": len(sizes),
                "largest_region_pixels": int(sizes.max(initial=0)),
                "touches_border": bool((distances == 0).any()),
                "border_distance": nearest,
                "centroid_distance": centroid,
                "contrast_delta_e": color_contrast(image, mask),
            }
        )
    return pd.DataFrame(rows, columns=list(DEFECT_COLUMNS))


def _border_distance(place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Distance of places ``(..., 2)`` (row, column) to the nearest border, as share of half the
    shorter side.
    """
    last = np.array(shape) - 1
    nearest = np.minimum(place, last - place).min(axis=-1)
    return nearest / (max(int(last.min()), 1) / 2)


def color_contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """How far a defect's colour differs from its surroundings: a mean CIELAB distance (CIE 1976),
    in Delta E.

    Each defect pixel is compared with the mean colour of the ring around its region: the pixels
    outside all defects that are at most ``RING_SHARE`` of the shorter image side away (one pixel at
    least). About 2 can just be seen, black on white is 100. A texture differs from its own mean as
    well, so values compare within one category.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, taken as sRGB.
        mask: ``(H, W)`` uint8 of 0 and 1.

    Returns:
        The mean over all defect pixels, to the thousandth; NaN where there is no defect pixel, or
        nothing but defect.
    """
    width = max(1, round(RING_SHARE * min(mask.shape)))
    count, regions, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    distances = []
    for region in range(1, count):
        left, top, across, down = boxes[region, :4]
        box = np.s_[
            max(0, top - width) : top + down + width, max(0, left - width) : left + across + width
        ]
        inside = regions[box] == region
        away = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        ring = (away <= width) & (mask[box] == 0)
        if ring.any():
            surroundings = rgb2lab(image[box][ring]).mean(axis=0)
            distances.append(deltaE_cie76(rgb2lab(image[box][inside]), surroundings))
    return round(float(np.concatenate(distances).mean()), 3) if distances else float("nan")


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
            "train_good": train,
            "test_good": good,
            "test_defect": defects,
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
            "",
            category,
            "-" * len(category),
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


def area_table(areas: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of defect area (share of the image, percent) by category and defect type."""
    grouped = areas.groupby(["category", "defect"])["area_percent"]
    table = grouped.quantile([0.0, 0.25, 0.5, 0.75, 1.0]).unstack()
    table.columns = ["min", "q25", "median", "q75", "max"]
    return table.assign(images=grouped.size()).reset_index()
