"""An autoencoder as a detector: a network that is trained on good images, and a residual that
scores.

The idea is that a network can reconstruct what it has learned from good images, but not a defect.
It does not always hold: a network that copies its input reconstructs defects as well. So how the
image and its reconstruction are compared, the *head*, is a choice of its own, and several heads are
meant to be looked at side by side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from nbhelpers.config import digest
from nbhelpers.config.autoencoders import BOOKKEEPING, AutoencoderConfig
from nbhelpers.config.sections import BackboneConfig, GroupRule
from nbhelpers.data.decode import upright_shape
from nbhelpers.data.images import SampleDataset
from nbhelpers.data.layout import Sample
from nbhelpers.data.preprocess import denormalize
from nbhelpers.data.reading import Reading
from nbhelpers.data.resize import fill_square
from nbhelpers.data.splits import group_keys
from nbhelpers.errors import DataError, ModelError
from nbhelpers.files import hash_file
from nbhelpers.methods import AUTOENCODER, METHODS
from nbhelpers.models.autoencoders.heads import HEADS, Residual, morphology
from nbhelpers.models.autoencoders.losses import build_loss
from nbhelpers.models.autoencoders.networks.registry import build_network
from nbhelpers.models.autoencoders.pixels import PIXELS
from nbhelpers.models.autoencoders.training.trainer import train
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.detector import Detector, Scores
from nbhelpers.models.storage import load_detector, save_detector
from nbhelpers.predictions import Predictions
from nbhelpers.sources import code_of

#: Share of the mean deviation that is added to each pixel's, so that a pixel that never varies is
#: not divided by 0.
FLOOR = 0.1


class Autoencoder(Detector):
    """An autoencoder with one of the registry's networks.

    Args:
        architecture: The network's name, see ``autoencoders.registry``.
        options: Its sizes and head, the loss, the training and the scoring, as in
            ``configs/autoencoder.yaml``.
        backbone: The network that the feature head and the perceptual loss look through.
        image_size: Side of the square images, pixels.
        groups: Category to the rule of which images show one object: those are held out together,
            or not at all.
        runs: Folder below which each training keeps its checkpoints and history, so that one that
            was killed goes on and one that is done is not repeated; None keeps nothing.
        **shared: See ``Detector``; ``aggregation`` is over the pixels of the finished anomaly map.

    Attributes:
        history: After ``fit``: one row per epoch (losses, learning rate, gradient norm, seconds).
        stats: After ``fit``: n_parameters, and the training's statistics.

    Raises:
        ConfigError: a setting out of range, or an image size that does not fit the network.
    """

    kind = "autoencoder 1"
    normalization = PIXELS.normalization
    settings = (*Detector.settings, "architecture")

    def __init__(
        self,
        architecture: str,
        options: AutoencoderConfig,
        backbone: BackboneConfig,
        image_size: int = 224,
        groups: Mapping[str, GroupRule] | None = None,
        runs: Path | None = None,
        **shared: Any,
    ) -> None:
        self.name = f"ae_{architecture}"
        super().__init__(image_size, **shared)
        self.architecture = architecture
        self.options = options
        self.backbone = backbone
        self.runs = runs
        self.groups = dict(groups or {})
        self.choice = getattr(options.networks, architecture)
        self.sizes, self.training = self.choice.sizes, options.training_of(architecture)
        self.network = (
            build_network(architecture, image_size, seed=self.seed, **self.sizes)
            .to(self.device)
            .eval()
        )
        self.history: list[dict[str, float]] = []
        self._residuals: dict[str, Residual] = {}
        self._normal: dict[str, Tensor] = {}
        self._is_fitted = False

    def residual(self, head: str) -> Residual:
        """The comparison of an image with its reconstruction that ``head`` names."""
        if head not in self._residuals:
            self._residuals[head] = Residual(
                head, self._feature_backbone() if head == "feature" else None
            ).to(self.device)
        return self._residuals[head]

    def _feature_backbone(self) -> Backbone:
        """The network that the feature head and the perceptual loss look through."""
        return Backbone(
            self.backbone.name, self.options.scoring.feature_layers, self.backbone.weights
        )

    # -- fit --

    def fit(self, samples: Sequence[Sample]) -> Autoencoder:
        """Train on good images; a share of them is held out for early stopping, no other image is
        looked at.

        Raises:
            DataError: fewer than two images, an anomalous one, or one that cannot be read.
            ModelError: the loss is not finite, or pretrained weights are missing.
            ResourceError: not even one image fits in the device's memory.
        """
        if not samples:
            raise DataError(
                f"{self.name}: expected at least one image, found none; check the split"
            )
        self.readings = {sample.category: sample.reading for sample in samples}
        SampleDataset(samples, self.image_size, phase="train")  # refuses defects
        self._is_fitted = False  # until all is done: an interrupted training leaves no detector
        recipe = self.training_recipe(samples)
        with tempfile.TemporaryDirectory() as temporary:
            self.network = build_network(
                self.architecture, self.image_size, seed=self.seed, **self.sizes
            )
            criterion = (
                build_loss(self.options.loss, self._feature_backbone)
                if self.network.uses_criterion
                else None
            )
            trained = train(
                self.network,
                criterion,
                samples,
                self.training,
                corruption=self.choice.corruption,
                groups=self._groups(samples),
                seed=self.seed,
                device=str(self.device),
                loader=self.loader,
                folder=(self.runs or Path(temporary)) / f"{self.architecture}_{digest(recipe)}",
                recipe=recipe,
            )
        self.network.to(self.device).eval()
        self.history, self._is_fitted = trained.history, True
        self.stats = {"n_parameters": self.network.n_parameters, **trained.stats}
        self._normal = self._normal_residuals(samples) if self.options.scoring.standardize else {}
        return self

    def _groups(self, samples: Sequence[Sample]) -> list[str] | None:
        """The object that each image shows, as its category's rule tells it; None where no category
        has one.
        """
        if not any(sample.category in self.groups for sample in samples):
            return None
        keys: dict[str, str] = {}
        for category in dict.fromkeys(sample.category for sample in samples):
            of_category = [sample for sample in samples if sample.category == category]
            numbers = group_keys(of_category, self.groups.get(category))
            keys |= {identity: f"{category} {number}" for identity, number in numbers.items()}
        return [keys[sample.id] for sample in samples]

    def training_recipe(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """All that the trained weights depend on; the head and what follows it are no part of it."""
        options = self.options
        features = {
            "backbone": self.backbone.model_dump(),
            "layers": options.scoring.feature_layers,
        }
        criterion = {
            "loss": options.loss.model_dump(),
            "perceptual": features if options.loss.perceptual else None,
        }
        return {
            **self._training_code(),
            "criterion": criterion if self.network.uses_criterion else None,
            "architecture": self.architecture,
            "corruption": self.choice.corruption,
            "sizes": {
                name: size
                for name, size in self.sizes.items()
                if name not in self.network.not_learned
            },
            "training": self.training.model_dump(exclude=set(BOOKKEEPING)),
            "image_size": self.image_size,
            "seed": self.seed,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "groups": self._groups(samples),
            "images": [(s.id, hash_file(s.image)) for s in samples],
            "readings": {s.category: asdict(s.reading) for s in samples},
        }

    def _training_code(self) -> dict[str, Any]:
        module = METHODS[AUTOENCODER + self.architecture].class_path.partition(":")[0]
        losses = ("models.autoencoders.losses",) if self.network.uses_criterion else ()
        return code_of("models.autoencoders.training.trainer", f"models.{module}", *losses)

    def _normal_residuals(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Mean and deviation of each head's residual at each pixel over good images, ``(H, W)``
        each.
        """
        sums = {
            head: torch.zeros(2, self.image_size, self.image_size, dtype=torch.float64)
            for head in HEADS
        }
        for batch in self.batches(samples, "residuals", "train"):
            pair = self._with_reconstructions(batch.images)
            for head, total in sums.items():
                raw = self._compare(head, *pair).double()
                total += torch.stack([raw.sum(0), raw.square().sum(0)])
        normal = {}
        for head, (first, second) in sums.items():
            mean = first / len(samples)
            deviation = (second / len(samples) - mean.square()).clamp(min=0).sqrt()
            normal[f"mean.{head}"] = mean.float()
            floor = FLOOR * deviation.mean() + torch.finfo(torch.float32).eps
            normal[f"deviation.{head}"] = (deviation + floor).float()
        return normal

    # -- predict --

    def score(self, images: Tensor) -> Scores:
        return self._score_by_head(self.choice.head, self._with_reconstructions(images))

    def predict_heads(
        self, samples: Sequence[Sample], heads: Sequence[str]
    ) -> dict[str, Predictions]:
        """What ``predict`` would give with each head; every image is reconstructed once."""
        scorers = {head: partial(self._score_by_head, head) for head in heads}
        return self.predict_by(self._with_reconstructions, scorers, samples)

    def reconstruct(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """Images and their reconstructions, ``(N, 3, H, W)`` float32 in [-1, 1].

        Letterboxed ones are given without their bars, in the frame of their masks.
        """
        self.tensors()
        pairs = [
            [part.cpu().numpy() for part in self._with_reconstructions(batch.images)]
            for batch in self.batches(samples, "reconstruct", "test")
        ]
        images, reconstructions = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        for row, sample in enumerate(map(self._read_as_fitted, samples)):
            if sample.reading.letterbox:
                shape = upright_shape(sample.image)
                for planes in (images[row], reconstructions[row]):
                    for plane in planes:
                        plane[:] = fill_square(plane, shape)
        return images, reconstructions

    @torch.no_grad()
    def attention(self, samples: Sequence[Sample]) -> np.ndarray:
        """Attention of a vision transformer's last encoder block, ``(N, heads, P, P)`` for P
        patches; rows sum to 1.

        Raises:
            ModelError: the architecture has no attention to show.
        """
        if not hasattr(self.network, "attention"):
            raise ModelError(
                f"{self.name}: expected a network with attention maps, found "
                f"{self.architecture}; use ae_vit"
            )
        self.tensors()
        return torch.cat(
            [
                self.network.attention(batch.images.to(self.device)).cpu()
                for batch in self.batches(samples, "attention", "test")
            ]
        ).numpy()

    def _with_reconstructions(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images and their reconstructions on the CPU, ``(B, 3, H, W)`` each."""
        return images, self.in_parts(self.network.reconstruct, images).cpu()

    @torch.no_grad()
    def _compare(self, head: str, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Residuals ``(B, H, W)`` on the CPU."""
        residual, pairs = self.residual(head), torch.cat([images, reconstructions], dim=1)
        return self.in_parts(lambda pair: residual(pair[:, :3], pair[:, 3:]), pairs).cpu()

    def _score_by_head(self, head: str, pair: tuple[Tensor, Tensor]) -> Scores:
        """Anomaly maps and image scores, which are taken from the maps, of images and their
        reconstructions.
        """
        maps = self._compare(head, *pair)
        if self._normal:
            maps = (maps - self._normal[f"mean.{head}"]) / self._normal[f"deviation.{head}"]
        maps = self.smooth(morphology(maps.numpy(), self.options.scoring.morphology))
        return maps, self.aggregate(torch.from_numpy(maps).flatten(1)).numpy(), None

    # -- save and load --

    def tensors(self) -> dict[str, Tensor]:
        if not self._is_fitted:
            raise ModelError(
                f"{self.name}: expected a trained network, found none; call fit or load first"
            )
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return weights | {f"normal.{name}": tensor for name, tensor in self._normal.items()}

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        stored: dict[str, dict[str, Tensor]] = {"network": {}, "normal": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            stored.setdefault(group, {})[rest] = tensor
        expected = {name: tuple(tensor.shape) for name, tensor in self.network.state_dict().items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in stored["network"].items()}
        names = sorted(expected.keys() | shapes.keys())
        differ = [name for name in names if expected.get(name) != shapes.get(name)]
        if differ:
            raise ModelError(
                f"{path}: expected the tensors of network {self.architecture}, found others ({differ[0]}: "
                f"expected {expected.get(differ[0])}, found {shapes.get(differ[0])}); fit it again"
            )
        if bool(stored["normal"]) != self.options.scoring.standardize:
            raise ModelError(
                f"{path}: expected residuals of normal images only where scoring.standardize asks for "
                f"them, found {len(stored['normal'])} for standardize={self.options.scoring.standardize}; "
                "fit it again"
            )
        self.network.load_state_dict(stored["network"])
        self._normal = {name: tensor.cpu() for name, tensor in stored["normal"].items()}
        self._is_fitted = True

    def save(self, path: Path) -> None:
        """Write the folder ``path``: the network's best weights, the options, the history of the
        training.
        """
        save_detector(
            path,
            self.kind,
            self.tensors(),
            {
                "settings": {name: getattr(self, name) for name in self.settings},
                "fingerprint": self._feature_backbone().fingerprint(),
                "groups": {name: rule.model_dump() for name, rule in self.groups.items()},
                "options": self.options.model_dump(mode="json"),
                "backbone": self.backbone.model_dump(),
                "loader": self.loader,
                "stats": self.stats,
                "readings": {name: asdict(reading) for name, reading in self.readings.items()},
                "history": self.history,
            },
        )

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Autoencoder:
        """Read what ``save`` wrote: same settings, identical scores.

        Raises:
            ModelError: something is missing, damaged, of another version, or does not fit together.
        """
        keys = (
            "settings",
            "fingerprint",
            "groups",
            "options",
            "backbone",
            "loader",
            "stats",
            "readings",
            "history",
        )
        tensors, stored = load_detector(path, cls.kind, keys, device)
        try:
            options = AutoencoderConfig(**stored["options"])
            backbone = BackboneConfig(**stored["backbone"])
            groups = {name: GroupRule(**rule) for name, rule in stored["groups"].items()}
        except ValidationError as error:
            fault = error.errors()[0]
            raise ModelError(
                f"{path}: expected the autoencoder settings of this version, found others "
                f"({'.'.join(map(str, fault['loc']))}: {fault['msg']}); fit it again"
            ) from error
        model = cls(
            options=options,
            backbone=backbone,
            groups=groups,
            device=device,
            loader=stored["loader"],
            **stored["settings"],
        )
        if model._feature_backbone().fingerprint() != stored["fingerprint"]:
            raise ModelError(
                f"{path}: trained with backbone {stored['fingerprint']}, found "
                f"{model._feature_backbone().fingerprint()} here; fit it again"
            )
        model.restore(tensors, path)
        model.stats, model.history = stored["stats"], stored["history"]
        model.readings = {
            name: Reading.from_json(reading) for name, reading in stored["readings"].items()
        }
        return model


def to_pixels(images: np.ndarray) -> np.ndarray:
    """``(N, 3, H, W)`` float in [-1, 1] as ``(N, H, W, 3)`` uint8."""
    return denormalize(images.transpose(0, 2, 3, 1), PIXELS.normalization)
