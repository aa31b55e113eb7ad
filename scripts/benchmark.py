"""Compare speed and memory with anomalib; see ``nbhelpers/runner/benchmark.py``."""

import sys

import study_command  # noqa: F401  (says in one line when the study is not installed)
from nbhelpers.runner.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
