"""Set-up of all tests, those that nbval makes of the notebooks included: a workspace and an environment.

Everything that a test or a notebook writes goes to one temporary workspace, which nbval's kernels find through
the environment. The papermill run of the study comes first, so nbval's runs find the models already fitted.
"""

import os
import shutil
import tempfile

import pytest

from nbhelpers.config import WORKSPACE_VARIABLE, load_config
from processes import notebook_environment

WORKSPACE = pytest.StashKey[str]()


def pytest_configure(config):
    config.stash[WORKSPACE] = tempfile.mkdtemp(prefix="study-test-")
    os.environ.pop("MPLBACKEND", None)
    os.environ.update(notebook_environment(load_config().threads))
    os.environ[WORKSPACE_VARIABLE] = config.stash[WORKSPACE]


def pytest_unconfigure(config):
    shutil.rmtree(config.stash[WORKSPACE], ignore_errors=True)


def pytest_collectstart(collector):
    """Keep nbval from comparing what goes to the standard error: warnings carry paths and process ids."""
    if collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
