"""What may be chosen for a layer, and what of it makes distinct networks."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import product
from typing import Any

from nas.arch import ATTENTION, LayerChoice, hallucinated_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDomain:
    """What may be chosen for one layer; the names and meanings are those of `LayerChoice`."""

    num_tokens: tuple[int, ...]
    reducer: tuple[str, ...] = ("pool",)
    embed_dim: tuple[int, ...] = (0,)  # channels of a layer that reduces its tokens; 0: as many as arrive
    attention: tuple[str, ...] = ("dynamic",)
    hallucination_ratio: tuple[float, ...] = (0.0,)
    hallucination: tuple[str, ...] = ("copy",)
    num_heads: tuple[int, ...]
    ffn_rank: tuple[float, ...] = (1.0,)
    ffn_conv: tuple[bool, ...] = (False,)
    mlp_ratio: tuple[float, ...] = (4.0,)

    def widths(self, arriving: int, reducer: str | None) -> tuple[int, ...]:
        """What `LayerChoice.embed_dim` may be where so many channels arrive: more, or 0 (C16)."""
        return (0,) if reducer is None else tuple(n for n in self.embed_dim if not n or n > arriving)

    def convolutions(self, on_grid: bool) -> tuple[bool, ...]:
        """What `LayerChoice.ffn_conv` may be over tokens that lie on their grid, or do not (C19)."""
        return self.ffn_conv if on_grid else tuple(convolves for convolves in self.ffn_conv if not convolves)

    @property
    def genes(self) -> tuple[str, ...]:
        """Its genes; of `LATER`, those that it makes use of."""
        return tuple(gene for gene in GENES if LATER.get(gene) != getattr(self, gene))


GENES = tuple(f.name for f in fields(LayerDomain))
LATER = {"embed_dim": (0,), "ffn_conv": (False,)}
"""Genes that older spaces have not, with the choices that they have there."""
PLAIN: dict[str, Any] = {"mlp_ratio": 4.0, "ffn_rank": 1.0}

AttentionChoice = tuple[str, int, float, str | None]
"""(kind, heads, hallucination ratio, variant) of a layer."""


def attention_choices(domain: LayerDomain, provided: int) -> Iterator[AttentionChoice]:
    """Every attention that a domain has, legal or not, behind a provider with so many derived heads; some repeat."""
    for kind, heads, ratio in product(domain.attention, domain.num_heads, domain.hallucination_ratio):
        derived = ATTENTION[kind].derived(hallucinated_heads(heads, ratio), provided)
        for variant in domain.hallucination if derived else (None,):
            yield kind, heads, derived / heads, variant


@lru_cache(maxsize=4096)
def feed_forwards(domain: LayerDomain) -> tuple[tuple[float, float], ...]:
    """The distinct (mlp_ratio, ffn_rank) of a domain: ranks that save nothing are 1."""
    made = (
        LayerChoice(num_tokens=1, num_heads=1, mlp_ratio=ratio, ffn_rank=rank)
        for ratio, rank in product(domain.mlp_ratio, domain.ffn_rank)
    )
    return tuple(dict.fromkeys((layer.mlp_ratio, layer.ffn_rank) for layer in made))


@lru_cache(maxsize=65536)
def structure(tokens: int, reducer: str | None, width: int, convolves: bool, *attention: Any) -> LayerChoice:
    """A choice whose feed-forward has the sizes of `PLAIN`; the attention is an `AttentionChoice`."""
    named = zip(("attention", "num_heads", "hallucination_ratio", "hallucination"), attention, strict=True)
    choices = {"embed_dim": width, "ffn_conv": convolves, **dict(named), **PLAIN}
    return LayerChoice(num_tokens=tokens, reducer=reducer, **choices)


@lru_cache(maxsize=65536)
def with_feed_forward(structure: LayerChoice, mlp_ratio: float, ffn_rank: float) -> LayerChoice:
    """A structure with a feed-forward of other sizes."""
    return replace(structure, mlp_ratio=mlp_ratio, ffn_rank=ffn_rank)


def structure_of(layer: LayerChoice) -> LayerChoice:
    """A choice without the sizes of its feed-forward."""
    return with_feed_forward(layer, **PLAIN)
