"""Make the clean splits of all categories, and their shifted twins, without running a notebook.

    python scripts/generate_all_splits.py --profile tiny
    python scripts/generate_all_splits.py --profile folder --data-root DIR --categories a,b
    --no-shift

The same configuration and images give the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nbhelpers.errors import StudyError
from nbhelpers.runner.command_line import study_overrides, study_parser
from nbhelpers.study import open_study


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = study_parser(__doc__)
    parser.add_argument("--no-shift", action="store_true", help="splits only")
    parser.add_argument("--resplit", action="store_true", help="draw them anew, whatever is stored")
    options = parser.parse_args(arguments)
    try:
        study = open_study(options.profile, study_overrides(options))
        if options.resplit:
            study.resplit()
        for category, split in study.splits.items():
            counts = ", ".join(f"{name} {len(part)}" for name, part in split.items())
            print(f"{category}: {counts}")
            if not options.no_shift:
                lost = int(study.shifted(category).defect_lost.sum())
                print(
                    f"{category}: shifted twins in {study.config.shifted_dir / category}, {lost} defects lost"
                )
        print(f"splits: {study.config.splits_path}")
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
