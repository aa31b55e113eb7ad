"""The bootstrap cell finds the project from a clone and from any folder, and fetches it when the
notebook is opened alone.
"""

import os
import subprocess
import sys

import jupytext
import pytest

from nbhelpers.runner.graph import ROOT

pytestmark = pytest.mark.notebooks
FOLDER = "anomaly-shift-study"


def bootstrap() -> str:
    """Source of the cell; it is the same in every notebook (a hygiene test sees to that)."""
    notebook = jupytext.read(ROOT / "notebooks" / "01_data_exploration.py")
    (cell,) = [c for c in notebook.cells if "bootstrap" in c.metadata.get("tags", [])]
    return cell.source


def run(cwd, prelude="", **environment):
    """Run the cell in ``cwd`` as a notebook would; returns the finished process, which prints where
    it landed.
    """
    before, after = (
        f"import sys\ndrive_folder = ''\n{prelude}",
        "print(ROOT, os.getcwd() == str(ROOT), sys.path[0])",
    )
    code = f"{before}\n{bootstrap()}\n{after}"
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("folder", [".", "notebooks", "nbhelpers/data"])
def test_it_finds_the_clone_it_stands_in(folder):
    assert run(ROOT / folder).stdout.split() == [str(ROOT), "True", str(ROOT)]


def test_it_finds_the_clone_from_any_folder_by_its_environment(tmp_path):
    prelude = f"sys.prefix = {str(ROOT / '.venv')!r}"
    assert run(tmp_path, prelude).stdout.split() == [str(ROOT), "True", str(ROOT)]


@pytest.fixture
def published(tmp_path):
    """A repository with the tag that the cell asks for, and one commit after it."""
    source = tmp_path / "published"
    (source / "nbhelpers").mkdir(parents=True)
    (source / "nbhelpers" / "__init__.py").write_text("")
    (source / "requirements-colab.txt").write_text("")

    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=source, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "Release")
    git("tag", "v0.1.0")
    (source / "later.txt").write_text("")
    git("add", ".")
    git("commit", "-qm", "Go on")
    return source


def alone(tmp_path):
    """A notebook by itself: no clone around, and a pip that only writes down what it was asked."""
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "asked"}\n')
    pip.chmod(0o755)
    (tmp_path / "content").mkdir(exist_ok=True)
    return (
        tmp_path / "content",
        f"sys.prefix, sys.executable = {str(tmp_path / 'none' / 'x')!r}, {str(pip)!r}",
    )


def test_alone_it_clones_the_tag_once_and_installs_only_what_colab_lacks(tmp_path, published):
    content, prelude = alone(tmp_path)
    for _ in range(2):  # a restarted kernel must not clone over the clone
        result = run(content, prelude, STUDY_REPO_URL=str(published))
        assert result.stdout.split()[:2] == [str(content / FOLDER), "True"], result.stderr
    assert not (content / FOLDER / "later.txt").exists()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"-m pip install -q -r {content / FOLDER / 'requirements-colab.txt'}"]


def test_a_missing_tag_stops_the_notebook(tmp_path, published):
    subprocess.run(["git", "tag", "-d", "v0.1.0"], cwd=published, check=True, capture_output=True)
    content, prelude = alone(tmp_path)
    result = run(content, prelude, STUDY_REPO_URL=str(published))
    assert result.returncode != 0 and "v0.1.0" in result.stderr
    assert not (content / FOLDER).exists()


def test_colab_installs_leave_its_own_packages_alone():
    names = {
        line.split(">")[0].strip().lower()
        for line in (ROOT / "requirements-colab.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert names and not names & {"torch", "torchvision", "numpy", "pandas", "scipy", "matplotlib"}
    assert all(
        ">=" in line
        for line in (ROOT / "requirements-colab.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
