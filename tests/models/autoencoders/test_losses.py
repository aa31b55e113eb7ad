"""Losses: values by hand and by other libraries, finite gradients everywhere, nothing built that
has no weight.
"""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import nn

from nbhelpers.config import load_config
from nbhelpers.errors import ConfigError, ModelError
from nbhelpers.models.autoencoders import losses
from nbhelpers.models.autoencoders.losses import TERMS, CombinedLoss, Perceptual, build_loss
from nbhelpers.models.autoencoders.similarity import FrozenFeatures, mean_ssim

NONE = dict.fromkeys(
    ("reconstruction", "mse", "l1", "ssim", "ms_ssim", "perceptual", "focal", "edge"), 0.0
)
EVERY = NONE | {
    "reconstruction": 2.0,
    "mse": 0.7,
    "l1": 0.3,
    "ssim": 0.5,
    "ms_ssim": 0.25,
    "perceptual": 0.1,
    "focal": 1.5,
    "edge": 0.05,
}


def noise(
    seed: int, n: int = 2, size: int = 48, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    return (
        torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2
        - 1
    )


def smooth(seed: int, n: int = 2, size: int = 48) -> torch.Tensor:
    return nn.functional.interpolate(noise(seed, n, 6), size=size, mode="bicubic").clamp(-1, 1)


class Network(nn.Sequential):
    """One convolution and batch statistics; gives a list."""

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, images):
        return [super().forward(images)]


NAMES = [*TERMS, "perceptual"]


def term(name: str):
    return Perceptual(Network()) if name == "perceptual" else TERMS[name]


def test_mse_and_l1_are_torch_s():
    a, b = noise(0), noise(1)
    assert losses.mse(a, b).item() == pytest.approx(((a - b) ** 2).mean().item())
    assert losses.l1(a, b).item() == pytest.approx((a - b).abs().mean().item())


@pytest.mark.parametrize(
    ("a", "b"), [(noise(0), noise(1)), (smooth(2), smooth(2) * 0.7 + 0.1), (smooth(3), noise(3))]
)
def test_ssim_is_skimage_s(a, b):
    expected = [
        structural_similarity(
            x.numpy(),
            y.numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=2,
            channel_axis=0,
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert mean_ssim(a, b).numpy() == pytest.approx(np.array(expected), abs=1e-4)
    assert losses.ssim(a, b).item() == pytest.approx(1 - np.mean(expected), abs=1e-4)


def similarity_by_scipy(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """SSIM over all pixels, and its contrast term over the windows within, of ``(3, H, W)`` float64
    images.
    """

    def blur(maps: np.ndarray) -> np.ndarray:
        return np.stack([gaussian_filter(m, 1.5, mode="mirror", truncate=3.5) for m in maps])

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.02**2, 0.06**2
    contrast = (2 * vxy + c2) / (vx + vy + c2)
    return float(((2 * mx * my + c1) / (mx**2 + my**2 + c1) * contrast).mean()), float(
        contrast[:, 5:-5, 5:-5].mean()
    )


@pytest.mark.parametrize("size", [20, 24, 48])  # one, two and three scales
def test_ms_ssim_is_the_product_over_the_scales_that_fit(size):
    a, b = (
        smooth(0, size=size).double(),
        (smooth(0, size=size) + 0.3 * smooth(1, size=size)).clamp(-1, 1).double(),
    )
    betas = np.array(losses.BETAS[: losses.scales_that_fit(size)])
    expected = []
    for x, y in zip(a.numpy(), b.numpy(), strict=True):
        value = 1.0
        for scale, beta in enumerate(betas / betas.sum(), start=1):
            whole, contrast = similarity_by_scipy(x, y)
            value *= (((whole if scale == len(betas) else contrast) + 1) / 2) ** beta
            x, y = (m.reshape(3, m.shape[1] // 2, 2, -1, 2).mean(axis=(2, 4)) for m in (x, y))
        expected.append(value)
    assert losses.ms_ssim(a, b).item() == pytest.approx(1 - np.mean(expected), abs=1e-5)


def test_as_many_scales_as_fit():
    sizes = {11: 1, 21: 1, 22: 2, 43: 2, 44: 3, 98: 3, 99: 4, 175: 4, 176: 5, 512: 5}
    assert {size: losses.scales_that_fit(size) for size in sizes} == sizes
    for size in (
        11,
        22,
        44,
        99,
        176,
    ):  # the smallest of each are computed, and are no NaN of an empty map
        assert 0 < losses.ms_ssim(noise(0, 1, size), noise(1, 1, size)) < 1


def test_focal_is_its_formula_for_each_image():
    targets = torch.zeros(2, 3, 4, 4)
    reconstructions = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 1.0)])
    first, second = (1 - math.exp(-0.25)) ** 2 * 0.25, (1 - math.exp(-1)) ** 2
    assert losses.focal(reconstructions, targets).item() == pytest.approx((first + second) / 2)
    other = losses.focal(reconstructions[:1], targets[:1], alpha=3, gamma=1).item()
    assert other == pytest.approx(3 * (1 - math.exp(-0.25)) * 0.25)
    near = losses.focal(reconstructions[:1] * 2e-4, targets[:1]).item()
    assert near == pytest.approx(1e-24, rel=1e-3, abs=0)  # not lost to 1 - exp(-1e-8) in float32


def test_edge_compares_sobel_magnitudes():
    a, b = noise(0, 1, 12, torch.float64), noise(1, 1, 12, torch.float64)

    def magnitude(image: torch.Tensor) -> np.ndarray:
        luma = np.tensordot([0.299, 0.587, 0.114], image[0].numpy(), 1)
        x, y = (
            cv2.Sobel(luma, cv2.CV_64F, *way, borderType=cv2.BORDER_REPLICATE)
            for way in ((1, 0), (0, 1))
        )
        return np.sqrt(x**2 + y**2 + 1e-6)

    assert losses.edge(a, b).item() == pytest.approx(((magnitude(a) - magnitude(b)) ** 2).mean())


def test_perceptual_normalises_inside_and_averages_its_layers():
    class Both(nn.Module):
        def forward(self, images):
            return {"as they are": images, "doubled": 2 * images}

    a, b = noise(0, 1, 8), noise(1, 1, 8)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    cosine = nn.functional.cosine_similarity(((a + 1) / 2 - mean) / std, ((b + 1) / 2 - mean) / std)
    # both layers have the same directions, so that the scale of a layer does not matter
    torch.testing.assert_close(Perceptual(Both())(a, b), (1 - cosine).mean(), rtol=1e-4, atol=1e-5)
    white = FrozenFeatures(Both())(torch.ones(1, 3, 2, 2))[0][0, :, 0, 0]
    assert white.tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_equal_images_cost_nothing_and_more_noise_costs_more(name):
    steps = [
        term(name)(smooth(0) + share * noise(1), smooth(0)).item()
        for share in (0, 0.05, 0.1, 0.2, 0.4)
    ]
    assert steps[0] == pytest.approx(0, abs=1e-6)
    assert all(lower < higher for lower, higher in zip(steps, steps[1:], strict=False))


FLAT = torch.full((1, 3, 48, 48), 0.25)
BOARD = torch.ones(1, 3, 48, 48)
BOARD[..., ::2, ::2] = BOARD[..., 1::2, 1::2] = -1.0
PAIRS = {
    "flat and equal": (FLAT, FLAT),
    "flat apart": (FLAT, -FLAT),
    "black and white": (-BOARD.abs(), BOARD.abs()),
    "equal": (smooth(0), smooth(0)),
    "anti-correlated": (BOARD, -BOARD),
    "negatives": (smooth(0), -smooth(0)),
    "flat and busy": (FLAT, BOARD),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite(name, pair):
    reconstructions, targets = (images.clone().requires_grad_() for images in PAIRS[pair])
    value = term(name)(reconstructions, targets)
    value.backward()
    assert value.isfinite() and value >= -1e-6 and reconstructions.grad.isfinite().all()
    if pair in ("flat apart", "negatives") and name != "edge":  # a negative has the same edges
        assert reconstructions.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "focal", "edge"])
def test_gradients_are_the_numerical_ones(name):
    size = 24 if name == "ms_ssim" else 12
    a, b = noise(0, 1, size, torch.float64), noise(1, 1, size, torch.float64)
    flat = torch.full_like(a, 0.5)
    for reconstructions, targets in ((a, b), (a, -a), (flat, b), (flat, flat)):
        inputs = reconstructions.clone().requires_grad_(), targets
        assert torch.autograd.gradcheck(TERMS[name], inputs, fast_mode=True)


def test_nan_stays_nan():
    images = smooth(0)
    broken = images.clone()
    broken[0, 0, 20, 20] = torch.nan
    for name in NAMES:
        assert term(name)(broken, images).isnan(), name


def test_the_feature_network_is_never_trained():
    loss = CombinedLoss(EVERY, network := Network())
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    reconstructions = noise(0).requires_grad_()
    loss.train()(reconstructions, noise(1))[0].backward()
    assert reconstructions.grad.abs().sum() > 0
    assert not any(module.training for module in network.modules())
    assert [p for p in loss.parameters() if p.requires_grad] == []
    assert all(tensor.equal(before[key]) for key, tensor in network.state_dict().items())


def test_a_failing_feature_network_is_not_swallowed():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("no features today")

    with pytest.raises(RuntimeError, match="no features"):
        CombinedLoss(EVERY, Broken())(noise(0), noise(1))


def test_the_loss_follows_to_another_type_and_device():
    loss = CombinedLoss(EVERY, Network()).to(torch.float64)
    total = loss(noise(0).double(), noise(1).double())[0]
    assert total.dtype == torch.float64
    assert total.item() == pytest.approx(
        CombinedLoss(EVERY, Network())(noise(0), noise(1))[0].item(), rel=1e-4
    )
    # A device without storage: any tensor left behind on the CPU is refused. (SSIM's library knows
    # no such device.)
    a, b = (images.to("meta").requires_grad_() for images in (noise(0), noise(1)))
    total, parts = CombinedLoss(EVERY | {"ssim": 0.0}, Network()).to("meta")(a, b)
    assert {tensor.device.type for tensor in (total, *parts.values())} == {"meta"}
    with pytest.raises(RuntimeError, match="device"):
        CombinedLoss(EVERY | {"ssim": 0.0}, Network())(a, b)


def test_total_is_the_weighted_sum_of_the_parts():
    loss = CombinedLoss(EVERY, Network())
    a, b = smooth(0), noise(1)
    total, parts = loss(a, b)
    weights = {
        "mse": 1.4,
        "l1": 0.6,
        "ssim": 0.5,
        "ms_ssim": 0.25,
        "perceptual": 0.1,
        "focal": 1.5,
        "edge": 0.05,
    }
    assert loss.weights == pytest.approx(weights) and list(parts) == list(weights)
    assert total.equal(sum(loss.weights[name] * part for name, part in parts.items()))
    for name, part in parts.items():
        assert part.shape == () and not part.requires_grad
        assert part.equal(term(name)(a, b)), name


def test_a_term_without_weight_is_neither_built_nor_computed(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("built")

    for name in ("ssim", "ms_ssim", "focal", "edge", "l1"):
        monkeypatch.setitem(TERMS, name, refuse)
    monkeypatch.setattr(losses, "Perceptual", refuse)
    loss = CombinedLoss(NONE | {"reconstruction": 1.0, "mse": 1.0}, Network())
    total, parts = loss(noise(0), noise(1))
    assert list(parts) == ["mse"] and total.equal(parts["mse"])
    assert list(loss.modules()) == [loss]
    with pytest.raises(AssertionError, match="built"):
        CombinedLoss(EVERY, Network())


def test_half_precision_is_computed_in_float32():
    loss, a, b = CombinedLoss(EVERY, Network()), smooth(0), noise(1)
    plain = loss(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts = loss(a, b)
        low = loss(a.bfloat16(), b)[0]
    assert total.equal(plain[0]) and all(part.equal(plain[1][name]) for name, part in parts.items())
    assert low.dtype == torch.float32 and low.equal(loss(a.bfloat16().float(), b)[0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (NONE, "expected a weight above 0, found none"),
        (
            NONE | {"reconstruction": 1.0},
            "expected a weight above 0, found none",
        ),  # of two parts without weight
        ({"mse": 1.0}, "found none for reconstruction"),
        (NONE | {"ssim": -1.0}, "expected finite weights of 0 or more, found {'ssim': -1.0}"),
        (NONE | {"edge": math.nan}, "expected finite weights"),
        (NONE | {"perceptual": 1.0}, "loss.perceptual: expected a feature network"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        CombinedLoss(weights)


def test_wrong_images_are_refused():
    loss = CombinedLoss(EVERY, Network())
    for a, b in (
        (noise(0, 2), noise(0, 1)),
        (noise(0)[:, :1], noise(0)[:, :1]),
        (noise(0)[0], noise(0)[0]),
    ):
        with pytest.raises(ModelError, match="of one shape"):
            loss(a, b)
    for name in ("ssim", "ms_ssim"):
        with pytest.raises(
            ModelError, match=f"^{name}: expected images of at least 11 x 11 pixels, found 10 x 10"
        ):
            TERMS[name](noise(0, 1, 10), noise(1, 1, 10))


def test_build_loss_builds_the_network_that_is_asked_for_and_no_other(monkeypatch):
    config = load_config("folder").autoencoder.loss
    built = []

    def network(name):
        return built.append(name) or Network()

    monkeypatch.setattr(losses, "Vgg16", lambda: network("vgg16"))
    without = config.model_copy(update={"perceptual": 0.0})
    assert (
        "perceptual" not in build_loss(without, lambda: network("backbone")).weights and not built
    )
    shipped = build_loss(config, lambda: network("backbone")).weights
    assert shipped == pytest.approx(
        {"mse": 0.7, "l1": 0.3, "ssim": 0.5, "perceptual": 0.1}
    ) and built == ["backbone"]
    other = config.model_copy(update={"perceptual_network": "vgg16"})
    assert "perceptual" in build_loss(other).weights and built == ["backbone", "vgg16"]
    with pytest.raises(ConfigError, match="loss.perceptual: expected a feature network"):
        build_loss(config)


def test_the_packaged_backbone_serves_as_feature_network(backbone):
    loss = CombinedLoss(NONE | {"perceptual": 1.0}, backbone)
    reconstructions, targets = noise(0, 1, 32).requires_grad_(), smooth(0, 1, 32)
    loss(reconstructions, targets)[0].backward()
    assert reconstructions.grad.isfinite().all() and reconstructions.grad.abs().sum() > 0
    assert loss(targets, targets)[0] == 0
