"""The table of methods: the name, label and colour of each, and where its class and settings are.

A network is added in three places: its file in ``models/autoencoders/networks``, a row here, and
its settings in ``config/autoencoders.py`` with their values in ``configs/autoencoder.yaml``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

AUTOENCODER = "ae_"  # an autoencoder's method name is this prefix and its architecture


@dataclass(frozen=True)
class Method:
    """One row of the table of methods.

    Attributes:
        name: The name in settings, file names and tables; an autoencoder's name is
            ``ae_<architecture>``.
        label: The name in figures and on the report's page.
        color: The colour in every figure, as ``#rrggbb``.
        class_path: ``module:class`` below ``nbhelpers.models`` of the detector, or of the network
            of an autoencoder.
        settings: Name of the class of its settings, in ``nbhelpers.config.sections`` or, for a
            network, in ``nbhelpers.config.autoencoders``.
        file: Name of its file in ``configs/``.
    """

    name: str
    label: str
    color: str
    class_path: str
    settings: str
    file: str = "autoencoder.yaml"

    @property
    def architecture(self) -> str | None:
        """The architecture of an autoencoder; None for any other method."""
        return architecture_of(self.name)


def architecture_of(method: str) -> str | None:
    """The architecture that a method's name stands for; None if it is not an autoencoder's name."""
    return method.removeprefix(AUTOENCODER) if method.startswith(AUTOENCODER) else None


def class_of(row: Method) -> Any:
    """Import and return the class of a row's detector or network.

    Its module is imported here and not with this file, because it needs large libraries.
    """
    module, _, name = row.class_path.partition(":")
    return getattr(importlib.import_module(f"nbhelpers.models.{module}"), name)


#: In the order of every table and figure. Any two colours differ by more than 13 (CIEDE2000), also
#: for people with colour blindness of any kind.
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
#: The row of each autoencoder's method, by its architecture.
ARCHITECTURES = {row.architecture: row for row in METHODS.values() if row.architecture}
METHOD_ORDER = tuple(METHODS)

if TYPE_CHECKING:
    MethodName = str
    Architecture = str
else:
    MethodName = Literal[tuple(METHODS)]
    Architecture = Literal[tuple(ARCHITECTURES)]
