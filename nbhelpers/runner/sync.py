"""Bring notebooks up to date with their ``.py``: the same cells, executed, with the ids of
unchanged cells kept.

    python scripts/sync_notebooks.py [notebooks/04_patchcore.py ...]

In reading order, all of them unless some are named. A notebook that fails keeps its old twin.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from nbhelpers.config import load_config
from nbhelpers.errors import ConfigError
from nbhelpers.files import replacing
from nbhelpers.runner.command_line import exit_code
from nbhelpers.runner.graph import ROOT
from nbhelpers.runner.processes import notebook_environment


def sync(script: Path) -> None:
    """Execute the cells of ``script`` in a fresh kernel and write its twin.

    Raises:
        CellExecutionError: A cell failed.
        ResourceError: The twin cannot be written.
    """
    twin = script.with_suffix(".ipynb")
    notebook = jupytext.read(script)
    if twin.is_file():  # keeps the ids, so that a diff shows what changed
        notebook = combine_inputs_with_outputs(notebook, nbformat.read(twin, as_version=4))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        record_timing=False,  # would change every cell at every run
        resources={"metadata": {"path": str(script.parent)}},
    )
    client.execute(env=notebook_environment(load_config().threads))
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for cell in notebook.cells:
        if cell.cell_type == "code":  # warnings of libraries carry the paths of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    with replacing(twin) as temporary:
        nbformat.write(notebook, temporary)


def sync_all(scripts: Sequence[Path]) -> int:
    """Bring the twins of ``scripts`` up to date; returns the exit code, 1 at the first that fails.

    Raises:
        ConfigError: A script is not there.
    """
    for script in scripts:
        if script.suffix != ".py" or not script.is_file():
            raise ConfigError(f"{script}: expected the .py of a notebook, found no such file")
    for script in scripts:
        print(script.name, flush=True)
        try:
            sync(script)
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: the ``.py`` of some notebooks, or none for all; returns the exit code."""
    parser = argparse.ArgumentParser(description="Execute notebooks/*.py and write their twins.")
    parser.add_argument("scripts", nargs="*", type=Path, help="notebooks/NN_name.py (default: all)")
    options = parser.parse_args(arguments)
    scripts = options.scripts or sorted((ROOT / "notebooks").glob("[0-9]*.py"))
    return exit_code(lambda: sync_all(scripts))
