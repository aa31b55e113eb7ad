"""The command ``study``: its options, its errors, and the summary at the end of a run."""

import os
import subprocess
import sys

import pytest

from nbhelpers.config import load_config
from nbhelpers.errors import ConfigError, DivergenceError, StudyError
from nbhelpers.evaluation.bootstrap import stated
from nbhelpers.files import write_csv
from nbhelpers.results.table import MACRO, as_table, to_rows
from nbhelpers.runner import command_line, commands, graph, plan, summary
from nbhelpers.runner.command_line import add_study_options, exit_code, study_overrides
from nbhelpers.runner.graph import NOTEBOOKS, ROOT, RunFolder

SCRIPTS = {
    "run_experiments": "run",
    "generate_report_tables": "report",
    "generate_all_splits": "splits",
    "search_autoencoder": "search",
    "download_dataset": "download",
}


def overrides(*arguments: str) -> dict:
    """Give the settings that a command line changes."""
    options = commands.build_parser().parse_args(["run", *arguments])
    return study_overrides(options)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_a_help_with_an_example_and_the_same_options(name, capsys):
    with pytest.raises(SystemExit) as leaving:
        commands.main([name, "--help"])
    text = capsys.readouterr().out
    assert leaving.value.code == 0 and f"\n    study {name}" in text
    for option in ("--profile", "--categories", "--set", "--workspace", "--data-root"):
        assert option in text


def test_the_command_line_is_checked_before_anything_slow_is_imported():
    program = "import nbhelpers.runner.commands, sys; print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "matplotlib", "anomalib", "papermill"} & set(process.stdout.split())


def test_no_command_lists_all(capsys):
    with pytest.raises(SystemExit) as leaving:
        commands.main([])
    assert leaving.value.code == 2
    with pytest.raises(SystemExit):
        commands.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in commands.COMMANDS)


@pytest.mark.parametrize(("script", "command"), SCRIPTS.items())
def test_a_script_is_its_command_by_another_name(script, command):
    # as a newcomer runs it, from another folder; make has installed the clone into .venv
    process = subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{script}.py", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"usage: study {command} ")


def test_a_script_without_the_package_says_in_one_line_what_to_do(tmp_path):
    program = (ROOT / "scripts" / "study_command.py").read_text()
    (tmp_path / "study_command.py").write_text(program.replace("nbhelpers", "not_installed"))
    process = subprocess.run(
        [sys.executable, tmp_path / "study_command.py"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "not_installed" in process.stderr and "pip install -e ." in process.stderr


def test_settings_are_read_as_yaml():
    pairs = ["a.b=0.1", "c=[x, y]", "d=true", "e=text"]
    assert command_line.parse_settings(pairs) == {
        "a.b": 0.1,
        "c": ["x", "y"],
        "d": True,
        "e": "text",
    }
    for bad in ("novalue", "=1", "a=[1"):
        with pytest.raises(ConfigError, match="--set"):
            command_line.parse_settings([bad])


def test_categories_are_the_same_by_option_and_by_setting():
    expected = {"data.categories": ["zipper"]}
    assert overrides("--categories", "zipper") == expected
    assert overrides("--set", "categories=[zipper]") == expected
    assert overrides("--set", "data.categories=[zipper]") == expected
    assert load_config("tiny", expected).data.categories == ("zipper",)


@pytest.mark.parametrize(
    ("only", "numbers"),
    [
        ("04, 7", {"04", "07"}),
        ("train", {"04", "05", "06"}),
        ("thresholds", {"09"}),
        ("evaluate,03", {"03", "07", "08", "09", "10", "11", "12"}),
        ("", {row.number for row in NOTEBOOKS}),
    ],
)
def test_notebooks_are_chosen_by_number_and_by_group(only, numbers):
    axes = {"category": ["a"], "domain": ["clean"], "architecture": ["cnn"]}
    jobs = graph.build_jobs(axes, {}, {}, {"a": ""})
    assert {job.number for job in graph.select(jobs, only.split(","))} == numbers


def test_every_notebook_is_in_a_group_and_no_group_is_empty():
    used = {group for row in NOTEBOOKS for group in row.groups}
    assert used == set(graph.GROUPS) and all(row.groups for row in NOTEBOOKS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "patchcore.coreset_rato=0.1"], "patchcore.coreset_ratio"),
        (["--set", "classes=[zipper]"], "classes"),
        (["--set", "seed=1e-5"], "seed"),
        (["--profile", "huge"], "tiny"),
        (["--profile", "folder", "--data-root", "no/such/folder"], "no/such/folder"),
        (["--data-root", "."], "use --profile folder, or --set data.source=folder"),
        (["--only", "99"], "04"),
        (["--only", "training"], "train"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert commands.main(["status", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error


def test_a_number_of_jobs_below_one_is_refused(capsys):
    assert commands.main(["run", "--jobs", "0", "--status"]) == 2
    assert "--jobs: expected 1 or more, found 0" in capsys.readouterr().err


def test_a_data_root_is_not_run_with_the_settings_of_synthetic_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = ["--data-root", "images"]
    expected = {"data.root": str(tmp_path / "images"), "data.source": "folder"}
    for choice in (
        ["--profile", "folder"],
        ["--profile", "mvtec"],
        ["--set", "data.source=folder"],
    ):
        assert overrides(*root, *choice) == expected
    with pytest.raises(ConfigError, match="found profile 'tiny'"):
        overrides(*root)


def test_images_that_are_left_out_are_named_before_a_run(tmp_path, capsys):
    folders = ("train/good", "test/good", "test/hole")
    for name in (*(f"{folder}/0.png" for folder in folders), "test/hole/1.heic"):
        path = tmp_path / "nut" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = load_config("folder", {"data.root": str(tmp_path)})
    assert list(plan.check_inputs(config)) == ["nut"]
    warning = capsys.readouterr().out
    assert warning.startswith("warning: nut/test/hole/1.heic: 1 of a kind that is not read (.heic)")
    assert warning.count("\n") == 1


class NewError(DivergenceError):
    """An error that another package derives from one of the study's."""


@pytest.mark.parametrize("kind", [StudyError, DivergenceError, NewError])
def test_every_named_error_is_one_line_and_exit_code_2(kind, capsys):
    def command():
        raise kind("expected a, found b")

    assert exit_code(command) == 2
    assert capsys.readouterr().err == f"{kind.__name__}: expected a, found b\n"
    # the same for one that stopped a notebook, which the runner knows by its name alone
    assert summary.report_errors({"01_look": f"{kind.__name__}: x"}, RunFolder(ROOT / "no")) == 2


def test_the_synthetic_set_is_drawn_where_it_is_asked_for(tmp_path, capsys):
    arguments = ["download", "--source", "synthetic", "--dry-run", "--data-root", str(tmp_path)]
    assert commands.main([*arguments, "--categories", "zipper"]) == 0
    assert capsys.readouterr().out == f"1. draw zipper to {tmp_path}\n"


def test_outside_its_clone_the_package_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    assert commands.main(["status"]) == 2
    assert "pip install -e ." in capsys.readouterr().err


def test_offline_is_one_preset():
    offline, folder = load_config("mvtec", {"preset": "offline"}), load_config("folder")
    assert load_config("mvtec").backbone != folder.backbone  # what the preset is there for
    for section in ("backbone", "patchcore", "padim", "autoencoder"):
        assert getattr(offline, section) == getattr(folder, section)


@pytest.fixture
def folder(tmp_path):
    """A run's folder with a table of two scenarios, one of which has no pixel metric."""
    (tmp_path / "results").mkdir()
    rows = []
    for scenario, value in (("clean", 0.91234), ("no_adaptation", 0.5)):
        metrics = {"image_auroc": stated(value, 9, 0.25, 1.0)}
        rows += to_rows(scenario, "patchcore", "nut", 0, metrics)
        metrics["balanced_accuracy"] = stated(value / 2, 9)
        if scenario == "clean":
            metrics["aupro"] = stated(0.75, 9, 0.5, 0.875)
        rows += to_rows(scenario, "patchcore", MACRO, 0, metrics)
    rows += to_rows("no_adaptation", "patchcore", MACRO, 0, metrics, against="clean")
    write_csv(tmp_path / "results" / "metrics.csv", as_table(rows))
    return RunFolder(tmp_path)


def test_the_summary_has_a_line_for_each_scenario_and_method(folder):
    title, header, *lines = summary.summarise(folder, 0.95).splitlines()
    assert title == "Macro averages over nut [95% interval]"
    assert header.split("  ")[0] == "scenario" and header.endswith("balanced accuracy")
    assert [line.split() for line in lines] == [
        ["clean", "PatchCore", "0.912", "[0.25,", "1.00]", "0.750", "[0.50,", "0.88]", "0.456"],
        ["no_adaptation", "PatchCore", "0.500", "[0.25,", "1.00]", "-", "0.250"],
    ]
    assert len({line.index("PatchCore") for line in lines}) == 1


def test_the_summary_says_where_the_report_and_all_numbers_are(folder, capsys):
    summary.report_results(folder, 0.95)
    text = capsys.readouterr().out
    assert "metrics.csv" in text and "report.html" not in text
    (folder.output / "report").mkdir()
    (folder.output / "report" / "report.html").touch()
    summary.report_results(folder, 0.95)
    assert str(folder.output / "report" / "report.html") in capsys.readouterr().out


def test_without_an_evaluated_scenario_there_is_no_summary(tmp_path):
    assert summary.summarise(RunFolder(tmp_path), 0.95) == ""
    (tmp_path / "results").mkdir()
    rows = to_rows("data", "-", "nut", 0, {"train_good": stated(9, 9)})
    write_csv(tmp_path / "results" / "metrics.csv", as_table(rows))
    assert summary.summarise(RunFolder(tmp_path), 0.95) == ""


def test_options_are_read_the_same_in_every_command():
    assert add_study_options.__defaults__ == ("tiny",)
    for name in commands.COMMANDS:
        needed = ["--category", "a", "--architecture", "cnn"] if name == "search" else []
        options = commands.build_parser().parse_args([name, *needed, "--set", "a=1"])
        assert study_overrides(options) == {"a": 1}
        assert options.profile == (None if name == "download" else "tiny")
