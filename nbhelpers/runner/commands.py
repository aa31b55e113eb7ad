"""The command ``study``: one word for each thing that the study can be asked to do."""

import argparse
from collections.abc import Sequence
from types import ModuleType

from nbhelpers.runner import download, report, run, search, splits, status
from nbhelpers.runner.command_line import exit_code

#: Each module has a docstring, which is the command's help, and the functions ``add_options`` and
#: ``command``.
COMMANDS: dict[str, ModuleType] = {
    "run": run,
    "status": status,
    "report": report,
    "splits": splits,
    "search": search,
    "download": download,
}

DESCRIPTION = """Anomaly detectors under a domain shift: run the study, or a part of it.

    study run                                   the whole study on the synthetic set
    study run --only train --categories zipper  the notebooks that fit detectors, for one category
    study status                                what is done, what is out of date and why
    study report                                the report again, from stored results

Every command takes --profile, --categories, --data-root, --set and --workspace; each has a help of
its own: study run --help.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command line of all commands."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("study", description=DESCRIPTION, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        text = module.__doc__ or ""
        summary = text.splitlines()[0].removesuffix(".")
        child = commands.add_parser(
            name, help=summary, description=text, formatter_class=layout, allow_abbrev=False
        )
        module.add_options(child)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The command and its options; those that the process was started with if None.

    Returns:
        The exit code: 0 when all is done, 1 when a notebook failed, 2 when the input or a setting
        must be corrected, 130 when it was interrupted.
    """
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: COMMANDS[options.command].command(options))
