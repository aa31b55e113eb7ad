"""Run the whole study, or a part of it: notebooks x categories x domains, by papermill, under Snakemake.

    python scripts/run_experiments.py --profile tiny
    python scripts/run_experiments.py --profile folder --data-root DIR --categories bottle,tile --jobs 2
    python scripts/run_experiments.py --profile tiny --only 04,07 --set patchcore.coreset_ratio=0.1

A second run does only what is missing or out of date. A notebook that fails is kept with its error; those
that do not need it go on. Exit code 0: all is done; 1: a notebook broke; 2: mend the input or a setting.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import graph
from executor import execute
from graph import Job, RunFolder
from nbhelpers.config import WORKSPACE_VARIABLE, Config, load_config, parse_yaml
from nbhelpers.data.layout import find_categories, scan_category
from nbhelpers.errors import ConfigError, StudyError
from processes import end_with


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``["patchcore.coreset_ratio=0.1"]`` as a dict; a value is read as YAML, so it has its type.

    Raises:
        ConfigError: No ``=``, or a value that is no YAML.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ConfigError(f"--set: expected key=value, found '{pair}'")
        try:
            settings[key] = parse_yaml(value)
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"--set {key}: expected a YAML value, found '{value}' ({reason})") from None
    return settings


def plan(config: Config, overrides: dict[str, Any]) -> list[Job]:
    """The jobs of this configuration, its data folders checked.

    Raises:
        DataError: The data root, a category or one of its folders is missing, or an image lacks its mask.
    """
    from nbhelpers.evaluation.scenarios import fit_domains  # slow, so only once the settings are right
    from nbhelpers.evaluation.threshold_rules import get_rule

    get_rule(config.evaluation.threshold_rule)

    root, categories = config.data_root, config.data.categories
    if config.data.source == "folder":
        categories = categories or tuple(find_categories(root))
        for category in categories:
            scan_category(root, category)
        data = {category: graph.listing_digest(root / category) for category in categories}
    else:
        data = dict.fromkeys(categories, "drawn from the settings")
    return graph.build_jobs(
        axes={"category": categories, "domain": fit_domains(config.scenarios), "architecture": config.architectures},
        parameters={"profile": config.profile, "overrides": overrides},
        inputs={"code": graph.code_digest(), "settings": config.digest()},
        data=data,
        table=graph.needed(config.methods, config.scenarios),
    )


def report_errors(errors: dict[str, str], folder: RunFolder) -> int:
    """Say what failed and where to look; returns the exit code: 2 if the input explains all of it, else 1."""
    print(f"\n{len(errors)} notebooks are not up to date:", file=sys.stderr)
    broken = []
    for name, error in errors.items():
        print(f"  {name.replace('__', ' ')}\n    {error}", file=sys.stderr)
        if folder.failed(name).is_file():
            print(f"    executed copy: {shown(folder.failed(name))}", file=sys.stderr)
        if folder.log(name).is_file():
            print(f"    log: {shown(folder.log(name))}", file=sys.stderr)
        if not error.startswith("not run"):
            broken.append(error)
    mendable = {error.__name__ for error in StudyError.__subclasses__()}
    return 2 if all(error.split(":")[0] in mendable for error in broken) else 1


def report_results(folder: RunFolder) -> None:
    """Print the results table and where the rest lies."""
    import pandas as pd

    from nbhelpers.reporting.tables import headline_table

    path = folder.output / "results" / "metrics.csv"
    if path.is_file():
        wide = headline_table(pd.read_csv(path)).rename_axis(columns=None).reset_index()
        if len(wide):  # no scenario was evaluated where only some notebooks were run
            print(f"\n{wide.to_string(index=False, float_format='%.3f', na_rep='-')}")
        print(f"\nresults             {shown(path.parent)}")
    print(f"figures             {shown(folder.output / 'figures')}")
    print(f"executed notebooks  {shown(folder.output / 'executed')}")


def report_status(jobs: Sequence[Job], folder: RunFolder, force: bool) -> None:
    """Print the state of each job."""
    states = graph.survey(jobs, folder, force)
    width = max(len(job.title) for job in jobs)
    for job in jobs:
        state, why = states[job.name]
        print(f"{job.title:<{width}}  {state:<7}  {why}".rstrip())
    count = Counter(state for state, _ in states.values())
    print(", ".join(f"{number} {state}" for state, number in count.items()) + f" in {shown(folder.output)}")


def shown(path: Path) -> str:
    """``path`` relative to where the user stands, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def study_parser(description: str) -> argparse.ArgumentParser:
    """A command line that says which study is meant; ``study_overrides`` reads it."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=layout)
    add = parser.add_argument
    add("--profile", default="tiny", help="name of a file in configs/ (default: tiny)")
    add("--data-root", type=Path, metavar="DIR", help="folder of categories in MVTec AD layout")
    add("--categories", metavar="A,B", help="which of them (default: as configured, or all that are there)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; may be repeated")
    add("--workspace", type=Path, metavar="DIR", help="folder for data/ and outputs/ (default: project)")
    return parser


def study_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line changes; the workspace goes to the environment, for notebooks too.

    Raises:
        ConfigError: See ``parse_settings``.
    """
    overrides = parse_settings(options.set)
    if options.data_root:
        overrides |= {"data.root": str(options.data_root.expanduser().resolve()), "data.source": "folder"}
    if options.categories:
        names = (name.strip() for name in options.categories.split(","))
        overrides["data.categories"] = [name for name in names if name]
    if options.workspace:
        os.environ[WORKSPACE_VARIABLE] = str(options.workspace.expanduser().resolve())
    return overrides


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = study_parser(__doc__)
    add = parser.add_argument
    add("--only", default="", metavar="04,07", help="run these notebooks only")
    add("--jobs", type=int, default=1, metavar="N", help="notebooks at the same time (default: 1)")
    add("--cell-timeout", type=int, default=14400, metavar="SECONDS", help="limit of a cell (default: 4 h)")
    add("--force", action="store_true", help="run the notebooks also where they are up to date")
    add("--dry-run", action="store_true", help="say what would run, and why, and stop")
    add("--status", action="store_true", help="say what is done and what is not, and stop")
    return parser.parse_args(arguments)


def run_study(options: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        StudyError: The input or a setting must be mended.
    """
    start = time.perf_counter()
    overrides = study_overrides(options)
    if options.jobs < 1:
        raise ConfigError(f"--jobs: expected 1 or more, found {options.jobs}")
    config = load_config(options.profile, overrides)
    folder = RunFolder(config.output_dir.resolve())
    jobs = graph.select(plan(config, overrides), [number for number in options.only.split(",") if number])
    if options.status or options.dry_run:
        report_status(jobs, folder, options.force)
        return 0
    errors = execute(jobs, folder, options.jobs, config.threads, options.cell_timeout, options.force)
    report_results(folder)
    print(f"{time.perf_counter() - start:.0f} s")
    return report_errors(errors, folder) if errors else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: named errors become one line and exit code 2."""
    if "MAKELEVEL" in os.environ:  # started by make: a killed make must not leave a run at work
        end_with(os.getppid())
    try:
        return run_study(parse(arguments))
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run again to go on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
