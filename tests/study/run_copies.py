"""Runs one small study with several copies of the package, one after the other, in one workspace.

    python run_copies.py WORKSPACE SETTINGS COPY...

Each copy is a folder that holds a (changed) ``nbhelpers`` and ``configs``. It runs in a process of
its own, forked from this one, which has imported the slow libraries but never ``nbhelpers``. After
each copy one JSON line is printed: ``made``, the paths of the artefacts that were made or made
again, and ``shown``, one number as the table and a scenario's JSON view have it.
"""

import json
import multiprocessing
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import anomalib.models  # noqa: F401  (each copy needs these; here they are imported once)
import matplotlib
import timm  # noqa: F401


def stamps(workspace: Path) -> dict[str, int]:
    """When each artefact of the workspace was made."""
    return {
        path.relative_to(workspace).as_posix().removesuffix(".meta.json"): path.stat().st_mtime_ns
        for path in workspace.rglob("*.meta.json")
    }


def run(workspace: Path, settings: dict[str, object], copy: str) -> None:
    """Bring the whole study up to date with one copy of the package; draw one of the figures."""
    sys.path.insert(0, copy)
    matplotlib.use("Agg")
    import nbhelpers
    from nbhelpers.report import build
    from nbhelpers.study import open_study

    assert Path(nbhelpers.__file__).is_relative_to(copy)
    all_figures = build._figures
    build._figures = lambda *arguments: islice(all_figures(*arguments), 1)
    before = stamps(workspace)
    study = open_study("tiny", {**settings, "workspace": str(workspace)})
    build.complete(study)
    build.write_report(study, "2026-01-31")
    made = [path for path, time in stamps(workspace).items() if before.get(path) != time]
    print(json.dumps({"made": sorted(made), "shown": shown(study)}), flush=True)


def shown(study: Any) -> dict[str, float]:
    """The clean AUPRO 0.05 of PaDiM as the table and the scenario's JSON view have it."""
    from nbhelpers.results.numbers import Results, read_metrics

    folder = study.config.output_dir / "results"
    number = Results(read_metrics(folder / "metrics.csv")).find(
        "clean", "padim", "carpet", "aupro_005"
    )
    view = json.loads((folder / "clean_results.json").read_text())["methods"]["padim"]["carpet"]
    return {"table": number.value, "view": view["metrics"]["aupro_005"]["value"]}


if __name__ == "__main__":
    workspace, settings, *copies = sys.argv[1:]
    fork = multiprocessing.get_context("fork")
    for copy in copies:
        process = fork.Process(target=run, args=(Path(workspace), json.loads(settings), copy))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{copy}: exit code {process.exitcode}")
