"""A diffusion model as an autoencoder: it adds noise to an image and removes the noise again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn import functional as F

from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder, Criterion
from nbhelpers.models.autoencoders.similarity import at_least_float32

SAMPLERS = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}
#: The steps over which the loss is averaged in evaluation mode, as shares of all steps.
EVALUATED = (0.125, 0.375, 0.625, 0.875)


class DiffusionAutoencoder(BaseAutoencoder):
    """A U-Net that predicts noise (DDPM, Ho et al. 2020).

    To reconstruct an image, noise is added to it and then removed step by step. The noise hides
    structures that are weaker than it and leaves the others, so the reconstruction still depends on
    the image; the higher ``noise_to`` is, the less it does (AnoDDPM, Wyatt et al. 2022). The betas
    rise linearly from 0.1 / timesteps to 20 / timesteps; with 1000 steps these are the 0.0001 and
    0.02 of Ho et al. There is no encoder: the latent is the image.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2^(levels - 1).
        dim: Number of channels of the first level; a multiple of 8.
        mults: Number of channels of each level, in units of ``dim``.
        timesteps: Number of steps of the noising process, more than 20.
        noise_to: The step up to which noise is added before an image is reconstructed, from 1 to
            ``timesteps``.
        steps: Number of denoising steps of a reconstruction, evenly spaced from ``noise_to`` to 0;
            from 1 to ``noise_to``.
        sampler: ``ddim`` (Song et al. 2021) or ``ddpm``.
        eta: How much fresh noise each step of ``ddim`` adds, in [0, 1]: 0 adds none, 1 adds as much
            as ``ddpm``.

    Raises:
        ConfigError: If a setting is out of range.
    """

    name = "diffusion"
    uses_criterion = False
    not_learned = frozenset({"noise_to", "steps", "sampler", "eta"})
    SEED = 0  # of the noise of reconstructions, and of the loss in evaluation mode

    def __init__(
        self,
        image_size: int,
        dim: int = 64,
        mults: Sequence[int] = (1, 2, 4, 8),
        timesteps: int = 1000,
        noise_to: int = 250,
        steps: int = 25,
        sampler: str = "ddim",
        eta: float = 0.0,
    ) -> None:
        super().__init__(image_size, multiple=2 ** (len(mults) - 1))
        for setting, value, fits, expected in (
            ("dim", dim, dim >= 8 and dim % 8 == 0, "a multiple of 8"),
            ("timesteps", timesteps, timesteps > 20, "more than 20, or the last beta is 1 or more"),
            ("noise_to", noise_to, 1 <= noise_to <= timesteps, f"1 to timesteps={timesteps}"),
            ("steps", steps, 1 <= steps <= noise_to, f"1 to noise_to={noise_to}"),
            ("sampler", sampler, sampler in SAMPLERS, f"one of {', '.join(SAMPLERS)}"),
            ("eta", eta, 0 <= eta <= 1, "0 to 1"),
        ):
            if not fits:
                raise ConfigError(
                    f"autoencoder {self.name} {setting}: expected {expected}, found {value!r}; "
                    f"change it in autoencoder.networks.{self.name}"
                )
        self.timesteps = timesteps
        self.noise_to = noise_to
        self.steps = steps
        self.sampler = sampler
        self.eta = eta
        self.process = DDPMScheduler(timesteps, beta_start=0.1 / timesteps, beta_end=20 / timesteps)
        widths = [dim * mult for mult in mults]
        self.predictor = UNet2DModel(
            sample_size=image_size,
            block_out_channels=widths,
            layers_per_block=1,
            norm_num_groups=math.gcd(32, dim // 4),  # so each group has four channels or more
            down_block_types=["DownBlock2D"] * len(mults),
            up_block_types=["UpBlock2D"] * len(mults),
            attention_head_dim=math.gcd(64, widths[-1]),  # in the middle block only
        )

    def encode(self, images: Tensor) -> Tensor:
        """Return the images unchanged."""
        return images

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Add noise up to step ``noise_to`` and remove it again.

        No gradients are computed, since training uses ``loss`` only. Every image gets the same
        noise, so a reconstruction depends neither on the other images of its batch nor on the call.

        Args:
            latent: Images ``(B, 3, H, W)`` in [-1, 1].
        """
        generators = [_generator(self.SEED) for _ in latent]
        noisy = self._noised(latent, self.noise_to, generators)
        return self._denoise(noisy, self.noise_to, self.steps, generators)

    def loss(
        self, inputs: Tensor, targets: Tensor, criterion: Criterion | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the mean squared error of the predicted noise (Ho et al. 2020, eq. 14).

        While training, steps and noise are drawn from torch's global generator. In evaluation mode
        each image is measured at the same four steps with the same noise, so that epochs can be
        compared.

        Args:
            inputs: Not used: the noise already corrupts the images.
            targets: The images ``(B, 3, H, W)`` in [-1, 1].
            criterion: Not used: no image is reconstructed.

        Returns:
            The loss, a scalar, and its only term, "noise".

        Raises:
            ModelError: If the images have another shape.
        """
        self.check(targets)
        if self.training:
            # diffusers has its own checkpointing, block by block
            if self.gradient_checkpointing:
                self.predictor.enable_gradient_checkpointing()
            else:
                self.predictor.disable_gradient_checkpointing()
            steps = torch.randint(1, self.timesteps + 1, (len(targets),), device=targets.device)
            error = self._noise_error(targets, steps, torch.randn_like(targets))
        else:
            noise = randn_tensor(
                targets.shape,
                [_generator(self.SEED) for _ in targets],
                targets.device,
                targets.dtype,
            )
            errors = []
            for share in EVALUATED:
                step = math.ceil(self.timesteps * share)
                steps = torch.full((len(targets),), step, device=targets.device)
                errors.append(self._noise_error(targets, steps, noise))
            error = torch.stack(errors).mean()
        return error, {"noise": error}

    def _noise_error(self, images: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Compute the mean squared error of the noise that is predicted at ``steps`` ``(B,)``."""
        predicted = self.predictor(
            self.process.add_noise(images, noise, steps - 1), steps - 1
        ).sample
        return F.mse_loss(at_least_float32(predicted), at_least_float32(noise))

    def _noised(self, images: Tensor, step: int, generators: list[torch.Generator]) -> Tensor:
        """Add the noise of a step, counted from 1, to the images."""
        noise = randn_tensor(images.shape, generators, images.device, images.dtype)
        return self.process.add_noise(images, noise, torch.full((len(images),), step - 1))

    def _denoise(
        self, images: Tensor, start: int, steps: int, generators: list[torch.Generator]
    ) -> Tensor:
        """Remove the noise from step ``start`` to 0, in ``steps`` evenly spaced steps.

        These steps form a separate process, whose betas give the same noise levels (Nichol and
        Dhariwal 2021, section 4). The spacings of diffusers cannot start at any step and end at 0
        with any number of steps.
        """
        chain = torch.tensor([start * (i + 1) // steps for i in range(steps)])
        levels = self.process.alphas_cumprod.cpu().double()[chain - 1]
        betas = 1 - levels / torch.cat([levels.new_ones(1), levels[:-1]])
        scheduler = SAMPLERS[self.sampler](steps, trained_betas=betas.tolist())
        scheduler.set_timesteps(steps)
        options = (
            {"eta": self.eta, "use_clipped_model_output": True} if self.sampler == "ddim" else {}
        )
        for index in range(steps - 1, -1, -1):
            noise = self.predictor(images, int(chain[index]) - 1).sample
            images = scheduler.step(
                noise, index, images, generator=generators, **options
            ).prev_sample
        return images


def _generator(seed: int) -> torch.Generator:
    """Make a seeded generator on the CPU."""
    return torch.Generator().manual_seed(seed)
