"""What a Python program calls: a search from images to the front, and a run that is there."""

# fmt: off
from nas.api.run import Run, compare, load
from nas.api.search import search

__all__ = ["Run", "compare", "load", "search"]
