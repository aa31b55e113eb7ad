"""Which images a training sees, in which order, and how they are augmented and corrupted.

All of that depends on the seed, the epoch and the index of the image only. So a killed training
loses nothing: the same epoch has the same images in the same order, changed in the same way, with
any number of workers.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from nbhelpers.data.augment import train_augmentation
from nbhelpers.data.images import SampleDataset, read_image
from nbhelpers.data.layout import Sample
from nbhelpers.data.preprocess import normalize_image
from nbhelpers.data.resize import resize_image
from nbhelpers.errors import DataError
from nbhelpers.models.autoencoders.pixels import PIXELS

T = TypeVar("T")
CACHE_BYTES = 2**30  # resized images are kept in memory if they need less than this
NOISE = 0.2  # standard deviation of the corruption ``noise``, for pixels in [-1, 1]
SQUARES_PER_SIDE = 8  # of the grid of the corruption ``mask``
MASKED_SHARE = 0.25  # of the squares


def derived_seed(seed: int, purpose: str, *indices: int) -> int:
    """Derive a separate seed for each purpose and each epoch, image or batch.

    Args:
        seed: The training's seed.
        purpose: What the seed is for, e.g. ``augment``.
        *indices: Numbers of the epoch, the image, ...

    Returns:
        A seed of 32 bits.
    """
    words = [seed, zlib.crc32(purpose.encode()), *indices]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def hold_out(
    samples: Sequence[T],
    share: float,
    seed: int,
    purpose: str,
    groups: Sequence[Hashable] | None = None,
) -> tuple[list[T], list[T]]:
    """Hold out a random share of the samples.

    Whole groups are drawn until ``share`` of the samples (rounded, at least one) is reached, but at
    least one group remains. Groups are not divided, since an image of an object that was seen in
    training is not an unseen image.

    Args:
        samples: What is divided.
        share: Share of the samples that is held out, in (0, 1).
        seed: Seed of the draw.
        purpose: What the draw is for; see ``derived_seed``.
        groups: A key for each sample, see ``data.splits.group_keys``. None means that each sample
            is its own group.

    Returns:
        The samples that remain and the samples that are held out, both in their order.

    Raises:
        DataError: If there are fewer than two samples, or only one group.
    """
    if len(samples) < 2:
        raise DataError(
            "training: expected at least 2 good images, one of them to be held out, found "
            f"{len(samples)}; add images to train/good or raise splits.train_ratio"
        )
    members: dict[Hashable, list[int]] = {}
    for index, (_, key) in enumerate(
        zip(samples, range(len(samples)) if groups is None else groups, strict=True)
    ):
        members.setdefault(key, []).append(index)
    if len(members) < 2:
        raise DataError(
            "training: expected good images of at least 2 groups, one of them to be held out, "
            f"found {len(samples)} images of {len(members)}; add images of other objects to "
            "train/good, or lower max_gap in splits.groups"
        )
    count = max(1, round(share * len(samples)))
    draw = np.random.default_rng(derived_seed(seed, purpose))
    held: set[int] = set()
    group_members = list(members.values())
    # as many groups as could be needed, if each had one member
    for group in draw.choice(len(members), min(count, len(members) - 1), replace=False):
        if len(held) < count:
            held.update(group_members[group])
    return [s for i, s in enumerate(samples) if i not in held], [samples[i] for i in sorted(held)]


class TrainingImages(Dataset):
    """Good images, augmented, by (epoch, index).

    Small sets are read once and kept in memory as resized 8-bit pixels.

    Args:
        samples: Good samples.
        image_size: Side of the square images, in pixels.
        augmentation: A strategy of ``train_augmentation``.
        strength: How strong the augmentation is; see ``train_augmentation``.
        seed: Seed of the augmentation.

    Raises:
        DataError: If a sample is anomalous, or a file cannot be read.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: int,
        augmentation: str = "none",
        strength: float = 0.0,
        seed: int = 0,
    ) -> None:
        # refuses anomalous samples
        self.samples = SampleDataset(samples, image_size, phase="train").samples
        self.image_size = image_size
        self.augmentation, self.strength, self.seed = augmentation, strength, seed
        fits = len(self.samples) * image_size**2 * 3 < CACHE_BYTES
        self.kept = [self._read(sample) for sample in self.samples] if fits else None

    def _read(self, sample: Sample) -> np.ndarray:
        """Read an image as ``(image_size, image_size, 3)`` uint8."""
        image = read_image(sample.image, sample.reading)
        return resize_image(image, self.image_size, sample.reading)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> tuple[Tensor, str]:
        """Return an image's pixels ``(3, H, W)`` in [-1, 1] in an epoch, and its sample's id."""
        epoch, index = epoch_and_index
        image = self._read(self.samples[index]) if self.kept is None else self.kept[index]
        # built for each image, in about a millisecond, so that its generators start from the seed
        # of this epoch and image
        alter = train_augmentation(
            self.augmentation,
            self.image_size,
            self.strength,
            seed=derived_seed(self.seed, "augment", epoch, index),
        )
        image, _ = alter(image, np.zeros(image.shape[:2], np.uint8))
        pixels = normalize_image(image, PIXELS.normalization)  # (H, W, 3) float32
        channels_first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return torch.from_numpy(channels_first), self.samples[index].id


class EpochOrder(Sampler):
    """Pairs (epoch, index), shuffled differently in each epoch; Lightning calls ``set_epoch``.

    Args:
        count: Number of images.
        seed: Seed of the orders; None keeps the images in their order.
    """

    def __init__(self, count: int, seed: int | None = None) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: Sequence[int] = range(self.count)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", self.epoch))
            order = torch.randperm(self.count, generator=generator).tolist()
        return iter([(self.epoch, index) for index in order])


@dataclass(frozen=True)
class Batches:
    """The training images and the held-out images, and how they are put into batches.

    Attributes:
        training: The training images.
        held_out: The held-out images.
        size: Number of images per batch.
        accumulate: Number of batches per step of the optimiser.
        seed: Seed of the order of the training images.
        loader: Arguments of ``make_loader`` other than ``batch_size``.
    """

    training: TrainingImages
    held_out: TrainingImages
    size: int
    accumulate: int
    seed: int
    loader: Mapping[str, Any]

    @property
    def used(self) -> int:
        """How many training images an epoch uses.

        A last batch with only one image is left out (in each epoch it is another image): batch
        statistics need more than one image, and a batch normalisation of a 1 x 1 map refuses one.
        """
        count = len(self.training)
        return count - 1 if count > self.size and count % self.size == 1 else count

    def share(self, index: int) -> float:
        """Compute the weight of a batch's mean loss in its optimiser step.

        With these weights each step follows the mean over all of its images. That holds for the
        last step as well, which may have fewer images.

        Args:
            index: The batch's number in the epoch, from 0.

        Returns:
            The batch's share of the step's images, times ``accumulate``, by which Lightning
            divides.
        """
        step = self.size * self.accumulate
        first, start = index * self.size, index // self.accumulate * step
        return min(self.size, self.used - first) * self.accumulate / min(step, self.used - start)

    def training_loader(self, epoch: int) -> DataLoader:
        """Make a loader whose first batches have the order of ``epoch``.

        Its workers read ahead before Lightning sets an epoch.
        """
        order = EpochOrder(len(self.training), self.seed)
        order.set_epoch(epoch)
        return self._loader(self.training, order, drop_last=self.used < len(self.training))

    def held_out_loader(self) -> DataLoader:
        """Make a loader of the held-out images, in their order."""
        return self._loader(self.held_out, EpochOrder(len(self.held_out)), drop_last=False)

    def _loader(self, images: TrainingImages, order: EpochOrder, drop_last: bool) -> DataLoader:
        """Make a loader of images in an order, with the options of ``loader``."""
        workers = self.loader.get("num_workers", 0)
        return DataLoader(
            images,
            batch_sampler=BatchSampler(order, self.size, drop_last),
            num_workers=workers,
            pin_memory=self.loader.get("pin_memory", False),
            persistent_workers=self.loader.get("persistent_workers", False) and workers > 0,
            prefetch_factor=self.loader.get("prefetch_factor") if workers > 0 else None,
            generator=torch.Generator(),  # otherwise a loader draws from the global generator
        )


def corrupt(images: Tensor, kind: str, seed: int) -> Tensor:
    """Corrupt images for the network's input; the target of its output is the uncorrupted image.

    ``noise`` adds Gaussian noise (denoising autoencoder: Vincent et al., "Extracting and Composing
    Robust Features with Denoising Autoencoders", 2008). ``mask`` fills a quarter of the squares of
    an 8 x 8 grid with one random colour each, and the network has to infer them from their
    surroundings (after RIAD: Zavrtanik et al., "Reconstruction by Inpainting for Visual Anomaly
    Detection", 2021, which fills them with zeros). A network that copies every pixel can undo
    neither.

    Args:
        images: ``(B, 3, H, W)`` in [-1, 1].
        kind: ``none``, ``noise`` or ``mask``.
        seed: Seed of this batch's draw, by a generator on the images' device.

    Returns:
        ``(B, 3, H, W)`` in [-1, 1].
    """
    if kind == "none":
        return images
    generator = torch.Generator(images.device).manual_seed(seed)
    if kind == "noise":
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return (images + NOISE * noise).clamp(PIXELS.low, PIXELS.high)
    grid = (SQUARES_PER_SIDE, SQUARES_PER_SIDE)
    draws = torch.rand((len(images), 1, *grid), generator=generator, device=images.device)
    colors = torch.rand((len(images), 3, *grid), generator=generator, device=images.device)
    colors = colors * (PIXELS.high - PIXELS.low) + PIXELS.low
    size = images.shape[-2:]
    is_hidden = F.interpolate((draws < MASKED_SHARE).float(), size=size) > 0  # (B, 1, H, W)
    return torch.where(is_hidden, F.interpolate(colors, size=size), images)
