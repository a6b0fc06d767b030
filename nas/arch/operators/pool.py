"""Token pooling: the average over the target grid (PSViT, arXiv 2108.03428)."""

from nas.arch.operator import Reducer, Sizes


def pooled(s: Sizes, B: int) -> int:
    """Values of the new patch tokens, and of all tokens that they become a part of."""
    return B * s.N * s.D + B * s.T * s.D


def _memory(s: Sizes, B: int) -> int:
    """The grid is copied once."""
    return max(B * s.before * s.D, pooled(s, B))


POOL = Reducer(name="pool", words="the average over the smaller grid", rank=10, colour=(0, 114, 178), memory=_memory)
