"""Configuration: one truth in YAML, frozen, and every mistake named in one line."""

import typing

import pytest
from pydantic import ValidationError

from nbhelpers.config import ROOT, load_config, profiles
from nbhelpers.data.shift_parameters import GROUPS, PARTS
from nbhelpers.errors import ConfigError
from nbhelpers.settings import ShiftPart


def test_profiles_load_and_differ():
    assert profiles() == ["folder", "mvtec", "tiny"]
    assert len({load_config(name).digest() for name in profiles()}) == 3


def test_the_reference_study_is_what_mvtec_says():
    config = load_config("mvtec")
    assert (config.seed, config.splits.train_ratio, config.splits.val_anomaly_ratio) == (42, 0.8, 0.3)
    assert config.data.categories == ("hazelnut", "carpet", "zipper") and config.data.image_size == 224
    assert config.backbone.name == "resnet50" and config.patchcore.layers == ("layer2", "layer3")
    assert config.padim.layers == ("layer1", "layer2", "layer3") and config.padim.n_features == 100
    assert (config.patchcore.coreset_ratio, config.patchcore.num_neighbors) == (0.05, 9)
    assert config.shift.rotation_degrees == 10 and config.shift.illumination_strength == (0.4, 0.7)


@pytest.mark.parametrize(("overrides", "said"), [
    ({"patchcore.coreset_rato": 0.1}, "unknown setting 'patchcore.coreset_rato'.*did you mean patchcore.coreset_ratio"),
    ({"data.image_size": "224"}, r"'data.image_size': wanted a valid integer, found '224' \(str\)"),
    ({"patchcore.reweight": "false"}, "wanted a valid boolean, found 'false'"),
    ({"patchcore.coreset_ratio": 2.0}, "less than or equal to 1, found 2.0"),
    ({"shift.crop_aspect": [1.1, 0.9]}, r"'shift.crop_aspect': wanted \[low, high\]"),
    ({"shift.severity": "hard"}, "wanted 'mild', 'moderate' or 'severe', found 'hard'"),
    ({"shift.only": ["rotate"]}, "found 'rotate'"),
    ({"data.categories": "zipper"}, "wanted a valid list, found 'zipper'"),
    ({"splits.groups": {"a": {"pattern": "(", "max_gap": 0}}}, "a regular expression"),
    ({"profile": "mvtec"}, "chosen by --profile"),
])
def test_mistakes_are_named_in_one_line(overrides, said):
    with pytest.raises(ConfigError, match=said) as error:
        load_config("tiny", overrides)
    assert "\n" not in str(error.value)


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown profile 'tyni'; configs/ has: folder, mvtec, tiny"):
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
    here = load_config("tiny")
    monkeypatch.setenv("STUDY_WORKSPACE", str(tmp_path))
    moved = load_config("tiny")
    assert moved.digest() == here.digest()
    assert moved.output_dir == tmp_path / "outputs" / "tiny" and here.output_dir.is_relative_to(ROOT)
    assert moved.data_root == tmp_path / "data" / "raw" / "synthetic"


def test_the_digest_sees_every_other_setting():
    digests = {load_config("tiny", change).digest() for change in (
        {}, {"seed": 1}, {"data.image_size": 64}, {"patchcore.layers": ["blocks.2"]}, {"threads": 3})}
    assert len(digests) == 5


def test_shift_parts_are_those_of_the_shift():
    assert set(typing.get_args(ShiftPart)) == {*PARTS, *GROUPS}
