"""Bring notebooks up to date with their ``.py``: same cells, executed, the ids of unchanged cells
kept.

    python scripts/sync_notebooks.py [notebooks/04_patchcore.py ...]

In reading order, all of them unless some are named. A notebook that fails keeps its old twin.
"""

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nbhelpers.config import load_config
from nbhelpers.runner.graph import ROOT
from nbhelpers.runner.processes import notebook_environment


def sync(script: Path) -> None:
    """Execute the cells of ``script`` in a fresh kernel and write its twin.

    Raises:
        CellExecutionError: A cell failed.
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
    temporary = twin.with_suffix(".tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(twin)


def main() -> int:
    """Command line: the ``.py`` files; exit code 1 at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", type=Path)
    chosen = parser.parse_args().scripts or sorted((ROOT / "notebooks").glob("[0-9]*.py"))
    for script in chosen:
        print(script.name, flush=True)
        try:
            sync(script)
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
