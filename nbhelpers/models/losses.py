"""What an autoencoder is trained to lower: eight terms on images in [-1, 1], and their weighted sum.

No term catches an error or mends a NaN: a loss that cannot be computed stops the training, or shows itself in it
(FEATURES P28). None keeps a constant of its own, so that none can be on another device than the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from kornia.metrics import ssim as similarity
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.errors import ConfigError, ModelError
from nbhelpers.models.autoencoders.base import PIXELS, at_least_float32
from nbhelpers.models.backbones import Vgg16, to_imagenet
from nbhelpers.settings_autoencoder import LossConfig

WINDOW = 11  # side of SSIM's Gaussian window, sigma 1.5
DATA_RANGE = PIXELS.high - PIXELS.low
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, sec. 3.2


def mse(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(reconstructions, targets)


def l1(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(reconstructions, targets)


def ssim_map(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity around each pixel, ``(B, 3, H, W)`` in (-1, 1]; images are mirrored at their borders.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, eq. 13,
    with K1 = 0.01 and K2 = 0.03.

    Raises:
        ModelError: images smaller than the window.
    """
    _require_window(images, "ssim")
    # Variances are small differences of large numbers. In this memory layout a GPU convolves channel by channel in
    # float32; in channels_last it could take TF32. kornia's window is separable: 22 products a pixel, not 121.
    return similarity(images.contiguous(), others.contiguous(), WINDOW, max_val=DATA_RANGE)


def mean_ssim(images: Tensor, others: Tensor) -> Tensor:
    """Mean structural similarity of each image ``(B,)``, over the windows that lie within it, as skimage's."""
    margin = WINDOW // 2
    return ssim_map(images, others)[..., margin:-margin, margin:-margin].mean(dim=(1, 2, 3))


def ssim(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """1 - SSIM, in [0, 2)."""
    return 1 - mean_ssim(reconstructions, targets).mean()


def scales_that_fit(size: int) -> int:
    """How many scales of MS-SSIM an image of that smaller side has: each halves it, and a window must fit."""
    return max(n for n in range(1, len(BETAS) + 1)
               if n == 1 or min(size // 2 ** (n - 1), size // (n - 1) ** 2) >= WINDOW)  # the second is torchmetrics'


def ms_ssim(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """1 - MS-SSIM, in [0, 1).

    Five scales need 176 pixels, four 99, three 44, two 22. Smaller images use as many of the published exponents,
    finest first, as fit, divided by their sum. Each similarity is mapped from [-1, 1] to [0, 1] before it is raised to
    its exponent: a negative one has no such power, and at zero (where a rectifier would put it) no finite slope.

    Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment", 2003, eq. 7.

    Raises:
        ModelError: images smaller than the window.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure  # slow to import

    _require_window(reconstructions, "ms_ssim")
    betas = BETAS[: scales_that_fit(min(reconstructions.shape[-2:]))]
    pair = reconstructions.contiguous(), targets.contiguous()  # see ssim_map
    return 1 - multiscale_structural_similarity_index_measure(
        *pair, sigma=1.5, kernel_size=WINDOW, data_range=DATA_RANGE, normalize="simple",
        betas=tuple(beta / sum(betas) for beta in betas),
    )


def focal(reconstructions: Tensor, targets: Tensor, alpha: float = 1.0, gamma: float = 2.0) -> Tensor:
    """alpha (1 - exp(-mse))^gamma mse of each image, and the mean over them: images far off weigh more.

    Like a focal loss (Lin et al. 2017, eq. 5) with exp(-mse) for the probability; there are no classes in it.
    """
    errors = (reconstructions - targets).square().mean(dim=(1, 2, 3))
    return (alpha * (-torch.expm1(-errors)) ** gamma * errors).mean()


def edge(reconstructions: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean squared difference of the Sobel magnitudes sqrt(gx^2 + gy^2 + eps) of the luma.

    ``eps`` is inside the root, which has no finite slope at zero: flat areas have that magnitude. Borders are repeated.
    """
    return F.mse_loss(_sobel(reconstructions, eps), _sobel(targets, eps))


def _sobel(images: Tensor, eps: float) -> Tensor:
    """Magnitudes ``(B, H, W)`` of the gradient of the luma (ITU-R BT.601), in values a pixel times 8."""
    luma = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    x, y = rows[..., 2:] - rows[..., :-2], columns[:, 2:] - columns[:, :-2]
    return (x.square() + y.square() + eps).sqrt()


def _require_window(images: Tensor, name: str) -> None:
    if min(images.shape[-2:]) < WINDOW:
        raise ModelError(f"{name}: expected images of at least {WINDOW} x {WINDOW} pixels, found "
                         f"{images.shape[-2]} x {images.shape[-1]}; set a larger data.image_size")


class FrozenFeatures(nn.Module):
    """Feature maps of images in [-1, 1], by a network that is never trained, whatever is asked of the whole.

    Args:
        network: From ``(B, 3, H, W)`` images in ImageNet's normalisation to feature maps, by name or in a list. Its
            weights are frozen in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, C, h, w)``, layer by layer."""
        maps = self.network(to_imagenet(images, PIXELS.normalization))
        return list(maps.values() if isinstance(maps, Mapping) else maps)


class Perceptual(nn.Module):
    """1 - cosine of the feature vectors of both images, averaged over places, then over layers; in [0, 2].

    The squared error of raw maps (Johnson et al. 2016, eq. 2) has the scale of the network, tens for one and hundredths
    for another, so that no weight fits both; vectors of unit length have none (as LPIPS, Zhang et al. 2018, without its
    learned weights).

    Args:
        network: See ``FrozenFeatures``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = FrozenFeatures(network)

    def forward(self, reconstructions: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(targets)
        found = self.features(reconstructions)
        layers = [(_unit(a) - _unit(b)).square().sum(dim=1).mean() / 2 for a, b in zip(found, wanted, strict=True)]
        return torch.stack(layers).mean()


def _unit(maps: Tensor, eps: float = 1e-6) -> Tensor:
    """Maps ``(B, C, h, w)`` with vectors of length 1; eps inside the root bounds the gradient where all is zero."""
    return maps / (maps.square().sum(dim=1, keepdim=True) + eps).sqrt()


#: All terms but the perceptual one, which has a network.
TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse, "l1": l1, "ssim": ssim, "ms_ssim": ms_ssim, "focal": focal, "edge": edge,
}


class CombinedLoss(nn.Module):
    """The weighted sum of the terms; in float32 (float64 for float64 images), under autocast too.

    Args:
        weights: ``LossConfig``, or another object or mapping with its weights. ``reconstruction`` scales ``mse`` and
            ``l1``. A term of weight 0 is not built and not computed.
        feature_network: For the perceptual term; see ``FrozenFeatures``.

    Attributes:
        weights: The terms that are built, to their weight.

    Raises:
        ConfigError: a weight is missing or negative, all are zero, or the perceptual term lacks its network.
    """

    def __init__(self, weights: LossConfig | Mapping[str, float], feature_network: nn.Module | None = None) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in _weights(weights).items() if weight != 0}
        if not self.weights:
            raise ConfigError("loss: expected a weight above 0, found none; set loss.reconstruction=1 or another term")
        if "perceptual" in self.weights:
            if feature_network is None:
                raise ConfigError("loss.perceptual: expected a feature network for a weight above 0, found none; "
                                  "hand one over or set loss.perceptual=0")
            self.perceptual = Perceptual(feature_network)

    def forward(self, reconstructions: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, a scalar, and the value of each of its terms before it is weighted, detached.

        Args:
            reconstructions: ``(B, 3, H, W)`` in [-1, 1].
            targets: The same shape.

        Raises:
            ModelError: shapes differ, or are too small for a term.
        """
        if reconstructions.shape != targets.shape or reconstructions.ndim != 4 or reconstructions.shape[1] != 3:
            raise ModelError(f"loss: expected reconstructions and targets of one shape (B, 3, H, W), found "
                             f"{tuple(reconstructions.shape)} and {tuple(targets.shape)}; check the network's output")
        with full_precision(reconstructions):
            pair = at_least_float32(reconstructions), at_least_float32(targets)
            parts = {name: self.perceptual(*pair) if name == "perceptual" else TERMS[name](*pair)
                     for name in self.weights}
            total = sum(self.weights[name] * part for name, part in parts.items())
        return total, {name: part.detach() for name, part in parts.items()}


def _weights(weights: Any) -> dict[str, float]:
    """Weight of each term in the sum."""
    given = SimpleNamespace(**weights) if isinstance(weights, Mapping) else weights
    try:
        found = {
            "mse": given.reconstruction * given.mse, "l1": given.reconstruction * given.l1, "ssim": given.ssim,
            "ms_ssim": given.ms_ssim, "perceptual": given.perceptual, "focal": given.focal, "edge": given.edge,
        }
    except AttributeError as error:
        raise ConfigError(f"loss: expected a weight for every term, found none for {error.name}; set it, 0 for no "
                          "such term") from error
    bad = {name: weight for name, weight in found.items() if not 0 <= weight < float("inf")}
    if bad:
        raise ConfigError(f"loss: expected finite weights of 0 or more, found {bad}; set them to 0 for no such term")
    return found


def full_precision(images: Tensor) -> AbstractContextManager:
    """Autocast off on the images' device."""
    kind = images.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def build_loss(config: LossConfig, backbone: Callable[[], nn.Module] | None = None) -> CombinedLoss:
    """The loss that the configuration asks for; no network is built where no perceptual term is.

    Args:
        config: Weights, and which network the perceptual term uses.
        backbone: Builds the network for ``perceptual_network: backbone``.

    Raises:
        ConfigError: see ``CombinedLoss``.
        ModelError: the network's weights cannot be had.
    """
    if config.perceptual == 0 or (config.perceptual_network == "backbone" and backbone is None):
        return CombinedLoss(config)
    return CombinedLoss(config, Vgg16() if config.perceptual_network == "vgg16" else backbone())
