"""Hallucinated heads: maps that derive from those of the real heads (hMHSA, arXiv 2306.10875).

The parent of derived head j is real head j mod R. What follows from maps that are written at all is here too, for
the kinds of attention that derive.
"""

from collections.abc import Callable, Iterator

from nas.arch import tiling
from nas.arch.operator import Hallucination, Operations, Sizes, Stage

ROUNDING = 1e-9  # 0.1 * 10 must count as one head

COPY = Hallucination(
    name="copy", words="a parent's logits times a learned gain: stays on the fused attention kernel", rank=10
)
MIX = Hallucination(name="mix", words="the parent's logits plus a 1x1 mix of the real heads'", rank=20, mixes=True)
MIX_CONV = Hallucination(
    name="mix_conv",
    words="the same plus a depth-wise 3x3 of the parent's patch-by-patch logits",
    rank=30,
    mixes=True,
    convolves=True,
)


def hallucinated_heads(num_heads: int, ratio: float) -> int:
    """Whole hallucinated heads for a ratio: rounded down, and at least one head stays real (C6)."""
    return min(int(num_heads * ratio + ROUNDING), num_heads - 1) if ratio else 0


def operations(s: Sizes) -> Operations:
    """Of the derived heads' logits; nothing where no head is derived."""
    if s.variant is None:
        return ()
    weights = s.E * s.R if s.variant.mixes else s.E
    macs = s.E * s.R * s.T * s.K if s.variant.mixes else 0
    if s.variant.convolves:
        macs, weights = macs + 9 * s.E * s.N * _patch_keys(s), weights + 9 * s.E
    return (("hallucinate", macs, weights),)


def _patch_keys(s: Sizes) -> int:
    """Keys that are patches."""
    return s.K - (s.T - s.N)


def convolved(s: Sizes) -> int:
    """Derived heads that are convolved."""
    return s.E if s.variant is not None and s.variant.convolves else 0


def by_logits(s: Sizes, n: int) -> Iterator[Stage]:
    """From the logits of the real heads of n images, which are not counted, to the mixed values."""
    H, R, E, N, T, K = s.H, s.R, s.E, s.N, s.T, s.K
    M, square = _patch_keys(s), n * T * K
    softmaxed = H * square
    if s.variant is not None:
        rounds = -(-E // R)  # of parents
        weights = R * R + E * R if s.variant.mixes else 0
        repeats = E > R and (s.variant.convolves or not s.variant.mixes)
        repeated = rounds * R * square if repeats else 0
        yield "hallucinate", weights + repeated + E * square
        if s.variant.convolves:
            blocks = tiling.row_blocks(n * E, N)
            kernels = 9 * n * E * blocks if E > 1 and (n > 1 or blocks > 1) else 0
            if blocks > 1:
                rows = N // blocks + 2
                cut = n * E * (N + 2) * M + (n * E * blocks * rows * M if n * E > 1 else 0)
            else:
                cut = n * E * N * M if n > 1 and 1 < E < rounds * R else 0
            yield "hallucinate", weights + repeated + E * square + cut + kernels + n * E * N * M
        yield "hallucinate", (E + H) * square
        softmaxed += H * square
    yield "softmax", softmaxed
    yield "mix_values", H * square + n * H * s.d * (T + (K if n > 1 and H > 1 else 0))


def in_chunks(stages: Callable[[int], Iterator[Stage]], B: int, size: int, kept: int) -> Iterator[Stage]:
    """Stages of `size` images at a time, whose results of `kept` values an image are gathered."""
    if size >= B:
        yield from stages(B)
        return
    yield from stages(size)
    yield "mix_values", (size + B) * kept
    for n in {min(size, B - size), B % size or size}:
        for name, values in stages(n):
            yield name, (B + size) * kept + values
