"""The whole tiny study, run as a newcomer runs it, in a temporary workspace."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from nbhelpers.config import load_config
from nbhelpers.results.numbers import Results, label, read_metrics
from nbhelpers.results.table import KEYS, MACRO, plain
from nbhelpers.runner.graph import NOTEBOOKS, ROOT
from nbhelpers.scenarios import SCENARIOS

pytestmark = [pytest.mark.notebooks, pytest.mark.slow]
COMMAND = [sys.executable, "-m", "nbhelpers.runner"]
COLUMNS = [
    "scenario",
    "against",
    "method",
    "against_method",
    "category",
    "macro",
    "seed",
    "metric",
    "detail",
    "detail_value",
    "value",
    "ci_low",
    "ci_high",
    "n_images",
]
RATES = ["image_auroc", "pixel_auroc", "aupro", "f1", "specificity"]


def run(workspace: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command of the study, as make does."""
    command = [*COMMAND, name, "--profile", "tiny", "--workspace", str(workspace), *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False
    )


@pytest.fixture(scope="module")
def config():
    return load_config("tiny")


@pytest.fixture(scope="module")
def first(workspace):
    """The run that makes everything, in the workspace that nbval uses after it."""
    return run(workspace, "run", "--jobs", "2")


@pytest.fixture(scope="module")
def output(first, workspace) -> Path:
    return workspace / "outputs" / "tiny"


@pytest.fixture(scope="module")
def metrics(output) -> pd.DataFrame:
    return read_metrics(output / "results" / "metrics.csv")


def test_run_succeeds(first):
    assert first.returncode == 0, first.stdout + first.stderr


@pytest.mark.parametrize("row", NOTEBOOKS, ids=lambda row: row.stem)
def test_notebook_was_executed_for_all_its_values(row, output, config):
    values = {
        "category": config.data.categories,
        "domain": ("clean",),
        "architecture": config.architectures,
    }
    names = [row.stem]
    for axis in row.per:
        names = [f"{name}__{value}" for name in names for value in values[axis]]
    for name in names:
        notebook = nbformat.read(output / "executed" / f"{name}.ipynb", as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), name
        injected = [c.source for c in cells if "injected-parameters" in c.metadata.get("tags", ())]
        assert len(injected) == 1 and all(
            f'"{part}"' in injected[0] for part in name.split("__")[1:]
        )


def test_table_has_every_cell_of_the_study(metrics, config):
    assert list(metrics.columns) == COLUMNS
    assert not metrics.duplicated(list(KEYS)).any()
    levels = plain(metrics)
    for scenario in config.scenarios:
        for method in config.methods:
            for category in config.data.categories:
                cell = levels[
                    (levels.scenario == scenario)
                    & (levels.method == method)
                    & (levels.category == category)
                ]
                assert set(RATES) <= set(cell.metric), (scenario, method, category)


def test_rates_are_rates_and_lie_in_their_intervals(metrics):
    levels = plain(metrics)[plain(metrics).scenario.isin(SCENARIOS)]
    rates = levels[levels.metric.isin(RATES)]
    assert len(rates) and rates.value.between(0, 1).all() and (rates.n_images > 0).all()
    given = rates.dropna(subset=["ci_low"])
    assert len(given) and (given.ci_low <= given.ci_high).all()


def test_what_was_trained_on_is_recognised_and_not_trivially(metrics):
    levels = plain(metrics)[plain(metrics).scenario == "clean"]
    clean = levels[levels.metric == "image_auroc"]
    assert len(clean) and (clean.ci_high > 0.5).all(), "surely worse than chance: labels flipped?"
    untrained = clean[
        ~clean.method.str.startswith("ae_")
    ]  # whose numbers are the same on every processor
    assert len(untrained) and (untrained.value > 0.5).all(), "worse than chance: labels flipped?"
    assert (clean.value < 1.0).any(), "too easy to tell methods apart"


def test_closing_words_sum_the_results_up_and_say_where_the_rest_is(first, output, config):
    results = Results(read_metrics(output / "results" / "metrics.csv"))
    lines = [line for line in first.stdout.splitlines() if line.startswith(tuple(SCENARIOS))]
    assert len(lines) == len(config.scenarios) * len(config.methods)
    for line, scenario, method in zip(
        lines,
        [name for name in results.scenarios for _ in results.methods],
        results.methods * len(results.scenarios),
        strict=True,
    ):
        assert line.split()[0] == scenario and label(method) in line
        for metric in ("image_auroc", "aupro", "balanced_accuracy"):
            assert str(results.find(scenario, method, MACRO, metric)) in line
    for path in ("report/report.html", "results/metrics.csv", "figures", "executed"):
        assert (output / path).exists() and f"outputs/tiny/{path}" in first.stdout
    assert list((output / "figures").rglob("*.png"))


def test_progress_is_one_line_a_notebook(first, output):
    done = re.findall(r"^\[(\d+)/(\d+)\] \S.*  \d+\.\d s$", first.stdout, flags=re.MULTILINE)
    count = len(list((output / "executed").glob("*.ipynb")))
    assert done == [(str(number), str(count)) for number in range(1, count + 1)]


def test_a_second_run_runs_nothing_and_changes_nothing(workspace, output):
    before = {
        path: path.stat().st_mtime_ns
        for path in output.rglob("*")
        if path.is_file() and path.name != "pid"
    }
    again = run(workspace, "run")
    assert again.returncode == 0 and ", 0 to run" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_status_says_that_all_is_done(workspace, output):
    *notebooks, count, artefacts = run(workspace, "status").stdout.splitlines()
    assert {line.split()[-1] for line in notebooks} == {"done"}
    assert count.startswith(f"{len(notebooks)} done in ")
    assert re.fullmatch(r"artefacts: \d{2,} current, 0 out of date", artefacts)


def test_a_changed_setting_would_run_again(workspace, output):
    dry = run(workspace, "run", "--set", "patchcore.coreset_ratio=0.02", "--dry-run")
    assert "settings changed" in dry.stdout and "done" not in dry.stdout.splitlines()[0]
    job = json.loads((output / "run" / "jobs" / "07_evaluation_clean.json").read_text())
    assert job["parameters"]["overrides"] == {}
