"""The command line."""

# fmt: off
from nas.cli.app import main

__all__ = ["main"]
