"""Configuration: one truth in YAML, frozen, and every mistake named in one line."""

import re
import typing

import pytest
import yaml
from pydantic import ValidationError

from nbhelpers.config import ROOT, Config, load_config, parse_yaml, presets, profiles
from nbhelpers.config.load import FAMILIES, known_keys
from nbhelpers.config.sections import ShiftPart
from nbhelpers.data.shift.parameters import GROUPS, PARTS
from nbhelpers.errors import ConfigError


def test_profiles_load_and_differ():
    assert profiles() == ["folder", "mvtec", "tiny"]
    assert len({load_config(name).digest() for name in profiles()}) == 3


def test_the_reference_study_is_what_mvtec_says():
    config = load_config("mvtec")
    assert (config.seed, config.splits.train_ratio, config.splits.val_anomaly_ratio) == (
        42,
        0.8,
        0.3,
    )
    assert (
        config.data.categories == ("hazelnut", "carpet", "zipper") and config.data.image_size == 224
    )
    assert config.backbone.name == "resnet50" and config.patchcore.layers == ("layer2", "layer3")
    assert config.padim.layers == ("layer1", "layer2", "layer3") and config.padim.n_features == 100
    assert (config.patchcore.coreset_ratio, config.patchcore.num_neighbors) == (0.05, 9)
    assert config.shift.rotation_degrees == 10 and config.shift.illumination_strength == (0.4, 0.7)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"patchcore.coreset_rato": 0.1},
            "unknown setting 'patchcore.coreset_rato'.*did you mean patchcore.coreset_ratio",
        ),
        (
            {"data.image_size": "224"},
            r"'data.image_size': expected a valid integer, found '224' \(str\)",
        ),
        ({"patchcore.reweight": "false"}, "expected a valid boolean, found 'false'"),
        ({"patchcore.coreset_ratio": 2.0}, "less than or equal to 1, found 2.0"),
        ({"shift.crop_aspect": [1.1, 0.9]}, r"'shift.crop_aspect': expected \[low, high\]"),
        ({"shift.severity": "hard"}, "expected 'mild', 'moderate' or 'severe', found 'hard'"),
        ({"shift.only": ["rotate"]}, "found 'rotate'"),
        ({"data.categories": "zipper"}, "expected a valid list, found 'zipper'"),
        ({"splits.groups": {"a": {"pattern": "(", "max_gap": 0}}}, "a regular expression"),
        ({"profile": "mvtec"}, "chosen by --profile"),
        ({"preset": "hazel"}, "'preset': expected none or one of capsule, hazelnut.*found 'hazel'"),
        (
            {"autoencoder.networks.cnn.dropouts": 0.1},
            "did you mean autoencoder.networks.cnn.dropout",
        ),
        ({"autoencoder.search.learning_rate": [0.1, 0.01]}, r"\[low, high\] with low < high"),
        (
            {"autoencoder.networks.vit.training.epoch": 1},
            "did you mean autoencoder.networks.vit.training.epochs",
        ),
        (
            {"autoencoder.networks.vit.training.epochs": 0},
            "'autoencoder.networks.vit.training.epochs': expected .*than 0",
        ),
        (
            {
                "autoencoder.training.scheduler": "plateau",
                "autoencoder.networks.vit.training.patience": 5,
            },
            "expected plateau_epochs below patience, 5 for network vit, or training stops",
        ),
        ({"autoencoder": 5}, "'autoencoder': expected"),
        (
            {"autoencoder.networks.vit.training": 5, "autoencoder.training.epochs": 9},
            "networks.vit.training': expected",
        ),
        (
            {"autoencoder.networks.vit.training.epochs": 2},
            "'autoencoder.training': expected warmup.* of network vit, 2, or",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config("tiny", overrides)
    assert "\n" not in str(error.value)


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match="unknown profile 'tyni'; configs/ has: folder, mvtec, tiny"
    ):
        load_config("tyni")


def test_overrides_by_dots_or_nested_and_nothing_is_shared():
    dotted = load_config("tiny", {"shift.severity": "mild", "shift.translation": 0.2})
    nested = load_config("tiny", {"shift": {"severity": "mild", "translation": 0.2}})
    assert dotted == nested and dotted.shift.rotation_degrees == 10.0
    assert load_config("tiny").shift.severity == "moderate"
    with pytest.raises(ValidationError, match="frozen"):
        dotted.shift.severity = "severe"


def test_the_workspace_moves_files_and_no_number(monkeypatch, tmp_path):
    monkeypatch.delenv("STUDY_WORKSPACE", raising=False)
    unmoved = load_config("tiny")
    monkeypatch.setenv("STUDY_WORKSPACE", str(tmp_path))
    moved = load_config("tiny")
    assert moved.digest() == unmoved.digest()
    assert moved.output_dir == tmp_path / "outputs" / "tiny" and unmoved.output_dir.is_relative_to(
        ROOT
    )
    assert moved.data_root == tmp_path / "data" / "raw" / "synthetic"


def test_the_digest_sees_every_other_setting():
    digests = {
        load_config("tiny", change).digest()
        for change in (
            {},
            {"seed": 1},
            {"data.image_size": 64},
            {"patchcore.layers": ["blocks.2"]},
            {"threads": 3},
        )
    }
    assert len(digests) == 5


def test_shift_parts_are_those_of_the_shift():
    assert set(typing.get_args(ShiftPart)) == {*PARTS, *GROUPS}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("capsule", (256, 1e-4, 32, "percentile_95", 0.3, 0.0)),
        ("hazelnut", (512, 8e-5, 32, "percentile_96", 0.4, 0.0)),
        ("screw", (256, 1e-4, 32, "percentile_94", 0.2, 0.1)),
        ("multi", (512, 1e-4, 32, "percentile_95", 0.3, 0.0)),
    ],
)
def test_presets_are_the_table_s_rows(name, row):
    config = load_config("tiny", {"preset": name})
    training, networks = config.autoencoder.training, config.autoencoder.networks
    assert (
        networks.cnn.latent == networks.reversed.bottleneck == 8 * networks.unet_lite.base == row[0]
    )
    assert (training.learning_rate, training.batch_size, config.evaluation.threshold_rule) == row[
        1:4
    ]
    assert (training.augmentation_strength, config.autoencoder.loss.edge) == row[4:]


def test_presets_are_all_valid_and_are_set_at_load_only():
    with pytest.raises(ConfigError, match="expected it in load_config\\(\\), found 'cpu'"):
        load_config("tiny").changed({"preset": "cpu"})
    assert load_config("tiny").preset == "none"
    for name in presets():
        assert load_config("tiny", {"preset": name}).preset == name
    multi, debug = (
        load_config("tiny", {"preset": name}).autoencoder for name in ("multi", "debug")
    )
    assert (multi.training.epochs, multi.training.patience) == (150, 20)
    assert (multi.loss.perceptual, multi.loss.ssim) == (0.15, 0.3)
    assert (debug.training.batch_size, debug.training.epochs) == (4, 5)
    single = load_config("tiny", {"preset": "debug", "autoencoder.training.epochs": 2})
    assert single.autoencoder.training.epochs == 2 and single.autoencoder.training.batch_size == 4


def test_a_network_can_be_trained_otherwise_than_the_rest():
    changes = {"autoencoder.networks.vit.training": {"epochs": 300, "trackers": ["wandb"]}}
    options = load_config("tiny", changes).autoencoder
    assert options.training_of("cnn") == options.training
    assert options.training_of("vit") == options.training.model_copy(
        update={"epochs": 300, "trackers": ("wandb",)}
    )


def test_later_settings_of_all_networks_win_over_earlier_ones_of_one():
    cpu = load_config("tiny", {"preset": "cpu"})
    assert (
        cpu.autoencoder.training_of("diffusion").epochs == 45
        and cpu.autoencoder.training_of("vit").epochs == 15
    )
    for later in (
        load_config("tiny", {"preset": "cpu", "autoencoder.training.epochs": 50}),
        cpu.changed({"autoencoder.training.epochs": 50}),
    ):
        assert [later.autoencoder.training_of(name).epochs for name in ("diffusion", "vit")] == [
            50,
            50,
        ]
        assert later.autoencoder.training_of("diffusion").batch_size == 8
    both = cpu.changed(
        {"autoencoder.training.epochs": 50, "autoencoder.networks.diffusion.training.epochs": 60}
    )
    assert [both.autoencoder.training_of(name).epochs for name in ("diffusion", "vit")] == [60, 50]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2.5E+3", -2500.0),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("[1e-4, 1.0e-2]", [1e-4, 1e-2]),
        ("7", 7),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1e-4x", "1e-4x"),
        ("2e5e", "2e5e"),
    ],
)
def test_numbers_are_read_as_everybody_writes_them(text, value):
    assert parse_yaml(text) == value and type(parse_yaml(text)) is type(value)


def test_the_precision_may_come_as_the_number_that_yaml_makes_of_it():
    changed = load_config(
        "tiny",
        {"autoencoder.training.precision": 32, "autoencoder.networks.vit.training.precision": 16},
    )
    assert (
        changed.autoencoder.training.precision,
        changed.autoencoder.training_of("vit").precision,
    ) == ("32", "16")
    with pytest.raises(ConfigError, match="expected 'auto', '32', 'bf16' or '16', found '8'"):
        load_config("tiny", {"autoencoder.training.precision": 8})


def comments(path):
    """The comment of each dotted key of a YAML file: the text after ``#`` behind the key and in the
    indented comment lines directly below it.
    """
    lines = path.read_text().splitlines()

    def walk(node, prefix):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                yield from walk(value, f"{name}.")
            first = key.start_mark.line
            comment = lines[first].partition("#")[2].strip()
            for line in lines[first + 1 :]:
                if not line.startswith(" ") or not line.strip().startswith("#"):
                    break
                comment += " " + line.strip().removeprefix("#").strip()
            yield name, comment.strip()

    return dict(walk(yaml.compose(path.read_text()), ""))


@pytest.mark.parametrize("name", ["base", *FAMILIES])
def test_a_comment_documents_every_key(name):
    documented = comments(ROOT / "configs" / f"{name}.yaml")
    assert [key for key, comment in documented.items() if not comment] == []


def test_every_setting_has_a_key_in_the_files_that_are_documented():
    documented = set(comments(ROOT / "configs" / "base.yaml"))
    for family in FAMILIES:
        documented |= {f"{family}.{key}" for key in comments(ROOT / "configs" / f"{family}.yaml")}
    # a network's own training settings are those of autoencoder.training
    of_one_network = re.compile(r"autoencoder\.networks\.\w+\.training\.")
    settings = {key for key in known_keys(Config) if not of_one_network.match(key)}
    assert settings - documented == {"profile"}  # the name of the file itself
