"""No stored number survives its code: what a changed constant makes again in a study, and what it
leaves alone.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from nbhelpers.config import WORKSPACE_VARIABLE
from nbhelpers.runtime import ROOT

SMALL = {
    "methods": ["patchcore", "padim"],
    "autoencoder.architectures": [],
    "scenarios": ["clean", "no_adaptation"],
    "data.categories": ["carpet"],
    "data.image_size": 64,
    "data.synthetic": {"size": 64, "train_good": 10, "test_good": 4, "per_defect": 2},
    "evaluation.bootstrap_draws": 100,
    "evaluation.conformal_folds": 2,
    "padim.n_features": 10,
    "padim.seeds": [42],
}
#: File below ``nbhelpers``, the text that is changed, and what it is changed to.
CHANGES = {
    "evaluation/metrics.py": ('"aupro_005": 0.05', '"aupro_005": 0.1'),
    "models/patchcore/neighbours.py": ("GROUP = 32", "GROUP = 16"),
    "figures/style.py": ("DPI = 150", "DPI = 100"),
}
KINDS = (
    "shifted twins",
    "PatchCore: detector, predictions, refits",
    "PaDiM: detector, predictions, refits",
    "defects (their properties)",
    "cells of PatchCore",
    "cells of PaDiM",
    "rows of the table",
    "figures",
)


def kind(path):
    """What sort of artefact this is."""
    folder, method = Path(path).parent.name, "PatchCore" if "patchcore" in path else "PaDiM"
    if "/shifted/" in path:
        return "shifted twins"
    if "/models/" in path or "/predictions/" in path:
        return f"{method}: detector, predictions, refits"
    if folder == "evaluations":
        return f"cells of {method}"
    return {
        "errors": "defects (their properties)",
        "rows": "rows of the table",
        "report": "figures",
    }[folder]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What was made at first, by the same code again, and after each change on top of the others."""
    folder = tmp_path_factory.mktemp("copies")
    copies = [folder / name for name in ("first", "again", *map(str, range(len(CHANGES))))]
    for copy in copies:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "nbhelpers", copy / "nbhelpers", ignore=ignore)
        shutil.copytree(ROOT / "configs", copy / "configs")
    for number, (file, (old, new)) in enumerate(CHANGES.items()):
        for copy in copies[2 + number :]:
            path = copy / "nbhelpers" / file
            text = path.read_text()
            assert text.count(old) == 1
            path.write_text(text.replace(old, new))
    command = [sys.executable, str(Path(__file__).with_name("run_copies.py"))]
    arguments = [str(folder / "workspace"), json.dumps(SMALL), *map(str, copies)]
    environment = {k: v for k, v in os.environ.items() if k != WORKSPACE_VARIABLE}
    done = subprocess.run(command + arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    print(report(lines))
    return dict(zip(("first", "again", *CHANGES), lines, strict=True))


def counts(run):
    return Counter(kind(path) for path in run["made"])


def report(lines):
    """A table of what each change made again, in numbers of artefacts."""
    first, again, *changed = map(counts, lines)
    rows = [["artefacts", "made at first", "same code again", *CHANGES]]
    for name in KINDS:
        rows.append(
            [
                name,
                first[name],
                again[name],
                *(f"{c[name]} again, {first[name] - c[name]} kept" for c in changed),
            ]
        )
    return "\n".join(" | ".join(map(str, row)) for row in rows)


@pytest.mark.slow
def test_the_same_code_makes_nothing_again(runs):
    assert set(counts(runs["first"])) == set(KINDS) and runs["again"]["made"] == []


@pytest.mark.slow
def test_a_metric_s_constant_makes_numbers_again_and_fits_nothing(runs):
    first, made = counts(runs["first"]), counts(runs["evaluation/metrics.py"])
    kept = {name for name in KINDS if not made[name]}
    assert kept == {*KINDS[:4]}
    assert {name: made[name] for name in KINDS[4:]} == {name: first[name] for name in KINDS[4:]}


@pytest.mark.slow
def test_no_stored_number_survives_a_metric_s_constant(runs):
    before, after = (runs[name]["shown"] for name in ("again", "evaluation/metrics.py"))
    assert before["table"] != after["table"]
    for shown in (before, after):
        assert shown["view"] == pytest.approx(shown["table"], abs=1e-5)


@pytest.mark.slow
def test_patchcore_s_constant_makes_patchcore_again_and_keeps_padim(runs):
    first, run = counts(runs["first"]), runs["models/patchcore/neighbours.py"]
    made = counts(run)
    assert {name for name in KINDS if made[name]} == {KINDS[1], KINDS[4], KINDS[6], KINDS[7]}
    assert made[KINDS[1]] == first[KINDS[1]] and made[KINDS[4]] == first[KINDS[4]]
    assert not any("padim" in path for path in run["made"])
    # the other number of points that are looked at at once moves no score
    assert run["shown"] == runs["evaluation/metrics.py"]["shown"]


@pytest.mark.slow
def test_a_figure_s_constant_draws_again_and_keeps_all_numbers(runs):
    assert counts(runs["figures/style.py"]) == {"figures": 1}
