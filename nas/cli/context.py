"""What every command knows: how loud to be, whether to show tracebacks."""

from dataclasses import dataclass

from nas.base import Reporter


@dataclass(slots=True)
class _Common:
    quiet: bool = False
    debug: bool = False


COMMON = _Common()


def reporter() -> Reporter:
    """What tells people how a command goes on, as loud as they want it."""
    return Reporter(quiet=COMMON.quiet)
