"""Rules that every file of the repository keeps."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

from nbhelpers.config import load_config, profiles
from nbhelpers.config.sections import GroupRule
from nbhelpers.models.autoencoders.losses import WEIGHTS
from nbhelpers.runner.graph import ROOT

pytestmark = pytest.mark.hygiene
MEGABYTE = 1_000_000
MADE = {".git", ".venv", "data", "outputs", ".pytest_cache", ".ruff_cache"}  # folders of the root
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
# Written so that this file does not match itself.
ABSOLUTE = re.compile(
    r"(?<![\w.~/-])/(?:home|Users|root|work|farm|tmp|mnt|opt)/\w|[A-Z]:\\\\?Users"
)
# A registry's name, or an option that is given an address.
REGISTRY = re.compile(
    "|".join(["pypi" + r"\.", "python" + "hosted", "(?:index-url|find-links)" + r"[\s=,'\"]+\w+:/"])
)
SECRET = re.compile(
    r"BEGIN [A-Z ]*PRIVATE KEY|\b(?:hf_|ghp_|github_pat_)\w{20}|\bAKIA[0-9A-Z]{16}\b"
)

# Numbers of a list that no reader has (F12, P034), unless a linter's rule is meant.
LIST_NUMBER = re.compile(r"(?<!noqa: )\b[FP]\d{2,3}\b")
WRITTEN = {".py", ".md", ".yaml", ".toml", ".txt", ".cfg", ".html", ""}  # by people, for people


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@functools.cache
def files() -> tuple[Path, ...]:
    """All files that are, or would be, in git; in a copy without git, all that are not made or
    installed.
    """
    listed = git("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if path.relative_to(ROOT).parts[0] not in MADE]
        paths = [
            path for path in paths if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
        ]
    return tuple(sorted(path for path in paths if path.is_file()))


def code() -> list[Path]:
    """All Python files but the notebooks', which have rules of their own."""
    return [path for path in files() if path.suffix == ".py" and path.parent != ROOT / "notebooks"]


def texts():
    """Name and content of every text file."""
    for path in files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT).as_posix(), content.decode()


def matches(pattern: re.Pattern) -> list[str]:
    """Give the first match in each text file."""
    return [
        f"{name}: {match[0]}" for name, text in texts() for match in [pattern.search(text)] if match
    ]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_files_to_look_at():
    names = {name(path) for path in files()}
    assert {
        "Makefile",
        "requirements.txt",
        "nbhelpers/methods.py",
        "nbhelpers/data/layout.py",
    } <= names


def test_no_absolute_path():
    assert matches(ABSOLUTE) == []


def test_no_package_registry_is_named():
    assert matches(REGISTRY) == []


def test_a_registry_is_seen_and_the_name_of_an_option_let_pass():
    for text in (
        "--index-url https:" + "//a",
        "find-links = 'file:" + "//b",
        "extra-index-url=http:" + "//c",
    ):
        assert REGISTRY.search(text)
    for text in ('["--index-url", CPU_INDEX]', "pip config get global.index-url"):
        assert not REGISTRY.search(text)


def test_no_secret():
    assert matches(SECRET) == []
    assert not {"kaggle.json", "wandb.json", ".env", ".netrc"} & {path.name for path in files()}


@pytest.mark.parametrize(
    "path", ["/home" + "/ann/x.png", "/work" + "/data", "/tmp" + "/x", "C:" + r"\Users\ann"]
)
def test_an_absolute_path_is_seen_and_a_relative_one_let_pass(path):
    for before in ("", "open('", '"', "path = "):
        assert ABSOLUTE.search(before + path)
    for before in ("data", "https://host.org", "~", "/content"):
        assert not ABSOLUTE.search(before + path.removeprefix("C:").replace("\\", "/"))


def test_sentences_name_no_number_of_a_list_that_is_not_here():
    numbered = [
        match
        for match in matches(LIST_NUMBER)
        if Path(match.partition(":")[0]).suffix in WRITTEN and "test_repository" not in match
    ]
    assert numbered == []


def test_nothing_is_pickled():
    bad = []
    for path in code():
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [getattr(node, "module", None)]
            )
            keyword = isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant)
            unsafe = keyword and (node.arg, node.value.value) in {
                ("allow_pickle", True),
                ("weights_only", False),
            }
            if unsafe or PICKLES & {(module or "").split(".")[0] for module in modules}:
                bad.append(
                    f"{name(path)}:{node.lineno if hasattr(node, 'lineno') else node.value.lineno}"
                )
    assert bad == []


def test_no_file_is_large():
    limits = {path: (3 if path.suffix == ".ipynb" else 1) * MEGABYTE for path in files()}
    assert [name(path) for path, limit in limits.items() if path.stat().st_size > limit] == []


def test_every_module_says_what_it_is_for():
    silent = [name(path) for path in code() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_gitignore_keeps_code_and_drops_what_is_made():
    if git("rev-parse").returncode != 0:
        pytest.skip("no git here")
    kept = ["nbhelpers/data/layout.py", "nbhelpers/data/new.py", "configs/tiny.yaml", "data/README.md",
            "outputs/README.md", "data/processed/mvtec/clean_splits.json", "notebooks/01_look.ipynb"]  # fmt: skip
    dropped = ["data/raw/hazelnut/train/good/000.png", "data/shifted/tiny/moderate/x.png", "kaggle.json",
               "outputs/tiny/results/metrics.csv", "data/processed/tiny/clean_splits.json.meta.json",
               ".venv/bin/python", "nbhelpers/__pycache__/x.pyc", "model.safetensors"]  # fmt: skip
    ignored = git("check-ignore", "--no-index", *kept, *dropped).stdout.split()
    assert sorted(ignored) == sorted(dropped)


def leaves(settings: dict, prefix: str = "") -> list[str]:
    """Dotted names of all settings; the keys of ``splits.groups`` are categories, not settings."""
    out = []
    for key, value in settings.items():
        nested = isinstance(value, dict) and f"{prefix}{key}" != "splits.groups"
        out += leaves(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
    return out


def test_every_setting_is_read_by_code():
    read = set(WEIGHTS)  # the loss reads its weights by these names
    for path in (ROOT / "nbhelpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.arg):  # settings that are handed on as keyword arguments
                read.add(node.arg)
    settings = {
        leaf
        for profile in profiles()
        for leaf in leaves(load_config(profile).model_dump(mode="json"))
    }
    settings |= {f"splits.groups.*.{field}" for field in GroupRule.model_fields}
    assert len(settings) > 30
    assert sorted(leaf for leaf in settings if leaf.split(".")[-1] not in read) == []
