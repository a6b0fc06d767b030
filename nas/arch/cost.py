"""Exact MACs and parameters of an architecture from arithmetic alone.

1 MAC = one multiply-accumulate = half of what `torch.utils.flop_counter.FlopCounterMode` counts; equal to it
exactly (law 3). Counted: linear layers, convolutions, both attention products, mixing of heads. Not counted,
as
there: softmax, norms, biases, average pooling, element-wise operations. Latency speaks for those.

Letters: D channels, H heads, R real heads, E = H - R hallucinated heads, d channels per head, N patch tokens,
T = N + prefix tokens, F hidden channels.
"""

from dataclasses import dataclass
from functools import lru_cache

from nas.arch.architecture import (
    Architecture,
    AttentionKind,
    Hallucination,
    LayerChoice,
    LayerContext,
    Reducer,
)
from nas.arch.backbone import Backbone


@dataclass(frozen=True, slots=True)
class OperationCost:
    """Cost of one operation for one image.

    Attributes:
        layer: Index of the layer; None before the first and after the last.
        operation: Such as `qkv`, `scores`, `mlp`.
        macs: Multiply-accumulates per image.
        params: Parameters the operation owns.
    """

    layer: int | None
    operation: str
    macs: int
    params: int


Operations = tuple[tuple[str, int, int], ...]
"""(operation, MACs per image, parameters), in order of execution."""


def token_cost(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> Operations:
    """Costs of a layer without its feed-forward: reducer, attention and both norms."""
    D, d, H, R = embed_dim, backbone.head_dim, layer.num_heads, layer.num_real
    E, N, before = H - R, layer.num_tokens, context.tokens_before
    T = N + backbone.num_prefix_tokens
    operations: list[tuple[str, int, int]] = []
    if layer.reducer is Reducer.CONV_POOL:
        operations.append(("conv_pool", 9 * D * before, 9 * D))
    elif layer.reducer is Reducer.GLAD:
        operations.append(("glad", 2 * N * before * D, N * D + 3 * D))
    operations.append(("norm1", 0, 2 * D))
    derived = 0 if layer.hallucination in (None, Hallucination.COPY) else E * R * T * T
    weights = 0 if layer.hallucination is None else E if layer.hallucination is Hallucination.COPY else E * R
    if layer.hallucination is Hallucination.MIX_CONV:
        derived, weights = derived + 9 * E * N * N, weights + 9 * E
    match layer.attention:
        case AttentionKind.DYNAMIC:
            rows = (2 * R + H) * d
            fused_copy = layer.hallucination is Hallucination.COPY and not context.exports
            operations.append(("qkv", T * D * rows, (D + 1) * rows))
            operations.append(("scores", (H if fused_copy else R) * T * T * d, 0))
        case AttentionKind.LINEAR:
            operations.append(("qkv", 3 * T * D * H * d, 3 * (D + 1) * H * d))
            operations.append(("mix_values", 2 * H * T * d * d, H))
            if context.on_grid:
                operations.append(("conv_values", 9 * N * H * d, 9 * H))
        case AttentionKind.STATIC | AttentionKind.SHARED:
            operations.append(("v", T * D * H * d, (D + 1) * H * d))
            if layer.attention is AttentionKind.STATIC:
                operations.append(("static_map", 0, H * T * T))
    if layer.hallucination is not None:
        operations.append(("hallucinate", derived, weights))
    if layer.attention is not AttentionKind.LINEAR:
        operations.append(("mix_values", H * T * T * d, 0))
    operations.append(("proj", T * H * d * D, (H * d + 1) * D))
    operations.append(("norm2", 0, 2 * D))
    return tuple(operations)


def feed_forward_cost(
    mlp_ratio: float, ffn_rank: float, num_tokens: int, embed_dim: int, backbone: Backbone
) -> Operations:
    """Cost of a feed-forward of so many patch tokens."""
    D, T = embed_dim, num_tokens + backbone.num_prefix_tokens
    F = round(D * mlp_ratio)
    weights = 2 * D * F
    if ffn_rank < 1:
        rank = round(D * ffn_rank)
        weights = D * F + rank * (F + D)
    return (("mlp", T * weights, weights + F + D),)


def layer_cost(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> Operations:
    """Costs of one layer."""
    feed_forward = feed_forward_cost(layer.mlp_ratio, layer.ffn_rank, layer.num_tokens, embed_dim, backbone)
    return token_cost(layer, context, embed_dim, backbone) + feed_forward


def _outside(embed_dim: int, backbone: Backbone) -> Operations:
    D, N, P = embed_dim, backbone.num_patches, backbone.num_prefix_tokens
    patch = backbone.in_chans * backbone.patch_size**2
    return (
        ("patch_embed", N * D * patch, D * (patch + 1)),
        ("pos_embed", 0, (N + P) * D + P * D),
        ("norm", 0, 2 * D),
        ("head", D * backbone.num_classes, (D + 1) * backbone.num_classes),
    )


def breakdown(architecture: Architecture, backbone: Backbone) -> tuple[OperationCost, ...]:
    """Cost of every operation, in order of execution."""
    outside = [OperationCost(None, *cost) for cost in _outside(architecture.embed_dim, backbone)]
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
    sums = [outside_macs_params(width, backbone)]
    for i, layer in enumerate(architecture.layers):
        sums.append(token_macs_params(layer, architecture.context(i, backbone), width, backbone))
        pair = (layer.mlp_ratio, layer.ffn_rank)
        sums.append(feed_forward_macs_params(*pair, layer.num_tokens, width, backbone))
    return sum(m for m, _ in sums), sum(p for _, p in sums)


@lru_cache(maxsize=65536)
def token_macs_params(
    layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone
) -> tuple[int, int]:
    """(MACs per image, parameters) of `token_cost`: what `SearchSpace` adds up to find its extremes."""
    operations = token_cost(layer, context, embed_dim, backbone)
    return sum(o[1] for o in operations), sum(o[2] for o in operations)


@lru_cache(maxsize=65536)
def feed_forward_macs_params(
    mlp_ratio: float, ffn_rank: float, num_tokens: int, embed_dim: int, backbone: Backbone
) -> tuple[int, int]:
    """(MACs per image, parameters) of `feed_forward_cost`."""
    ((_, macs, params),) = feed_forward_cost(mlp_ratio, ffn_rank, num_tokens, embed_dim, backbone)
    return macs, params


@lru_cache(maxsize=256)
def outside_macs_params(embed_dim: int, backbone: Backbone) -> tuple[int, int]:
    """(MACs per image, parameters) of everything that is not in a layer."""
    operations = _outside(embed_dim, backbone)
    return sum(o[1] for o in operations), sum(o[2] for o in operations)
