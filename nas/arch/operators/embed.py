"""The downsampling between the stages of PVT v2 (arXiv 2106.13797): tokens are embedded anew, fewer and wider.

Letters beside those of `Sizes`: W channels that arrive, n tokens that arrive. There are patch tokens alone.
"""

from nas.arch.operator import Operations, Reducer, Sizes

KERNEL = 3  # tokens; stride 2, one token of padding


def _cost(s: Sizes) -> Operations:
    """A convolution between two norms."""
    W, D = s.D, s.width
    return (("embed", s.N * KERNEL**2 * W * D, 2 * W + (KERNEL**2 * W + 1) * D + 2 * D),)


def _memory(s: Sizes, B: int) -> int:
    """Each norm keeps two numbers a token."""
    n, W, D = s.before, s.D, s.width
    return B * max(n * W + 2 * n, n * W + s.N * D, 2 * s.N * D + 2 * s.N)


EMBED = Reducer(
    name="embed",
    words="a 3x3 convolution of stride 2 between two norms, which widens by itself",
    rank=40,
    colour=(86, 180, 233),
    halves=True,
    widens=True,
    cost=_cost,
    memory=_memory,
)
