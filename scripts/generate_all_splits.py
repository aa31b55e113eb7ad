"""Make the clean splits of all categories, and their shifted twins, without running a notebook.

    python scripts/generate_all_splits.py --profile tiny
    python scripts/generate_all_splits.py --profile folder --data-root DIR --categories a,b --no-shift

The same configuration and images give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nbhelpers.errors import StudyError
from nbhelpers.study import open_study


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--data-root", help="folder of categories; relative to where you stand")
    parser.add_argument("--categories", help="comma-separated; all when left out")
    parser.add_argument("--no-shift", action="store_true", help="splits only")
    options = parser.parse_args(arguments)
    overrides = {}
    if options.data_root:
        overrides |= {"data.root": str(Path(options.data_root).resolve()), "data.source": "folder"}
    if options.categories:
        overrides["data.categories"] = options.categories.split(",")
    try:
        study = open_study(options.profile, overrides)
        for category, split in study.splits.items():
            counts = ", ".join(f"{name} {len(part)}" for name, part in split.items())
            print(f"{category}: {counts}")
            if not options.no_shift:
                lost = int(study.shifted(category).defect_lost.sum())
                print(f"{category}: shifted twins in {study.config.shifted_dir / category}, {lost} defects lost")
        print(f"splits: {study.splits_path}")
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
