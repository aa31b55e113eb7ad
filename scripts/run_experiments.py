"""Run the whole study, or a part of it: the same as ``study run``."""

import sys

from study_command import study

main = study("run")

if __name__ == "__main__":
    sys.exit(main())
