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
from nas.arch.parts.low_rank import feed_forward_operations
from nas.arch.parts.widen import widen_operations


@dataclass(frozen=True, slots=True)
class OperationCost:
    """Cost of one operation for one image."""

    layer: int | None  # index of the layer; None before the first and after the last
    operation: str  # such as `qkv`, `scores`, `mlp`
    macs: int  # multiply-accumulates per image
    params: int  # parameters the operation owns


def token_cost(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> Operations:
    """Costs of a layer without its feed-forward: reducer, more channels, attention and both norms."""
    sizes, before = sizes_of(layer, context, embed_dim, backbone), context.width_before or embed_dim
    reduced = () if layer.reducer is None else REDUCERS[layer.reducer].cost(sizes._replace(D=before))
    widened = widen_operations(sizes.T, before, embed_dim) if layer.widens else ()
    norm1, norm2 = (("norm1", 0, 2 * embed_dim),), (("norm2", 0, 2 * embed_dim),)
    return reduced + widened + norm1 + layer.kind.cost(sizes) + norm2


def layer_cost(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> Operations:
    """Costs of one layer."""
    pair = (layer.mlp_ratio, layer.ffn_rank)
    feed_forward = feed_forward_operations(*pair, layer.num_tokens, embed_dim, layer.ffn_conv, backbone)
    return token_cost(layer, context, embed_dim, backbone) + feed_forward


def _before(embed_dim: int, stem: str, backbone: Backbone) -> Operations:
    D, N, P = embed_dim, backbone.num_patches, backbone.num_prefix_tokens
    return (
        *STEMS[stem].cost(D, backbone),
        *((("pos_embed", 0, (N + P) * D + P * D),) if backbone.positions == "learned" else ()),
        *((("prefix", 0, P * D),) if backbone.positions == "none" and P else ()),
        *((("norm_pre", 0, 2 * D),) if backbone.norm_pre else ()),
    )


def _behind(embed_dim: int, backbone: Backbone) -> Operations:
    D = embed_dim
    return (
        *((("norm", 0, 2 * D),) if backbone.norm_place != "none" else ()),
        ("head", D * backbone.num_classes, (D + 1) * backbone.num_classes),
    )


def breakdown(architecture: Architecture, backbone: Backbone) -> tuple[OperationCost, ...]:
    """Cost of every operation, in order of execution."""
    inside = [
        OperationCost(i, *cost)
        for i, layer in enumerate(architecture.layers)
        for cost in layer_cost(layer, architecture.context(i, backbone), architecture.widths[i], backbone)
    ]
    before = (OperationCost(None, *cost) for cost in _before(architecture.embed_dim, architecture.stem, backbone))
    behind = (OperationCost(None, *cost) for cost in _behind(architecture.widths[-1], backbone))
    return (*before, *inside, *behind)


def macs(architecture: Architecture, backbone: Backbone) -> int:
    """Multiply-accumulates for one image."""
    return _totals(architecture, backbone)[0]


def params(architecture: Architecture, backbone: Backbone) -> int:
    """Parameters of the extracted subnet."""
    return _totals(architecture, backbone)[1]


@lru_cache(maxsize=4096)
def _totals(architecture: Architecture, backbone: Backbone) -> tuple[int, int]:
    sums = [
        before_macs_params(architecture.embed_dim, architecture.stem, backbone),
        behind_macs_params(architecture.widths[-1], backbone),
    ]
    for i, (layer, width) in enumerate(zip(architecture.layers, architecture.widths, strict=True)):
        sums.append(token_macs_params(layer, architecture.context(i, backbone), width, backbone))
        pair = (layer.mlp_ratio, layer.ffn_rank)
        sums.append(feed_forward_macs_params(*pair, layer.num_tokens, width, layer.ffn_conv, backbone))
    return sum(m for m, _ in sums), sum(p for _, p in sums)


@lru_cache(maxsize=65536)
def token_macs_params(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> tuple[int, int]:
    """(MACs per image, parameters) of `token_cost`: what `SearchSpace` adds up to find its extremes."""
    return _sums(token_cost(layer, context, embed_dim, backbone))


@lru_cache(maxsize=65536)
def feed_forward_macs_params(
    mlp_ratio: float, ffn_rank: float, num_tokens: int, embed_dim: int, convolves: bool, backbone: Backbone
) -> tuple[int, int]:
    """(MACs per image, parameters) of a feed-forward of so many patch tokens, with or without a convolution."""
    return _sums(feed_forward_operations(mlp_ratio, ffn_rank, num_tokens, embed_dim, convolves, backbone))


@lru_cache(maxsize=256)
def before_macs_params(embed_dim: int, stem: str, backbone: Backbone) -> tuple[int, int]:
    """(MACs per image, parameters) of what is before the first layer."""
    return _sums(_before(embed_dim, stem, backbone))


@lru_cache(maxsize=256)
def behind_macs_params(embed_dim: int, backbone: Backbone) -> tuple[int, int]:
    """(MACs per image, parameters) of what is behind the last layer."""
    return _sums(_behind(embed_dim, backbone))


def _sums(operations: Operations) -> tuple[int, int]:
    return sum(macs for _, macs, _ in operations), sum(params for _, _, params in operations)
