"""Diffusion as an autoencoder: noise an image part of the way, let the network take the noise out
again, compare.
"""

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
#: Steps whose mean is the loss in evaluation mode, in shares of all.
EVALUATED = (0.125, 0.375, 0.625, 0.875)


class DiffusionAutoencoder(BaseAutoencoder):
    """A U-Net that predicts noise (DDPM, Ho et al. 2020); an image is reconstructed from its own
    noised self.

    Noise hides what is smaller than it and leaves the rest, so the reconstruction depends on the
    image, the less the higher ``noise_to`` (AnoDDPM, Wyatt et al. 2022). The betas rise linearly
    from 0.1 / timesteps to 20 / timesteps, with 1000 steps Ho's 0.0001 to 0.02. There is no
    encoder: the latent is the image.

    Args:
        image_size: Side of the images, pixels; a multiple of 2^(levels - 1).
        dim: Channels of the first level; a multiple of 8.
        mults: Channels of each level in units of ``dim``.
        timesteps: Steps of the noising process, more than 20.
        noise_to: The step up to which an image is noised before it is reconstructed, 1 to
            ``timesteps``.
        steps: Denoising steps of a reconstruction, evenly from ``noise_to`` to 0, 1 to
            ``noise_to``.
        sampler: ``ddim`` (Song et al. 2021) or ``ddpm``.
        eta: Fresh noise in each step of ``ddim``: 0 is none, 1 as much as ``ddpm`` adds.

    Raises:
        ConfigError: a setting out of range.
    """

    name = "diffusion"
    uses_criterion = False
    not_learned = frozenset({"noise_to", "steps", "sampler", "eta"})
    SEED = 0  # of the noise that reconstructs, and of the loss in evaluation mode

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
                    f"autoencoder {self.name} {setting}: expected {expected}, found {value!r}; change it "
                    f"in autoencoder.networks.{self.name}"
                )
        self.timesteps, self.noise_to, self.steps, self.sampler, self.eta = (
            timesteps,
            noise_to,
            steps,
            sampler,
            eta,
        )
        self.process = DDPMScheduler(timesteps, beta_start=0.1 / timesteps, beta_end=20 / timesteps)
        widths = [dim * mult for mult in mults]
        self.predictor = UNet2DModel(
            sample_size=image_size,
            block_out_channels=widths,
            layers_per_block=1,
            norm_num_groups=math.gcd(
                32, dim // 4
            ),  # of four channels or more, whatever the multiple
            down_block_types=["DownBlock2D"] * len(mults),
            up_block_types=["UpBlock2D"] * len(mults),
            attention_head_dim=math.gcd(64, widths[-1]),  # in the middle block only
        )

    def encode(self, images: Tensor) -> Tensor:
        """The images as they are."""
        return images

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Noise to step ``noise_to`` and denoise; never with gradients: training goes by ``loss``
        alone.

        Every image gets the same noise, so its result does not depend on its batch mates or on the
        call.
        """
        generators = [_generator(self.SEED) for _ in latent]
        return self._denoise(
            self._noised(latent, self.noise_to, generators)[0],
            self.noise_to,
            self.steps,
            generators,
        )

    def loss(
        self, inputs: Tensor, targets: Tensor, criterion: Criterion | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the predicted noise (Ho et al. 2020, eq. 14), which is the only
        part, "noise".

        Neither ``inputs`` nor ``criterion`` is used: the noise is the corruption, and no image is
        reconstructed. While training, steps and noise are drawn from torch's global generator. In
        evaluation mode each image is measured at the same four steps with the same noise, so that
        two epochs can be compared.
        """
        self.check(targets)
        if self.training:
            # the library's own checkpointing, which knows the blocks
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
            steps = [
                torch.full(
                    (len(targets),), math.ceil(self.timesteps * share), device=targets.device
                )
                for share in EVALUATED
            ]
            error = torch.stack([self._noise_error(targets, step, noise) for step in steps]).mean()
        return error, {"noise": error}

    def _noise_error(self, images: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        predicted = self.predictor(
            self.process.add_noise(images, noise, steps - 1), steps - 1
        ).sample
        return F.mse_loss(at_least_float32(predicted), at_least_float32(noise))

    def _noised(
        self, images: Tensor, step: int, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """The images at a step from 1 on, and the noise in them."""
        noise = randn_tensor(images.shape, generators, images.device, images.dtype)
        return self.process.add_noise(images, noise, torch.full((len(images),), step - 1)), noise

    def _denoise(
        self, images: Tensor, start: int, steps: int, generators: list[torch.Generator]
    ) -> Tensor:
        """From step ``start`` to 0 by way of ``steps`` evenly spaced steps.

        Those steps are a process of their own, with betas that give the same noise levels (Nichol
        and Dhariwal 2021, section 4): the library's own spacing can neither start anywhere nor end
        at 0 from any number of steps.
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
    return torch.Generator().manual_seed(seed)
