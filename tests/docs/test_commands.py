"""The commands that pages show exist: targets, scripts, options, profiles and settings; none is run."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from nbhelpers.config import load_config, profiles
from nbhelpers.errors import ConfigError
from nbhelpers.runner import benchmark, commands, graph
from nbhelpers.runner.command_line import parse_settings, study_overrides
from tests.docs.pages import ROOT, blocks, name, pages, prose

PAGES = {name(path): path.read_text("utf-8") for path in pages()}
#: What a page may name of make, beside its targets: target to the command that it hands ARGS to.
HANDED_ON = {"study": "run", "status": "status"}
#: Scripts to the command of ``study`` that each is.
SCRIPTS = {
    "run_experiments": "run",
    "generate_all_splits": "splits",
    "generate_report_tables": "report",
    "search_autoencoder": "search",
    "download_dataset": "download",
}


def lines(text: str) -> list[str]:
    """The commands of a page's shell blocks, each on one line, without comments."""
    joined = [
        line
        for block in blocks(text, "bash")
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def check(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail unless everything that a command names exists.

    Raises:
        AssertionError: It names a target, script or file that is not there.
        SystemExit: It names an option that is not there.
        ConfigError: It names a profile or a setting that is not there.
    """
    words = shlex.split(line, comments=True)
    program, rest = words[0], words[1:]
    if program == "make":
        check_make(rest, monkeypatch)
    elif program == ".venv/bin/study":
        check_study(rest, monkeypatch)
    elif program == ".venv/bin/python" and rest[:2] == ["-m", "pytest"]:
        assert all((ROOT / path).exists() for path in rest[2:]), f"no such tests: {line}"
    elif program == ".venv/bin/python":
        script = ROOT / rest[0]
        assert script.is_file(), f"no such script: {rest[0]}"
        if script.stem == "benchmark":
            monkeypatch.setattr(benchmark, "run", lambda options: 0)
            assert benchmark.main(rest[1:]) == 0
        elif script.stem in SCRIPTS:
            check_study([SCRIPTS[script.stem], *rest[1:]], monkeypatch)
        else:
            assert not rest[1:], f"options that no test can check: {line}"
    else:
        raise AssertionError(f"a command that no test can check: {line}")


def check_make(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is one of the Makefile, and what it hands on is understood."""
    targets = [word for word in words if "=" not in word]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for variable in values:
        assert re.search(rf"^{variable} \?=", makefile, re.MULTILINE), f"no variable {variable}"
    dry = ["make", "--dry-run", "--always-make", *targets, *(f"{k}={v}" for k, v in values.items())]
    done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert values.get("PROFILE", "tiny") in {*profiles(), "bottles"}, values["PROFILE"]
    handed = shlex.split(values.get("ARGS", ""))
    for target in targets:
        if target in HANDED_ON:
            profile = values.get("PROFILE", "tiny").replace("bottles", "folder")
            check_study([HANDED_ON[target], "--profile", profile, *handed], monkeypatch)
        elif target == "sync":
            assert all((ROOT / path).is_file() for path in handed), handed
        else:
            assert not handed, f"make {target} with options that no test can check: {handed}"


def check_study(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, its options, the profile and the settings exist."""
    monkeypatch.delenv("STUDY_WORKSPACE", raising=False)
    options = commands.build_parser().parse_args(words)
    overrides = study_overrides(options)
    load_config(options.profile or "mvtec", overrides)
    numbers = {row.number for row in graph.NOTEBOOKS}
    for number in getattr(options, "only", "").split(","):
        assert not number.isdigit() or number in numbers, f"no notebook {number}"


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if lines(text)])
def test_the_commands_of_a_page_exist(page, monkeypatch):
    for line in lines(PAGES[page]):
        try:
            check(line, monkeypatch)
        except (SystemExit, ConfigError) as error:
            raise AssertionError(f"{page}: {line}\n{error}") from error


def test_commands_are_found():
    assert "make study PROFILE=folder ARGS='--data-root my_images'" in lines(PAGES["README.md"])
    assert len([page for page, text in PAGES.items() if lines(text)]) >= 5


@pytest.mark.parametrize(
    "line",
    [
        "make no_such_target",
        "make study NO_SUCH=1",
        "make study PROFILE=no_such_profile",
        "make study ARGS='--no-such-option'",
        "make study ARGS='--set data.no_such_setting=1'",
        "make study ARGS='--set preset=no_such_preset'",
        "make study ARGS='--only 99'",
        ".venv/bin/study no_such_command",
        ".venv/bin/study report --no-such-option",
        ".venv/bin/python scripts/no_such_script.py",
        ".venv/bin/python scripts/benchmark.py no_such_comparison",
        "no_such_program --version",
    ],
)
def test_a_command_that_does_not_exist_is_found(line, monkeypatch):
    with pytest.raises((AssertionError, SystemExit, ConfigError)):
        check(line, monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_sentence_names_exists(page, monkeypatch):
    """Targets, commands and settings in backticks within a sentence."""
    codes = re.findall(r"`([^`\n]+)`", prose(PAGES[page]))
    for code in codes:
        if code.startswith("make "):
            check(code, monkeypatch)
        elif code.startswith("--set ") and "key=value" not in code:
            pairs = shlex.split(code.replace("--set ", " "))
            load_config("folder", parse_settings(pairs))
        elif code.startswith(("study ", ".venv/bin/study ")):
            word = code.split()[1]
            assert word in commands.COMMANDS or word == "--help", code
