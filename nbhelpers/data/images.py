"""Reads images and masks from disk, resizes them, makes batches of tensors, and writes PNG files.

Clean images and their shifted twins reach the network through the same area-based resize. A mask
keeps the area of each of its regions when it is resized, so that a thin scratch does not break or
vanish.
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
    """Read an image of any supported format as RGB, ``(H, W, 3)`` uint8.

    Grey is repeated over three channels, alpha is dropped, and 16-bit grey is scaled by 1/257, so
    that 65535 becomes 255.

    Raises:
        DataError: The file does not exist, is unreadable or truncated, or has another pixel format.
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
    """Read a ground-truth mask as ``(H, W)`` uint8 of 0 and 1; every non-zero pixel is a defect.

    Args:
        path: The mask's file.
        shape: Height and width of its image.

    Raises:
        DataError: The file is unreadable, or its size is not ``shape``.
    """
    mask = np.asarray(_open(path).convert("L"))
    if mask.shape != tuple(shape):
        raise DataError(
            f"{path}: expected a mask of {shape[1]}x{shape[0]} pixels like its image, found "
            f"{mask.shape[1]}x{mask.shape[0]}; export the mask again at the image's size"
        )
    return (mask > 0).astype(np.uint8)


def hash_pixels(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of an image's shape and pixels, see ``read_image``."""
    image = read_image(path)
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()[:16]


def write_png(path: Path, array: np.ndarray) -> None:
    """Write ``(H, W)`` or ``(H, W, 3)`` uint8 as PNG, completely or not at all.

    Raises:
        ResourceError: The file cannot be written.
    """
    with replacing(path) as temporary:
        # level 1 writes two to three times as fast as the default, for files about 15 % larger
        Image.fromarray(array).save(temporary, format="PNG", compress_level=1)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image to ``(size, size, 3)``; its type stays.

    An axis that shrinks is averaged over pixel areas; an axis that grows is interpolated linearly.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    # cv2.INTER_AREA takes the nearest neighbour along an axis that grows, so each axis is resized
    # with a kernel of its own
    for new_size, shrinks in (((size, height), size < width), ((size, size), size < height)):
        image = cv2.resize(
            image, new_size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    return image


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a 0/1 mask to ``(size, size)`` uint8; every region keeps its area, at least one pixel.

    Of each 8-connected region the target pixels that it covers most are kept, as many as its scaled
    area. For a compact region these are the pixels that are covered by at least a half; a scratch
    that is thinner than a target pixel stays a scratch.
    """
    height, width = mask.shape
    if (height, width) == (size, size):
        return mask
    resized = np.zeros((size, size), np.uint8)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    scale = size * size / (height * width)
    for region in range(1, count):
        # rounded, so that equal coverages stay equal in whatever order a processor adds them
        coverage = resize_image((regions == region).astype(np.float32), size).ravel().round(4)
        keep = max(1, round(int(stats[region, cv2.CC_STAT_AREA]) * scale))
        order = np.argsort(-coverage, kind="stable")[:keep]
        resized.ravel()[order[coverage[order] > 0]] = 1
    return resized


@dataclass(frozen=True)
class Batch:
    """B samples as a network and an evaluation need them.

    Attributes:
        images: ``(B, 3, H, W)`` float32, normalised.
        masks: ``(B, H, W)`` uint8, 0 or 1; all zero for good images and where no mask exists.
        has_mask: ``(B,)`` bool: whether the pixel labels are known, because the image is good or has
            a mask.
        labels: ``(B,)`` int64; 0 is good, 1 is anomalous.
        samples: The B samples, in order.
    """

    images: torch.Tensor
    masks: torch.Tensor
    has_mask: torch.Tensor
    labels: torch.Tensor
    samples: list[Sample]


class SampleDataset(Dataset):
    """Reads, resizes, transforms and normalises one sample at a time; keeps no image in memory.

    Args:
        samples: The samples to read.
        image_size: Side of the square that the network sees, pixels.
        transform: An augmentation, which takes and returns an ``(H, W, 3)`` uint8 image and its
            ``(H, W)`` 0/1 mask.
        phase: ``train``, ``val`` or ``test``.
        normalization: ``imagenet``, ``tanh``, ``gray`` or ``none``, see ``normalize_image``.

    Raises:
        DataError: ``phase`` is ``train`` and a sample is anomalous.
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
                f"{bad.image}: training takes good images only, found defect type '{bad.defect_type}'; "
                "remove it from the training split"
            )
        self.samples = list(samples)
        self.image_size = image_size
        self.transform = transform
        self.normalization = normalization

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int, Sample]:
        sample = self.samples[index]
        image = read_image(sample.image)
        mask = np.zeros(image.shape[:2], np.uint8)
        if sample.mask is not None:
            mask = read_mask(sample.mask, image.shape[:2])
        image = resize_image(image, self.image_size)
        mask = resize_mask(mask, self.image_size)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        pixels = normalize_image(image, self.normalization)  # (H, W, C) float32
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return tensor, torch.from_numpy(np.ascontiguousarray(mask)), sample.label, sample


def collate(items: Sequence[tuple[torch.Tensor, torch.Tensor, int, Sample]]) -> Batch:
    """Stack the items of a ``SampleDataset`` into one ``Batch``."""
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
    """A loader that yields the samples as ``Batch`` objects.

    Args:
        samples: The samples to read.
        image_size: Side of the square that the network sees, pixels.
        batch_size: Samples per batch.
        transform: As in ``SampleDataset``.
        phase: As in ``SampleDataset``.
        normalization: As in ``SampleDataset``.
        num_workers: Reading processes; 0 reads in this process.
        pin_memory: Whether batches are put in page-locked memory.
        persistent_workers: Whether reading processes are kept; used if there are any.
        prefetch_factor: Batches that each reading process prepares; used if there are any.
        shuffle_seed: Seed of the generator that shuffles; None keeps the order of ``samples``.

    Raises:
        DataError: ``phase`` is ``train`` and a sample is anomalous.
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
        # torch accepts these two only with workers
        persistent_workers=persistent_workers and num_workers > 0,
        prefetch_factor=prefetch_factor if num_workers > 0 else None,
    )
