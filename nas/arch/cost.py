"""Exact MACs and parameters of an architecture from arithmetic alone.

1 MAC = one multiply-accumulate = half of what `torch.utils.flop_counter.FlopCounterMode` counts; equal to it
exactly (law 3). Counted: linear layers, convolutions, both attention products, mixing of heads. Not counted, as
there: softmax, norms, biases, average pooling, element-wise operations. Latency speaks for those.

What an operator costs, its file in `nas.arch.operators` says. Letters: D channels, N patch tokens, P prefix tokens.
"""

from dataclasses import dataclass
from functools import lru_cache

from nas.arch.architecture import Architecture, LayerChoice, LayerContext, sizes_of
from nas.arch.backbone import Backbone
from nas.arch.operator import Operations
from nas.arch.operators import REDUCERS, STEMS
from nas.arch.operators.low_rank import feed_forward_operations


@dataclass(frozen=True, slots=True)
class OperationCost:
    """Cost of one operation for one image."""

    layer: int | None  # index of the layer; None before the first and after the last
    operation: str  # such as `qkv`, `scores`, `mlp`
    macs: int  # multiply-accumulates per image
    params: int  # parameters the operation owns


def token_cost(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> Operations:
    """Costs of a layer without its feed-forward: reducer, attention and both norms."""
    sizes = sizes_of(layer, context, embed_dim, backbone)
    reduced = () if layer.reducer is None else REDUCERS[layer.reducer].cost(sizes)
    norm1, norm2 = (("norm1", 0, 2 * embed_dim),), (("norm2", 0, 2 * embed_dim),)
    return reduced + norm1 + layer.kind.cost(sizes) + norm2


def layer_cost(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> Operations:
    """Costs of one layer."""
    tokens = layer.num_tokens + backbone.num_prefix_tokens
    feed_forward = feed_forward_operations(layer.mlp_ratio, layer.ffn_rank, tokens, embed_dim)
    return token_cost(layer, context, embed_dim, backbone) + feed_forward


def _outside(embed_dim: int, stem: str, backbone: Backbone) -> Operations:
    D, N, P = embed_dim, backbone.num_patches, backbone.num_prefix_tokens
    return (
        *STEMS[stem].cost(D, backbone),
        ("pos_embed", 0, (N + P) * D + P * D),
        *((("norm_pre", 0, 2 * D),) if backbone.norm_pre else ()),
        *((("norm", 0, 2 * D),) if backbone.norm_place != "none" else ()),
        ("head", D * backbone.num_classes, (D + 1) * backbone.num_classes),
    )


def breakdown(architecture: Architecture, backbone: Backbone) -> tuple[OperationCost, ...]:
    """Cost of every operation, in order of execution."""
    outside = [OperationCost(None, *cost) for cost in _outside(architecture.embed_dim, architecture.stem, backbone)]
    inside = [
        OperationCost(i, *cost)
        for i, layer in enumerate(architecture.layers)
        for cost in layer_cost(layer, architecture.context(i, backbone), architecture.embed_dim, backbone)
    ]
    return (*outside[:2], *inside, *outside[2:])


def macs(architecture: Architecture, backbone: Backbone) -> int:
    """Multiply-accumulates for one image."""
    return _totals(architecture, backbone)[0]


def params(architecture: Architecture, backbone: Backbone) -> int:
    """Parameters of the extracted subnet."""
    return _totals(architecture, backbone)[1]


@lru_cache(maxsize=4096)
def _totals(architecture: Architecture, backbone: Backbone) -> tuple[int, int]:
    width = architecture.embed_dim
    sums = [outside_macs_params(width, architecture.stem, backbone)]
    for i, layer in enumerate(architecture.layers):
        sums.append(token_macs_params(layer, architecture.context(i, backbone), width, backbone))
        pair = (layer.mlp_ratio, layer.ffn_rank)
        sums.append(feed_forward_macs_params(*pair, layer.num_tokens, width, backbone))
    return sum(m for m, _ in sums), sum(p for _, p in sums)


@lru_cache(maxsize=65536)
def token_macs_params(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> tuple[int, int]:
    """(MACs per image, parameters) of `token_cost`: what `SearchSpace` adds up to find its extremes."""
    return _sums(token_cost(layer, context, embed_dim, backbone))


@lru_cache(maxsize=65536)
def feed_forward_macs_params(
    mlp_ratio: float, ffn_rank: float, num_tokens: int, embed_dim: int, backbone: Backbone
) -> tuple[int, int]:
    """(MACs per image, parameters) of a feed-forward of so many patch tokens."""
    return _sums(feed_forward_operations(mlp_ratio, ffn_rank, num_tokens + backbone.num_prefix_tokens, embed_dim))


@lru_cache(maxsize=256)
def outside_macs_params(embed_dim: int, stem: str, backbone: Backbone) -> tuple[int, int]:
    """(MACs per image, parameters) of everything that is not in a layer."""
    return _sums(_outside(embed_dim, stem, backbone))


def _sums(operations: Operations) -> tuple[int, int]:
    return sum(macs for _, macs, _ in operations), sum(params for _, _, params in operations)
