"""Fewer keys than queries: keys and values of a coarser grid, by a convolution (PVT, arXiv 2102.12122).

Letters: B images, D channels, K keys, S tokens of one side of the square that becomes a key.
"""

from collections.abc import Iterator

from nas.arch.operator import Operations, Sizes, Stage


def reduction_operations(s: Sizes) -> Operations:
    """A convolution of S x S tokens and a norm; nothing where all tokens are keys."""
    if s.stride == 1:
        return ()
    return (("keys", s.K * s.D * s.D * s.stride**2, s.D * s.D * s.stride**2 + 3 * s.D),)


def reduction_memory(s: Sizes, B: int) -> Iterator[Stage]:
    """The keys before the norm and behind it, with the two numbers that it keeps of each."""
    if s.stride > 1:
        X = B * s.K * s.D
        yield "keys", X
        yield "keys", 2 * X + 2 * B * s.K


def key_inputs(s: Sizes, B: int) -> int:
    """Values that stay alive for what is made of keys."""
    return B * s.K * s.D if s.stride > 1 else 0
