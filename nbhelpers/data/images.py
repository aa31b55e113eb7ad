"""Reads images from disk, makes batches of tensors of them and their masks, and writes PNG files.

Clean images and their shifted twins reach the network through the same area-based resize.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from nbhelpers.data.decode import decode
from nbhelpers.data.layout import Sample
from nbhelpers.data.masks import read_mask
from nbhelpers.data.preprocess import normalize_image
from nbhelpers.data.reading import AS_STORED, Reading
from nbhelpers.data.resize import resize_image, resize_mask
from nbhelpers.errors import ConfigError, DataError
from nbhelpers.files import replacing

#: How far floats may lie outside their full scale, as a share of it; they are cut off.
FLOAT_SLACK = 0.05
PHASES = ("train", "val", "test")

Transform = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def read_image(path: Path, reading: Reading = AS_STORED) -> np.ndarray:
    """Read an image of any supported format as RGB, ``(H, W, 3)`` uint8, upright.

    Grey is repeated over three channels. More than 8 bits, and floats, are scaled so that
    ``reading.full_scale`` becomes 255; what is above it is cut off. Where the opacity varies, the
    image is laid on ``reading.background``.

    Raises:
        DataError: The file does not exist, is unreadable or truncated, or has values that no full
            scale fits.
    """
    picture = decode(path)
    values = _as_8_bit(picture.values, reading.full_scale, path)
    if values.ndim == 2:
        values = cv2.cvtColor(values, cv2.COLOR_GRAY2RGB)
    alpha = picture.alpha
    if alpha is None or alpha.min() == alpha.max():
        return values
    opacity = alpha[:, :, None].astype(np.float32) / np.iinfo(alpha.dtype).max
    background = np.array(reading.background, np.float32)
    return np.rint(values * opacity + background * (1 - opacity)).astype(np.uint8)


def _as_8_bit(values: np.ndarray, full_scale: int | None, path: Path) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    floats = values.dtype.kind == "f"
    scale = full_scale or (1 if floats else 65535)
    low, high = float(values.min()), float(values.max())
    # resampling overshoots a little; not a number fails both comparisons
    slack = FLOAT_SLACK * scale if floats else 0.0
    most = (np.inf if full_scale else scale + slack) if floats else 65535
    if not (low >= -slack and high <= most and np.isfinite(high)):
        raise DataError(
            f"{path}: expected {'floats' if floats else 'integers'} of 0 to {scale}, found {low:g} to {high:g}; "
            "set data.bit_depth to the bits that hold the largest value, or save the image with 8 or 16 bits"
        )
    if floats:
        return np.rint(np.clip(values * (255.0 / scale), 0, 255)).astype(np.uint8)
    table = np.rint(np.minimum(np.arange(65536) * 255.0 / scale, 255)).astype(np.uint8)
    return table[values]


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Read a sample's image ``(H, W, 3)`` uint8 and its mask ``(H, W)`` 0/1, all zero without one.

    Raises:
        DataError: A file is unreadable, or the mask has not the size of the image.
    """
    image = read_image(sample.image, sample.reading)
    if sample.mask is None:
        return image, np.zeros(image.shape[:2], np.uint8)
    return image, read_mask(sample.mask, image.shape[:2], sample.reading)


def fingerprint(path: Path) -> tuple[str, float | int | None]:
    """Hash an image's pixels, and find its largest value if it needs a full scale.

    Returns:
        The first 16 hex digits of the SHA-256 of its shape and pixels: RGB of 8 bits, or, where it
        has more bits or its opacity varies, the values as they are stored, so that no setting takes
        part. And None for 8 bits, an int for more bits, a float for floats.

    Raises:
        DataError: The file is unreadable.
    """
    picture = decode(path)
    values = picture.values
    peak = None
    if values.dtype != np.uint8:
        peak = float(values.max()) if values.dtype.kind == "f" else int(values.max())
    elif values.ndim == 2:
        values = cv2.cvtColor(values, cv2.COLOR_GRAY2RGB)
    digest = hashlib.sha256(str(values.shape).encode() + np.ascontiguousarray(values).tobytes())
    if picture.alpha is not None and picture.alpha.min() != picture.alpha.max():
        digest.update(np.ascontiguousarray(picture.alpha).tobytes())
    return digest.hexdigest()[:16], peak


def write_png(path: Path, array: np.ndarray) -> None:
    """Write ``(H, W)`` or ``(H, W, 3)`` uint8 as PNG, completely or not at all.

    Raises:
        ResourceError: The file cannot be written.
    """
    with replacing(path) as temporary:
        # level 1 writes two to three times as fast as the default, for files about 15 % larger
        Image.fromarray(array).save(temporary, format="PNG", compress_level=1)


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
            ``(H, W)`` 0/1 mask. Not for letterboxed images: their masks fill the square.
        phase: ``train``, ``val`` or ``test``.
        normalization: ``imagenet``, ``tanh``, ``gray`` or ``none``, see ``normalize_image``.

    Raises:
        ConfigError: ``phase`` is not one of the three.
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
        if phase not in PHASES:
            raise ConfigError(
                f"phase: expected one of {', '.join(PHASES)}, found {phase!r}; choose one of them"
            )
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
        image, mask = read_sample(sample)
        image = resize_image(image, self.image_size, sample.reading)
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
        ConfigError, DataError: As ``SampleDataset``.
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
