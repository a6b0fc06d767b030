"""Shared attention: the maps of the nearest earlier layer that is not shared (PSViT, arXiv 2108.03428)."""

from collections.abc import Iterator

from nas.arch import tiling
from nas.arch.operator import AttentionKind, Look, Operations, Place, Sizes, Stage
from nas.arch.operators import hallucination
from nas.arch.parts.key_reduction import key_inputs, reduction_memory, reduction_operations


def _cost(s: Sizes) -> Operations:
    """Values only; with derived heads the maps are made anew from the provider's logits (METHODS 5.3)."""
    return (
        *reduction_operations(s),
        ("v", s.K * s.D * s.H * s.d, (s.D + 1) * s.H * s.d),
        *hallucination.operations(s),
        ("mix_values", s.H * s.T * s.K * s.d, 0),
        ("proj", s.T * s.H * s.d * s.D, (s.H * s.d + 1) * s.D),
    )


def _memory(s: Sizes, B: int) -> Iterator[Stage]:
    """What the provider handed on is counted where it lives, not here."""
    H, T, K = s.H, s.T, s.K
    V, Y = B * K * H * s.d, B * T * H * s.d
    yield from reduction_memory(s, B)
    yield "v", key_inputs(s, B) + V
    size = B
    if s.E:
        size = tiling.images_of_maps(H, T * K, tiling.VALUE_BYTES, hallucination.convolved(s))
        chunks = hallucination.in_chunks(lambda n: hallucination.by_logits(s, n), B, size, H * T * s.d)
        for name, values in chunks:
            yield name, V + values
    else:
        yield "mix_values", V + Y + (V if B > 1 and H > 1 else 0)
    yield "proj", V + Y + (Y if size >= B and H > 1 else 0) + B * T * s.D


def _broken(at: Place) -> str:
    """Maps fit the tokens and heads that they were made for (C1 to C6)."""
    if at.space is None:
        if not at.shared_heads:
            return "shared attention without a dynamic provider at this token count (C1, C2)"
    else:
        most = at.space[0].max_shared
        if at.tokens < at.arriving:
            return f"tokens fall from {at.arriving} to {at.tokens}, so no maps can be shared (C2)"
        if not most:
            return "shared needs a rules.max_shared of at least 1 (C4)"
        if not at.shares_left:
            text = f"shared needs a dynamic layer before it, with at most {most - 1} shared ones in between"
            return f"{text} (C1, C4, C5)"
    if at.heads != at.shared_heads:
        return f"{at.heads} heads share the maps of {at.shared_heads} (C3)"
    if at.derived not in (0, at.shared_derived):
        return f"{at.derived} heads derived from a provider that derives {at.shared_derived} (C6)"
    return ""


def _features(s: Sizes) -> dict[str, int]:
    """Entries of maps that are read, or made anew."""
    return {"maps shared": s.H * s.T * s.K}


SHARED = AttentionKind(
    name="shared",
    words="the maps of the nearest earlier layer that is not shared",
    order=20,
    rank=10,
    looks=(Look("shared", "○", (0, 158, 115)),),
    rule="C1 to C5",
    own_maps=False,
    shares=True,
    derives=True,
    cost=_cost,
    memory=_memory,
    broken=_broken,
    features=_features,
)
