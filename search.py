"""Front door: `python search.py <command>`; the same program as the console script `nas`."""

import sys

from nas.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
