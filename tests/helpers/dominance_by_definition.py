"""Dominance, one pair at a time."""

import math

from nas.base.metrics import LATENCY, TOP1, Objective

MIN, MAX = "minimize", "maximize"
PLANE = (Objective(TOP1, 0.0), Objective(LATENCY, 10.0))


def brute_force(rows, directions):
    """Dominance by its definition, one pair at a time."""

    def no_worse(a, b, direction):
        return a >= b if direction == MAX else a <= b

    def dominates(a, b):
        pairs = list(zip(a, b, directions, strict=True))
        return all(no_worse(*p) for p in pairs) and any(x != y for x, y, _ in pairs)

    finite = [all(map(math.isfinite, row)) for row in rows]
    return [
        ok and not any(dominates(other, row) for other, fine in zip(rows, finite, strict=True) if fine)
        for row, ok in zip(rows, finite, strict=True)
    ]
