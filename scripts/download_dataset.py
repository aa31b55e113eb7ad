"""Fetch or verify MVTec AD: the same as ``study download``."""

import sys

from study_command import study

main = study("download")

if __name__ == "__main__":
    sys.exit(main())
