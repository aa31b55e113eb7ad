"""What all networks share: encoding and decoding, the reconstruction error, and the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nbhelpers.errors import ConfigError, ModelError

#: Compares reconstructions with targets, ``(B, 3, H, W)`` each; returns the loss and its terms by
#: name.
Criterion = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class BaseAutoencoder(nn.Module, ABC):
    """An autoencoder of ``(B, 3, image_size, image_size)`` images in [-1, 1].

    A subclass defines ``encode`` and ``decode``; ``forward`` is ``decode(encode(images))``.

    Args:
        image_size: Side of the images, in pixels.
        multiple: ``image_size`` must be a multiple of this number.

    Attributes:
        gradient_checkpointing: Whether the activations are computed twice while training, which
            saves memory; False at first.

    Raises:
        ConfigError: If ``image_size`` is not a multiple of ``multiple``.
    """

    name: ClassVar[str]
    #: Whether ``loss`` uses its criterion; if it does not, the criterion may be None.
    uses_criterion: ClassVar[bool] = True
    #: Names of arguments that only ``decode`` uses; no trained weight depends on them.
    not_learned: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, image_size: int, multiple: int = 1) -> None:
        super().__init__()
        self.image_size = image_size
        self.gradient_checkpointing = False
        if image_size % multiple:
            near = max(multiple, round(image_size / multiple) * multiple)
            raise ConfigError(
                f"autoencoder {self.name}: expected an image size that is a multiple of "
                f"{multiple}, found {image_size}; set data.image_size={near}"
            )

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """Turn images ``(B, 3, H, W)`` into what ``decode`` needs: a tensor, or several."""

    @abstractmethod
    def decode(self, latent: Any) -> Tensor:
        """Turn what ``encode`` returned into images ``(B, 3, H, W)`` in [-1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            The reconstructions ``(B, 3, H, W)`` in [-1, 1].

        Raises:
            ModelError: If the images have another shape.
        """
        self.check(images)
        if self.gradient_checkpointing and self.training:
            latent = self._checkpointed(self.encode, images)
            return self._checkpointed(self.decode, latent)
        return self.decode(self.encode(images))

    def _checkpointed(self, function: Callable[[Any], Any], value: Any) -> Any:
        """Apply ``function`` to ``value``, and compute the activations again for the gradients."""
        return checkpoint(
            function,
            value,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self._recomputing()),
        )

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Keep the running statistics unchanged: they have already seen this batch once."""
        norms = [module for module in self.modules() if isinstance(module, BATCH_NORMS)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        try:
            for norm in norms:
                norm.momentum, norm.num_batches_tracked = 0.0, None
            yield
        finally:
            for norm, (momentum, count) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    def check(self, images: Tensor) -> None:
        """Refuse images of another shape.

        Raises:
            ModelError: If the images are not ``(B, 3, image_size, image_size)``.
        """
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ModelError(
                f"autoencoder {self.name}: expected images (B, {', '.join(map(str, expected))}), "
                f"found {tuple(images.shape)}; resize them, or build the network for their size"
            )

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstruct images in evaluation mode, without gradients.

        The reconstruction of an image does not depend on the other images of its batch.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            The reconstructions ``(B, 3, H, W)`` in [-1, 1].
        """
        training = self.training
        try:
            return self.eval()(images)
        finally:
            self.train(training)

    def reconstruction_error(self, images: Tensor, reduction: str = "mean") -> Tensor:
        """Compute the squared error of the reconstructions.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].
            reduction: ``mean`` or ``sum`` over the values of each image, or ``none``.

        Returns:
            ``(B,)``, or ``(B, 3, H, W)`` with ``none``.

        Raises:
            ConfigError: If there is no such reduction.
        """
        if reduction not in ("mean", "sum", "none"):
            raise ConfigError(
                f"reduction: expected mean, sum or none, found {reduction!r}; choose one of them"
            )
        error = (self.reconstruct(images) - images).square()
        if reduction == "none":
            return error
        by_image = error.flatten(1)
        return by_image.sum(dim=1) if reduction == "sum" else by_image.mean(dim=1)

    def loss(
        self, inputs: Tensor, targets: Tensor, criterion: Criterion | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute how far the reconstructions of ``inputs`` are from ``targets``.

        Args:
            inputs: What the network sees, ``(B, 3, H, W)``: corrupted images, or the targets
                themselves.
            targets: What the network should return, ``(B, 3, H, W)``.
            criterion: Compares reconstructions with targets; see ``uses_criterion``.

        Returns:
            The loss, a scalar, and its terms by name.

        Raises:
            ModelError: If the network needs a criterion and it is None.
        """
        return self.required(criterion)(self(inputs), targets)

    def required(self, criterion: Criterion | None) -> Criterion:
        """Return the criterion.

        Raises:
            ModelError: If it is None.
        """
        if criterion is None:
            raise ModelError(
                f"autoencoder {self.name}: expected a criterion for its loss, found None; pass "
                "what losses.build_loss returns"
            )
        return criterion

    @property
    def n_parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
