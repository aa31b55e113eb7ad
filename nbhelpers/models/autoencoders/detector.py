"""An autoencoder as a detector: a network learns good images, and its residuals are the scores.

The idea is that a network can reconstruct what it has learned from good images, but not a defect.
This does not always hold: a network that copies its input reconstructs defects as well. How an
image and its reconstruction are compared, the *head*, is therefore a separate choice, and
``predict_heads`` compares several heads on the same reconstructions.
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

#: Standardisation divides by the deviation of each pixel plus this share of the mean deviation, so
#: a pixel that never varies does not divide by 0.
FLOOR = 0.1


class Autoencoder(Detector):
    """The autoencoder detector, with one of the networks in ``networks.registry``.

    Args:
        architecture: Name of the network, e.g. ``unet``.
        options: The network's sizes and head, the loss, the training and the scoring, as in
            ``configs/autoencoder.yaml``.
        backbone: The network whose features the head ``feature`` and the perceptual loss compare.
        image_size: Side of the square that the network sees, in pixels.
        groups: For some categories the rule that tells which images show the same object. Such
            images are either all held out or all used for training.
        runs: The folder below which each training keeps its checkpoints and its history. With it a
            killed training resumes and a finished one is not repeated; None keeps nothing.
        **shared: See ``Detector``. ``aggregation`` runs over the pixels of the finished anomaly
            map.

    Attributes:
        network: The network, see ``networks.base``.
        history: After ``fit``: one row per epoch (losses, learning rate, gradient norm, seconds);
            see ``training.trainer.Trained``.
        stats: After ``fit``: ``n_parameters`` and the statistics of the training.

    Raises:
        ConfigError: If a setting is out of range, or the image size does not fit the network.
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
        self.sizes = self.choice.sizes
        self.training = options.training_of(architecture)
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
        """Return the head of that name, which compares images with their reconstructions."""
        if head not in self._residuals:
            self._residuals[head] = Residual(
                head, self._feature_backbone() if head == "feature" else None
            ).to(self.device)
        return self._residuals[head]

    def _feature_backbone(self) -> Backbone:
        """Build the network whose features the head ``feature`` and the perceptual loss compare."""
        return Backbone(
            self.backbone.name, self.options.scoring.feature_layers, self.backbone.weights
        )

    # -- fit --

    def fit(self, samples: Sequence[Sample]) -> Autoencoder:
        """Train on good images, of which a share is held out for early stopping.

        Args:
            samples: Good images, at least two.

        Returns:
            The detector itself.

        Raises:
            DataError: If there are fewer than two images, or one is anomalous or cannot be read.
            DivergenceError: If the loss or its gradient is not finite.
            ModelError: If pretrained weights are missing.
            ResourceError: If not even one image fits in the device's memory.
        """
        if not samples:
            raise DataError(
                f"{self.name}: expected at least one image, found none; check the split"
            )
        self.readings = {sample.category: sample.reading for sample in samples}
        SampleDataset(samples, self.image_size, phase="train")  # refuses defects
        self._is_fitted = False  # until the end, so that an interrupted training leaves no detector
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
        self.history = trained.history
        self._is_fitted = True
        self.stats = {"n_parameters": self.network.n_parameters, **trained.stats}
        self._normal = self._normal_residuals(samples) if self.options.scoring.standardize else {}
        return self

    def _groups(self, samples: Sequence[Sample]) -> list[str] | None:
        """Return a key of the object that each image shows, by the rule of its category.

        Without a rule for any of the categories the result is None.
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
        """Return everything that the trained weights depend on.

        The head and the scoring are not among it, since they change no weight.

        Args:
            samples: The images that ``fit`` would be given.
        """
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
        """Return the digest of the code that the training runs; see ``sources.code_of``."""
        module = METHODS[AUTOENCODER + self.architecture].class_path.partition(":")[0]
        losses = ("models.autoencoders.losses",) if self.network.uses_criterion else ()
        return code_of("models.autoencoders.training.trainer", f"models.{module}", *losses)

    def _normal_residuals(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Compute mean and deviation of each head's residual at each pixel over good images.

        Returns:
            ``mean.<head>`` and ``deviation.<head>`` for each head, ``(H, W)`` each.
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
        """Score one batch by the configured head; see ``Detector.score``."""
        return self._score_by_head(self.choice.head, self._with_reconstructions(images))

    def predict_heads(
        self, samples: Sequence[Sample], heads: Sequence[str]
    ) -> dict[str, Predictions]:
        """Predict with several heads; every image is reconstructed only once.

        Args:
            samples: The images.
            heads: Names out of ``HEADS``.

        Returns:
            For each head what ``predict`` would return with it.

        Raises:
            ModelError: If the detector is not fitted.
            DataError: If there is no image, or a file cannot be read.
        """
        scorers = {head: partial(self._score_by_head, head) for head in heads}
        return self.predict_by(self._with_reconstructions, scorers, samples)

    def reconstruct(self, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """Reconstruct images.

        Args:
            samples: The images.

        Returns:
            The images as the network sees them and their reconstructions, ``(N, 3, H, W)`` float32
            in [-1, 1] each. Letterboxed images are given without their bars, in the frame of
            their masks.

        Raises:
            ModelError: If the detector is not fitted.
            DataError: If there is no image, or one cannot be read.
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
        """Compute the attention of a vision transformer's last encoder block.

        Args:
            samples: The images.

        Returns:
            ``(N, heads, P, P)`` for N images of P patches each; each row sums to 1.

        Raises:
            ModelError: If the network has no attention, or the detector is not fitted.
            DataError: If there is no image, or one cannot be read.
        """
        # isinstance would need the class: importing it would make the results of every architecture
        # depend on the code of this one
        attention_of = getattr(self.network, "attention", None)
        if attention_of is None:
            raise ModelError(
                f"{self.name}: expected a network with attention maps, found "
                f"{self.architecture}; use ae_vit"
            )
        self.tensors()
        weights = [
            attention_of(batch.images.to(self.device)).cpu()
            for batch in self.batches(samples, "attention", "test")
        ]
        return torch.cat(weights).numpy()

    def _with_reconstructions(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and their reconstructions, both on the CPU, ``(B, 3, H, W)`` each."""
        return images, self.in_blocks(self.network.reconstruct, images).cpu()

    @torch.no_grad()
    def _compare(self, head: str, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Compute a head's residuals ``(B, H, W)``, on the CPU."""
        residual = self.residual(head)
        pairs = torch.cat([images, reconstructions], dim=1)  # (B, 6, H, W)
        return self.in_blocks(lambda pair: residual(pair[:, :3], pair[:, 3:]), pairs).cpu()

    def _score_by_head(self, head: str, pair: tuple[Tensor, Tensor]) -> Scores:
        """Score images and their reconstructions by a head.

        Args:
            head: One of ``HEADS``.
            pair: Images and reconstructions, ``(B, 3, H, W)`` each.
        """
        residuals = self._compare(head, *pair)  # (B, H, W)
        if self._normal:
            mean, deviation = self._normal[f"mean.{head}"], self._normal[f"deviation.{head}"]
            residuals = (residuals - mean) / deviation
        maps = self.smooth(morphology(residuals.numpy(), self.options.scoring.morphology))
        return maps, self.aggregate(torch.from_numpy(maps).flatten(1)).numpy(), None

    # -- save and load --

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights and the residuals of normal images; see ``Detector.tensors``.

        Returns:
            The weights as ``network.<name>``, and the results of ``_normal_residuals`` as
            ``normal.<name>``.
        """
        if not self._is_fitted:
            raise ModelError(
                f"{self.name}: expected a trained network, found none; call fit or load first"
            )
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return weights | {f"normal.{name}": tensor for name, tensor in self._normal.items()}

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Take over what ``tensors`` gave; see ``Detector.restore``."""
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
                f"{path}: expected the tensors of network {self.architecture}, found others "
                f"({differ[0]}: expected {expected.get(differ[0])}, found "
                f"{shapes.get(differ[0])}); fit it again"
            )
        if bool(stored["normal"]) != self.options.scoring.standardize:
            raise ModelError(
                f"{path}: expected residuals of normal images only if scoring.standardize is set, "
                f"found {len(stored['normal'])} for standardize={self.options.scoring.standardize}; "
                "fit it again"
            )
        self.network.load_state_dict(stored["network"])
        self._normal = {name: tensor.cpu() for name, tensor in stored["normal"].items()}
        self._is_fitted = True

    def save(self, path: Path) -> None:
        """Write the best weights, the options and the training's history to the folder ``path``.

        Raises:
            ModelError: If the detector is not fitted.
            ResourceError: If the folder cannot be written.
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
        """Read what ``save`` wrote; the detector has the same settings and gives identical scores.

        Args:
            path: The folder that ``save`` wrote.
            device: Where the detector works.

        Raises:
            ModelError: If a file is missing, damaged or of another version, or the files do not
                fit together or this machine's backbone.
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
                f"{path}: expected backbone {stored['fingerprint']}, with which it was trained, "
                f"found {model._feature_backbone().fingerprint()}; fit it again"
            )
        model.restore(tensors, path)
        model.stats, model.history = stored["stats"], stored["history"]
        model.readings = {
            name: Reading.from_json(reading) for name, reading in stored["readings"].items()
        }
        return model


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Convert images ``(N, 3, H, W)`` in [-1, 1] to ``(N, H, W, 3)`` uint8."""
    return denormalize(images.transpose(0, 2, 3, 1), PIXELS.normalization)
