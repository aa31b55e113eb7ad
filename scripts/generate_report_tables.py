"""Make every table, figure and the report again from stored results: no network is run, nothing is
fitted.

    python scripts/generate_report_tables.py --profile tiny
    python scripts/generate_report_tables.py --profile folder --data-root DIR --categories a,b --set
    key=value

Give the options that the study was run with. Exit code 0: all is written; 2: a result is missing or
out of date.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib

from nbhelpers.errors import StudyError
from nbhelpers.runner.command_line import shown, study_overrides, study_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: named errors become one line and exit code 2."""
    options = study_parser(__doc__).parse_args(arguments)
    matplotlib.use("Agg")  # figures go to files
    try:
        overrides = study_overrides(options)
        from nbhelpers.report.build import (
            write_report,
        )  # slow, so only once the command line is right
        from nbhelpers.study import open_study

        path = write_report(open_study(options.profile, overrides))
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"tables   {shown(path.parent / 'tables')}")
    print(f"figures  {shown(path.parent / 'figures')}")
    print(f"report   {shown(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
