"""Images and masks from disk to tensors: reading, resizing, batching, writing.

Area-based resizing on both sides of every comparison: an image that was drawn at 1024 px and a
shifted twin of it reach the network through the same last resize. A mask keeps the area of each of
its regions, so that a thin scratch neither breaks nor vanishes (FEATURES P43).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset

from nbhelpers.data.layout import Sample
from nbhelpers.data.preprocess import normalize_image
from nbhelpers.errors import DataError
from nbhelpers.files import replacing

Transform = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise DataError(
            f"{path}: expected an image, found no file; restore it or make the splits again"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: expected a readable image, found {type(error).__name__}: {error}; replace or remove the file"
        ) from error


def read_image(path: Path) -> np.ndarray:
    """Read any of the supported formats as RGB, ``(H, W, 3)`` uint8.

    Grey is repeated over three channels, alpha is dropped, 16-bit grey is scaled by 1/257 (so that
    65535 becomes 255).

    Raises:
        DataError: no such file, unreadable or truncated, or a pixel format outside these.
    """
    image = _open(path)
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise DataError(
                f"{path}: expected 16-bit grey (0 to 65535), found {deep.min()} to {deep.max()}"
            )
        grey = np.rint(deep / 257.0).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(
            f"{path}: expected 8- or 16-bit pixels, found floats; convert the image to 8 bit"
        )
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a ground-truth mask as ``(H, W)`` uint8 of 0 and 1 (any non-zero pixel is a defect).

    Raises:
        DataError: unreadable, or its size is not ``shape`` (height, width) of its image.
    """
    mask = np.asarray(_open(path).convert("L"))
    if mask.shape != tuple(shape):
        raise DataError(
            f"{path}: expected a mask of {shape[1]}x{shape[0]} pixels like its image, found "
            f"{mask.shape[1]}x{mask.shape[0]}; export the mask again at the image's size"
        )
    return (mask > 0).astype(np.uint8)


def hash_pixels(path: Path) -> str:
    """16 hex digits of the SHA-256 of an image's shape and pixels, as ``read_image`` gives them."""
    image = read_image(path)
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()[:16]


def write_png(path: Path, array: np.ndarray) -> None:
    """Write ``(H, W)`` or ``(H, W, 3)`` uint8 as PNG: to a temporary name, then renamed."""
    with replacing(path) as temporary:
        # level 1 writes two to three times as fast as the default, for files about 15 % larger
        Image.fromarray(array).save(temporary, format="PNG", compress_level=1)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resize to ``(size, size, 3)`` uint8: pixel areas are averaged where it shrinks, bilinear
    where it grows.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    # INTER_AREA falls back to nearest neighbour where an axis grows, so each axis gets its own
    # kernel.
    for new_size, shrinks in (((size, height), size < width), ((size, size), size < height)):
        image = cv2.resize(
            image, new_size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    return image


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a 0/1 mask to ``(size, size)`` uint8; every region keeps its area (at least one
    pixel).

    Of each 8-connected region the cells that it covers most are kept, as many as its scaled area
    says. For a compact region that is the usual "covered by half"; a scratch thinner than a cell
    stays one.
    """
    height, width = mask.shape
    if (height, width) == (size, size):
        return mask
    resized = np.zeros((size, size), np.uint8)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    scale = size * size / (height * width)
    for region in range(1, count):
        # rounded, so that equal coverages are equal whatever order a processor adds them in
        coverage = resize_image((regions == region).astype(np.float32), size).ravel().round(4)
        keep = max(1, round(int(stats[region, cv2.CC_STAT_AREA]) * scale))
        order = np.argsort(-coverage, kind="stable")[:keep]
        resized.ravel()[order[coverage[order] > 0]] = 1
    return resized


@dataclass(frozen=True)
class Batch:
    """What a network and an evaluation need of B samples.

    Attributes:
        images: ``(B, 3, H, W)`` float32, normalised.
        masks: ``(B, H, W)`` uint8, 0 or 1; all zero for good images and where no mask exists.
        has_mask: ``(B,)`` bool: the pixel labels are known (good image, or a mask was there).
        labels: ``(B,)`` int64, 0 good, 1 anomalous.
        samples: The B samples, in order.
    """

    images: torch.Tensor
    masks: torch.Tensor
    has_mask: torch.Tensor
    labels: torch.Tensor
    samples: list[Sample]


class SampleDataset(Dataset):
    """Reads, resizes, transforms and normalises one sample at a time; nothing is kept in memory.

    Args:
        samples: What to read.
        image_size: Side of the square the network sees, pixels.
        transform: Takes and gives an ``(H, W, 3)`` uint8 image and its ``(H, W)`` 0/1 mask
            (augmentation).
        phase: ``train``, ``val`` or ``test``; an anomalous sample in ``train`` is refused.
        normalization: ``imagenet``, ``tanh``, ``gray`` or ``none``.

    Raises:
        DataError: an anomalous sample where ``phase`` is ``train``.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: int,
        transform: Transform | None = None,
        phase: str = "test",
        normalization: str = "imagenet",
    ) -> None:
        bad = next((s for s in samples if phase == "train" and s.label), None)
        if bad is not None:
            raise DataError(
                f"{bad.image}: training takes good images only, found defect type '{bad.defect_type}'"
            )
        self.samples, self.image_size, self.transform = list(samples), image_size, transform
        self.normalization = normalization

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int, Sample]:
        sample = self.samples[index]
        image = read_image(sample.image)
        mask = np.zeros(image.shape[:2], np.uint8)
        if sample.mask is not None:
            mask = read_mask(sample.mask, image.shape[:2])
        image, mask = resize_image(image, self.image_size), resize_mask(mask, self.image_size)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        pixels = normalize_image(image, self.normalization)  # (H, W, C) float32
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return tensor, torch.from_numpy(np.ascontiguousarray(mask)), sample.label, sample


def collate(items: Sequence[tuple[torch.Tensor, torch.Tensor, int, Sample]]) -> Batch:
    """Stack items of a ``SampleDataset`` into one ``Batch``."""
    images, masks, labels, samples = zip(*items, strict=True)
    known = [s.label == 0 or s.mask is not None for s in samples]
    return Batch(
        torch.stack(images),
        torch.stack(masks),
        torch.tensor(known),
        torch.tensor(labels),
        list(samples),
    )


def make_loader(
    samples: Sequence[Sample],
    image_size: int,
    batch_size: int = 16,
    *,
    transform: Transform | None = None,
    phase: str = "test",
    normalization: str = "imagenet",
    num_workers: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool = False,
    prefetch_factor: int = 2,
    shuffle_seed: int | None = None,
) -> DataLoader:
    """Batches of ``samples`` as ``Batch`` objects, in order, or shuffled by its own seeded
    generator.
    """
    generator = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
    return DataLoader(
        SampleDataset(samples, image_size, transform, phase, normalization),
        batch_size=batch_size,
        shuffle=generator is not None,
        generator=generator,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        # torch refuses these two without workers
        persistent_workers=persistent_workers and num_workers > 0,
        prefetch_factor=prefetch_factor if num_workers > 0 else None,
    )
