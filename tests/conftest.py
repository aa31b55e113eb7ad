"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

from nbhelpers.config import WORKSPACE_VARIABLE


@pytest.fixture(scope="session")
def workspace() -> Path:
    """The temporary folder below which this session's data and outputs lie."""
    return Path(os.environ[WORKSPACE_VARIABLE])
