"""More channels for every token, behind a reducer: the widths of a pyramid (PiT, arXiv 2103.16302; PSViT, 2108.03428).

Letters: B images, T tokens, W channels that arrive, D channels of the layer.
"""

from nas.arch.operator import Operations


def widen_operations(T: int, W: int, D: int) -> Operations:
    """A linear layer without bias, for patch and prefix tokens alike."""
    return (("widen", T * W * D, W * D),)


def widen_memory(T: int, W: int, D: int, B: int) -> int:
    """Values alive at once beside the layer's input: the tokens before and after."""
    return B * T * (W + D)
