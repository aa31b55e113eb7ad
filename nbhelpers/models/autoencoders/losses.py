"""The loss of an autoencoder: a weighted sum of terms that compare images in [-1, 1].

No term catches an error or replaces a NaN, so a loss that cannot be computed stops the training. No
term stores a constant tensor, so none can be on another device than the images.
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

#: Names of the weights that a loss needs; ``reconstruction`` scales both ``mse`` and ``l1``.
WEIGHTS = ("reconstruction", "mse", "l1", "ssim", "ms_ssim", "perceptual", "focal", "edge")
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, sec. 3.2


def mse(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean squared error, in [0, 4]."""
    return F.mse_loss(reconstructions, targets)


def l1(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean absolute error, in [0, 2]."""
    return F.l1_loss(reconstructions, targets)


def ssim(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Compute 1 - SSIM, in [0, 2); see ``similarity.ssim_map``."""
    return 1 - mean_ssim(reconstructions, targets).mean()


def scales_that_fit(size: int) -> int:
    """Compute how many scales MS-SSIM can use, from 1 to 5.

    Each scale halves the image, and SSIM's window must fit into the smallest one.

    Args:
        size: The smaller side of the images, in pixels.
    """
    scales = 1
    for n in range(2, len(BETAS) + 1):
        # the second number is a limit of torchmetrics
        if min(size // 2 ** (n - 1), size // (n - 1) ** 2) >= WINDOW:
            scales = n
    return scales


def ms_ssim(reconstructions: Tensor, targets: Tensor) -> Tensor:
    """Compute 1 - MS-SSIM, in [0, 1).

    Five scales need 176 pixels, four 99, three 44 and two 22. For smaller images the published
    exponents of the finest scales are used, as many as fit, divided by their sum. Each similarity
    is mapped from [-1, 1] to [0, 1] before it is raised to its exponent: a negative number has no
    such power, and zero, to which a rectifier would map it, has no finite slope.

    Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality
    assessment", 2003, eq. 7.

    Raises:
        ModelError: If the images are smaller than the window.
    """
    # imported here, since it is slow
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

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
    """Average alpha (1 - exp(-mse))^gamma mse over the images; badly reconstructed ones weigh more.

    This is a focal loss (Lin et al. 2017, eq. 5) with exp(-mse) in place of the probability of a
    class.
    """
    errors = (reconstructions - targets).square().mean(dim=(1, 2, 3))
    return (alpha * (-torch.expm1(-errors)) ** gamma * errors).mean()


def edge(reconstructions: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """Compute the mean squared difference of the Sobel magnitudes sqrt(gx^2 + gy^2 + eps).

    ``eps`` is inside the root, since the root has no finite slope at zero. The gradients gx and gy
    are those of the luma; at the borders the outermost pixels are repeated.
    """
    return F.mse_loss(_sobel(reconstructions, eps), _sobel(targets, eps))


def _sobel(images: Tensor, eps: float) -> Tensor:
    """Compute the magnitude ``(B, H, W)`` of the luma's gradient (ITU-R BT.601).

    Its unit is the difference in value per pixel, times 8.
    """
    luma = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    x, y = rows[..., 2:] - rows[..., :-2], columns[:, 2:] - columns[:, :-2]
    return (x.square() + y.square() + eps).sqrt()


class Perceptual(nn.Module):
    """1 - cosine of the feature vectors of two images, averaged over locations, then over layers.

    It is in [0, 2]. The squared error of raw feature maps (Johnson et al. 2016, eq. 2) has the
    scale of the network, tens for one and hundredths for another, so no weight would fit both.
    Vectors of unit length have no scale (as in LPIPS, Zhang et al. 2018, but without its learned
    weights).

    Args:
        network: See ``FrozenFeatures``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = FrozenFeatures(network)

    def forward(self, reconstructions: Tensor, targets: Tensor) -> Tensor:
        """Compute the term, a scalar, of two batches of images ``(B, 3, H, W)`` in [-1, 1]."""
        with torch.no_grad():
            target_maps = self.features(targets)
        layers = [
            (_unit(a) - _unit(b)).square().sum(dim=1).mean() / 2
            for a, b in zip(self.features(reconstructions), target_maps, strict=True)
        ]
        return torch.stack(layers).mean()


def _unit(maps: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale the vectors of maps ``(B, C, h, w)`` to length 1.

    ``eps`` inside the root bounds the gradient of a vector of zeros.
    """
    return maps / (maps.square().sum(dim=1, keepdim=True) + eps).sqrt()


#: All terms except the perceptual one, which needs a network.
TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l1": l1,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "focal": focal,
    "edge": edge,
}


class CombinedLoss(nn.Module):
    """The weighted sum of the terms.

    It is computed in float32 (in float64 for float64 images), under autocast as well.

    Args:
        weights: ``LossConfig``, or a mapping with all of ``WEIGHTS``. A term of weight 0 is not
            computed.
        feature_network: The network of the perceptual term; see ``FrozenFeatures``.

    Attributes:
        weights: The weight of each term that is computed, by name.

    Raises:
        ConfigError: If a weight is missing, negative or not finite, if all weights are zero, or if
            the perceptual term lacks its network.
    """

    def __init__(
        self, weights: LossConfig | Mapping[str, float], feature_network: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in _weights(weights).items() if weight != 0}
        if not self.weights:
            raise ConfigError(
                "loss: expected a weight above 0, found none; set loss.reconstruction=1 or another "
                "term"
            )
        if "perceptual" in self.weights:
            if feature_network is None:
                raise ConfigError(
                    "loss.perceptual: expected a feature network for a weight above 0, found none; "
                    "pass one or set loss.perceptual=0"
                )
            self.perceptual = Perceptual(feature_network)

    def forward(self, reconstructions: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss.

        Args:
            reconstructions: ``(B, 3, H, W)`` in [-1, 1].
            targets: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            The loss, a scalar, and each term by name, before it is weighted and without gradients.

        Raises:
            ModelError: If the shapes differ, or the images are too small for a term.
        """
        if (
            reconstructions.shape != targets.shape
            or reconstructions.ndim != 4
            or reconstructions.shape[1] != 3
        ):
            raise ModelError(
                f"loss: expected reconstructions and targets of one shape (B, 3, H, W), found "
                f"{tuple(reconstructions.shape)} and {tuple(targets.shape)}; check the network's "
                "output"
            )
        with full_precision(reconstructions):
            pair = at_least_float32(reconstructions), at_least_float32(targets)
            terms = {
                name: self.perceptual(*pair) if name == "perceptual" else TERMS[name](*pair)
                for name in self.weights
            }
            weighted = [self.weights[name] * term for name, term in terms.items()]
            total = sum(weighted[1:], start=weighted[0])
        return total, {name: term.detach() for name, term in terms.items()}


def _weights(weights: LossConfig | Mapping[str, float]) -> dict[str, float]:
    """Return the weight of each term in the sum, in the order in which they are added.

    Raises:
        ConfigError: If a weight is missing, negative or not finite.
    """
    if isinstance(weights, LossConfig):
        weights = weights.model_dump(include=set(WEIGHTS))
    for name in WEIGHTS:
        if name not in weights:
            raise ConfigError(
                f"loss: expected a weight for every term, found none for {name}; set it, to 0 for "
                "no such term"
            )
    by_term = {name: weights[name] for name in WEIGHTS if name != "reconstruction"}
    for name in ("mse", "l1"):
        by_term[name] *= weights["reconstruction"]
    bad = {name: weight for name, weight in by_term.items() if not 0 <= weight < float("inf")}
    if bad:
        raise ConfigError(
            f"loss: expected finite weights of 0 or more, found {bad}; set them to 0 for no such "
            "term"
        )
    return by_term


def build_loss(config: LossConfig, backbone: Callable[[], nn.Module] | None = None) -> CombinedLoss:
    """Build the loss that the configuration describes.

    The network of the perceptual term is built only if that term has a weight.

    Args:
        config: The weights, and which network the perceptual term uses.
        backbone: Builds the network for ``perceptual_network: backbone``.

    Raises:
        ConfigError: If the weights do not fit, or the network is missing; see ``CombinedLoss``.
        ModelError: If the network's weights are missing and cannot be fetched.
    """
    if config.perceptual == 0:
        return CombinedLoss(config)
    if config.perceptual_network == "vgg16":
        return CombinedLoss(config, Vgg16())
    return CombinedLoss(config, None if backbone is None else backbone())
