"""What the study's commands share: which study is meant, its settings, and how paths are printed."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from nbhelpers.config import WORKSPACE_VARIABLE, load_config, parse_yaml
from nbhelpers.config.load import profiles
from nbhelpers.errors import ConfigError, StudyError
from nbhelpers.runtime import ROOT

#: Short names that ``--set`` takes, and the settings that they stand for.
SHORT_NAMES = {"categories": "data.categories"}


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read settings as they are given to ``--set``.

    Args:
        pairs: Texts such as ``patchcore.coreset_ratio=0.1``. The value is read as YAML, so it has
            its type.

    Returns:
        The values by their dotted keys; ``categories`` is short for ``data.categories``.

    Raises:
        ConfigError: A text has no ``=``, or its value is not YAML.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ConfigError(f"--set: expected key=value, found '{pair}'")
        try:
            settings[SHORT_NAMES.get(key, key)] = parse_yaml(value)
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"--set {key}: expected a YAML value, found '{value}' ({reason})"
            ) from None
    return settings


def shown(path: Path) -> str:
    """Give ``path`` relative to the current folder if it lies below, else as it is."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def add_study_options(parser: argparse.ArgumentParser, profile: str | None = "tiny") -> None:
    """Add the options that say which study is meant; ``study_overrides`` reads them.

    Args:
        parser: A command's parser.
        profile: The default of ``--profile``; None where the command chooses it by itself.
    """
    add = parser.add_argument_group("which study").add_argument
    default = f" (default: {profile})" if profile else ""
    add("--profile", default=profile, help=f"{', '.join(profiles())}{default}")
    add("--data-root", type=Path, metavar="DIR", help="folder of categories in MVTec AD layout")
    add(
        "--categories",
        metavar="A,B",
        help="which of them (default: as configured, or all that the folder has)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of configs/; may be repeated",
    )
    add(
        "--workspace",
        type=Path,
        metavar="DIR",
        help="folder for data/ and outputs/ (default: the project's)",
    )


def study_overrides(options: argparse.Namespace, draws: bool = False) -> dict[str, Any]:
    """Collect the settings that the options of ``add_study_options`` change.

    The workspace goes to the environment, where notebooks find it too.

    Args:
        options: What the command line says.
        draws: Whether the command draws images into the data root, for which any profile fits.

    Raises:
        ConfigError: See ``parse_settings``; or ``--data-root`` is given with a profile for
            synthetic images.
    """
    overrides = parse_settings(options.set)
    if options.data_root:
        says_folder = draws or overrides.get("data.source") == "folder"
        # without a profile the command chooses one for images of a folder
        profile = options.profile if not says_folder else None
        if profile and load_config(profile).data.source == "synthetic":
            raise ConfigError(
                f"--data-root {options.data_root}: expected a profile for images of a folder, found profile "
                f"'{options.profile}', whose settings are for its own synthetic images; use --profile folder, or "
                f"--set data.source=folder for these images with the settings of '{options.profile}'"
            )
        overrides |= {
            "data.root": str(options.data_root.expanduser().resolve()),
            "data.source": "folder",
        }
    if options.categories:
        names = (name.strip() for name in options.categories.split(","))
        overrides["data.categories"] = [name for name in names if name]
    if options.workspace:
        os.environ[WORKSPACE_VARIABLE] = str(options.workspace.expanduser().resolve())
    return overrides


def exit_code(command: Callable[[], int]) -> int:
    """Run a command; every error that its user can correct becomes one line and exit code 2."""
    try:
        if not (ROOT / "configs").is_dir():
            raise ConfigError(
                f"expected the study's clone with its configs/ around the package nbhelpers, found "
                f"{ROOT}; install it from its clone: pip install -e ."
            )
        return command()
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run again to go on from here", file=sys.stderr)
        return 130
