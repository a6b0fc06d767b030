"""Token pooling after a depth-wise 3x3 correction of the grid, which is zero at the start."""

from nas.arch.operator import Operations, Reducer, Sizes
from nas.arch.operators.pool import pooled


def _cost(s: Sizes) -> Operations:
    """The convolution; averages are not counted."""
    return (("conv_pool", 9 * s.D * s.before, 9 * s.D),)


def _memory(s: Sizes, B: int) -> int:
    """The grid and its correction are alive together."""
    old, new = B * s.before * s.D, B * s.N * s.D
    return max(2 * old, old + new, pooled(s, B))


CONV_POOL = Reducer(
    name="conv_pool",
    words="the same after a learned depth-wise 3x3 correction",
    rank=20,
    colour=(230, 159, 0),
    cost=_cost,
    memory=_memory,
)
