"""``python -m nbhelpers.runner``: the command ``study``, of the clone that one stands in."""

import sys

from nbhelpers.runner.commands import main

sys.exit(main())
