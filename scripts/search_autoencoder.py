"""Search for an autoencoder's training settings: the same as ``study search``."""

import sys

from study_command import study

main = study("search")

if __name__ == "__main__":
    sys.exit(main())
