"""The generated pages say what the code says: configuration, rooms."""

import dataclasses
import re

import pytest

from nbhelpers.config import load_config, profiles
from nbhelpers.data.exploration import DEFECT_COLUMNS
from nbhelpers.data.shift.parameters import ShiftParameters
from nbhelpers.evaluation.metrics import RATE_METRICS
from nbhelpers.evaluation.thresholds.calibrate import Threshold
from nbhelpers.predictions import Predictions
from nbhelpers.results.table import COLUMNS
from nbhelpers.runner.stored_outputs import BOUND, SPREAD
from nbhelpers.scenarios import SCENARIOS
from tests.docs.pages import DOCS, module


@pytest.fixture(scope="module")
def reference():
    return module("settings_reference")


def leaves(values: dict, prefix: str = "") -> list[str]:
    """Dotted names of all values; a network's own training settings, and the groups, are one."""
    keys = []
    for key, value in values.items():
        whole = key == "training" and "networks." in prefix or f"{prefix}{key}" == "splits.groups"
        nested = isinstance(value, dict) and not whole
        keys += leaves(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
    return keys


def test_every_key_of_the_configuration_is_in_the_reference(reference):
    expected = set(leaves(load_config("folder").model_dump(mode="json"))) - {"profile"}
    assert len(expected) > 100
    assert {row.key for row in reference.settings()} == expected
    text = reference.settings_reference()
    assert [key for key in expected if f"\n`{key}`\n: " not in text] == []


def test_types_ranges_and_defaults_are_said_in_words(reference):
    rows = {row.key: row for row in reference.settings()}
    size = rows["data.image_size"]
    assert (size.kind, size.default) == ("whole number at least 32", "224")
    assert size.profiles["tiny"] == str(load_config("tiny").data.image_size)
    assert rows["patchcore.coreset_ratio"].kind == "number above 0 and at most 1"
    assert rows["tta"].kind == "one of `none`, `flips`"
    assert rows["shift.brightness"].kind == "[low, high], each number above 0"
    assert rows["autoencoder.networks.vit.training"].default == "{}"
    assert len([row for row in rows.values() if row.comment]) > 50


def test_comments_belong_to_their_keys(reference):
    text = """# What the file is for.
# Its second line.
size: 224            # side,
                     # in pixels
bare: 1
section:             # what it sets
  # for whom
  first: [1, 2]      # of two
  # not the first
  second: {a: 1, b: '#2'}
flow: {a: 1,
       b: 2}         # of both
"""
    assert reference.comments_of(text) == {
        "size": "side, in pixels",
        "section": "what it sets; for whom",
        "section.first": "of two",
        "section.second": "not the first",
        "flow": "of both",
    }


def test_the_default_of_each_key_is_what_no_profile_changes(reference):
    for name in profiles():
        values = load_config(name).model_dump(mode="json")
        for row in reference.settings():
            value = values
            for part in row.key.split("."):
                value = value[part]
            if row.key.endswith(".training"):
                value = {key: own for key, own in value.items() if own is not None}
            shown = row.profiles.get(name, row.default)
            assert reference._yaml(value) == shown, (name, row.key)


def test_the_picture_and_the_table_of_rooms_are_current():
    picture = module("architecture_picture")
    advice = "run: .venv/bin/python docs/architecture_picture.py"
    assert (DOCS / "architecture.svg").read_text("utf-8") == picture.picture(), advice
    assert (DOCS / "architecture.md").read_text("utf-8") == picture.page(), advice


def test_every_room_is_on_a_floor():
    picture = module("architecture_picture")
    rooms = {path.stem for path in picture.ROOT.glob("nbhelpers/*") if path.name[0] not in "_."}
    assert {room for floor in picture.floors() for room in floor} == rooms


def test_the_promised_tolerance_is_the_one_that_is_compared_with():
    text = " ".join((DOCS / "how-to" / "reproduce.md").read_text("utf-8").split())
    assert SPREAD["relative"] == 0.25  # a quarter
    promised = (
        f"by {SPREAD['share']}, a count by {SPREAD['count']}, and a large number by a quarter"
    )
    assert promised in text
    assert f"bootstrap intervals may move by {BOUND}" in text


def test_the_data_model_names_every_column_metric_and_key():
    words = set(re.findall(r"`([\w.]+)`", (DOCS / "data-model.md").read_text("utf-8")))
    expected = {*COLUMNS, *RATE_METRICS, *DEFECT_COLUMNS}
    expected |= {field.name for field in dataclasses.fields(Predictions)}
    expected |= {"value", "plateau_width", *(field.name for field in dataclasses.fields(Threshold))}
    expected |= {scenario.results_file for scenario in SCENARIOS.values()}
    expected |= {*ShiftParameters().to_row(), "source_id", "defect_lost"}
    assert sorted(expected - words) == []
