"""Artefacts: computed once, again when the recipe or the file changes, never half-written."""

import errno
import json
import multiprocessing
import os
import signal
import time

import pytest

from nbhelpers.errors import ResourceError
from nbhelpers.files import hash_file, replacing, write_json
from nbhelpers.runtime import provenance
from nbhelpers.study import Artefact


def ask(path, recipe, make, load):
    return Artefact(path, recipe, make, load).get()


def is_current(path, recipe):
    return Artefact(path, recipe, str, str).is_current()


def read_sidecar(path):
    return json.loads(Artefact(path, {}, str, str).sidecar.read_text())


def counted(path, recipe, text="x"):
    """Ask for a text file; returns (content, how often it was made)."""
    made = []

    def make(temporary):
        made.append(temporary)
        temporary.write_text(text)

    return ask(path, recipe, make, lambda p: p.read_text()), len(made)


def test_made_once_then_loaded(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    assert counted(path, {"n": 1}) == ("x", 1)
    before = path.stat().st_mtime_ns
    assert counted(path, {"n": 1}, "other") == ("x", 0)
    assert path.stat().st_mtime_ns == before


def test_made_again_when_recipe_or_bytes_change(tmp_path):
    path = tmp_path / "a.txt"
    counted(path, {"n": 1})
    assert counted(path, {"n": 2}, "y") == ("y", 1)
    path.write_text("damaged")
    assert counted(path, {"n": 2}, "y") == ("y", 1)
    path.unlink()
    assert counted(path, {"n": 2}, "y") == ("y", 1)
    Artefact(path, {}, str, str).sidecar.write_text("{half")
    assert counted(path, {"n": 2}, "y") == ("y", 1)


def test_provenance_lies_beside(tmp_path):
    counted(tmp_path / "a.txt", {"n": 1})
    meta = read_sidecar(tmp_path / "a.txt")
    assert meta["recipe"] == {"n": 1} and meta["content_hash"] == hash_file(tmp_path / "a.txt")
    assert {"created", "git", "packages", "device", "seconds", "peak_memory_mb"} <= set(
        meta["provenance"]
    )


def test_provenance_names_the_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", {"cuda:1": "NVIDIA T4"}.__getitem__)
    assert provenance("cuda:1", 0.0)["device"] == "cuda:1 (NVIDIA T4)"
    assert provenance("cpu", 0.0)["device"] == "cpu"


def test_folders_are_artefacts_too(tmp_path):
    def make(path):
        path.mkdir()
        (path / "one").write_text("1")

    assert ask(tmp_path / "f", {}, make, lambda p: sorted(os.listdir(p))) == ["one"]
    assert is_current(tmp_path / "f", {})
    (tmp_path / "f" / "one").rename(tmp_path / "f" / "two")
    assert not is_current(tmp_path / "f", {})


def test_a_failing_make_leaves_nothing_and_keeps_the_old(tmp_path):
    path = tmp_path / "a.txt"

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        ask(path, {}, fail, str)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


def _make_slowly(path, started):
    def make(temporary):
        temporary.write_text("half")
        started.set()
        time.sleep(60)

    ask(path, {"n": 1}, make, str)


@pytest.mark.parametrize("name", ["a.txt", "a, [b] = *.txt"])
def test_a_killed_make_leaves_no_artefact_and_no_litter_after_the_next(tmp_path, name):
    path = tmp_path / name
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_make_slowly, args=(path, started))
    process.start()
    assert started.wait(20)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not path.exists()
    assert counted(path, {"n": 1}) == ("x", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f".{name}.lock",
        name,
        f"{name}.meta.json",
    ]


def _ask_and_log(path, log):
    def make(temporary):
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        temporary.write_text("x")

    ask(path, {}, make, str)


def test_two_processes_compute_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    jobs = [
        context.Process(target=_ask_and_log, args=(tmp_path / "a.txt", tmp_path / "log"))
        for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert (tmp_path / "log").read_text() == "made\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_full_disk_and_missing_permission_are_named(tmp_path, number):
    def make(temporary):
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(ResourceError, match=r"a.txt: cannot be written .*GB free.*--workspace"):
        ask(tmp_path / "a.txt", {}, make, str)
    assert not (tmp_path / "a.txt").exists()


def test_other_system_errors_are_not_renamed(tmp_path):
    def make(temporary):
        raise FileNotFoundError(errno.ENOENT, "a file of the data")

    with pytest.raises(FileNotFoundError):
        ask(tmp_path / "a.txt", {}, make, str)


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 2, "b": 1}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ResourceError, match="No space left"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
