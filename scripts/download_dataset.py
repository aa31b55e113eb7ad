"""Fetch MVTec AD (hazelnut, carpet, zipper), draw the synthetic set, or verify what is there.

python scripts/download_dataset.py --source kaggle            # needs an API token of your Kaggle
account python scripts/download_dataset.py --source official          # 4.9 GB from MVTec python
scripts/download_dataset.py --source synthetic         # offline: draws the tiny profile's set
python scripts/download_dataset.py --verify                   # counts 391/40/70, 280/28/89,
240/32/119
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nbhelpers.data import download
from nbhelpers.data.layout import count_parts
from nbhelpers.errors import ConfigError, ResourceError, StudyError

NEEDED_GB = 11  # the archive and its contents, before the other categories are removed


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=(*download.SOURCES, "synthetic"), default="kaggle")
    parser.add_argument(
        "--root", type=Path, default=ROOT / "data" / "raw" / "mvtec_ad", help="where the images go"
    )
    parser.add_argument(
        "--categories", default=",".join(download.CATEGORIES), help="comma-separated"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the steps, do nothing")
    parser.add_argument(
        "--verify", action="store_true", help="count what is there, download nothing"
    )
    options = parser.parse_args(arguments)
    categories = tuple(name for name in options.categories.split(",") if name)
    try:
        return run(options, categories)
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1 if options.verify else 2


def run(options: argparse.Namespace, categories: tuple[str, ...]) -> int:
    """Do what was asked for; errors are the caller's."""
    if not categories:
        raise ConfigError(
            "--categories: expected at least one name, found none; e.g. --categories hazelnut,zipper"
        )
    if options.source == "synthetic" and not options.verify:
        from nbhelpers.study import open_study  # torch is needed only here

        study = open_study("tiny")
        if options.dry_run:
            print(f"1. draw {', '.join(study.config.data.categories)} to {study.config.data_root}")
            return 0
        print("\n".join(f"{name}: {count_parts(study.samples(name))}" for name in study.categories))
        return 0
    if options.dry_run:
        steps = download.plan(options.source, options.root, categories)
        print("\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1)))
        return 0
    if not options.verify:
        free = download.free_gigabytes(options.root)
        if free < NEEDED_GB:
            raise ResourceError(
                f"{options.root}: expected {NEEDED_GB} GB of free space for the archive, found {free:.1f} GB; free "
                "some, or choose another folder with --root"
            )
        download.download(options.source, options.root, categories)
    for name, counts in download.verify(options.root, categories).items():
        print(
            f"{name}: train good {counts[0]}, test good {counts[1]}, test defects {counts[2]}: OK"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
