"""Front door: `python search.py <command>`, the same as `nas <command>`; without a command it is `nas run`."""

import sys

from nas.__main__ import main

if __name__ == "__main__":
    sys.exit(main(alone="run"))
