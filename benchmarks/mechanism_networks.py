"""What `mechanisms.py` compares: mechanisms, networks alone, and drawn pairs of one supernet.

`today`: with what the shipped spaces for small images have everywhere, convolutions in all feed-forwards and the mean
of the tokens in the place of a class token.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from nas.arch import Architecture, Backbone, LayerChoice, Rules
from nas.base import ArchitectureError
from nas.space import LayerDomain, SearchSpace

BACKBONE = Backbone(image_size=32, patch_size=4, num_classes=10, head_dim=24)
WIDTH, DEPTH, TOKENS = 96, 6, 64
PLAIN = LayerChoice(num_tokens=TOKENS, num_heads=4, mlp_ratio=4)
SUBNETS = 20
SEARCH_IMAGES = 2_000  # for subnets; what is trained alone is measured on the whole search split

MECHANISMS: dict[str, tuple[str, str, str, str]] = {
    "pooling": ("reducer", "pool", "all tokens", "plain"),
    "pooling, conv_pool": ("reducer", "conv_pool", "pool", "pooling"),
    "GLAD": ("reducer", "glad", "pool", "pooling"),
    "GLAD, all tokens": ("reducer", "glad", "all tokens", "plain"),
    "sharing": ("attention", "shared", "dynamic", "plain"),
    "hallucination, copy": ("hallucination", "copy", "real heads", "plain"),
    "hallucination, mix": ("hallucination", "mix", "real heads", "plain"),
    "hallucination, mix_conv": ("hallucination", "mix_conv", "real heads", "plain"),
    "static": ("attention", "static", "dynamic", "plain"),
    "linear": ("attention", "linear", "dynamic", "plain"),
    "compact ffn": ("ffn_rank", "0.5", "full rank", "plain"),
}
"""Of each row: gene and value that make the mechanism, what stands there instead, and the arm that has this."""
ALONE = {
    "conv stem": ("patch stem", "plain"),
    "conv ffn": ("linear layers alone", "plain"),
    "conv stem and ffn": ("patch stem, linear layers alone", "plain"),
    "growing widths": ("one width, all tokens", "plain"),
    "mean of tokens": ("class token", "plain"),
    "today": ("class token, linear layers alone", "plain"),
    "today, pooling": ("all tokens", "today"),
    "today, sharing": ("dynamic", "today"),
    "today, compact ffn": ("full rank", "today"),
    "today, hallucination": ("real heads", "today"),
}
"""Rows of networks that are trained alone only: what stands there instead, and the arm that has this."""


def arms() -> dict[str, Architecture]:
    """What is trained alone: the plain ViT with one mechanism each, and two networks of several."""
    every, pyramid = range(DEPTH), {**dict.fromkeys((2, 3), 36), **dict.fromkeys((4, 5), 16)}

    def of(**genes: dict[int, Any]) -> Architecture:
        layers = [
            replace(PLAIN, **{gene: values[i] for gene, values in genes.items() if i in values}) for i in range(DEPTH)
        ]
        return Architecture(embed_dim=WIDTH, layers=tuple(layers))

    def reduced(reducer: str, **genes: Any) -> Architecture:
        return of(num_tokens=pyramid, reducer={2: reducer, 4: reducer}, **genes)

    half, convolved = dict.fromkeys(every, 0.5), dict.fromkeys(every, True)
    return {
        "plain": of(),
        "pooling": reduced("pool"),
        "GLAD": reduced("glad"),
        "sharing": of(attention=dict.fromkeys(range(1, DEPTH, 2), "shared")),
        "static": of(attention=dict.fromkeys(range(3), "static")),
        "linear": of(attention=dict.fromkeys(every, "linear")),
        "compact ffn": of(ffn_rank=half),
        "hallucination, copy": of(hallucination_ratio=half, hallucination=dict.fromkeys(every, "copy")),
        "hallucination, mix": of(hallucination_ratio=half, hallucination=dict.fromkeys(every, "mix")),
        "hallucination, mix_conv": of(hallucination_ratio=half, hallucination=dict.fromkeys(every, "mix_conv")),
        "pooling, conv_pool": reduced("conv_pool"),
        "pooled": reduced("pool", attention={1: "shared", 3: "shared"}, ffn_rank=half),
        "conv stem": replace(of(), stem="conv"),
        "conv ffn": of(ffn_conv=convolved),
        "conv stem and ffn": replace(of(ffn_conv=convolved), stem="conv"),
        "mean of tokens": of(),
        "today": of(ffn_conv=convolved),
        "today, pooling": reduced("pool", ffn_conv=convolved),
        "today, sharing": of(ffn_conv=convolved, attention=dict.fromkeys(range(1, DEPTH, 2), "shared")),
        "today, compact ffn": of(ffn_conv=convolved, ffn_rank=half),
        "today, hallucination": of(
            ffn_conv=convolved, hallucination_ratio=half, hallucination=dict.fromkeys(every, "copy")
        ),
        "growing widths": reduced(
            "pool", embed_dim={2: 120, 4: 192}, num_heads={**dict.fromkeys((2, 3), 5), **dict.fromkeys((4, 5), 8)}
        ),
        "joint": reduced(
            "glad",
            attention={0: "static", 1: "linear", 3: "shared"},
            ffn_rank=half,
            hallucination_ratio={2: 0.5, 3: 0.5, 4: 0.5},
            hallucination=dict.fromkeys(range(2, DEPTH), "copy"),
        ),
    }


def backbone_of(arm: str) -> Backbone:
    """What an arm has around its layers."""
    return replace(BACKBONE, class_token=arm != "mean of tokens" and not arm.startswith("today"))


def space_with(arm: str) -> SearchSpace:
    """A space that has an arm."""
    whole, architecture = whole_space(), arms()[arm]
    grown = tuple(width for width in architecture.widths if width > WIDTH)
    layers = [
        replace(
            domain,
            embed_dim=(0, *dict.fromkeys(grown)),
            num_heads=tuple(sorted({*domain.num_heads, layer.num_heads})),
            ffn_conv=(layer.ffn_conv,),
        )
        for domain, layer in zip(whole.layers, architecture.layers, strict=True)
    ]
    return replace(whole, backbone=backbone_of(arm), stem=(architecture.stem,), layers=tuple(layers))


@cache
def whole_space() -> SearchSpace:
    """Every mechanism, and every arm but those of `ALONE`: the draws of `pairs` stay."""
    genes: dict[str, Any] = {
        "num_tokens": (64, 36, 16),
        "reducer": ("pool", "conv_pool", "glad"),
        "attention": ("dynamic", "static", "shared", "linear"),
        "hallucination_ratio": (0.0, 0.5),
        "hallucination": ("copy", "mix", "mix_conv"),
        "num_heads": (2, 4),
        "ffn_rank": (0.5, 1.0),
        "mlp_ratio": (2.0, 4.0),
    }
    early = {**genes, "num_tokens": (TOKENS,)}
    layers = [
        LayerDomain(**{**early, "attention": ("dynamic", "static", "linear")}),
        LayerDomain(**early),
        *(LayerDomain(**genes) for _ in range(DEPTH - 3)),
        LayerDomain(**{**genes, "attention": ("dynamic", "shared", "linear")}),
    ]
    return SearchSpace(
        name="mechanisms",
        backbone=BACKBONE,
        embed_dim=(72, WIDTH),
        depth=(DEPTH,),
        layers=tuple(layers),
        rules=Rules(max_shared=2, max_reductions=2),
    )


def without(architecture: Architecture, mechanism: str) -> Architecture | None:
    """The same with the plain operator wherever the mechanism stands; None where it does not, or that is no network."""
    gene, value, plain, _ = MECHANISMS[mechanism]
    using = [str(getattr(layer, gene)) == value for layer in architecture.layers]
    if not any(using):
        return None
    changes: dict[str, Any] = {
        "reducer": {"reducer": "pool"},
        "attention": {"attention": "dynamic"},
        "hallucination": {"hallucination_ratio": 0.0, "hallucination": None},
        "ffn_rank": {"ffn_rank": 1.0},
    }[gene]
    if plain == "all tokens":
        if any(layer.reducer is not None and layer.reducer != value for layer in architecture.layers):
            return None
        using, changes = [True] * len(using), {"reducer": None, "num_tokens": TOKENS}
    try:
        layers = [
            replace(layer, **changes) if used else layer for layer, used in zip(architecture.layers, using, strict=True)
        ]
        return Architecture(embed_dim=architecture.embed_dim, layers=tuple(layers))
    except ArchitectureError:
        return None


@cache
def pairs(mechanism: str, count: int) -> tuple[tuple[Architecture, Architecture], ...]:
    """Subnets that use a mechanism, each beside the same without it."""
    space, rng = whole_space(), np.random.default_rng(1)
    found: list[tuple[Architecture, Architecture]] = []
    while len(found) < count:
        one = space.sample(rng)
        other = without(one, mechanism)
        if other is not None and not space.why_not(other):
            found.append((one, other))
    return tuple(found)
