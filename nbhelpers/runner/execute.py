"""Run the jobs of the graph that are not up to date, under Snakemake, and say how each ended."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nbhelpers.files import cannot_write
from nbhelpers.runner import graph
from nbhelpers.runner.graph import ROOT, Job, RunFolder
from nbhelpers.runner.processes import RUNNER, notebook_environment, only_run

ROOM = 1_000_000  # bytes: with less than this left, a notebook cannot have written its copy


def execute(
    jobs: Sequence[Job],
    folder: RunFolder,
    jobs_at_once: int = 1,
    threads: int = 1,
    cell_timeout: int = 3600,
    force: bool = False,
) -> dict[str, str]:
    """Run the jobs that are not up to date.

    Args:
        jobs: The chosen jobs, in an order in which each comes after those that it needs.
        folder: Where the executed notebooks, logs and job files go.
        jobs_at_once: Notebooks that run at the same time.
        threads: CPU threads of each; the same for any ``jobs_at_once``, since sums depend on it.
        cell_timeout: Seconds that a cell may take.
        force: Run all of them.

    Returns:
        The error, on one line, of each job that failed or was not run, by the job's name.

    Raises:
        ResourceError: Another run is at work in the folder, or nothing can be written there.
    """
    try:
        folder.run.mkdir(parents=True, exist_ok=True)
        with only_run(folder.run):
            states = graph.survey(jobs, folder, force)
            todo = [job for job in jobs if states[job.name][0] != "done"]
            done = len(jobs) - len(todo)
            print(f"{len(jobs)} notebooks: {done} up to date, {len(todo)} to run", flush=True)
            if not todo:
                return {}
            command = [
                sys.executable,
                "-m",
                "nbhelpers.runner.notebook",
                "--cell-timeout",
                str(cell_timeout),
            ]
            for job in todo:
                folder.log(job.name).unlink(missing_ok=True)
            graph.write_graph(jobs, folder, command, force)
            errors = _hand_to_snakemake(todo, folder, jobs_at_once, threads)
            late = graph.survey(jobs, folder)
            return _account([job for job in todo if late[job.name][0] != "done"], folder, errors)
    except OSError as error:
        raise cannot_write(Path(error.filename or folder.run), error) from error


def _hand_to_snakemake(
    todo: Sequence[Job], folder: RunFolder, jobs_at_once: int, threads: int
) -> dict[str, str]:
    """Let Snakemake run the written graph, print a line for each notebook that ends, and return
    the errors of those that failed.
    """
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(Path(__file__).with_name("Snakefile")),
        "--configfile", str(folder.graph), "--directory", str(folder.workplace),
        "--cores", str(jobs_at_once), "--scheduler", "greedy", "--keep-going", "--nolock",
        # Times of files decide, as in graph.survey. An executed notebook is never incomplete: it
        # gets its name last.
        "--rerun-triggers", "mtime", "--drop-metadata", "--ignore-incomplete",
    ]  # fmt: skip
    environment = {
        **notebook_environment(threads),
        RUNNER: str(os.getpid()),
        "PYTHONPATH": str(ROOT),
    }
    errors: dict[str, str] = {}
    ended = 0
    folder.workplace.mkdir(exist_ok=True)
    with (folder.run / "snakemake.log").open("w") as log:
        runner = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert runner.stdout is not None  # a pipe was asked for
        for line in runner.stdout:
            if not line.startswith('{"name"'):  # Snakemake's own words
                log.write(line)
                continue
            ended, result = ended + 1, json.loads(line)
            if result["error"]:
                errors[result["name"]] = result["error"]
            mark = "  FAILED" if result["error"] else ""
            print(
                f"[{ended}/{len(todo)}] {result['name'].replace('__', ' ')}  {result['seconds']} s{mark}",
                flush=True,
            )
        runner.wait()
    return errors


def _account(late: Sequence[Job], folder: RunFolder, errors: dict[str, str]) -> dict[str, str]:
    """Give, for each job that is still not up to date, its error or what is known about it."""
    reasons: dict[str, str] = {}
    for job in late:
        needed = [other for other in job.after if other in reasons]
        log = folder.log(job.name)
        if job.name in errors:
            reasons[job.name] = errors[job.name]
        elif needed:
            reasons[job.name] = f"not run: it needs {needed[0]}"
        elif not log.is_file():
            reasons[job.name] = f"was not started; see {folder.run / 'snakemake.log'}"
        else:
            lines = [
                line.strip()
                for line in log.read_text(errors="replace").splitlines()
                if line.strip()
            ]
            last_line = (lines or ["its log is empty"])[-1]
            reasons[job.name] = f"ended without an error (killed? out of memory?): {last_line}"
            if shutil.disk_usage(folder.run).free < ROOM:
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                reasons[job.name] = (
                    f"ResourceError: {cannot_write(folder.executed(job.name), full)}"
                )
            if folder.running(job.name).is_file():
                folder.running(job.name).replace(folder.failed(job.name))
    return reasons
