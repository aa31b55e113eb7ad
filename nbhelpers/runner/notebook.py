"""Run one notebook of the graph with papermill; the Snakefile calls this with a job file.

Writes ``<name>.running.ipynb`` cell by cell, which becomes ``<name>.ipynb`` on success and
``<name>.failed.ipynb``, with the error in it, otherwise. Prints one JSON line for the runner; the
outputs of the cells go to the standard error, which the Snakefile sends to the job's log.
"""

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

import jupytext
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from nbhelpers.files import cannot_write
from nbhelpers.runner.graph import ROOT, RunFolder
from nbhelpers.runner.processes import RUNNER, end_with


def run_notebook(job_file: Path, cell_timeout: int) -> str:
    """Execute a job and return its error on one line, empty when there was none.

    The ``.py`` is executed, not its ``.ipynb`` twin: an edit counts before the twin is brought up
    to date.
    """
    job = json.loads(job_file.read_text())
    folder, name = RunFolder(job_file.parents[2]), job["name"]
    for old in (folder.executed(name), folder.running(name), folder.failed(name)):
        old.unlink(missing_ok=True)
    running = folder.running(name)
    running.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            jupytext.read(ROOT / job["source"]),
            str(running).replace("{", "{{").replace("}", "}}"),  # papermill formats this text
            parameters=job["parameters"],
            kernel_name="python3",
            cwd=ROOT,
            execution_timeout=cell_timeout,
            start_timeout=120,
            progress_bar=False,
            log_output=True,
        )
    except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        logging.error("%s", error)
        running.replace(folder.failed(name))
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, PapermillExecutionError):  # the error of the cell
            text = f"{error.ename}: {error.evalue}"
        return " ".join(text.split())
    running.replace(folder.executed(name))
    return ""


def main() -> int:
    """Run the command line: a job file and the time that a cell may take.

    Returns:
        The exit code, 1 when the notebook failed.
    """
    parser = argparse.ArgumentParser(description="Run one notebook of the graph.")
    parser.add_argument("job_file", type=Path)
    parser.add_argument("--cell-timeout", type=int, required=True, metavar="SECONDS")
    options = parser.parse_args()
    line = "%(asctime)s %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=line, datefmt="%H:%M:%S")
    if RUNNER in os.environ:
        end_with(int(os.environ[RUNNER]))
    start = time.perf_counter()
    try:
        error = run_notebook(options.job_file, options.cell_timeout)
    except OSError as failure:  # papermill cannot write its copy
        named = cannot_write(Path(failure.filename or options.job_file), failure)
        error = f"{type(named).__name__}: {named}"
    seconds = round(time.perf_counter() - start, 1)
    name = json.loads(options.job_file.read_text())["name"]
    print(json.dumps({"name": name, "seconds": seconds, "error": error}), flush=True)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
