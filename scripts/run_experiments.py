"""Run the whole study, or a part of it; see ``nbhelpers/runner/run.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nbhelpers.runner.run import main

if __name__ == "__main__":
    sys.exit(main())
