"""The study as a graph of notebook runs: which notebook, for which category and domain, after which
others.

Make's rule decides what is run again: a job's file below ``outputs/<profile>/run/jobs`` holds all
that its result depends on (the notebook's source, the code, the settings, the listing of the data)
and is rewritten only when that changes. An executed notebook older than its job file, or than one
before it, is stale.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbhelpers.errors import ConfigError
from nbhelpers.runtime import ROOT


@dataclass(frozen=True)
class Notebook:
    """One row of the study: a notebook, the numbers of those it comes after, and what it is run
    once for.
    """

    stem: str
    after: tuple[str, ...] = ()
    per: tuple[str, ...] = ()  # axes; their names are the notebook's parameters
    needs: tuple[str, ...] = ()  # methods and scenarios without which it has nothing to tell

    @property
    def number(self) -> str:
        return self.stem.split("_")[0]


FITTED = ("04", "05", "06")
SHIFT_PATH = ("clean", "no_adaptation", "threshold_only", "full_adaptation")

# A later notebook is one more row. A run comes after those runs of the notebooks in `after` that
# share its values on the axes both have: 04 for hazelnut comes after 03 for hazelnut, 07 after
# every 04. From 07 on each asks for what it needs by name, so those can run side by side: what two
# of them want is computed once.
NOTEBOOKS = (
    Notebook("01_data_exploration"),
    Notebook("02_data_preparation"),
    Notebook("03_domain_shift_generation", after=("02",), per=("category",)),
    Notebook("04_patchcore", after=("03",), per=("category", "domain"), needs=("patchcore",)),
    Notebook("05_padim", after=("03",), per=("category", "domain"), needs=("padim",)),
    Notebook("06_autoencoder", after=("04", "05"), per=("architecture",)),
    Notebook("07_evaluation_clean", after=FITTED, needs=("clean",)),
    Notebook("08_evaluation_shift_no_adaptation", after=FITTED, needs=("clean", "no_adaptation")),
    Notebook("09_evaluation_shift_threshold_only", after=FITTED, needs=SHIFT_PATH[:3]),
    Notebook("10_full_adaptation", after=FITTED, needs=SHIFT_PATH),
    Notebook("11_global_model", after=FITTED, needs=("clean", "global", "global_one_threshold")),
    Notebook("12_error_analysis", after=FITTED, needs=("threshold_only",)),
    Notebook("16_results_visualization", after=("07", "08", "09", "10", "11")),
)


def needed(methods: Iterable[str], scenarios: Iterable[str]) -> list[Notebook]:
    """The notebooks that have something to tell with these methods and scenarios, in reading order."""
    there = {*methods, *scenarios}
    return [row for row in NOTEBOOKS if there.issuperset(row.needs)]


@dataclass(frozen=True)
class Job:
    """One run of one notebook; ``inputs`` names what its result depends on and a digest of each."""

    name: str
    source: str  # the notebook's .py, relative to the repository root
    parameters: dict[str, Any]
    inputs: dict[str, str]
    after: tuple[str, ...]

    @property
    def number(self) -> str:
        return self.name.split("_")[0]

    @property
    def title(self) -> str:
        return self.name.replace("__", " ")

    def description(self) -> dict[str, Any]:
        """The content of the job file."""
        keys = ("name", "source", "parameters", "inputs")
        return {key: getattr(self, key) for key in keys}


def _file_name(name: str) -> str:
    """The name of a job in names of files: without braces, which Snakemake reads as wildcards."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run lie below one profile's output folder."""

    output: Path

    @property
    def run(self) -> Path:
        return self.output / "run"

    @property
    def graph(self) -> Path:
        return self.run / "graph.json"

    @property
    def workplace(self) -> Path:
        """The current folder of Snakemake and of its jobs."""
        return self.run / "snakemake"

    def job(self, name: str) -> Path:
        return self.run / "jobs" / f"{_file_name(name)}.json"

    def log(self, name: str) -> Path:
        return self.run / "logs" / f"{_file_name(name)}.log"

    def executed(self, name: str) -> Path:
        return self.output / "executed" / f"{_file_name(name)}.ipynb"

    def running(self, name: str) -> Path:
        return self.output / "executed" / f"{_file_name(name)}.running.ipynb"

    def failed(self, name: str) -> Path:
        return self.output / "executed" / f"{_file_name(name)}.failed.ipynb"


def digest(parts: Iterable[str | bytes]) -> str:
    """Sixteen hex digits of SHA-256 over ``parts``, each preceded by its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode() + data)
    return total.hexdigest()[:16]


def code_digest(package: Path = ROOT / "nbhelpers") -> str:
    """Digest of the names and bytes of all Python files and templates of ``package``."""
    files = sorted(path for kind in ("*.py", "*.html") for path in package.rglob(kind))
    return digest(
        part for f in files for part in (f.relative_to(package).as_posix(), f.read_bytes())
    )


def listing_digest(folder: Path, files: Iterable[Path]) -> str:
    """Digest of path, size and modification time of these files below ``folder``; none is opened.

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
    """All runs of ``table``, each after the runs that it depends on.

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
    places: dict[
        str, tuple[str, dict[str, str]]
    ] = {}  # job name -> its notebook's number and axis values
    for row in table:
        path = notebooks / f"{row.stem}.py"
        if not path.is_file():
            raise ConfigError(
                f"{path}: the table in nbhelpers/runner/graph.py names it, but there is no such file"
            )
        source = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        for values in itertools.product(*(axes[axis] for axis in row.per)):
            place = dict(zip(row.per, values, strict=True))
            name = "__".join((row.stem, *values))
            if name in places:
                raise ConfigError(
                    f"two runs are called {name}: give each {' and '.join(row.per)} once"
                )
            before = tuple(
                other
                for other, (number, there) in places.items()
                if number in row.after
                and all(place[a] == there[a] for a in place.keys() & there.keys())
            )
            read = [place["category"]] if "category" in place else sorted(data)
            own = {
                **inputs,
                "notebook": digest([path.read_bytes()]),
                "data": digest(data[c] for c in read),
            }
            jobs.append(Job(name, source, {**parameters, **place}, own, before))
            places[name] = (row.number, place)
    return jobs


def select(jobs: Sequence[Job], numbers: Sequence[str]) -> list[Job]:
    """The jobs of the notebooks with these numbers (``04``, also ``4``); all of them for no
    numbers.

    Raises:
        ConfigError: A number is no notebook's.
    """
    known = sorted({job.number for job in jobs})
    wanted = [number.zfill(2) for number in numbers]
    for number in wanted:
        if number not in known:
            raise ConfigError(
                f"--only: there is no notebook {number}; there are {', '.join(known)}"
            )
    return [job for job in jobs if not wanted or job.number in wanted]


def survey(
    jobs: Sequence[Job], folder: RunFolder, force: bool = False
) -> dict[str, tuple[str, str]]:
    """State (done, stale, missing or failed) and reason of each job, as a run of ``jobs`` would see
    it.
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
    """What differs between ``job`` and the job file of its last run, in words."""
    if not job_file.is_file():
        return ["its job file is missing"]
    last = json.loads(job_file.read_text())
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
        """The path as Snakemake sees it: relative, since a folder above may have braces in its name."""
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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` through a temporary file, so that a reader sees the old file or the new
    one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    temporary.replace(path)
