"""The seven autoencoders: range, overfitting, independent images, gradients, counts; what each
alone promises.
"""

import inspect

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from nbhelpers.config import ROOT
from nbhelpers.errors import ConfigError, ModelError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.networks.registry import ARCHITECTURES, build_network
from nbhelpers.models.autoencoders.networks.reversed import embedding_difference
from nbhelpers.models.autoencoders.pixels import PIXELS

SIZE = 32
SMALL = {
    "cnn": {"channels": (8, 16, 32), "latent": 64},
    "resnet": {"backbone": "test_resnet", "latent": 64},
    "vit": {"patch": 8, "dim": 64, "depth": 2, "decoder_depth": 1, "heads": 4, "mlp_ratio": 2.0},
    "unet_lite": {"base": 8},
    "unet": {"channels": (8, 16)},
    "reversed": {"channels": (8, 16, 16), "bottleneck": 64},
    "diffusion": {"dim": 8, "mults": (1, 2), "timesteps": 100, "noise_to": 20, "steps": 4},
}
LEARNING = {  # steps and rate that overfit
    "cnn": (60, 3e-3),
    "resnet": (70, 3e-3),
    "vit": (60, 3e-3),
    "unet_lite": (90, 3e-3),
    "unet": (80, 1e-2),
    "reversed": (50, 3e-3),
    "diffusion": (120, 1e-2),
}
NAMES = list(ARCHITECTURES)


def small(name, **changes):
    return build_network(name, SIZE, **{**SMALL[name], **changes})


def rng(seed):
    return torch.Generator().manual_seed(seed)


def pictures(count, seed=0):
    """Smooth images with black, white and what lies between."""
    coarse = 4 * torch.rand(count, 3, 4, 4, generator=rng(seed)) - 2
    return F.interpolate(coarse, size=SIZE, mode="bilinear").clamp(-1, 1)


def mse(reconstructions, targets):
    error = F.mse_loss(reconstructions, targets)
    return error, {"mse": error}


# -- all seven
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_configuration_s(name):
    section = yaml.safe_load((ROOT / "configs" / "autoencoder.yaml").read_text())["networks"][name]
    parameters = inspect.signature(type(small(name))).parameters
    defaults = {key: p.default for key, p in parameters.items() if key != "image_size"}
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()} == {
        key: value for key, value in section.items() if key not in ("head", "corruption")
    }


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_range(name):
    network = small(name).train()
    noise = torch.rand(1, 3, SIZE, SIZE, generator=rng(1)) * 2 - 1
    images = torch.cat(
        [torch.full_like(noise, PIXELS.low), torch.full_like(noise, PIXELS.high), noise]
    )
    reconstructions = network.reconstruct(images)
    assert network.training and not reconstructions.requires_grad
    assert reconstructions.shape == images.shape
    assert reconstructions.min() >= -1 and reconstructions.max() <= 1
    assert (PIXELS.low, PIXELS.high) == (-1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_overfits_and_reaches_both_ends_of_the_range(name):
    network, images = (
        small(name, **({"dropout": 0.0} if name in ("cnn", "vit") else {})),
        pictures(8),
    )
    steps, rate = LEARNING[name]
    optimizer = torch.optim.Adam(network.parameters(), rate)

    def loss():
        with torch.no_grad():
            return network.eval().loss(images, images, mse)[0].item()

    first = loss()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            optimizer.zero_grad()
            network.train().loss(images, images, mse)[0].backward()
            optimizer.step()
    assert loss() < first / 10
    reconstructions = network.reconstruct(images)
    assert reconstructions[images == 1].mean() > 0.8
    assert reconstructions[images == -1].mean() < -0.8


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch_mates(name):
    network, images = small(name), pictures(3)
    alone = network.reconstruct(images[1:2])
    assert torch.allclose(network.reconstruct(images)[1:2], alone, atol=1e-5)
    assert torch.allclose(
        network.reconstruct(torch.cat([-images[:2].flip(0), images[1:2]]))[2:], alone, atol=1e-5
    )


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"diffusion"}))
def test_a_loss_without_its_criterion_is_refused(name):
    with pytest.raises(ModelError, match=f"autoencoder {name}: expected a criterion"):
        small(name).loss(pictures(1), pictures(1), None)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name):
    """From the second step on: timm starts the last scale of each residual block at 0, which stops
    what is before.
    """
    network, images = small(name).train(), pictures(4)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(2):
            optimizer.step()  # nothing yet in the first round
            optimizer.zero_grad()
            network.loss(images, images, mse)[0].backward()
    assert [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()
    ] == []
    assert network.n_parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_wrong_images_and_sizes_are_refused(name):
    network = small(name)
    for shape in ((2, 1, SIZE, SIZE), (2, 3, SIZE, 2 * SIZE), (3, SIZE, SIZE)):
        text = str(shape).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(
            ModelError, match=rf"{name}: expected images \(B, 3, 32, 32\), found {text}; resize"
        ):
            network(torch.zeros(shape))
        with pytest.raises(ModelError, match=f"{name}: expected images"):
            network.loss(torch.zeros(shape), torch.zeros(shape), mse)
    with pytest.raises(
        ConfigError,
        match=rf"{name}: expected an image size that is a multiple of \d+, found 33; set",
    ):
        build_network(name, 33, **SMALL[name])


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_from_the_seed_alone(name, monkeypatch):
    monkeypatch.setattr(
        torch.cuda,
        "manual_seed_all",
        lambda seed: pytest.fail("the generators of GPUs were seeded"),
    )
    state = torch.get_rng_state()
    first, second = (build_network(name, SIZE, seed=1, **SMALL[name]) for _ in range(2))
    first.reconstruct(pictures(2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [
        torch.cat([p.flatten() for p in network.parameters()])
        for network in (first, second, small(name))
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_changes_nothing(name):
    """With dropout, where the network has it; batch statistics, which are computed twice, count
    once.
    """
    networks, images, kept = [small(name).train() for _ in range(2)], pictures(4), [0, 0]
    networks[1].gradient_checkpointing = True
    for index, network in enumerate(networks):

        def keep(tensor, index=index):
            kept[index] += tensor.numel()
            return tensor

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = network.loss(images, images, mse)[0]
            loss.backward()
    plain, checkpointed = networks
    assert kept[1] < kept[0]
    assert all(
        torch.equal(p.grad, q.grad)
        for p, q in zip(plain.parameters(), checkpointed.parameters(), strict=True)
    )
    assert all(
        torch.equal(p, q) for p, q in zip(plain.buffers(), checkpointed.buffers(), strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_double_network_has_a_double_loss(name):
    network, images = small(name).double(), pictures(2).double()
    for mode in (True, False):
        with torch.random.fork_rng(devices=[]):
            loss, parts = network.train(mode).loss(images, images, mse)
        assert {loss.dtype, *(part.dtype for part in parts.values())} == {torch.float64}


def test_published_parameter_counts():
    assert build_network("cnn", 64).n_parameters == 13_906_051
    assert build_network("unet_lite", 64).n_parameters == 7_697_475
    assert build_network("unet_lite", 64, base=32).n_parameters == 1_925_667
    assert all(build_network("reversed", size).n_parameters < 20e6 for size in (128, 256))


def test_unknown_architecture():
    with pytest.raises(ConfigError, match="found 'unte'; did you mean unet"):
        build_network("unte", SIZE)


class Halve(BaseAutoencoder):
    """Gives half of each value."""

    name = "halve"

    def encode(self, images):
        return images

    def decode(self, latent):
        return latent / 2


def test_reconstruction_error_by_hand():
    images = torch.zeros(2, 3, 2, 2)
    images[0], images[1, 0, 0, 0] = 1.0, -1.0  # errors of 0.25: twelve, and one
    network = Halve(2)
    assert network.reconstruction_error(images).tolist() == pytest.approx([0.25, 0.25 / 12])
    assert network.reconstruction_error(images, "sum").tolist() == pytest.approx([3.0, 0.25])
    assert torch.equal(network.reconstruction_error(images, "none"), images.square() / 4)
    with pytest.raises(ConfigError, match="expected mean, sum or none, found 'max'"):
        network.reconstruction_error(images, "max")


# -- one by one
# -------------------------------------------------------------------------------------


def test_resnet_latent_is_a_vector():
    network = build_network("resnet", 64, latent=48)
    assert network.encode(torch.zeros(2, 3, 64, 64)).shape == (2, 48)
    with pytest.raises(ConfigError, match="expected one of timm's ResNets, found 'vgg16'"):
        small("resnet", backbone="vgg16")


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_vit_attention_is_what_the_block_uses(layer):
    network, images, seen = small("vit").train(), pictures(2), {}
    attention = network.attention(images, layer)
    assert network.training and attention.shape == (2, 4, 16, 16)
    assert (
        torch.allclose(attention.sum(-1), torch.ones(2, 4, 16), atol=1e-6) and attention.min() >= 0
    )
    block = network.encoder[:-1][layer].attn
    block.register_forward_hook(
        lambda _, inputs, output: seen.update(tokens=inputs[0], output=output)
    )
    network.reconstruct(images)
    values = block.qkv(seen["tokens"])[..., 128:].reshape(2, 16, 4, 16).transpose(1, 2)
    mixed = (attention @ values).transpose(1, 2).reshape(2, 16, 64)
    assert torch.allclose(block.proj(mixed), seen["output"], atol=1e-6)


def test_vit_refuses_what_does_not_divide():
    with pytest.raises(ConfigError, match="dim: expected a multiple of 4 and of heads=5, found 64"):
        small("vit", heads=5)
    with pytest.raises(ConfigError, match="layer: expected -2 to 1, found 2"):
        small("vit").attention(pictures(1), 2)


def test_vit_puts_patches_where_they_were():
    """A head that gives a token's own patch: the image comes back."""
    network, images = small("vit", dim=3 * 8**2), pictures(2)
    network.encoder = network.decoder = network.activation = nn.Identity()
    network.positions = torch.zeros_like(network.positions)
    network.dropout, network.head = nn.Identity(), nn.Identity()
    network.embed.forward = lambda x: F.unfold(x, 8, stride=8).mT
    assert torch.equal(network.decode(network.encode(images)), images)


def test_unet_skips():
    """What is forgotten in the bottleneck still arrives by the skips, and only by them."""
    with_skips, without = small("unet"), small("unet", skips=False)
    for network, arrives in ((with_skips, True), (without, False)):
        results = []
        for images in pictures(2).split(1):
            bottleneck, carried = network.eval().encode(images)
            results.append(network.decode((torch.zeros_like(bottleneck), carried)))
        assert torch.equal(*results) is not arrives
    assert without.n_parameters == with_skips.n_parameters - 9 * (
        8 * 8 + 16 * 16
    )  # 3 x 3 weights of the carried maps


def test_embedding_difference_by_hand():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert embedding_difference([one], [other]).item() == pytest.approx(1 + 2.5 / 2)
    assert embedding_difference([one, one], [other, one]).item() == pytest.approx((1 + 2.5 / 2) / 2)


def test_reversed_loss_is_measured_by_a_fixed_encoder(monkeypatch):
    network, images = small("reversed", similarity=0.5), pictures(2)
    total, parts = network.loss(images, images, mse)
    expected = embedding_difference(network.encoder(images), network.encoder(network(images)))
    assert parts["similarity"].item() == pytest.approx(expected.item(), rel=1e-5) and expected > 0.1
    assert total.item() == pytest.approx((parts["mse"] + 0.5 * expected).item(), rel=1e-5)
    assert list(small("reversed", similarity=0.0).loss(images, images, mse)[1]) == ["mse"]
    drawn = pictures(2, seed=1).requires_grad_()
    monkeypatch.setattr(network, "decode", lambda latent: drawn)
    network.loss(images, images, mse)[0].backward()
    assert drawn.grad.any() and all(p.grad is None for p in network.encoder.parameters())
