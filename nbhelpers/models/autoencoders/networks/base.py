"""What all autoencoders share: one pixel convention, encode and decode, reconstruction error, loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nbhelpers.errors import ConfigError, ModelError

#: ``(reconstructions, targets)`` to the loss and its parts by name.
Criterion = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class BaseAutoencoder(nn.Module, ABC):
    """An autoencoder of ``(B, 3, image_size, image_size)`` images in [-1, 1]; ``forward`` is
    decode(encode(images)).

    Args:
        image_size: Side of the images, pixels.
        multiple: ``image_size`` must be a multiple of it.

    Raises:
        ConfigError: it is not.
    """

    name: ClassVar[str]
    #: Whether ``loss`` asks its criterion; if not, that may be None.
    uses_criterion: ClassVar[bool] = True
    #: Arguments that only ``decode`` reads; no trained weight depends on them.
    not_learned: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, image_size: int, multiple: int = 1) -> None:
        super().__init__()
        self.image_size = image_size
        # while training: less memory, the activations are computed twice
        self.gradient_checkpointing = False
        if image_size % multiple:
            near = max(multiple, round(image_size / multiple) * multiple)
            raise ConfigError(
                f"autoencoder {self.name}: expected an image size that is a multiple of {multiple}, "
                f"found {image_size}; set data.image_size={near}"
            )

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """What ``decode`` needs of the images: a tensor, or several."""

    @abstractmethod
    def decode(self, latent: Any) -> Tensor:
        """Images ``(B, 3, H, W)`` in [-1, 1] from what ``encode`` gave."""

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions ``(B, 3, H, W)`` in [-1, 1].

        Raises:
            ModelError: images of another shape.
        """
        self.check(images)
        if self.gradient_checkpointing and self.training:
            latent = self._checkpointed(self.encode, images)
            return self._checkpointed(self.decode, latent)
        return self.decode(self.encode(images))

    def _checkpointed(self, part: Callable[[Any], Any], value: Any) -> Any:
        return checkpoint(
            part,
            value,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self._recomputing()),
        )

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """The second computation of the same batch leaves the running statistics alone: they have
        seen it.
        """
        norms = [module for module in self.modules() if isinstance(module, BATCH_NORMS)]
        kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        try:
            for norm in norms:
                norm.momentum, norm.num_batches_tracked = 0.0, None
            yield
        finally:
            for norm, (momentum, count) in zip(norms, kept, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    def check(self, images: Tensor) -> None:
        """Refuse images of another shape."""
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ModelError(
                f"autoencoder {self.name}: expected images (B, {', '.join(map(str, expected))}), found "
                f"{tuple(images.shape)}; resize them, or build the network for their size"
            )

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstructions without gradients, in evaluation mode: one image's does not depend on its
        batch mates.
        """
        training = self.training
        try:
            return self.eval()(images)
        finally:
            self.train(training)

    def reconstruction_error(self, images: Tensor, reduction: str = "mean") -> Tensor:
        """Squared error of the reconstructions: ``mean`` or ``sum`` of each image ``(B,)``,
        ``none`` ``(B, 3, H, W)``.

        Raises:
            ConfigError: another reduction.
        """
        if reduction not in ("mean", "sum", "none"):
            raise ConfigError(
                f"reduction: expected mean, sum or none, found {reduction!r}; choose one of them"
            )
        error = (self.reconstruct(images) - images).square()
        if reduction == "none":
            return error
        of_image = error.flatten(1)
        return of_image.sum(dim=1) if reduction == "sum" else of_image.mean(dim=1)

    def loss(
        self, inputs: Tensor, targets: Tensor, criterion: Criterion
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and its parts: how far ``inputs`` are reconstructed from ``targets``.

        Args:
            inputs: What the network sees, ``(B, 3, H, W)``; corrupted, or the targets themselves.
            targets: What it should give.
            criterion: Compares two batches of images; see ``uses_criterion``.
        """
        return criterion(self(inputs), targets)

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
