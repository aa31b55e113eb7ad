"""A stored detector comes back whole, or not at all; and a job that does not fit is refused
beforehand.
"""

import json

import pytest
import torch

from nbhelpers.errors import ModelError, ResourceError
from nbhelpers.models import memory
from nbhelpers.models.memory import available_memory, require_memory
from nbhelpers.models.storage import load_detector, save_detector


@pytest.fixture
def stored(tmp_path):
    save_detector(
        tmp_path / "d", "toy 1", {"bank": torch.arange(6.0).view(2, 3).T}, {"a": [1, "x"]}
    )
    return tmp_path / "d"


def test_round_trip(stored):
    tensors, settings = load_detector(stored, "toy 1", ("bank", "a"))
    assert tensors["bank"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert settings == {"kind": "toy 1", "a": [1, "x"]}
    assert sorted(path.name for path in stored.iterdir()) == [
        "settings.json",
        "tensors.safetensors",
    ]


def test_saving_again_replaces(stored):
    save_detector(stored, "toy 1", {"bank": torch.zeros(1)}, {})
    assert load_detector(stored, "toy 1", ("bank",))[0]["bank"].tolist() == [0]


@pytest.mark.parametrize("file", ["settings.json", "tensors.safetensors"])
def test_missing_or_damaged_file_is_named(stored, file):
    content = (stored / file).read_bytes()
    (stored / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ModelError, match="expected a stored detector, found damaged files.*fit it again"
    ):
        load_detector(stored, "toy 1", ())
    (stored / file).unlink()
    with pytest.raises(ModelError, match=f"{file}: expected a stored detector"):
        load_detector(stored, "toy 1", ())


def test_other_kind_or_lacking_key_is_refused(stored):
    with pytest.raises(ModelError, match="expected a stored 'toy 2', found 'toy 1'"):
        load_detector(stored, "toy 2", ())
    with pytest.raises(
        ModelError, match="expected mean in the stored detector, found none of that name"
    ):
        load_detector(stored, "toy 1", ("bank", "mean"))
    (stored / "settings.json").write_text(json.dumps([1]))
    with pytest.raises(ModelError, match="found 'None'"):
        load_detector(stored, "toy 1", ())


def test_a_place_that_cannot_be_written_is_a_named_error(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(ResourceError, match="No space left"):
        save_detector(tmp_path / "d", "toy 1", {}, {})
    assert list((tmp_path / "d").iterdir()) == []


def test_memory_that_is_not_there_is_refused_with_numbers():
    require_memory(1000, "cpu", "a job", "shrink it")
    with pytest.raises(
        ResourceError, match="a job: expected 9000000.00 GB .* on cpu, found .*; shrink it"
    ):
        require_memory(9 * 10**15, "cpu", "a job", "shrink it")


def test_a_container_s_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    host = available_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert available_memory() > 0.5 * host
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_memory() == 500  # the page cache can be given back
