"""Make the splits and the shifted twins: the same as ``study splits``."""

import sys

from study_command import study

main = study("splits")

if __name__ == "__main__":
    sys.exit(main())
