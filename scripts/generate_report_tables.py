"""Make the report again from stored results: the same as ``study report``."""

import sys

from study_command import study

main = study("report")

if __name__ == "__main__":
    sys.exit(main())
