"""Make every table, figure and the report again from stored results; no network is run.

    study report
    study report --profile folder --data-root DIR --categories a,b --set key=value

Give the options that the study was run with. Exit code 0: everything is written; 2: a result is
missing or out of date.
"""

import argparse

from nbhelpers.runner.command_line import add_study_options, shown, study_overrides


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``study report``."""
    add_study_options(parser)


def command(options: argparse.Namespace) -> int:
    """Write the report with its tables and figures; returns the exit code.

    Raises:
        StudyError: A result is missing or out of date, or a setting is wrong.
    """
    overrides = study_overrides(options)
    import matplotlib

    from nbhelpers.report.build import write_report  # slow, so after the options are checked
    from nbhelpers.study import open_study

    matplotlib.use("Agg")  # figures go to files
    path = write_report(open_study(options.profile, overrides))
    print(f"tables   {shown(path.parent / 'tables')}")
    print(f"figures  {shown(path.parent / 'figures')}")
    print(f"report   {shown(path)}")
    return 0
