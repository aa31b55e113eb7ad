"""Set-up of all tests, those that nbval makes of the notebooks included: a workspace and an
environment.

Everything that a test or a notebook writes goes to one temporary workspace, which nbval's kernels
find through the environment. The papermill run of the study comes first, so nbval's runs find the
models already fitted.
"""

import os
import shutil
import tempfile

import pytest

from nbhelpers.config import WORKSPACE_VARIABLE, load_config
from nbhelpers.runner.processes import notebook_environment
from nbhelpers.runner.stored_outputs import TAG, settle

WORKSPACE = pytest.StashKey[str]()


def pytest_configure(config):
    config.stash[WORKSPACE] = tempfile.mkdtemp(prefix="study-test-")
    os.environ.pop("MPLBACKEND", None)
    os.environ.update(notebook_environment(load_config().threads))
    os.environ[WORKSPACE_VARIABLE] = config.stash[WORKSPACE]


def pytest_unconfigure(config):
    shutil.rmtree(config.stash[WORKSPACE], ignore_errors=True)


def pytest_collectstart(collector):
    """Keep nbval from comparing what goes to the standard error, where warnings carry paths and
    process ids, and HTML: each table has a twin in plain text, which is compared.
    """
    if collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "text/html")


def pytest_itemcollected(item):
    """Let nbval compare what a trained network says within a tolerance, see
    ``nbhelpers/runner/stored_outputs.py``.
    """
    if not hasattr(item, "compare_outputs"):
        return
    compare, tagged = item.compare_outputs, TAG in item.cell.metadata.get("tags", ())

    def compare_settled(new, stored, *args, **kwargs):
        for texts, references in zip(_texts(new), _texts(stored), strict=True):
            for (holder, key), (reference, _) in zip(texts, references, strict=False):
                holder[key] = settle(
                    item.sanitize(holder[key]), item.sanitize(reference[key]), tagged
                )
        return compare(new, stored, *args, **kwargs)

    item.compare_outputs = compare_settled


def _texts(outputs):
    """Where the texts of a cell's outputs stand: those that it printed, and those of its tables."""
    printed = [(output, "text") for output in outputs if output.get("name") == "stdout"]
    return printed, [
        (output["data"], "text/plain")
        for output in outputs
        if "text/plain" in output.get("data", {})
    ]
