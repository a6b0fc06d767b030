"""`python -m nas`, and the console script `nas`: the program, which Ctrl-C ends quietly also while it is imported."""

import os
import re
import shlex
import signal
import sys
from contextlib import suppress
from importlib import metadata
from types import FrameType

MISUSE, INTERRUPTED = 2, 130


def main(alone: str = "--help") -> int:
    """Import the command line and run it, `alone` where no command is given; returns the exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # what is in the middle of an import has nothing to tidy up
        signal.signal(signal.SIGINT, _leave)
    try:
        from nas.cli import main as command_line

        signal.signal(signal.SIGINT, before)
        return command_line(alone=alone)
    except ModuleNotFoundError as error:
        lacking = _absent_requirements()
        if not lacking or (error.name or "").partition(".")[0] == "nas":
            raise
        sys.stderr.write(
            f"error: {error.name} cannot be imported, as nas is installed without all that it needs\n"
            f"hint: pip install {' '.join(map(shlex.quote, lacking))}\n"
        )
        return MISUSE


def _absent_requirements() -> list[str]:
    """What this package needs and is not installed, as its metadata has it; empty where it is not installed itself."""
    with suppress(metadata.PackageNotFoundError):
        return [text for text in metadata.requires("vit-front") or () if "extra ==" not in text and _is_absent(text)]
    return []


def _is_absent(requirement: str) -> bool:
    name = re.match(r"[\w.-]*", requirement)
    try:
        metadata.version(name[0] if name else requirement)
    except metadata.PackageNotFoundError:
        return True
    return False


def _leave(_: int, __: FrameType | None) -> None:
    os.write(2, b"\ninterrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
