"""What may be chosen for a layer."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDomain:
    """What may be chosen for one layer; the names and meanings are those of `LayerChoice`."""

    num_tokens: tuple[int, ...]
    reducer: tuple[str, ...] = ("pool",)
    attention: tuple[str, ...] = ("dynamic",)
    hallucination_ratio: tuple[float, ...] = (0.0,)
    hallucination: tuple[str, ...] = ("copy",)
    num_heads: tuple[int, ...]
    ffn_rank: tuple[float, ...] = (1.0,)
    mlp_ratio: tuple[float, ...] = (4.0,)


GENES = tuple(f.name for f in fields(LayerDomain))
PLAIN: dict[str, Any] = {"mlp_ratio": 4.0, "ffn_rank": 1.0}
