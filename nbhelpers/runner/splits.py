"""Make the clean splits of all categories, and their shifted twins, without running a notebook.

    study splits
    study splits --profile folder --data-root DIR --categories a,b --no-shift

The same configuration and images give the same bytes.
"""

import argparse

from nbhelpers.runner.command_line import add_study_options, shown, study_overrides


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``study splits``."""
    parser.add_argument("--no-shift", action="store_true", help="make the splits only")
    parser.add_argument(
        "--resplit", action="store_true", help="draw the splits again, also where some are stored"
    )
    add_study_options(parser)


def command(options: argparse.Namespace) -> int:
    """Make the splits and the shifted twins and print their sizes; returns the exit code.

    Raises:
        StudyError: An image, a folder or a setting is missing or wrong.
    """
    overrides = study_overrides(options)
    from nbhelpers.study import open_study  # imports torch

    study = open_study(options.profile, overrides)
    if options.resplit:
        study.resplit()
    for category, split in study.splits.items():
        sizes = ", ".join(f"{name} {len(samples)}" for name, samples in split.items())
        print(f"{category}: {sizes}")
        if not options.no_shift:
            lost = int(study.shifted(category).defect_lost.sum())
            folder = study.config.shifted_dir / category
            print(f"{category}: shifted twins in {shown(folder)}, {lost} defects lost")
    print(f"splits: {shown(study.config.splits_path)}")
    return 0
