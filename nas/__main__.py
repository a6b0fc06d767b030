"""`python -m nas`, and the console script `nas`: the program, which Ctrl-C ends quietly also while it is imported."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> int:
    """Import the command line and run it; returns the exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # what is in the middle of an import has nothing to tidy up
        signal.signal(signal.SIGINT, _leave)
    from nas.cli import main as command_line

    signal.signal(signal.SIGINT, before)
    return command_line()


def _leave(_: int, __: FrameType | None) -> None:
    os.write(2, b"\ninterrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
