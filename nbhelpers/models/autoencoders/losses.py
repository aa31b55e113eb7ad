"""What an autoencoder is trained to lower: eight terms on images in [-1, 1], and their weighted
sum.

No term catches an error or replaces a NaN: a loss that cannot be computed stops the training, or
shows itself in it. No term keeps a constant tensor of its own, so none can be on another device
than the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.config.autoencoders import LossConfig
from nbhelpers.errors import ConfigError, ModelError
from nbhelpers.models.autoencoders.similarity import (
    DATA_RANGE,
    WINDOW,
    FrozenFeatures,
    at_least_float32,
    full_precision,
    mean_ssim,
    require_window,
)
from nbhelpers.models.backbones import Vgg16

#: The weights that a loss needs; ``reconstruction`` scales ``mse`` and ``l1``.
WEIGHTS = ("reconstruction", "mse", "l1", "ssim", "ms_ssim", "perceptual", "focal", "edge")
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, sec. 3.2


def mse(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(reconstructions, targets)


def l1(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(reconstructions, targets)


def ssim(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """1 - SSIM, in [0, 2)."""
    return 1 - mean_ssim(reconstructions, targets).mean()


def scales_that_fit(size: int) -> int:
    """How many scales of MS-SSIM an image of that smaller side has: each halves it, and a window
    must fit.
    """
    return max(
        n
        for n in range(1, len(BETAS) + 1)
        if n == 1 or min(size // 2 ** (n - 1), size // (n - 1) ** 2) >= WINDOW
    )  # the second is torchmetrics'


def ms_ssim(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """1 - MS-SSIM, in [0, 1).

    Five scales need 176 pixels, four 99, three 44, two 22. Smaller images use as many of the
    published exponents, finest first, as fit, divided by their sum. Each similarity is mapped from
    [-1, 1] to [0, 1] before it is raised to its exponent: a negative one has no such power, and at
    zero (where a rectifier would put it) no finite slope.

    Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality
    assessment", 2003, eq. 7.

    Raises:
        ModelError: images smaller than the window.
    """
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
    )  # slow to import

    require_window(reconstructions, "ms_ssim")
    betas = BETAS[: scales_that_fit(min(reconstructions.shape[-2:]))]
    pair = reconstructions.contiguous(), targets.contiguous()  # see ssim_map
    return 1 - multiscale_structural_similarity_index_measure(
        *pair,
        sigma=1.5,
        kernel_size=WINDOW,
        data_range=DATA_RANGE,
        normalize="simple",
        betas=tuple(beta / sum(betas) for beta in betas),
    )


def focal(
    reconstructions: Tensor, targets: Tensor, alpha: float = 1.0, gamma: float = 2.0
) -> Tensor:
    """alpha (1 - exp(-mse))^gamma mse of each image, and the mean over them: images far off weigh
    more.

    Like a focal loss (Lin et al. 2017, eq. 5) with exp(-mse) for the probability; there are no
    classes in it.
    """
    errors = (reconstructions - targets).square().mean(dim=(1, 2, 3))
    return (alpha * (-torch.expm1(-errors)) ** gamma * errors).mean()


def edge(reconstructions: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean squared difference of the Sobel magnitudes sqrt(gx^2 + gy^2 + eps) of the luma.

    ``eps`` is inside the root, which has no finite slope at zero: flat areas have that magnitude.
    Borders are repeated.
    """
    return F.mse_loss(_sobel(reconstructions, eps), _sobel(targets, eps))


def _sobel(images: Tensor, eps: float) -> Tensor:
    """Magnitudes ``(B, H, W)`` of the gradient of the luma (ITU-R BT.601), in values a pixel times
    8.
    """
    luma = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    x, y = rows[..., 2:] - rows[..., :-2], columns[:, 2:] - columns[:, :-2]
    return (x.square() + y.square() + eps).sqrt()


class Perceptual(nn.Module):
    """1 - cosine of the feature vectors of both images, averaged over places, then over layers; in
    [0, 2].

    The squared error of raw maps (Johnson et al. 2016, eq. 2) has the scale of the network, tens
    for one and hundredths for another, so that no weight fits both; vectors of unit length have
    none (as LPIPS, Zhang et al. 2018, without its learned weights).

    Args:
        network: See ``FrozenFeatures``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = FrozenFeatures(network)

    def forward(self, reconstructions: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            target_maps = self.features(targets)
        layers = [
            (_unit(a) - _unit(b)).square().sum(dim=1).mean() / 2
            for a, b in zip(self.features(reconstructions), target_maps, strict=True)
        ]
        return torch.stack(layers).mean()


def _unit(maps: Tensor, eps: float = 1e-6) -> Tensor:
    """Maps ``(B, C, h, w)`` with vectors of length 1; eps inside the root bounds the gradient where
    all is zero.
    """
    return maps / (maps.square().sum(dim=1, keepdim=True) + eps).sqrt()


#: All terms but the perceptual one, which has a network.
TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l1": l1,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "focal": focal,
    "edge": edge,
}


class CombinedLoss(nn.Module):
    """The weighted sum of the terms; in float32 (float64 for float64 images), under autocast too.

    Args:
        weights: ``LossConfig``, or a mapping with all of ``WEIGHTS``. A term of weight 0 is not
            built and not computed.
        feature_network: For the perceptual term; see ``FrozenFeatures``.

    Attributes:
        weights: The terms that are built, to their weight.

    Raises:
        ConfigError: a weight is missing or negative, all are zero, or the perceptual term lacks its
            network.
    """

    def __init__(
        self, weights: LossConfig | Mapping[str, float], feature_network: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in _weights(weights).items() if weight != 0}
        if not self.weights:
            raise ConfigError(
                "loss: expected a weight above 0, found none; set loss.reconstruction=1 or another term"
            )
        if "perceptual" in self.weights:
            if feature_network is None:
                raise ConfigError(
                    "loss.perceptual: expected a feature network for a weight above 0, found none; "
                    "pass one or set loss.perceptual=0"
                )
            self.perceptual = Perceptual(feature_network)

    def forward(self, reconstructions: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, a scalar, and the value of each of its terms before it is weighted, detached.

        Args:
            reconstructions: ``(B, 3, H, W)`` in [-1, 1].
            targets: The same shape.

        Raises:
            ModelError: shapes differ, or are too small for a term.
        """
        if (
            reconstructions.shape != targets.shape
            or reconstructions.ndim != 4
            or reconstructions.shape[1] != 3
        ):
            raise ModelError(
                f"loss: expected reconstructions and targets of one shape (B, 3, H, W), found "
                f"{tuple(reconstructions.shape)} and {tuple(targets.shape)}; check the network's output"
            )
        with full_precision(reconstructions):
            pair = at_least_float32(reconstructions), at_least_float32(targets)
            parts = {
                name: self.perceptual(*pair) if name == "perceptual" else TERMS[name](*pair)
                for name in self.weights
            }
            total = sum(self.weights[name] * part for name, part in parts.items())
        return total, {name: part.detach() for name, part in parts.items()}


def _weights(weights: LossConfig | Mapping[str, float]) -> dict[str, float]:
    """Weight of each term in the sum.

    Raises:
        ConfigError: a weight is missing, negative or not finite.
    """
    if isinstance(weights, LossConfig):
        weights = weights.model_dump(include=set(WEIGHTS))
    for name in WEIGHTS:
        if name not in weights:
            raise ConfigError(
                f"loss: expected a weight for every term, found none for {name}; set it, to 0 for no "
                "such term"
            )
    by_term = _by_term(**{name: weights[name] for name in WEIGHTS})
    bad = {name: weight for name, weight in by_term.items() if not 0 <= weight < float("inf")}
    if bad:
        raise ConfigError(
            f"loss: expected finite weights of 0 or more, found {bad}; set them to 0 for no such term"
        )
    return by_term


def _by_term(
    *,
    reconstruction: float,
    mse: float,
    l1: float,
    ssim: float,
    ms_ssim: float,
    perceptual: float,
    focal: float,
    edge: float,
) -> dict[str, float]:
    """Weight of each term, in the order in which they are summed."""
    return {
        "mse": reconstruction * mse,
        "l1": reconstruction * l1,
        "ssim": ssim,
        "ms_ssim": ms_ssim,
        "perceptual": perceptual,
        "focal": focal,
        "edge": edge,
    }


def build_loss(config: LossConfig, backbone: Callable[[], nn.Module] | None = None) -> CombinedLoss:
    """The loss that the configuration asks for; no network is built where no perceptual term is.

    Args:
        config: Weights, and which network the perceptual term uses.
        backbone: Builds the network for ``perceptual_network: backbone``.

    Raises:
        ConfigError: see ``CombinedLoss``.
        ModelError: the network's weights are missing and cannot be fetched.
    """
    if config.perceptual == 0 or (config.perceptual_network == "backbone" and backbone is None):
        return CombinedLoss(config)
    return CombinedLoss(config, Vgg16() if config.perceptual_network == "vgg16" else backbone())
