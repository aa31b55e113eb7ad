"""Bring notebooks up to date with their .py; see ``nbhelpers/runner/sync.py``."""

import sys

import study_command  # noqa: F401  (says in one line when the study is not installed)
from nbhelpers.runner.sync import main

if __name__ == "__main__":
    sys.exit(main())
