"""The autoencoders' sections of the configuration: networks, losses, training, scoring, search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, create_model, field_validator

from nbhelpers.config.sections import (
    Aggregation,
    Layers,
    OpenShare,
    Positive,
    PositiveInt,
    Settings,
    Share,
)
from nbhelpers.methods import ARCHITECTURES, Architecture

Head = Literal["pixel_l1", "pixel_l2", "ssim", "feature"]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
#: YAML makes a number of what is a name here.
Precision = Annotated[
    Literal["auto", "32", "bf16", "16"],
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
]
Percentile = Annotated[float, Field(gt=0, lt=100)]
#: Settings of the training that change nothing of what is learned.
BOOKKEEPING = frozenset({"trackers", "keep_checkpoints", "checkpoint_every"})
#: Settings of the scoring that no map and no score depends on.
MASKS = frozenset({"pixel_percentile", "min_area"})
Channels = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class TrainingConfig(Settings):
    """How an autoencoder is trained (F082-F095)."""

    epochs: PositiveInt
    batch_size: PositiveInt
    accumulate: PositiveInt
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Positive
    weight_decay: NotNegative
    momentum: Share
    scheduler: Literal["none", "cosine", "plateau", "step"]
    warmup_epochs: Count
    step_epochs: PositiveInt
    plateau_epochs: Count
    step_factor: OpenShare
    precision: Precision
    clip_norm: NotNegative
    patience: Count
    min_delta: NotNegative
    held_out_share: OpenShare
    augmentation: Literal["none", "flips_color", "industrial", "xray"]
    augmentation_strength: Share
    gradient_checkpointing: bool
    checkpoint_every: Count
    keep_checkpoints: bool
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...]

    @field_validator("warmup_epochs")
    @classmethod
    def _ends(cls, value: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs")  # missing where it is itself refused
        if epochs is not None and value >= epochs:
            raise ValueError(f"fewer than epochs ({epochs}), or the full rate is never reached")
        return value


#: A network's own training settings; None is the shared one's.
OwnTraining = create_model(
    "OwnTraining",
    __base__=Settings,
    __doc__="Training settings of one network that differ from the shared ones.",
    **{
        name: (field.rebuild_annotation() | None, None)
        for name, field in TrainingConfig.model_fields.items()
    },
)


class NetworkConfig(Settings):
    """What every architecture chooses for itself beside its sizes."""

    head: Head
    corruption: Literal["none", "noise", "mask"]
    training: OwnTraining = OwnTraining()  # nothing that differs

    @property
    def sizes(self) -> dict[str, Any]:
        """The network's own arguments."""
        return self.model_dump(exclude=set(NetworkConfig.model_fields))


class CnnConfig(NetworkConfig):
    """F066."""

    channels: Channels
    latent: PositiveInt
    dropout: Share


class ResNetConfig(NetworkConfig):
    """F067."""

    backbone: str
    latent: PositiveInt


class VitConfig(NetworkConfig):
    """F068."""

    patch: PositiveInt
    dim: PositiveInt
    depth: PositiveInt
    decoder_depth: PositiveInt
    heads: PositiveInt
    mlp_ratio: Positive
    dropout: Share


class UNetLiteConfig(NetworkConfig):
    """F070."""

    base: PositiveInt


class UNetConfig(NetworkConfig):
    """F071."""

    channels: Channels
    skips: bool
    dropout: Share


class ReversedConfig(NetworkConfig):
    """F072."""

    channels: Channels
    bottleneck: PositiveInt
    similarity: NotNegative


class DiffusionConfig(NetworkConfig):
    """F069. Its noise is the corruption, so no other is to be had."""

    corruption: Literal["none"]
    dim: PositiveInt
    mults: Channels
    timesteps: PositiveInt
    noise_to: PositiveInt
    steps: PositiveInt
    sampler: Literal["ddim", "ddpm"]
    eta: Share


NetworksConfig = create_model(
    "NetworksConfig",
    __base__=Settings,
    __doc__="One section per architecture.",
    **{name: (globals()[row.settings], ...) for name, row in ARCHITECTURES.items()},
)


class LossConfig(Settings):
    """Weights of the terms (F075-F081); a term of weight 0 is never built."""

    reconstruction: NotNegative
    mse: NotNegative
    l1: NotNegative
    ssim: NotNegative
    ms_ssim: NotNegative
    perceptual: NotNegative
    focal: NotNegative
    edge: NotNegative
    perceptual_network: Literal["backbone", "vgg16"]


class ScoringConfig(Settings):
    """From a residual to an anomaly map and an image score (F074), and to a mask."""

    feature_layers: Layers
    standardize: bool
    morphology: Count
    aggregation: Aggregation
    topk_percentile: OpenShare
    pixel_percentile: Percentile
    min_area: Count


class SearchConfig(Settings):
    """The space of the hyper-parameter search (F092): ranges as [low, high], choices as lists."""

    trials: PositiveInt
    epochs: PositiveInt
    learning_rate: tuple[Positive, Positive]
    weight_decay: tuple[Positive, Positive]
    optimizer: Annotated[tuple[Literal["adam", "adamw", "sgd"], ...], Field(min_length=1)]
    batch_size: Channels

    @field_validator("learning_rate", "weight_decay")
    @classmethod
    def _ascends(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if pair[0] >= pair[1]:
            raise ValueError("[low, high] with low < high")
        return pair


class AutoencoderConfig(Settings):
    """Everything about autoencoders; methods ``ae_<architecture>`` share all but their network's
    section.
    """

    architectures: tuple[Architecture, ...]
    networks: NetworksConfig
    loss: LossConfig
    training: TrainingConfig
    scoring: ScoringConfig
    search: SearchConfig

    @field_validator("training")
    @classmethod
    def _fits_each_network(cls, shared: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        for name, network in info.data.get(
            "networks", ()
        ):  # missing where they are themselves refused
            training = _own(shared, network)
            if training.warmup_epochs >= training.epochs:
                raise ValueError(
                    f"warmup_epochs below the epochs of network {name}, {training.epochs}, or the full "
                    "rate is never reached"
                )
            if training.scheduler == "plateau" and 0 < training.patience <= training.plateau_epochs:
                raise ValueError(
                    f"plateau_epochs below patience, {training.patience} for network {name}, or training "
                    "stops before the rate is lowered"
                )
        return shared

    def training_of(self, architecture: str) -> TrainingConfig:
        """How a network is trained: its own settings laid over the shared ones."""
        return _own(self.training, getattr(self.networks, architecture))


def _own(shared: TrainingConfig, network: NetworkConfig) -> TrainingConfig:
    return shared.model_copy(update=network.training.model_dump(exclude_none=True))
