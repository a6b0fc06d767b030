"""Plain attention: maps computed from the tokens by queries and keys; some heads' may be derived (hMHSA)."""

from collections.abc import Iterator

from nas.arch import tiling
from nas.arch.operator import AttentionKind, Look, Operations, Sizes, Stage
from nas.arch.operators import hallucination
from nas.arch.parts.key_reduction import key_inputs, reduction_memory, reduction_operations


def _cost(s: Sizes) -> Operations:
    """Copies of heads stay on the fused kernel where no map is exported: they compute their scores again."""
    q, kv = s.R * s.d, (s.R + s.H) * s.d
    fused = s.variant is not None and not (s.variant.mixes or s.exports)
    return (
        *reduction_operations(s),
        ("qkv", (s.T * q + s.K * kv) * s.D, (s.D + 1) * (q + kv)),
        ("scores", (s.H if fused else s.R) * s.T * s.K * s.d, 0),
        *hallucination.operations(s),
        ("mix_values", s.H * s.T * s.K * s.d, 0),
        ("proj", s.T * s.H * s.d * s.D, (s.H * s.d + 1) * s.D),
    )


def _memory(s: Sizes, B: int) -> Iterator[Stage]:
    """Maps are written where a later layer takes them or heads are mixed; else the fused kernel runs."""
    d, H, R, E, T, K = s.d, s.H, s.R, s.E, s.T, s.K
    X, row = B * T * s.D, B * T * d
    qkv = row * R + B * K * d * (R + H)
    yield from reduction_memory(s, B)
    yield "qkv", key_inputs(s, B) + qkv
    if s.exports or (s.variant is not None and s.variant.mixes):
        size = tiling.images_of_maps(H, T * K, tiling.VALUE_BYTES, hallucination.convolved(s))

        def stages(n: int) -> Iterator[Stage]:
            logits = n * R * T * K
            yield "scores", n * R * d * (2 * T + K if n > 1 and R > 1 else T) + logits
            for name, values in hallucination.by_logits(s, n):
                yield name, logits + values

        kept = (H * T * d, H * T * K * s.exports_maps, R * T * K * s.exports_logits)
        for name, values in hallucination.in_chunks(stages, B, size, sum(kept)):
            yield name, qkv + values
        copied = H * row if size >= B and H > 1 else 0
        yield "proj", qkv + B * sum(kept) + copied + X
    elif E:
        repeated = -(-E // R) * R * row if E > R else 0  # of queries
        keys, real, derived = repeated // T * K, R * row, E * row
        yield "mix_values", qkv + real + B * T * R
        yield "hallucinate", qkv + real + keys + repeated + derived
        yield "mix_values", qkv + real + keys + max(2 * derived + B * T * E, derived + H * row)
        yield "proj", qkv + real + keys + H * row + X
    else:
        yield "mix_values", qkv + H * row + B * T * H
        yield "proj", qkv + H * row + X


def _features(s: Sizes) -> dict[str, int]:
    """Softmax of maps that are written, or stay inside the fused kernel."""
    is_written = s.exports or s.E > 0
    return {
        "softmax written" if is_written else "softmax fused": s.R * s.T * s.K,
        **({"maps derived": s.E * s.T * s.K} if s.E else {}),
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
