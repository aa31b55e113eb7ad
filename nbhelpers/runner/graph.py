"""The study as a graph of notebook runs: which notebook, for which category and domain, after which
others.

Make's rule decides what is run again: a job's file below ``outputs/<profile>/run/jobs`` holds all
that its result depends on (the notebook's source, the code, the settings, the listing of the data)
and is rewritten only when that changes. An executed notebook older than its job file, or than one
before it, is stale.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbhelpers.errors import ConfigError
from nbhelpers.files import read_json, write_json
from nbhelpers.runtime import ROOT


@dataclass(frozen=True)
class Notebook:
    """One row of the study's table of notebooks.

    Attributes:
        stem: Name of its files in ``notebooks/``, without the ending.
        after: Numbers of the notebooks that it comes after.
        per: Axes that it is run once per value for; their names are the notebook's parameters.
        needs: Methods and scenarios without which it has nothing to show.
        groups: Names by which it can be chosen together with others.
    """

    stem: str
    after: tuple[str, ...] = ()
    per: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """The two digits that its name begins with."""
        return self.stem.split("_")[0]


FITTED = ("04", "05", "06")
SHIFT_PATH = ("clean", "no_adaptation", "threshold_only", "full_adaptation")
DATA, TRAIN, EVALUATE, THRESHOLDS, REPORT = "data", "train", "evaluate", "thresholds", "report"
#: Groups of notebooks, as ``--only`` takes them.
GROUPS = (DATA, TRAIN, EVALUATE, THRESHOLDS, REPORT)

# A later notebook is one more row. A run comes after those runs of the notebooks in `after` that
# share its values on the axes both have: 04 for hazelnut comes after 03 for hazelnut, 07 after
# every 04. From 07 on each asks for what it needs by name, so those can run side by side: what two
# of them need is computed once.
NOTEBOOKS = (
    Notebook("01_data_exploration", groups=(DATA,)),
    Notebook("02_data_preparation", groups=(DATA,)),
    Notebook("03_domain_shift_generation", after=("02",), per=("category",), groups=(DATA,)),
    Notebook(
        "04_patchcore",
        after=("03",),
        per=("category", "domain"),
        needs=("patchcore",),
        groups=(TRAIN,),
    ),
    Notebook(
        "05_padim", after=("03",), per=("category", "domain"), needs=("padim",), groups=(TRAIN,)
    ),
    Notebook("06_autoencoder", after=("04", "05"), per=("architecture",), groups=(TRAIN,)),
    Notebook("07_evaluation_clean", after=FITTED, needs=("clean",), groups=(EVALUATE,)),
    Notebook(
        "08_evaluation_shift_no_adaptation",
        after=FITTED,
        needs=("clean", "no_adaptation"),
        groups=(EVALUATE,),
    ),
    Notebook(
        "09_evaluation_shift_threshold_only",
        after=FITTED,
        needs=SHIFT_PATH[:3],
        groups=(EVALUATE, THRESHOLDS),
    ),
    Notebook("10_full_adaptation", after=FITTED, needs=SHIFT_PATH, groups=(EVALUATE,)),
    Notebook(
        "11_global_model",
        after=FITTED,
        needs=("clean", "global", "global_one_threshold"),
        groups=(EVALUATE,),
    ),
    Notebook("12_error_analysis", after=FITTED, needs=("threshold_only",), groups=(EVALUATE,)),
    Notebook("16_results_visualization", after=("07", "08", "09", "10", "11"), groups=(REPORT,)),
)


def needed(methods: Iterable[str], scenarios: Iterable[str]) -> list[Notebook]:
    """List the notebooks that have something to show with these methods and scenarios, in reading
    order.
    """
    available = {*methods, *scenarios}
    return [row for row in NOTEBOOKS if available.issuperset(row.needs)]


@dataclass(frozen=True)
class Job:
    """One run of one notebook.

    Attributes:
        name: The notebook's stem and the values of its axes, joined by two underscores.
        source: The notebook's ``.py``, relative to the project's root.
        parameters: What the notebook is given.
        inputs: A digest of each thing that its result depends on, by the thing's name.
        after: Names of the jobs that it comes after.
        groups: Names by which it can be chosen together with others.
    """

    name: str
    source: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    after: tuple[str, ...]
    groups: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """The number of its notebook."""
        return self.name.split("_")[0]

    @property
    def title(self) -> str:
        """The name as it is printed."""
        return self.name.replace("__", " ")

    def description(self) -> dict[str, Any]:
        """Give the content of the job file."""
        keys = ("name", "source", "parameters", "inputs")
        return {key: getattr(self, key) for key in keys}


def _file_name(name: str) -> str:
    """The name of a job in names of files: without braces, which Snakemake reads as wildcards."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are, below one profile's output folder."""

    output: Path

    @property
    def run(self) -> Path:
        """Job files, logs, the graph and the lock."""
        return self.output / "run"

    @property
    def graph(self) -> Path:
        """The graph that Snakemake reads."""
        return self.run / "graph.json"

    @property
    def workplace(self) -> Path:
        """The current folder of Snakemake and of its jobs."""
        return self.run / "snakemake"

    def job(self, name: str) -> Path:
        """Everything that the result of a job depends on."""
        return self.run / "jobs" / f"{_file_name(name)}.json"

    def log(self, name: str) -> Path:
        """What the cells of a job printed, and its error."""
        return self.run / "logs" / f"{_file_name(name)}.log"

    def executed(self, name: str) -> Path:
        """The executed notebook of a job that is done."""
        return self.output / "executed" / f"{_file_name(name)}.ipynb"

    def running(self, name: str) -> Path:
        """The notebook of a job that is running."""
        return self.output / "executed" / f"{_file_name(name)}.running.ipynb"

    def failed(self, name: str) -> Path:
        """The notebook of a job that failed, with the error in it."""
        return self.output / "executed" / f"{_file_name(name)}.failed.ipynb"


def digest(parts: Iterable[str | bytes]) -> str:
    """Give sixteen hex digits of the SHA-256 over ``parts``, each preceded by its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode() + data)
    return total.hexdigest()[:16]


def code_digest(package: Path = ROOT / "nbhelpers") -> str:
    """Give a digest of the names and bytes of all Python files and templates of ``package``."""
    files = sorted(path for kind in ("*.py", "*.html") for path in package.rglob(kind))
    parts: list[str | bytes] = []
    for path in files:
        parts += [path.relative_to(package).as_posix(), path.read_bytes()]
    return digest(parts)


def listing_digest(folder: Path, files: Iterable[Path]) -> str:
    """Give a digest of path, size and modification time of files below ``folder``; none is opened.

    A link stands for the file that it leads to; a link that leads nowhere stands for itself.
    """
    rows = []
    for path in files:
        stat = path.stat() if path.exists() else path.lstat()
        rows.append(f"{path.relative_to(folder).as_posix()}|{stat.st_size}|{stat.st_mtime_ns}")
    return digest(sorted(rows))


def build_jobs(
    axes: Mapping[str, Sequence[str]],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    data: Mapping[str, str],
    table: Sequence[Notebook] = NOTEBOOKS,
    notebooks: Path = ROOT / "notebooks",
) -> list[Job]:
    """Build all runs of ``table``, each after the runs that it depends on.

    Args:
        axes: The values of each axis, e.g. ``{"category": [...], "domain": [...]}``.
        parameters: What every notebook is given (profile, overrides).
        inputs: Digests of what every notebook depends on (code, config).
        data: Digest of each category's files; a run for one category depends on that category's
            alone.
        table: The notebooks in reading order.
        notebooks: The folder that holds their ``.py``.

    Raises:
        ConfigError: A notebook has no ``.py``, or two runs have one name.
    """
    jobs: list[Job] = []
    runs: dict[str, tuple[str, dict[str, str]]] = {}  # job: its notebook's number, its axis values
    for row in table:
        path = notebooks / f"{row.stem}.py"
        if not path.is_file():
            raise ConfigError(
                f"{path}: expected the file that the table in nbhelpers/runner/graph.py names, "
                "found none; add it or take its row out"
            )
        source = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        for combination in itertools.product(*(axes[axis] for axis in row.per)):
            values = dict(zip(row.per, combination, strict=True))
            name = "__".join((row.stem, *combination))
            if name in runs:
                raise ConfigError(
                    f"expected each {' and '.join(row.per)} once, found two runs called {name}"
                )
            before = tuple(
                other
                for other, (number, others) in runs.items()
                if number in row.after
                and all(values[axis] == others[axis] for axis in values.keys() & others.keys())
            )
            read = [values["category"]] if "category" in values else sorted(data)
            job_inputs = {
                **inputs,
                "notebook": digest([path.read_bytes()]),
                "data": digest(data[category] for category in read),
            }
            jobs.append(Job(name, source, {**parameters, **values}, job_inputs, before, row.groups))
            runs[name] = (row.number, values)
    return jobs


def select(jobs: Sequence[Job], names: Iterable[str]) -> list[Job]:
    """Choose jobs by the numbers or groups of their notebooks.

    Args:
        jobs: All jobs.
        names: Numbers (``04``, also ``4``) and groups (``train``); empty ones are skipped.

    Returns:
        The chosen jobs in their order; all of them if there are no names.

    Raises:
        ConfigError: A name is neither the number nor the group of a job.
    """
    numbers = sorted({job.number for job in jobs})
    groups = [group for group in GROUPS if any(group in job.groups for job in jobs)]
    stripped = [name.strip() for name in names]
    chosen = [name.zfill(2) if name.isdigit() else name for name in stripped if name]
    for name in chosen:
        if name not in (*numbers, *groups):
            raise ConfigError(
                f"--only: expected some of {', '.join([*numbers, *groups])}, found {name}"
            )
    return [
        job for job in jobs if not chosen or job.number in chosen or set(job.groups) & set(chosen)
    ]


def survey(
    jobs: Sequence[Job], folder: RunFolder, force: bool = False
) -> dict[str, tuple[str, str]]:
    """Give the state of each job (done, stale, missing or failed) and the reason, as a run of
    ``jobs`` would see it.
    """
    states: dict[str, tuple[str, str]] = {}
    for job in jobs:
        executed, job_file = folder.executed(job.name), folder.job(job.name)
        if not executed.is_file():
            failed = folder.failed(job.name).is_file()
            states[job.name] = (
                ("failed", f"see {folder.log(job.name)}") if failed else ("missing", "")
            )
            continue
        reasons = ["forced"] if force else _changes(job, job_file)
        made = executed.stat().st_mtime
        if not reasons and job_file.stat().st_mtime > made:
            reasons = ["its inputs changed"]
        for other in job.after:
            before = folder.executed(other)
            to_be_run = other in states and states[other][0] != "done"
            if not reasons and (to_be_run or (before.is_file() and before.stat().st_mtime > made)):
                reasons = [
                    f"{other.replace('__', ' ')} is newer" if not to_be_run else f"after {other}"
                ]
        states[job.name] = ("stale", ", ".join(reasons)) if reasons else ("done", "")
    return states


def _changes(job: Job, job_file: Path) -> list[str]:
    """Say what differs between ``job`` and the job file of its last run."""
    if not job_file.is_file():
        return ["its job file is missing"]
    last = read_json(job_file)
    now = job.description()
    changes = [
        f"{key} changed" for key in now["inputs"] if now["inputs"][key] != last["inputs"].get(key)
    ]
    return changes or ([] if now == last else ["its parameters changed"])


def write_graph(
    jobs: Sequence[Job], folder: RunFolder, command: Sequence[str], force: bool = False
) -> None:
    """Write the job files (only those that changed, unless ``force``) and the graph that Snakemake
    reads.
    """
    chosen = {job.name for job in jobs}
    rules = []

    def seen(path: Path) -> str:
        """Give a path relative to Snakemake's folder, since a folder above may have braces in its name."""
        return os.path.relpath(path, folder.workplace)

    for number, job in enumerate(jobs):
        job_file = folder.job(job.name)
        if force or _changes(job, job_file):
            write_json(job_file, job.description())
        # A notebook that was not chosen is not run, but where it has been run its result counts as
        # an input.
        before = [
            folder.executed(o) for o in job.after if o in chosen or folder.executed(o).is_file()
        ]
        rules.append(
            {
                "rule": f"job{number}_" + "".join(c if c.isalnum() else "_" for c in job.name),
                "job": seen(job_file),
                "command": [*command, str(job_file)],
                "after": [seen(path) for path in before],
                "executed": seen(folder.executed(job.name)),
                "log": seen(folder.log(job.name)),
            }
        )
    write_json(folder.graph, {"jobs": rules})
