"""Make every table, figure and the report again from stored results; no network is run.

    study report
    study report --profile folder --data-root DIR --categories a,b --set key=value
    study report --profile folder --data-root DIR --summary docs/results/real_images.json

Give the options that the study was run with. Exit code 0: everything is written; 2: a result is
missing or out of date.
"""

import argparse
from pathlib import Path

from nbhelpers.runner.command_line import add_study_options, shown, study_overrides


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``study report``."""
    add_study_options(parser)
    parser.add_argument(
        "--summary",
        type=Path,
        metavar="PATH",
        help="also write the main results to this JSON file; the notebooks show those of "
        "docs/results/real_images.json beside their own",
    )


def command(options: argparse.Namespace) -> int:
    """Write the report with its tables and figures; returns the exit code.

    Raises:
        StudyError: A result is missing or out of date, or a setting is wrong.
    """
    overrides = study_overrides(options)
    import matplotlib

    from nbhelpers.report.build import (  # slow, so after the options are checked
        stored_results,
        write_report,
    )
    from nbhelpers.results.summary import write_summary
    from nbhelpers.study import open_study

    matplotlib.use("Agg")  # figures go to files
    study = open_study(options.profile, overrides)
    path = write_report(study)
    print(f"tables   {shown(path.parent / 'tables')}")
    print(f"figures  {shown(path.parent / 'figures')}")
    print(f"report   {shown(path)}")
    if options.summary:
        config = study.config.model_dump(mode="json", exclude={"workspace"})
        write_summary(options.summary, stored_results(study).results, config)
        print(f"summary  {shown(options.summary)}")
    return 0
