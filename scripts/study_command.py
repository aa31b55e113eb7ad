"""What the scripts of this folder share: each is one command of ``study`` under another name."""

import sys
from collections.abc import Callable, Sequence

try:
    from nbhelpers.runner.commands import main
except ModuleNotFoundError as error:
    sys.exit(
        f"{error}; expected this Python to have the study installed: run make study once and use "
        ".venv/bin/python, or install it from its clone: pip install -e ."
    )


def study(command: str) -> Callable[..., int]:
    """Give the entry point of one command: a function of its options that returns the exit code."""

    def entry(arguments: Sequence[str] | None = None) -> int:
        return main([command, *(sys.argv[1:] if arguments is None else arguments)])

    return entry
