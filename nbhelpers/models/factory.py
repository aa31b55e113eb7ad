"""Detectors by method name: the one place that knows which class a method is and which settings are
its own.
"""

from __future__ import annotations

from typing import Any

from nbhelpers.config import Config
from nbhelpers.config.autoencoders import BOOKKEEPING, MASKS
from nbhelpers.errors import ConfigError
from nbhelpers.methods import METHODS, architecture_of, class_of
from nbhelpers.models.detector import Detector


def method_settings(config: Config, method: str) -> dict[str, Any]:
    """A method's own settings, without those that change no score of a single detector.

    Raises:
        ConfigError: a method that is not known.
    """
    if method not in METHODS:
        raise ConfigError(
            f"unknown method '{method}'; known: {', '.join(METHODS)}; choose one of them"
        )
    architecture = architecture_of(method)
    if architecture is None:
        return getattr(config, method).model_dump(exclude={"seeds"})  # those of its refits
    options = config.autoencoder.model_dump(
        include={"loss": True, "scoring": True}, exclude={"scoring": set(MASKS)}
    )
    options["training"] = config.autoencoder.training_of(architecture).model_dump(
        exclude=set(BOOKKEEPING)
    )
    network = getattr(config.autoencoder.networks, architecture).model_dump(exclude={"training"})
    groups = config.splits.model_dump()["groups"]  # of the images that are held out together
    return {**options, "network": network, "groups": groups}


def new_detector(config: Config, method: str, seed: int, device: str) -> Detector:
    """An unfitted detector with the configured settings.

    Raises:
        ConfigError: a method that is not known, or a setting that does not fit.
    """
    settings, architecture = method_settings(config, method), architecture_of(method)
    shared = {
        "image_size": config.data.image_size,
        "smoothing_sigma": config.smoothing_sigma,
        "tta": config.tta,
        "seed": seed,
        "device": device,
        "loader": config.loader.model_dump(),
    }
    # here, since the network libraries take seconds to import and whoever only evaluates needs none
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
