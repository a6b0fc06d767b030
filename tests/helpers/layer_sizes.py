"""A layer in numbers, and where it stands: 16 tokens and a class token, 24 channels, 3 heads of 8."""

from typing import Any

from factories import backbone

from nas.arch.operator import Operations, Place, Rules, Sizes
from nas.arch.operators import HALLUCINATION


def sizes(*, derived: int = 0, variant: str = "copy", **changes: Any) -> Sizes:
    heads = changes.get("H", 3)
    numbers = {
        "D": 24,
        "d": 8,
        "H": heads,
        "R": heads - derived,
        "E": derived,
        "N": 16,
        "T": changes.get("N", 16) + 1,
        "K": changes.get("T", changes.get("N", 16) + 1),
        "stride": 1,
        "before": 16,
        "width": 24,
        "on_grid": True,
        "exports_maps": False,
        "exports_logits": False,
        "variant": HALLUCINATION[variant] if derived else None,
    }
    return Sizes(**(numbers | changes))


def place(rules: Rules | None = None, **changes: Any) -> Place:
    """Behind a dynamic layer of the same heads, which may still be shared; with rules: in a space on `backbone()`."""
    standing = {
        "tokens": 16,
        "heads": 3,
        "derived": 0,
        "arriving": 16,
        "on_grid": True,
        "shared_heads": 3,
        "shared_derived": 0,
        "shares_left": 1,
        "space": None if rules is None else (rules, backbone()),
    }
    return Place(**(standing | changes))


def macs(operations: Operations) -> int:
    return sum(macs for _, macs, _ in operations)


def params(operations: Operations) -> int:
    return sum(params for _, _, params in operations)
