"""Plain attention: maps computed from the tokens by queries and keys; some heads' may be derived (hMHSA)."""

from collections.abc import Iterator

from nas.arch import tiling
from nas.arch.operator import AttentionKind, Look, Operations, Sizes, Stage
from nas.arch.operators import hallucination


def _cost(s: Sizes) -> Operations:
    """Copies of heads stay on the fused kernel where no map is exported: they compute their scores again."""
    rows = (2 * s.R + s.H) * s.d
    fused = s.variant is not None and not (s.variant.mixes or s.exports)
    return (
        ("qkv", s.T * s.D * rows, (s.D + 1) * rows),
        ("scores", (s.H if fused else s.R) * s.T * s.T * s.d, 0),
        *hallucination.operations(s),
        ("mix_values", s.H * s.T * s.T * s.d, 0),
        ("proj", s.T * s.H * s.d * s.D, (s.H * s.d + 1) * s.D),
    )


def _memory(s: Sizes, B: int) -> Iterator[Stage]:
    """Maps are written where a later layer takes them or heads are mixed; else the fused kernel runs."""
    d, H, R, E, T = s.d, s.H, s.R, s.E, s.T
    X, row = B * T * s.D, B * T * d
    qkv = row * (2 * R + H)
    yield "qkv", qkv
    if s.exports or (s.variant is not None and s.variant.mixes):
        size = tiling.images_of_maps(H, T, tiling.VALUE_BYTES, hallucination.convolved(s))

        def stages(n: int) -> Iterator[Stage]:
            logits = n * R * T * T
            yield "scores", n * T * R * d * (3 if n > 1 and R > 1 else 1) + logits
            for name, values in hallucination.by_logits(s, n):
                yield name, logits + values

        kept = (H * T * d, H * T * T * s.exports_maps, R * T * T * s.exports_logits)
        for name, values in hallucination.in_chunks(stages, B, size, sum(kept)):
            yield name, qkv + values
        copied = H * row if size >= B and H > 1 else 0
        yield "proj", qkv + B * sum(kept) + copied + X
    elif E:
        repeated = -(-E // R) * R * row if E > R else 0
        real, derived = R * row, E * row
        yield "mix_values", qkv + real + B * T * R
        yield "hallucinate", qkv + real + 2 * repeated + derived
        yield "mix_values", qkv + real + repeated + max(2 * derived + B * T * E, derived + H * row)
        yield "proj", qkv + real + repeated + H * row + X
    else:
        yield "mix_values", qkv + H * row + B * T * H
        yield "proj", qkv + H * row + X


def _features(s: Sizes) -> dict[str, int]:
    """Softmax of maps that are written, or stay inside the fused kernel."""
    is_written = s.exports or s.E > 0
    return {
        "softmax written" if is_written else "softmax fused": s.R * s.T * s.T,
        **({"maps derived": s.E * s.T * s.T} if s.E else {}),
    }


DYNAMIC = AttentionKind(
    name="dynamic",
    words="maps computed from the tokens",
    order=0,
    rank=40,
    looks=(Look("dynamic", "●", (0, 114, 178)), Look("hallucinated", "◐", (230, 159, 0))),
    provides=True,
    derives=True,
    cost=_cost,
    memory=_memory,
    features=_features,
)
