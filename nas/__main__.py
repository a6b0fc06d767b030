"""`python -m nas`: the same program as the console script `nas`."""

import sys

from nas.cli import main

sys.exit(main())
