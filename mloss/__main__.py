"""`python -m mloss` is the command `mloss`."""

import sys

from mloss.commands import main

sys.exit(main())
