"""Which images a training sees, when, and how altered: each a function of seed, epoch and place
alone.

Nothing here has a state that a killed training could lose: asked for the same epoch again, it gives
the same images in the same order, altered in the same way, with any number of workers.
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
from torch.utils.data import BatchSampler, DataLoader, Sampler

from nbhelpers.data.augment import train_augmentation
from nbhelpers.data.images import SampleDataset, read_image
from nbhelpers.data.layout import Sample
from nbhelpers.data.preprocess import normalize_image
from nbhelpers.data.resize import resize_image
from nbhelpers.errors import DataError
from nbhelpers.models.autoencoders.pixels import PIXELS

T = TypeVar("T")
CACHE_BYTES = 2**30  # resized images are kept in memory if they need less than this
NOISE = 0.2  # standard deviation, of pixels in [-1, 1]
CELLS, MASKED = 8, 0.25  # cells a side, and the share of them that is hidden


def derived_seed(seed: int, purpose: str, *place: int) -> int:
    """A seed of its own for each purpose and place (epoch, image, ...), 32 bits."""
    words = [seed, zlib.crc32(purpose.encode()), *place]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def hold_out(
    samples: Sequence[T],
    share: float,
    seed: int,
    purpose: str,
    groups: Sequence[Hashable] | None = None,
) -> tuple[list[T], list[T]]:
    """The samples without a random ``share``, and that share; both in their order.

    Whole groups are drawn until ``share`` of the samples (rounded, at least one) is reached, all
    groups but one at most: another image of an object that the network was trained on is no unseen
    one.

    Args:
        samples: What is divided.
        share: In (0, 1).
        seed, purpose: Of the draw.
        groups: A key for each sample, see ``data.splits.group_keys``; None if each stands alone.

    Raises:
        DataError: fewer than two samples, or a single group.
    """
    if len(samples) < 2:
        raise DataError(
            f"training: expected at least 2 good images, one of them to be held out, found {len(samples)}; "
            "add images to train/good or raise splits.train_ratio"
        )
    members: dict[Hashable, list[int]] = {}
    for index, (_, key) in enumerate(
        zip(samples, range(len(samples)) if groups is None else groups, strict=True)
    ):
        members.setdefault(key, []).append(index)
    if len(members) < 2:
        raise DataError(
            f"training: expected good images of at least 2 groups, one of them to be held out, found "
            f"{len(samples)} images of {len(members)}; add images of other objects to train/good, or lower "
            "max_gap in splits.groups"
        )
    count = max(1, round(share * len(samples)))
    draw = np.random.default_rng(derived_seed(seed, purpose))
    parts, held = list(members.values()), set()
    for place in draw.choice(
        len(parts), min(count, len(parts) - 1), replace=False
    ):  # as many as can be needed
        if len(held) < count:
            held.update(parts[place])
    return [s for i, s in enumerate(samples) if i not in held], [samples[i] for i in sorted(held)]


class TrainingImages(SampleDataset):
    """Good images by (epoch, index), augmented; small sets are read once and kept, as resized 8-bit
    pixels.

    Args:
        samples: Good ones.
        image_size: Side of the square images, pixels.
        augmentation: A strategy of ``train_augmentation``.
        strength: See there.
        seed: Of the augmentation.

    Raises:
        DataError: an anomalous sample, or a file that cannot be read.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: int,
        augmentation: str = "none",
        strength: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(samples, image_size, phase="train", normalization=PIXELS.normalization)
        self.augmentation, self.strength, self.seed = augmentation, strength, seed
        fits = len(self.samples) * image_size**2 * 3 < CACHE_BYTES
        self.kept = [self._read(sample) for sample in self.samples] if fits else None

    def _read(self, sample: Sample) -> np.ndarray:
        image = read_image(sample.image, sample.reading)
        return resize_image(image, self.image_size, sample.reading)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, str]:
        """Pixels ``(3, H, W)`` in [-1, 1] and the sample's id."""
        epoch, index = place
        image = self._read(self.samples[index]) if self.kept is None else self.kept[index]
        # built anew for each image, in about a millisecond: its generators then start from this
        # place's seed
        alter = train_augmentation(
            self.augmentation,
            self.image_size,
            self.strength,
            seed=derived_seed(self.seed, "augment", epoch, index),
        )
        image, _ = alter(image, np.zeros(image.shape[:2], np.uint8))
        pixels = normalize_image(image, self.normalization)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), self.samples[
            index
        ].id


class EpochOrder(Sampler):
    """(epoch, index) pairs in an order of each epoch's own; Lightning calls ``set_epoch``. Without
    a seed in order.
    """

    def __init__(self, count: int, seed: int | None = None) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = range(self.count)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", self.epoch))
            order = torch.randperm(self.count, generator=generator).tolist()
        return iter([(self.epoch, index) for index in order])


@dataclass(frozen=True)
class Batches:
    """The training and the held-out images, and how they are put together.

    Attributes:
        training, held_out: The images.
        size: Images a batch.
        accumulate: Batches a step of the optimiser.
        seed: Of the order.
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
        """Images of an epoch. A last batch of one image is left out, another image each epoch: the
        statistics of one image are none, and a batch normalisation of a 1 x 1 map refuses them.
        """
        count = len(self.training)
        return count - 1 if count > self.size and count % self.size == 1 else count

    def share(self, index: int) -> float:
        """Weight of a batch's mean loss in its step, times ``accumulate``, by which Lightning
        divides.

        So each step follows the mean over all of its images, also the last one, which may have
        fewer.
        """
        step = self.size * self.accumulate
        first, start = index * self.size, index // self.accumulate * step
        return min(self.size, self.used - first) * self.accumulate / min(step, self.used - start)

    def training_loader(self, epoch: int) -> DataLoader:
        """Batches in the order of ``epoch``; workers read ahead, before Lightning has set one."""
        order = EpochOrder(len(self.training), self.seed)
        order.set_epoch(epoch)
        return self._loader(self.training, order, drop_last=self.used < len(self.training))

    def held_out_loader(self) -> DataLoader:
        return self._loader(self.held_out, EpochOrder(len(self.held_out)), drop_last=False)

    def _loader(self, images: TrainingImages, order: EpochOrder, drop_last: bool) -> DataLoader:
        workers = self.loader.get("num_workers", 0)
        return DataLoader(
            images,
            batch_sampler=BatchSampler(order, self.size, drop_last),
            num_workers=workers,
            pin_memory=self.loader.get("pin_memory", False),
            persistent_workers=self.loader.get("persistent_workers", False) and workers > 0,
            prefetch_factor=self.loader.get("prefetch_factor") if workers > 0 else None,
            generator=torch.Generator(),  # a loader draws from the global one otherwise
        )


def corrupt(images: Tensor, kind: str, seed: int) -> Tensor:
    """What the network sees in place of ``(B, 3, H, W)`` images in [-1, 1]; its target is the image
    as it was.

    ``noise`` adds Gaussian noise (denoising autoencoder: Vincent et al., "Extracting and Composing
    Robust Features with Denoising Autoencoders", 2008). ``mask`` fills a quarter of the cells of an
    8 x 8 grid with a random colour each, to be inferred from what is around them (after RIAD:
    Zavrtanik et al., "Reconstruction by Inpainting for Visual Anomaly Detection", 2021, which
    blanks them). A network that could copy every pixel cannot undo either so.

    Args:
        images: What is to be hidden in part.
        kind: ``none``, ``noise`` or ``mask``.
        seed: Of this batch's draw, by a generator on the images' device.
    """
    if kind == "none":
        return images
    generator = torch.Generator(images.device).manual_seed(seed)
    if kind == "noise":
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return (images + NOISE * noise).clamp(PIXELS.low, PIXELS.high)
    cells = (len(images), 3, CELLS, CELLS)
    hidden = (
        torch.rand((len(images), 1, CELLS, CELLS), generator=generator, device=images.device)
        < MASKED
    )
    colors = (
        torch.rand(cells, generator=generator, device=images.device) * (PIXELS.high - PIXELS.low)
        + PIXELS.low
    )
    size = images.shape[-2:]
    return torch.where(
        F.interpolate(hidden.float(), size=size) > 0, F.interpolate(colors, size=size), images
    )
