"""The methods, one row each: what a method is called and drawn as, and where its classes and
settings stand.

A network is added in three places: its file in ``models/autoencoders/networks``, a row here, and
its settings in ``config/autoencoders.py`` with their values in ``configs/autoencoder.yaml``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

AUTOENCODER = "ae_"  # an autoencoder's method name: this and the architecture


@dataclass(frozen=True)
class Method:
    """One row of the table of methods.

    Attributes:
        name: What it is called in settings, file names and tables; an autoencoder is
            ``ae_<architecture>``.
        label: What it is called in figures and on the page.
        color: Its colour in every figure.
        class_path: ``module:class`` below ``nbhelpers.models`` of its detector, of an autoencoder's
            network.
        settings: Class of its settings, in ``nbhelpers.config.sections`` or, for a network,
            ``.autoencoders``.
        file: Its file in ``configs/``.
    """

    name: str
    label: str
    color: str
    class_path: str
    settings: str
    file: str = "autoencoder.yaml"

    @property
    def architecture(self) -> str | None:
        """The architecture of an autoencoder, None for another method."""
        return architecture_of(self.name)


def architecture_of(method: str) -> str | None:
    """The architecture of an autoencoder's method name, None for another method."""
    return method.removeprefix(AUTOENCODER) if method.startswith(AUTOENCODER) else None


def class_of(row: Method) -> Any:
    """The class of a row's detector or network; here its module is imported, with the libraries
    that it needs.
    """
    module, _, name = row.class_path.partition(":")
    return getattr(importlib.import_module(f"nbhelpers.models.{module}"), name)


#: In the order in which they are told. Colours are as far apart as can be, also to those who see no
#: red, green or blue: CIEDE2000 over 13 between any two.
METHODS = {
    method.name: method
    for method in (
        Method(
            "patchcore",
            "PatchCore",
            "#26547c",
            "patchcore.detector:PatchCore",
            "PatchCoreConfig",
            "patchcore.yaml",
        ),
        Method("padim", "PaDiM", "#ef476f", "padim:Padim", "PadimConfig", "padim.yaml"),
        Method(
            "ae_cnn", "CNN AE", "#c8961e", "autoencoders.networks.cnn:CnnAutoencoder", "CnnConfig"
        ),
        Method(
            "ae_resnet",
            "ResNet AE",
            "#4691a4",
            "autoencoders.networks.resnet:ResNetAutoencoder",
            "ResNetConfig",
        ),
        Method(
            "ae_vit", "ViT AE", "#755ae2", "autoencoders.networks.vit:VitAutoencoder", "VitConfig"
        ),
        Method(
            "ae_unet_lite",
            "U-Net lite AE",
            "#8bb1aa",
            "autoencoders.networks.unet_lite:AutoencoderUNetLite",
            "UNetLiteConfig",
        ),
        Method(
            "ae_unet",
            "U-Net AE",
            "#826d17",
            "autoencoders.networks.unet:UNetAutoencoder",
            "UNetConfig",
        ),
        Method(
            "ae_reversed",
            "Reversed AE",
            "#821717",
            "autoencoders.networks.reversed:ReversedAutoencoder",
            "ReversedConfig",
        ),
        Method(
            "ae_diffusion",
            "Diffusion AE",
            "#5c3d43",
            "autoencoders.networks.diffusion:DiffusionAutoencoder",
            "DiffusionConfig",
        ),
    )
}
#: Autoencoder architectures to the row of their method.
ARCHITECTURES = {row.architecture: row for row in METHODS.values() if row.architecture}
METHOD_ORDER = tuple(METHODS)

if TYPE_CHECKING:
    MethodName = Architecture = str
else:
    MethodName = Literal[tuple(METHODS)]
    Architecture = Literal[tuple(ARCHITECTURES)]
