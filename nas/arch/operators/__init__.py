"""The operators of the search space, a file a method. Every file here and below is read; nothing else lists them.

`ATTENTION`, `REDUCERS`, `HALLUCINATION` and `STEMS` have them by their values of the genes, in the order of messages.
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, TypeVar

from nas.arch.operator import AttentionKind, Hallucination, Reducer, Stem

Operator = TypeVar("Operator", AttentionKind, Reducer, Hallucination, Stem)

_FILES = walk_packages(__path__, f"{__name__}.")
_FOUND = [value for file in _FILES for value in vars(import_module(file.name)).values()]


def _table(kind: type[Operator], order: Callable[[Operator], Any]) -> dict[str, Operator]:
    found = [value for value in _FOUND if isinstance(value, kind)]
    return {operator.name: operator for operator in sorted(found, key=order)}


ATTENTION = _table(AttentionKind, lambda kind: kind.order)
REDUCERS = _table(Reducer, lambda reducer: reducer.rank)
HALLUCINATION = _table(Hallucination, lambda variant: variant.rank)
STEMS = _table(Stem, lambda stem: stem.rank)
