"""The report of a study on a handful of drawn images: from stored results alone, and none that is
out of date.
"""

import hashlib
import json
import shutil

import pytest
from markupsafe import escape

import generate_report_tables
from nbhelpers.analyses.all import run_scenario
from nbhelpers.errors import DataError
from nbhelpers.models.backbones import Backbone
from nbhelpers.report import build as report_study
from nbhelpers.results.numbers import read_metrics
from nbhelpers.study import open_study

SMALL = {
    "methods": ["patchcore"],
    "autoencoder.architectures": [],
    "scenarios": ["clean", "no_adaptation"],
    "data.categories": ["carpet"],
    "data.image_size": 64,
    "data.synthetic": {"size": 64, "train_good": 10, "test_good": 4, "per_defect": 2},
    "evaluation.bootstrap_draws": 100,
}
LINE = [
    "--set",
    "methods=[patchcore]",
    "--set",
    "autoencoder.architectures=[]",
    "--set",
    "scenarios=[clean, no_adaptation]",
    "--categories",
    "carpet",
    "--set",
    "data.image_size=64",
    "--set",
    "data.synthetic={size: 64, train_good: 10, test_good: 4, per_defect: 2}",
    "--set",
    "evaluation.bootstrap_draws=100",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace in which the two scenarios were run."""
    workspace = tmp_path_factory.mktemp("finished")
    study = open_study("tiny", {**SMALL, "workspace": str(workspace)})
    for scenario in study.config.scenarios:
        run_scenario(study, scenario)
    return workspace


@pytest.fixture
def study(finished, tmp_path):
    """The finished study in a workspace of its own, so that a test can break it."""
    shutil.copytree(
        finished, tmp_path / "own", copy_function=shutil.copy2
    )  # with the times, which the index knows
    return open_study("tiny", {**SMALL, "workspace": str(tmp_path / "own")})


@pytest.fixture
def few(monkeypatch):
    """Two figures of all, and no network: notebook 16 draws the others."""
    every = report_study._figures
    names = {"scenario_lines", "best_and_worst_no_adaptation_carpet"}
    monkeypatch.setattr(
        report_study,
        "_figures",
        lambda *args: (spec for spec in every(*args) if spec.name in names),
    )
    monkeypatch.setattr(Backbone, "forward", lambda *_: pytest.fail("a network was run"))
    return names


def hashes(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and not p.name.endswith((".lock", ".meta.json"))
    }


def test_report_from_stored_results_repeats_itself(study, few):
    path = report_study.write_report(study, "2026-01-31")
    made = hashes(path.parent)
    figures = {f"figures/{name}.{kind}" for name in few for kind in ("png", "pdf")}
    assert {
        "report.html",
        "tables/results.csv",
        "tables/macro.md",
        "tables/ranking.tex",
        *figures,
    } <= made.keys()
    drawn = (path.parent / "figures" / "scenario_lines.png").stat().st_mtime_ns
    report_study.write_report(study, "2026-01-31")
    assert hashes(path.parent) == made
    assert (
        path.parent / "figures" / "scenario_lines.png"
    ).stat().st_mtime_ns == drawn  # nothing changed
    shutil.rmtree(path.parent)
    report_study.write_report(study, "2026-01-31")
    assert hashes(path.parent) == made  # drawn again, the same bytes
    stored = read_metrics(study.config.output_dir / "results" / "metrics.csv")
    chosen = stored[
        (stored.scenario == "no_adaptation") & stored.macro & (stored.metric == "image_auroc")
    ]
    row = ["no_adaptation", "", "patchcore", "", "", True, 42, "image_auroc", "", ""]
    span = f'data-row="{escape(json.dumps(row))}" data-field="value"'
    assert f"{span}>{chosen.value.item():.3f}<" in path.read_text()


def test_every_figure_has_a_name_of_its_own_and_words(study):
    figures = list(report_study._figures(study, report_study.stored_results(study)))
    names = [spec.name for spec in figures]
    assert len(set(names)) == len(names)
    assert {"heatmap_image_auroc", "scatter", "roc_pr_clean"} <= set(names)
    assert all(spec.caption.endswith(".") and spec.alt.endswith(".") for spec in figures)


def test_missing_results_are_named(study):
    path = study.config.output_dir / "results" / "shifted_no_adaptation_results.json"
    path.unlink()
    with pytest.raises(
        DataError, match=rf"{path.name}: .*'no_adaptation', found no such file; run make study"
    ):
        report_study.write_report(study)
    assert not report_study.report_folder(study).exists()


def test_missing_and_changed_predictions_are_named(study):
    path = study.predicted(
        "patchcore", "carpet", fitted_on="clean", domain="shift", split="test"
    ).path
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(
        DataError,
        match=r"shift_test.npz: .*patchcore on carpet, found them out of date .not made yet.; run make study",
    ):
        report_study.stored_results(study)
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"shift_test.npz: .*out of date .its file was changed"):
        report_study.stored_results(study)


def test_results_of_other_settings_are_refused(study):
    other = open_study(
        "tiny",
        {**SMALL, "workspace": str(study.config.workspace_dir), "evaluation.confidence": 0.9},
    )
    with pytest.raises(
        DataError, match="clean_results.json: expected results of the present configuration"
    ):
        report_study.stored_results(other)


def test_rows_that_are_gone_are_refused(study):
    shutil.rmtree(study.config.output_dir / "results" / "rows")
    with pytest.raises(
        DataError, match="metrics.csv: expected current rows of scenario 'clean', found none"
    ):
        report_study.stored_results(study)


def test_complete_evaluates_what_is_missing_and_nothing_else(study, monkeypatch):
    ran = []

    def note(study, scenario):
        ran.append(scenario)
        return run_scenario(study, scenario)

    monkeypatch.setattr(report_study, "run_scenario", note)
    report_study.complete(study)
    assert ran == []
    (study.config.output_dir / "results" / "shifted_no_adaptation_results.json").unlink()
    report_study.complete(study)
    assert ran == ["no_adaptation"]
    report_study.stored_results(study)


def test_command_line_writes_the_report(study, few, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_WORKSPACE", "")  # the command line sets it: put it back afterwards
    assert generate_report_tables.main([*LINE, "--workspace", str(study.config.workspace_dir)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (report_study.report_folder(study) / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "found no such file; run make study"),
        (["--set", "tpyo=1"], "unknown setting 'tpyo'"),
        (["--profile", "nowhere"], "unknown profile"),
    ],
)
def test_command_line_says_in_one_line_what_is_wrong(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("STUDY_WORKSPACE", "")
    assert generate_report_tables.main([*LINE, *arguments, "--workspace", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
