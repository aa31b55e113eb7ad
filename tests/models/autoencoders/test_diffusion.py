"""The diffusion autoencoder: betas, an oracle that knows the noise, both samplers, a loss that can
be compared.
"""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from nbhelpers.config import load_config
from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.registry import build_network

SIZE = 16
SMALL = {"dim": 8, "mults": (1, 2), "timesteps": 100, "noise_to": 20, "steps": 4}


def small(**changes):
    return build_network("diffusion", SIZE, **{**SMALL, **changes})


def pictures(count, seed=0):
    coarse = 2 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) - 1
    return F.interpolate(coarse, size=SIZE, mode="bilinear")


class Oracle(torch.nn.Module):
    """Predicts the noise without fault: it knows the clean images and the published levels."""

    def __init__(self, images, timesteps):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))  # unused: tells device and type
        betas = torch.linspace(0.1 / timesteps, 20 / timesteps, timesteps, dtype=torch.float64)
        self.images, self.levels, self.steps = images, (1 - betas).cumprod(0), []

    def forward(self, noisy, step):
        self.steps.append(step + 1)
        level = self.levels[step]
        return SimpleNamespace(
            sample=((noisy - level.sqrt() * self.images) / (1 - level).sqrt()).float()
        )


@pytest.mark.parametrize("timesteps", [21, 100, 1000])
def test_betas_stay_below_one(timesteps):
    betas = small(timesteps=timesteps).process.betas
    assert (
        len(betas) == timesteps
        and (betas > 0).all()
        and (betas < 1).all()
        and (betas.diff() > 0).all()
    )
    assert betas[-1].item() == pytest.approx(20 / timesteps)
    if timesteps == 1000:  # those of Ho et al.
        assert betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02])


@pytest.mark.parametrize(
    "changes, text",
    [
        (
            {"timesteps": 20},
            "timesteps: expected more than 20, or the last beta is 1 or more, found 20; change it in",
        ),
        ({"noise_to": 101}, "noise_to: expected 1 to timesteps=100, found 101"),
        ({"noise_to": 0}, "noise_to: expected 1 to timesteps=100, found 0"),
        ({"steps": 21}, "steps: expected 1 to noise_to=20, found 21"),
        ({"sampler": "euler"}, "sampler: expected one of ddim, ddpm, found 'euler'"),
        ({"eta": 1.5}, "eta: expected 0 to 1, found 1.5"),
        ({"dim": 12}, "dim: expected a multiple of 8, found 12"),
    ],
)
def test_settings_out_of_range(changes, text):
    with pytest.raises(ConfigError, match=text):
        small(**changes)


@pytest.mark.parametrize("sampling", [{}, {"eta": 0.5}, {"sampler": "ddpm"}])
@pytest.mark.parametrize(
    "noise_to, steps, chain", [(20, 4, [20, 15, 10, 5]), (7, 3, [7, 4, 2]), (3, 3, [3, 2, 1])]
)
def test_who_knows_the_noise_gets_the_image_back(sampling, noise_to, steps, chain):
    """So noising and denoising speak of the same steps, from ``noise_to`` down, and the last ends
    at 0.
    """
    images = pictures(2)
    network = small(noise_to=noise_to, steps=steps, **sampling)
    network.predictor = Oracle(images, 100)
    assert torch.allclose(network.reconstruct(images), images, atol=1e-4)
    assert network.predictor.steps == chain


def test_ddpm_is_ddim_with_all_its_noise():
    """Two schedulers of the library, with the same noise: Song et al., end of section 4.1."""
    images = pictures(2)
    ddpm, ddim = (
        small(sampler=sampler, eta=1.0).reconstruct(images) for sampler in ("ddpm", "ddim")
    )
    assert torch.allclose(ddpm, ddim, atol=1e-3)
    assert not torch.allclose(ddpm, small().reconstruct(images), atol=1e-2)


@pytest.mark.parametrize("sampling", [{}, {"eta": 1.0}, {"sampler": "ddpm"}])
def test_reconstructions_repeat_and_leave_the_global_generator_alone(sampling):
    network, images, state = small(**sampling), pictures(2), torch.get_rng_state()
    first = network.reconstruct(images)
    assert torch.equal(network.reconstruct(images), first)
    assert torch.allclose(network.reconstruct(images[1:])[0], first[1], atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_reconstruction_is_of_the_image():
    """Also untrained: the noise leaves most of the image; the more noise, the less."""
    images = pictures(4)
    network = small()
    distances = (network.reconstruct(images)[:, None] - images[None]).square().mean(dim=(2, 3, 4))
    assert distances.argmin(dim=1).tolist() == [0, 1, 2, 3]
    errors = [
        small(noise_to=noise_to).reconstruction_error(images).mean().item()
        for noise_to in (4, 20, 50, 90)
    ]
    assert errors == sorted(errors)
    assert small(noise_to=1, steps=1).reconstruction_error(images).max() < 0.05**2


def test_loss_in_evaluation_mode_can_be_compared():
    """The mean over images, so a batch is the mean of its parts; four fixed steps and one noise for
    all.
    """
    network, images, state = small().eval(), pictures(3), torch.get_rng_state()
    loss, parts = network.loss(-images, images, None)
    assert torch.equal(loss, network.loss(images, images, None)[0]) and torch.equal(
        parts["noise"], loss
    )
    alone = [network.loss(image, image, None)[0].item() for image in images.split(1)]
    assert sum(alone) / 3 == pytest.approx(loss.item(), rel=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    seen = []
    network.predictor.forward = lambda noisy, steps: (
        seen.append(steps.tolist()),
        SimpleNamespace(sample=noisy * 0),
    )[1]
    noise = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(network.SEED))
    assert network.loss(images, images, None)[0].item() == pytest.approx(
        noise.square().mean().item(), rel=1e-5
    )
    assert seen == [
        [12] * 3,
        [37] * 3,
        [62] * 3,
        [87] * 3,
    ]  # one less than the step, as schedulers count


def test_loss_while_training_follows_the_global_generator():
    network, images, seen = small().train(), pictures(64), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, second = (network.loss(images, images, None)[0].item() for _ in range(2))
        torch.manual_seed(3)
        assert network.loss(images, images, None)[0].item() == first != second
        network.predictor.forward = lambda noisy, steps: (
            seen.extend(steps.tolist()),
            SimpleNamespace(sample=noisy * 0),
        )[1]
        for _ in range(30):
            network.loss(images, images, None)
    assert sorted(set(seen)) == list(range(100))  # every step, from the first to the last


def test_no_other_corruption_is_to_be_had_and_no_criterion():
    assert not small().uses_criterion
    with pytest.raises(ConfigError, match="autoencoder.networks.diffusion.corruption"):
        load_config("tiny", {"autoencoder.networks.diffusion.corruption": "mask"})


def test_no_gradient_flows_through_the_sampler():
    assert not small().train()(pictures(1)).requires_grad
