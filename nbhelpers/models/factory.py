"""Detectors by method name: only this file knows which settings belong to which method."""

from __future__ import annotations

from typing import Any

from nbhelpers.config import Config
from nbhelpers.config.autoencoders import BOOKKEEPING, MASKS
from nbhelpers.errors import ConfigError
from nbhelpers.methods import METHODS, architecture_of, class_of
from nbhelpers.models.detector import Detector


def method_settings(config: Config, method: str) -> dict[str, Any]:
    """Return a method's own settings, without those that change no score of a single detector.

    Args:
        config: The study's configuration.
        method: Name of the method, e.g. ``padim`` or ``ae_unet``.

    Raises:
        ConfigError: If there is no such method.
    """
    if method not in METHODS:
        raise ConfigError(
            f"unknown method '{method}'; known: {', '.join(METHODS)}; choose one of them"
        )
    architecture = architecture_of(method)
    if architecture is None:
        # the seeds are those of its refits
        return getattr(config, method).model_dump(exclude={"seeds"})
    options = config.autoencoder.model_dump(
        include={"loss": True, "scoring": True}, exclude={"scoring": set(MASKS)}
    )
    options["training"] = config.autoencoder.training_of(architecture).model_dump(
        exclude=set(BOOKKEEPING)
    )
    network = getattr(config.autoencoder.networks, architecture).model_dump(exclude={"training"})
    groups = config.splits.model_dump()["groups"]  # images of one group are held out together
    return {**options, "network": network, "groups": groups}


def new_detector(config: Config, method: str, seed: int, device: str) -> Detector:
    """Make an unfitted detector with the configured settings.

    Args:
        config: The study's configuration.
        method: Name of the method.
        seed: Seed of the detector's random generator.
        device: ``cpu``, ``cuda`` or another torch device.

    Raises:
        ConfigError: If there is no such method, or a setting is out of range.
        ModelError: If the backbone's weights are missing and cannot be fetched.
    """
    settings, architecture = method_settings(config, method), architecture_of(method)
    shared: dict[str, Any] = {
        "image_size": config.data.image_size,
        "smoothing_sigma": config.smoothing_sigma,
        "tta": config.tta,
        "seed": seed,
        "device": device,
        "loader": config.loader.model_dump(),
    }
    # imported here: the network libraries take seconds, and evaluation does not need them
    if architecture is not None:
        from nbhelpers.models.autoencoders.detector import Autoencoder

        scoring = config.autoencoder.scoring
        return Autoencoder(
            architecture,
            config.autoencoder,
            config.backbone,
            groups=config.splits.groups,
            runs=config.output_dir / "training",
            aggregation=scoring.aggregation,
            topk_percentile=scoring.topk_percentile,
            **shared,
        )
    from nbhelpers.models.backbones import Backbone

    backbone = Backbone(config.backbone.name, settings.pop("layers"), config.backbone.weights)
    return class_of(METHODS[method])(backbone, **shared, **settings)
