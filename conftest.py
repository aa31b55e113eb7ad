"""Set-up of all tests, those that nbval makes of the notebooks included: a workspace and an
environment.

Everything that a test or a notebook writes goes to a temporary workspace, which nbval's kernels
find through the environment: one for each process of pytest, or, if ``STUDY_TEST_WORKSPACE`` names
it, one for several. make does so for the papermill run of the study and for nbval after it, which
thus finds the models already fitted.
"""

import os
import shutil
import tempfile

import jupytext  # noqa: F401  (before libraries that copy PyYAML's dumper, which it extends)
import pytest

from nbhelpers.config import WORKSPACE_VARIABLE, load_config
from nbhelpers.runner.processes import notebook_environment
from nbhelpers.runner.stored_outputs import TAG, settle

SHARED_VARIABLE = "STUDY_TEST_WORKSPACE"
OWN_WORKSPACE = pytest.StashKey[str]()


def pytest_configure(config):
    workspace = os.environ.get(SHARED_VARIABLE)
    if not workspace:
        workspace = config.stash[OWN_WORKSPACE] = tempfile.mkdtemp(prefix="study-test-")
    os.environ.pop("MPLBACKEND", None)
    os.environ.update(notebook_environment(load_config().threads))
    os.environ[WORKSPACE_VARIABLE] = workspace


def pytest_unconfigure(config):
    if OWN_WORKSPACE in config.stash:
        shutil.rmtree(config.stash[OWN_WORKSPACE], ignore_errors=True)


def pytest_collectstart(collector):
    """Keep nbval from comparing what goes to the standard error, where warnings carry paths and
    process ids, and HTML: each table has a twin in plain text, which is compared.
    """
    if collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "text/html")


def pytest_itemcollected(item):
    """Let nbval compare what depends on a trained network within a tolerance, see
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
    """Give the places of the texts in a cell's outputs: what it printed, and its tables."""
    printed = [(output, "text") for output in outputs if output.get("name") == "stdout"]
    return printed, [
        (output["data"], "text/plain")
        for output in outputs
        if "text/plain" in output.get("data", {})
    ]
