"""Linear-angular attention: no maps, a cost linear in the number of tokens (Castling-ViT, arXiv 2211.10526)."""

from collections.abc import Iterator

from nas.arch import tiling
from nas.arch.operator import AttentionKind, Look, Operations, Place, Sizes, Stage


def _cost(s: Sizes) -> Operations:
    """Keys times values first; on the grid a depth-wise 3x3 of the values, one filter a head."""
    on_grid = (("conv_values", 9 * s.N * s.H * s.d, 9 * s.H),) if s.on_grid else ()
    return (
        ("qkv", 3 * s.T * s.D * s.H * s.d, 3 * (s.D + 1) * s.H * s.d),
        ("mix_values", 2 * s.H * s.T * s.d * s.d, s.H),
        *on_grid,
        ("proj", s.T * s.H * s.d * s.D, (s.H * s.d + 1) * s.D),
    )


def _memory(s: Sizes, B: int) -> Iterator[Stage]:
    """A few images at a time, whose results are gathered."""
    d, H, N, T, D = s.d, s.H, s.N, s.T, s.D
    size = min(tiling.images_of_tokens(T, D, tiling.VALUE_BYTES), B)
    for start in range(0, B, size):
        n, done = min(size, B - start), start * T * D
        V, X, norms = n * T * H * d, n * T * D, n * T * H
        yield "qkv", done + 3 * V
        yield "mix_values", done + 8 * V + norms + n * H * d * d
        if s.on_grid:
            grid = n * N * H * d
            yield "conv_values", done + 5 * V + norms + 2 * grid + 9 * H * d
            yield "proj", done + 5 * V + norms + X
        else:
            yield "proj", done + 5 * V + norms + (V if H > 1 else 0) + X
    if size < B:
        yield "proj", 2 * B * T * D


def _broken(at: Place) -> str:
    """In a space it stands only where it is cheaper than dynamic attention (C8)."""
    if at.space is None:
        return ""
    _, backbone = at.space
    if backbone.key_stride(at.tokens) > 1:
        return "dynamic attention with reduced keys costs less than linear attention (C8)"
    count = at.tokens + backbone.num_prefix_tokens
    if count > backbone.head_dim + 4:
        return ""
    return f"linear attention pays from {backbone.head_dim + 5} tokens on, here are {count} (C8)"


LINEAR = AttentionKind(
    name="linear",
    words="no maps: linear-angular attention",
    order=30,
    rank=30,
    looks=(Look("linear", "◇", (86, 180, 233)),),
    rule="C8",
    cost=_cost,
    memory=_memory,
    broken=_broken,
)
