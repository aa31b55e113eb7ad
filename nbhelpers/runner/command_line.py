"""What the study's commands share: which study is meant, its settings, and how paths are shown."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nbhelpers.config import WORKSPACE_VARIABLE, load_config, parse_yaml
from nbhelpers.errors import ConfigError


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``["patchcore.coreset_ratio=0.1"]`` as a dict; a value is read as YAML, so it has its type.

    Raises:
        ConfigError: No ``=``, or a value that is no YAML.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ConfigError(f"--set: expected key=value, found '{pair}'")
        try:
            settings[key] = parse_yaml(value)
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"--set {key}: expected a YAML value, found '{value}' ({reason})"
            ) from None
    return settings


def shown(path: Path) -> str:
    """``path`` relative to where the user stands, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def study_parser(description: str) -> argparse.ArgumentParser:
    """A command line that says which study is meant; ``study_overrides`` reads it."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=layout)
    add = parser.add_argument
    add("--profile", default="tiny", help="name of a file in configs/ (default: tiny)")
    add("--data-root", type=Path, metavar="DIR", help="folder of categories in MVTec AD layout")
    add(
        "--categories",
        metavar="A,B",
        help="which of them (default: as configured, or all that are there)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting; may be repeated",
    )
    add(
        "--workspace",
        type=Path,
        metavar="DIR",
        help="folder for data/ and outputs/ (default: project)",
    )
    return parser


def study_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line changes; the workspace goes to the environment, for
    notebooks too.

    Raises:
        ConfigError: See ``parse_settings``.
    """
    overrides = parse_settings(options.set)
    if options.data_root:
        drawn = load_config(options.profile).data.source == "synthetic"
        if drawn and overrides.get("data.source") != "folder":
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
