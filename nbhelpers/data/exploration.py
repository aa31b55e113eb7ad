"""Describes a data set over all its files: counts, sizes, intensities, colour modes, and defects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from skimage.color import deltaE_cie76, rgb2lab

from nbhelpers.data.decode import open_header
from nbhelpers.data.images import read_image, read_sample
from nbhelpers.data.layout import OFFICIAL_COUNTS, Sample, count_parts, to_table

#: Width of the ring of surroundings around a defect, as a share of the shorter image side: 32 px of
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
    """Count images by category, official split and defect type.

    Returns:
        Columns category, split, defect, images, masks.
    """
    grouped = to_table(samples).groupby(["category", "split", "defect"], sort=False)
    return grouped.agg(images=("image", "size"), masks=("mask", "sum")).reset_index()


def describe_images(samples: Sequence[Sample]) -> pd.DataFrame:
    """Read every image completely and describe its size, colour mode and intensities.

    Returns:
        One row per image, with the columns category, defect, image, width, height (pixels),
        aspect_ratio, megapixels, mode, mean, std, minimum, maximum (of the grey image, 0 to 255).

    Raises:
        DataError: An image cannot be read.
    """
    rows = []
    for sample in samples:
        pixels = read_image(sample.image, sample.reading)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        with open_header(sample.image) as file:
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
    """Measure the defects of all images that have a mask, at the image's own resolution.

    Returns:
        One row per image, with the columns category, defect, image, area_pixels, area_percent (of
        the image), regions (8-connected), largest_region_pixels, touches_border, border_distance
        (of the defect pixel nearest to the image border), centroid_distance (of the mask's
        centroid) and contrast_delta_e (see ``color_contrast``). Both distances are shares of half
        the shorter image side: 0 at the border, 1 in the middle. The last three are NaN for a mask
        without a defect pixel.

    Raises:
        DataError: An image or a mask cannot be read.
    """
    rows = []
    for sample in samples:
        if sample.mask is None:
            continue
        image, mask = read_sample(sample)
        sizes = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        pixels = np.argwhere(mask)  # (P, 2): row and column of each defect pixel
        distances = _border_distance(pixels, image.shape[:2])
        nearest, centroid = float("nan"), float("nan")
        if len(pixels):
            nearest = float(distances.min())
            centroid = float(_border_distance(pixels.mean(axis=0), image.shape[:2]))
        rows.append(
            {
                "category": sample.category,
                "defect": sample.defect_type,
                "image": sample.id,
                "area_pixels": len(pixels),
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


def _border_distance(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Distance of points ``(..., 2)`` (row, column) to the nearest border.

    It is a share of half the shorter side of the image, whose ``shape`` is (height, width).
    """
    last = np.array(shape) - 1
    nearest = np.minimum(points, last - points).min(axis=-1)
    return nearest / (max(int(last.min()), 1) / 2)


def color_contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Difference in colour between a defect and its surroundings, in Delta E (CIE 1976).

    Each defect pixel is compared with the mean CIELAB colour of the ring around its region. The ring
    holds the pixels outside all defects that are at most ``RING_SHARE`` of the shorter image side
    away, and at least one pixel. About 2 is just visible; black on white is 100. The pixels of a
    texture also differ from its mean colour, so compare values only within one category.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, taken as sRGB.
        mask: ``(H, W)`` uint8 of 0 and 1.

    Returns:
        The mean over all defect pixels, rounded to three decimals; NaN when the image has no defect
        pixel or nothing else.
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
    """Find files with the same bytes.

    Args:
        contents: The hash of a file's bytes, by its id.

    Returns:
        The sorted ids of each group of two or more equal files.
    """
    groups: dict[str, list[str]] = {}
    for identity, content in contents.items():
        groups.setdefault(content, []).append(identity)
    return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]


def metadata(samples: Sequence[Sample]) -> dict[str, Any]:
    """Describe each category by its counts and its defect types.

    Returns:
        By category: train_good, test_good, test_defect, defect_types, masks, and official_counts,
        which tells whether the counts are those of the official archive.
    """
    result = {}
    for category in dict.fromkeys(s.category for s in samples):
        members = [s for s in samples if s.category == category]
        train, good, defects = count_parts(members)
        result[category] = {
            "train_good": train,
            "test_good": good,
            "test_defect": defects,
            "defect_types": sorted({s.defect_type for s in members if s.label}),
            "masks": sum(s.mask is not None for s in members),
            "official_counts": OFFICIAL_COUNTS.get(category) == (train, good, defects),
        }
    return result


def report(samples: Sequence[Sample], images: pd.DataFrame, defects: pd.DataFrame) -> str:
    """Describe the data set in plain text, with every defect type.

    Args:
        samples: All images.
        images: The table of ``describe_images``.
        defects: The table of ``describe_defects``.
    """
    lines = ["Data analysis", "============="]
    for category, facts in metadata(samples).items():
        members = images[images.category == category]
        lines += [
            "",
            category,
            "-" * len(category),
            f"train good {facts['train_good']}, test good {facts['test_good']}, test defect {facts['test_defect']}",
            f"widths {members.width.min()}-{members.width.max()}, "
            f"heights {members.height.min()}-{members.height.max()}, "
            f"modes {', '.join(sorted(members['mode'].unique()))}",
            f"mean intensity {members['mean'].mean():.1f} (image to image: {members['mean'].std():.1f})",
        ]
        for name in facts["defect_types"]:
            areas = defects[(defects.category == category) & (defects.defect == name)].area_percent
            count = sum(s.category == category and s.defect_type == name for s in samples)
            size = f"median area {areas.median():.2f} % of the image" if len(areas) else "no masks"
            lines.append(f"  {name}: {count} images, {size}")
    return "\n".join(lines) + "\n"


def area_table(areas: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the defect area by category and defect type.

    Args:
        areas: The table of ``describe_defects``.

    Returns:
        Columns category, defect, min, q25, median, q75, max (percent of the image), images.
    """
    grouped = areas.groupby(["category", "defect"])["area_percent"]
    table = grouped.quantile([0.0, 0.25, 0.5, 0.75, 1.0]).unstack()
    table.columns = ["min", "q25", "median", "q75", "max"]
    return table.assign(images=grouped.size()).reset_index()
