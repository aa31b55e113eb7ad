"""Run the whole study, or a part of it: notebooks x categories x domains.

    study run
    study run --only 04,06 --categories zipper --set patchcore.coreset_ratio=0.1
    study run --only train
    study run --profile folder --data-root DIR --categories bottle,tile --jobs 2
    study run --profile mvtec --set preset=offline

papermill executes the notebooks, Snakemake orders them. A second run does only what is missing or
out of date. A notebook that fails is kept with its error; those that do not need it go on. Exit
code 0: everything is done; 1: a notebook failed; 2: correct the input or a setting.
"""

import argparse
import os
import time
from typing import Any

from nbhelpers.config import load_config
from nbhelpers.errors import ConfigError
from nbhelpers.runner import graph
from nbhelpers.runner.command_line import add_study_options, shown, study_overrides
from nbhelpers.runner.execute import execute
from nbhelpers.runner.graph import RunFolder
from nbhelpers.runner.plan import check_inputs, plan
from nbhelpers.runner.processes import end_with
from nbhelpers.runner.status import ONLY_HELP, report_artefacts, report_status
from nbhelpers.runner.summary import report_errors, report_results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``study run``."""
    add = parser.add_argument
    add("--only", default="", metavar="04,07", help=ONLY_HELP)
    add("--jobs", type=int, default=1, metavar="N", help="notebooks at the same time (default: 1)")
    add(
        "--cell-timeout",
        type=int,
        default=14400,
        metavar="SECONDS",
        help="limit of a cell (default: 4 h)",
    )
    add("--force", action="store_true", help="run the notebooks also where they are up to date")
    add("--resplit", action="store_true", help="draw the train, val and test splits again first")
    add("--dry-run", action="store_true", help="say what would run, and why, and stop")
    add("--status", action="store_true", help="the same as the command status")
    add_study_options(parser)


def command(options: argparse.Namespace) -> int:
    """Plan the jobs, execute those that are not up to date and say how they ended.

    Returns:
        The exit code: 0, or that of ``report_errors`` where a notebook failed.

    Raises:
        StudyError: The input or a setting must be corrected.
    """
    if "MAKELEVEL" in os.environ:  # started by make: a killed make must not leave a run at work
        end_with(os.getppid())
    start = time.perf_counter()
    overrides = study_overrides(options)
    if options.jobs < 1:
        raise ConfigError(f"--jobs: expected 1 or more, found {options.jobs}")
    config = load_config(options.profile, overrides)
    folder = RunFolder(config.output_dir.resolve())
    reads_only = options.status or options.dry_run
    listings = check_inputs(config)
    if not reads_only and (options.resplit or not config.splits_path.is_file()):
        draw_splits(options.profile, overrides, options.resplit)
    jobs = graph.select(plan(config, overrides, listings), options.only.split(","))
    if reads_only:
        report_status(jobs, folder, options.force)
        if options.status:
            report_artefacts(options.profile, overrides)
        return 0
    errors = execute(
        jobs, folder, options.jobs, config.threads, options.cell_timeout, options.force
    )
    report_results(folder, config.evaluation.confidence)
    print(f"{time.perf_counter() - start:.0f} s")
    return report_errors(errors, folder) if errors else 0


def draw_splits(profile: str, overrides: dict[str, Any], again: bool) -> None:
    """Draw the splits before the notebooks run, so that all find the same file.

    What is odd about them, such as images that are copies of test images, is printed.

    Args:
        profile: The study's profile.
        overrides: The settings that were changed.
        again: Whether stored splits are replaced.
    """
    from nbhelpers.data.duplicates import duplicate_findings  # slow, so only where there are none
    from nbhelpers.data.splits import split_findings
    from nbhelpers.study import open_study

    study = open_study(profile, overrides)
    if again:
        study.resplit()
    for category, split in study.splits.items():
        copies = duplicate_findings(study.samples(category), study.pixels(category))
        for finding in [*copies, *split_findings(split)]:
            print(finding)
    print(f"splits of {', '.join(study.splits)}: {shown(study.config.splits_path)}", flush=True)
