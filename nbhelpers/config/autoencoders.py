"""The autoencoders' sections of the configuration: networks, losses, training, scoring, search.

What a key sets, and its unit, is said by its comment in ``configs/autoencoder.yaml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

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
#: The names of precisions; YAML reads 32 and 16 as numbers.
Precision = Annotated[
    Literal["auto", "32", "bf16", "16"],
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
]
Percentile = Annotated[float, Field(gt=0, lt=100)]
#: Settings of the training that do not change what is learned.
BOOKKEEPING = frozenset({"trackers", "keep_checkpoints", "checkpoint_every"})
#: Settings of the scoring that change neither maps nor scores, only the masks made from maps.
MASKS = frozenset({"pixel_percentile", "min_area"})
#: Numbers of channels, or of images: one or more positive integers.
Channels = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class TrainingConfig(Settings):
    """How an autoencoder is trained: optimiser, learning rate, stopping, augmentation, checkpoints."""

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
        epochs = info.data.get("epochs")  # missing when epochs itself was refused
        if epochs is not None and value >= epochs:
            raise ValueError(f"fewer than epochs ({epochs}), or the full rate is never reached")
        return value


if TYPE_CHECKING:

    class OwnTraining(Settings):
        """Training settings of one network that differ from the shared ones."""

else:  # the fields of TrainingConfig; None stands for the shared value
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
    """What every network sets besides its sizes.

    Attributes:
        head: The residual that scores an image.
        corruption: What the network must undo while it is trained.
        training: Training settings of this network that differ from the shared ones.
    """

    head: Head
    corruption: Literal["none", "noise", "mask"]
    training: OwnTraining = OwnTraining()  # by default nothing differs

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments that this network alone takes."""
        return self.model_dump(exclude=set(NetworkConfig.model_fields))


class CnnConfig(NetworkConfig):
    """Plain convolutional autoencoder.

    Attributes:
        channels: Channels of each stage; every stage halves the resolution.
        latent: Channels of the bottleneck map.
        dropout: Share of the bottleneck's channels that is dropped in training, 0 to 1.
    """

    channels: Channels
    latent: PositiveInt
    dropout: Share


class ResNetConfig(NetworkConfig):
    """Autoencoder with an untrained ResNet as encoder and a vector as bottleneck.

    Attributes:
        backbone: Name of the ResNet in timm.
        latent: Length of the bottleneck vector.
    """

    backbone: str
    latent: PositiveInt


class VitConfig(NetworkConfig):
    """Autoencoder of vision-transformer blocks.

    Attributes:
        patch: Side of a patch, pixels.
        dim: Width of a token.
        depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder.
        heads: Attention heads of each block.
        mlp_ratio: Width of a block's hidden layer, in units of ``dim``.
        dropout: Share of the values that is dropped in training, 0 to 1.
    """

    patch: PositiveInt
    dim: PositiveInt
    depth: PositiveInt
    decoder_depth: PositiveInt
    heads: PositiveInt
    mlp_ratio: Positive
    dropout: Share


class UNetLiteConfig(NetworkConfig):
    """Small U-Net of three stages with skip connections.

    Attributes:
        base: Channels of the first stage; each further stage has twice as many.
    """

    base: PositiveInt


class UNetConfig(NetworkConfig):
    """U-Net of any width and depth.

    Attributes:
        channels: Channels of each stage, from the full resolution down.
        skips: Whether the decoder also sees the encoder's maps.
        dropout: Share of the bottleneck's channels that is dropped in training, 0 to 1.
    """

    channels: Channels
    skips: bool
    dropout: Share


class ReversedConfig(NetworkConfig):
    """Reversed autoencoder: a deep encoder, a vector as bottleneck, a shallow decoder.

    Attributes:
        channels: Channels of each stage; every stage halves the resolution.
        bottleneck: Length of the bottleneck vector.
        similarity: Weight in the loss of the difference between the embeddings of image and
            reconstruction; 0 leaves the term out.
    """

    channels: Channels
    bottleneck: PositiveInt
    similarity: NotNegative


class DiffusionConfig(NetworkConfig):
    """Diffusion model that reconstructs an image from its noised self.

    The diffusion noise already corrupts the input, so ``corruption`` must be ``none``.

    Attributes:
        dim: Channels of the first level, a multiple of 8.
        mults: Channels of each level, in units of ``dim``.
        timesteps: Steps of the noising process.
        noise_to: Step up to which an image is noised before it is reconstructed.
        steps: Denoising steps of a reconstruction.
        sampler: How a denoising step is taken, ``ddim`` or ``ddpm``.
        eta: Fresh noise in each step of ``ddim``, as a share of what ``ddpm`` adds, 0 to 1.
    """

    corruption: Literal["none"]
    dim: PositiveInt
    mults: Channels
    timesteps: PositiveInt
    noise_to: PositiveInt
    steps: PositiveInt
    sampler: Literal["ddim", "ddpm"]
    eta: Share


if TYPE_CHECKING:

    class NetworksConfig(Settings):
        """One section per architecture."""

else:  # the rows of the table of methods
    NetworksConfig = create_model(
        "NetworksConfig",
        __base__=Settings,
        __doc__="One section per architecture.",
        **{name: (globals()[row.settings], ...) for name, row in ARCHITECTURES.items()},
    )


class LossConfig(Settings):
    """Weights of the loss's terms, without a unit; a term of weight 0 is never built."""

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
    """How a residual becomes an anomaly map, an image score and a mask."""

    feature_layers: Layers
    standardize: bool
    morphology: Count
    aggregation: Aggregation
    topk_percentile: OpenShare
    pixel_percentile: Percentile
    min_area: Count


class SearchConfig(Settings):
    """The space of the hyper-parameter search: ranges as [low, high], choices as lists."""

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
    """All settings of autoencoders; the methods ``ae_<architecture>`` differ only in their network's
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
        networks = info.data.get("networks", ())  # missing when networks itself was refused
        for name, network in networks:
            training = _training_of(shared, network)
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
        """A network's training settings: those of its section laid over the shared ones."""
        return _training_of(self.training, getattr(self.networks, architecture))


def _training_of(shared: TrainingConfig, network: NetworkConfig) -> TrainingConfig:
    return shared.model_copy(update=network.training.model_dump(exclude_none=True))
