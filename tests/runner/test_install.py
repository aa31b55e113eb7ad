"""The set-up: what the lock holds, which builds of PyTorch are chosen, what uv is told."""

import re
import subprocess
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

import install_requirements as setup

LOCK = """absl-py==2.5.1 \\
    --hash=sha256:11
nvidia-cublas==13.1 ; sys_platform == 'linux' \\
    --hash=sha256:22 \\
    --hash=sha256:33
torch==2.1 \\
    --hash=sha256:44
torchmetrics==1.9.0 \\
    --hash=sha256:55
triton==3.8 ; sys_platform == 'linux' \\
    --hash=sha256:66
zipp==4.1 \\
    --hash=sha256:77
"""


def test_without_torch_the_rest_of_a_lock_keeps_its_hashes():
    lines = setup.releases(LOCK, setup.needs_no_gpu).splitlines()
    assert [line.split("==")[0] for line in lines[::2]] == ["absl-py", "torchmetrics", "zipp"]
    assert [line[-2:] for line in lines[1::2]] == ["11", "55", "77"]


def test_the_lock_has_a_hash_for_every_release_and_names_no_address():
    text = setup.LOCK.read_text()
    releases = re.split(r"\n(?=[A-Za-z0-9])", text.partition("\n#    make lock\n")[2])
    assert len(releases) > 200
    assert [r.split()[0] for r in releases if "--hash=sha256:" not in r] == []
    assert "://" not in text and "index" not in re.sub(r"^[\w.-]+==.*", "", text, flags=re.M)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_lock_has_the_pinned_release_of_each_package_once(version, system):
    environment = {
        **default_environment(),
        "python_version": version,
        "python_full_version": f"{version}.1",
        "sys_platform": system,
        "platform_system": system.capitalize(),
    }

    def releases(path):
        """Give name and version of what is installed with that Python on that system."""
        lines = re.findall(r"^[A-Za-z0-9].*", path.read_text(), flags=re.MULTILINE)
        needs = [Requirement(re.split(r" \\|  #", line)[0]) for line in lines]
        chosen = [r for r in needs if r.marker is None or r.marker.evaluate(environment)]
        assert len({r.name for r in chosen}) == len(chosen), "a package has two releases"
        return {r.name: str(r.specifier) for r in chosen}

    pins, locked = releases(setup.PINS), releases(setup.LOCK)
    assert len(pins) > 40 and pins.items() <= locked.items(), "run make lock"


def test_a_pin_that_is_missing_is_named():
    assert re.fullmatch(r"\d+\.\d+\.\d+", setup.pinned("uv"))
    with pytest.raises(SystemExit, match="expected one line nothing==..., found 0"):
        setup.pinned("nothing")


@pytest.mark.parametrize(
    ("choice", "system", "gpu", "reachable", "builds"),
    [
        ("auto", "Linux", False, True, "cpu"),
        ("auto", "Linux", False, False, "cuda"),
        ("auto", "Linux", True, True, "cuda"),
        ("auto", "Darwin", False, True, "cuda"),
        ("cuda", "Linux", False, True, "cuda"),
        ("cpu", "Linux", True, True, "cpu"),
    ],
)
def test_builds_without_gpu_libraries_are_taken_where_they_can_be(
    monkeypatch, capsys, choice, system, gpu, reachable, builds
):
    monkeypatch.setattr(setup.platform, "system", lambda: system)
    monkeypatch.setattr(setup, "has_gpu", lambda: gpu)
    monkeypatch.setattr(setup, "cpu_builds_reachable", lambda: reachable)
    assert setup.choose_builds(choice) == builds
    lines = capsys.readouterr().out.splitlines()
    fallback = (choice, system, gpu, reachable) == ("auto", "Linux", False, False)
    assert len(lines) == (1 if builds == "cpu" or fallback else 0)


def test_builds_that_were_named_are_not_replaced_by_others(monkeypatch):
    monkeypatch.setattr(setup.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup, "cpu_builds_reachable", lambda: False)
    with pytest.raises(SystemExit, match="TORCH=cpu: expected torch .*use TORCH=auto"):
        setup.choose_builds("cpu")


def test_an_index_that_does_not_answer_is_given_up_in_time(monkeypatch):
    def silent(*_, timeout, **__):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(setup.subprocess, "run", silent)
    assert not setup.cpu_builds_reachable()


def test_an_index_without_the_pinned_version_counts_as_not_reachable(monkeypatch):
    pages = iter(["torch-0.1%2Bcpu-cp311.whl", f"torch-{setup.pinned('torch')}%2Bcpu-cp311.whl"])
    monkeypatch.setattr(
        setup.subprocess,
        "run",
        lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=next(pages)),
    )
    assert [setup.cpu_builds_reachable() for _ in range(2)] == [False, True]


def test_uv_is_told_pip_s_registry_unless_it_has_one(monkeypatch):
    settings = {"index-url": "https://packages.example.org", "cert": ""}
    monkeypatch.setattr(setup, "pip_setting", settings.get)
    assert setup.uv_environment({"HOME": "x"}) == {
        "UV_DEFAULT_INDEX": "https://packages.example.org",
        "HOME": "x",
    }
    assert setup.uv_environment({"UV_DEFAULT_INDEX": "y"}) == {"UV_DEFAULT_INDEX": "y"}


@pytest.mark.parametrize("builds", ["cuda", "cpu"])
def test_what_is_installed_with_which_hashes(monkeypatch, builds):
    calls = []

    def run(command, environment=None):
        lock = [word for word in command if str(word).endswith(".lock")]
        calls.append((command[1:], [Path(name).read_text() for name in lock]))
        return True

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "installer", lambda folder: (["uv"], None))
    setup.install(builds)
    *first, (locked, [text]), (clone, _) = calls
    assert clone == ["--no-deps", "--no-build-isolation", "--editable", "."]
    assert "--require-hashes" in locked
    if builds == "cuda":
        assert first == [] and text == setup.LOCK.read_text()
    else:
        ((torch, _),) = first
        assert f"torch=={setup.pinned('torch')}" in torch and setup.CPU_INDEX in torch
        assert "nvidia" not in text and "\ntorch==" not in text and "\ntimm==" in text


def test_a_package_that_cannot_be_installed_ends_the_set_up(monkeypatch):
    monkeypatch.setattr(setup, "run", lambda *_: False)
    monkeypatch.setattr(setup, "installer", lambda folder: (["uv"], None))
    with pytest.raises(SystemExit, match="could not install"):
        setup.install("cuda")


@pytest.mark.parametrize("available", [True, False])
def test_uv_is_installed_by_its_hash_and_where_it_cannot_be_pip_installs(
    monkeypatch, capsys, tmp_path, available
):
    monkeypatch.setattr(setup, "run", lambda *_: available)
    command, _ = setup.installer(tmp_path)
    version, *hashes = (tmp_path / "uv.lock").read_text().splitlines()
    assert version.startswith(f"uv=={setup.pinned('uv')} ") and len(hashes) > 1
    assert command[1:4] == (["-m", "uv", "pip"] if available else ["-m", "pip", "install"])
    assert capsys.readouterr().out.startswith("" if available else "uv cannot be installed")
