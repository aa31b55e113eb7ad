"""Fetch MVTec AD, draw the synthetic set, or count what is there.

    study download --source kaggle       needs an API token of your Kaggle account
    study download --source official     4.9 GB from MVTec
    study download --source synthetic    offline: draws the set of the profile tiny
    study download --verify              counts the images: 391/40/70, 280/28/89, 240/32/119

Images go to the data root of the profile (mvtec, and tiny for the synthetic set), or to --data-root.
"""

import argparse
from pathlib import Path

from nbhelpers.config import Config, load_config
from nbhelpers.data import download
from nbhelpers.data.layout import count_parts
from nbhelpers.errors import ResourceError
from nbhelpers.runner.command_line import add_study_options, study_overrides

NEEDED_GB = 11  # the archive and its contents, before the other categories are removed


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``study download``."""
    add = parser.add_argument
    add("--source", choices=(*download.SOURCES, "synthetic"), default="kaggle")
    add("--dry-run", action="store_true", help="print the steps and stop")
    add("--verify", action="store_true", help="count the images that are there and stop")
    add("--root", type=Path, dest="data_root", help="the same as --data-root")
    add_study_options(parser, profile=None)


def command(options: argparse.Namespace) -> int:
    """Fetch, draw or count the images; returns the exit code.

    Raises:
        StudyError: The images cannot be fetched, or are not those of MVTec AD.
    """
    draws = options.source == "synthetic" and not options.verify
    overrides = study_overrides(options, draws)
    if draws:
        overrides.pop("data.source", None)  # drawn, also into a folder that is named
        draw(options.profile or "tiny", overrides, options.dry_run)
        return 0
    config = load_config(options.profile or "mvtec", overrides)
    categories = config.data.categories or download.CATEGORIES
    if options.dry_run:
        steps = download.plan(options.source, config.data_root, categories)
        print("\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1)))
        return 0
    if not options.verify:
        fetch(options.source, config.data_root, categories)
    for name, counts in download.verify(config.data_root, categories).items():
        train_good, test_good, test_defect = counts
        print(
            f"{name}: train good {train_good}, test good {test_good}, test defects {test_defect}: OK"
        )
    return 0


def fetch(source: str, root: Path, categories: tuple[str, ...]) -> None:
    """Download the categories that ``root`` lacks.

    Raises:
        ResourceError: There is too little space, no token or no network.
        DataError: The archive lacks a category.
    """
    free = download.free_gigabytes(root)
    if free < NEEDED_GB:
        raise ResourceError(
            f"{root}: expected {NEEDED_GB} GB of free space for the archive, found {free:.1f} GB; "
            "free some, or choose another folder with --data-root"
        )
    download.download(source, root, categories)


def draw(profile: str, overrides: dict, dry_run: bool) -> None:
    """Draw the synthetic set, or say where it would be drawn."""
    if dry_run:
        config: Config = load_config(profile, overrides)
        print(f"1. draw {', '.join(config.data.categories)} to {config.data_root}")
        return
    from nbhelpers.study import open_study  # imports torch

    study = open_study(profile, overrides)
    for name in study.categories:
        train_good, test_good, test_defect = count_parts(study.samples(name))
        print(f"{name}: train good {train_good}, test good {test_good}, test defects {test_defect}")
