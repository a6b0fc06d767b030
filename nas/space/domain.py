"""What may be chosen for a layer, which sequences are legal, which bounds hold."""

from dataclasses import dataclass, fields
from typing import Any

from nas.arch import AttentionKind, Hallucination, Reducer


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDomain:
    """What may be chosen for one layer; the names and meanings are those of `LayerChoice`."""

    num_tokens: tuple[int, ...]
    reducer: tuple[Reducer, ...] = (Reducer.POOL,)
    attention: tuple[AttentionKind, ...] = (AttentionKind.DYNAMIC,)
    hallucination_ratio: tuple[float, ...] = (0.0,)
    hallucination: tuple[Hallucination, ...] = (Hallucination.COPY,)
    num_heads: tuple[int, ...]
    ffn_rank: tuple[float, ...] = (1.0,)
    mlp_ratio: tuple[float, ...] = (4.0,)

    def __post_init__(self) -> None:
        kinds = (("reducer", Reducer), ("attention", AttentionKind), ("hallucination", Hallucination))
        for gene, kind in kinds:
            object.__setattr__(self, gene, tuple(kind(value) for value in getattr(self, gene)))


GENES = tuple(f.name for f in fields(LayerDomain))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules between layers that a space may set; the others follow from what the operators are.

    Attributes:
        max_shared: Most shared layers in a row behind one provider (C4).
        max_reductions: Most layers that reduce their tokens (C12).
        static_after_reduction: Whether layers may be static once tokens were reduced by pooling (C7). Behind
            `glad` none is.
    """

    max_shared: int = 2
    max_reductions: int = 3
    static_after_reduction: bool = False


PLAIN: dict[str, Any] = {"mlp_ratio": 4.0, "ffn_rank": 1.0}
