"""The command that runs the study, or a part of it: plan the jobs, execute them, say how they
ended.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nbhelpers.config import Config, load_config
from nbhelpers.data.layout import find_categories, survey_category
from nbhelpers.errors import ConfigError, StudyError, named_errors
from nbhelpers.files import hash_file
from nbhelpers.runner import graph
from nbhelpers.runner.command_line import shown, study_overrides, study_parser
from nbhelpers.runner.execute import execute
from nbhelpers.runner.graph import Job, RunFolder
from nbhelpers.runner.processes import end_with

DESCRIPTION = """Run the whole study, or a part of it: notebooks x categories x domains, by papermill, under Snakemake.

    python scripts/run_experiments.py --profile tiny
    python scripts/run_experiments.py --profile folder --data-root DIR --categories bottle,tile --jobs 2
    python scripts/run_experiments.py --profile tiny --only 04,07 --set patchcore.coreset_ratio=0.1

A second run does only what is missing or out of date. A notebook that fails is kept with its error; those
that do not need it go on. Exit code 0: all is done; 1: a notebook broke; 2: mend the input or a setting.
"""


def plan(config: Config, overrides: dict[str, Any]) -> list[Job]:
    """The jobs of this configuration, its data folders checked.

    Raises:
        DataError: The data root, a category or one of its folders is missing, or an image lacks its
            mask.
    """
    from nbhelpers.evaluation.thresholds.rules import get_rule
    from nbhelpers.scenarios import fit_domains  # slow, so only once the settings are right

    get_rule(config.evaluation.threshold_rule)

    root, categories = config.data_root, config.data.categories
    if config.data.source == "folder":
        categories = categories or tuple(find_categories(root))
        data = {}
        for category in categories:
            scan = survey_category(root, category, config.data.masks_pattern)
            data[category] = graph.listing_digest(root, scan.files)
    else:
        data = dict.fromkeys(categories, "drawn from the settings")
    return graph.build_jobs(
        axes={
            "category": categories,
            "domain": fit_domains(config.scenarios),
            "architecture": config.architectures,
        },
        parameters={"profile": config.profile, "overrides": overrides},
        inputs={
            "code": graph.code_digest(),
            "settings": config.digest(),
            "splits": hash_file(config.splits_path) if config.splits_path.is_file() else "none",
        },
        data=data,
        table=graph.needed(config.methods, config.scenarios),
    )


def report_errors(errors: dict[str, str], folder: RunFolder) -> int:
    """Say what failed and where to look; returns the exit code: 2 if the input explains all of it,
    else 1.
    """
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
    mendable = named_errors()
    return 2 if all(error.split(":")[0] in mendable for error in broken) else 1


def report_results(folder: RunFolder) -> None:
    """Print the results table and where the rest lies."""
    from nbhelpers.results.numbers import read_metrics
    from nbhelpers.results.views import headline_table

    path = folder.output / "results" / "metrics.csv"
    if path.is_file():
        wide = headline_table(read_metrics(path)).rename_axis(columns=None).reset_index()
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
    print(
        ", ".join(f"{number} {state}" for state, number in count.items())
        + f" in {shown(folder.output)}"
    )


def draw_splits(profile: str, overrides: dict[str, Any], anew: bool) -> None:
    """Draw the splits, so that every notebook finds the same file and its digest is known."""
    from nbhelpers.study import open_study  # slow, so only where there are none

    study = open_study(profile, overrides)
    if anew:
        study.resplit()
    print(f"splits of {', '.join(study.splits)}: {shown(study.config.splits_path)}", flush=True)


def report_artefacts(profile: str, overrides: dict[str, Any]) -> None:
    """Print which stored artefacts are out of date, and what changed since they were made."""
    from nbhelpers.analyses.all import stored_artefacts  # slow, as it needs the network libraries
    from nbhelpers.study import open_study

    study = open_study(profile, overrides)
    if not study.config.splits_path.is_file():
        print("artefacts: none, the splits are not drawn yet")
        return
    states = {artefact: artefact.why_stale() for artefact in stored_artefacts(study)}
    stale = {artefact.path: why for artefact, why in states.items() if why}
    for path, why in stale.items():
        print(f"{shown(path)}: {why}")
    print(f"artefacts: {len(states) - len(stale)} current, {len(stale)} out of date")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = study_parser(DESCRIPTION)
    add = parser.add_argument
    add("--only", default="", metavar="04,07", help="run these notebooks only")
    add("--jobs", type=int, default=1, metavar="N", help="notebooks at the same time (default: 1)")
    add(
        "--cell-timeout",
        type=int,
        default=14400,
        metavar="SECONDS",
        help="limit of a cell (default: 4 h)",
    )
    add("--force", action="store_true", help="run the notebooks also where they are up to date")
    add("--resplit", action="store_true", help="draw the train, val and test splits anew first")
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
    only_look = options.status or options.dry_run
    jobs = plan(config, overrides)
    if not only_look and (options.resplit or not config.splits_path.is_file()):
        draw_splits(options.profile, overrides, options.resplit)
        jobs = plan(config, overrides)
    jobs = graph.select(jobs, [number for number in options.only.split(",") if number])
    if only_look:
        report_status(jobs, folder, options.force)
        if options.status:
            report_artefacts(options.profile, overrides)
        return 0
    errors = execute(
        jobs, folder, options.jobs, config.threads, options.cell_timeout, options.force
    )
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
