"""Peak activation memory of an architecture, and what a device must hold to run it, from arithmetic alone.

Letters: B images, D channels, H heads, R real heads, E = H - R hallucinated heads, d channels per head, N patch tokens,
T = N + prefix tokens.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

from nas.arch import cost
from nas.arch import tiling as chunks
from nas.arch.architecture import (
    Architecture,
    AttentionKind,
    Hallucination,
    LayerChoice,
    LayerContext,
    Reducer,
)
from nas.arch.backbone import Backbone

VALUE_BYTES = 4  # fp32

Stage = tuple[str, int]
"""(operation, most values alive beside the layer's input and what it is provided with)."""


def peak_activation_bytes(
    architecture: Architecture, backbone: Backbone, batch_size: int = 1, bytes_per_value: int = VALUE_BYTES
) -> int:
    """Most bytes of images and activations alive at once in an inference forward pass of the `Subnet`.

    Equal, byte for byte, to the storages of an eager pass on a CPU in fp32 without gradients (a test tracks
    them). Weights are not counted, nor the softmaxed maps of static layers, which are made once. Inside kernels
    more is allocated for a moment (blocks of the fused attention, reordered convolutions), and other devices,
    precisions and compilers copy less or more.

    Args:
        architecture: What was chosen.
        backbone: The fixed part.
        batch_size: Images in one pass.
        bytes_per_value: 4 for fp32, 2 for bf16.
    """
    return bytes_per_value * max(n for _, _, n in live_values(architecture, backbone, batch_size))


@lru_cache(maxsize=4096)
def bytes_to_run(architecture: Architecture, backbone: Backbone) -> int:
    """Bytes that a device must hold to run the model on one image in fp32: parameters and peak of activations.

    This is what `constraints.max_memory` bounds: 4 bytes a parameter, and `peak_activation_bytes` at batch 1.
    """
    return peak_activation_bytes(architecture, backbone) + VALUE_BYTES * cost.params(architecture, backbone)


def live_values(
    architecture: Architecture, backbone: Backbone, batch_size: int = 1
) -> tuple[tuple[int | None, str, int], ...]:
    """(layer, operation, most values alive at once) of an inference forward pass, in order of execution.

    Alive are the images, a layer's input until the layer ends, maps from their provider to the layer after
    their last consumer, and an operation's operands, results and copies. Weights are not counted.
    """
    B, D = batch_size, architecture.embed_dim
    found: list[tuple[int | None, str, int]] = [(None, *stage) for stage in _before(D, backbone, B)]
    provided = 0
    for i, layer in enumerate(architecture.layers):
        context = architecture.context(i, backbone)
        held = held_values(context.tokens_before, D, backbone, B) + provided
        found += [(i, name, held + n) for name, n in _layer(layer, context, D, backbone, B)]
        if layer.attention is not AttentionKind.SHARED:
            provided = exported_values(layer, context, backbone, B)
    after = _after(architecture.layers[-1].num_tokens, provided, D, backbone, B)
    return (*found, *((None, *stage) for stage in after))


def held_values(num_tokens: int, embed_dim: int, backbone: Backbone, batch_size: int = 1) -> int:
    """Values alive throughout a layer that so many patch tokens arrive at: the images and its input."""
    tokens = (num_tokens + backbone.num_prefix_tokens) * embed_dim
    return batch_size * (backbone.in_chans * backbone.image_size**2 + tokens)


def exported_values(
    layer: LayerChoice, context: LayerContext, backbone: Backbone, batch_size: int = 1
) -> int:
    """Values that a layer hands to those that share its attention."""
    square = (layer.num_tokens + backbone.num_prefix_tokens) ** 2
    heads = layer.num_heads * context.exports_maps + layer.num_real * context.exports_logits
    return batch_size * square * heads


@lru_cache(maxsize=65536)
def token_values(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> int:
    """Most values of a layer without its feed-forward, for one image, beside what is held and provided."""
    return max(n for _, n in _tokens(layer, context, embed_dim, backbone, 1))


def feed_forward_values(
    mlp_ratio: float, ffn_rank: float, num_tokens: int, embed_dim: int, backbone: Backbone
) -> int:
    """Most values of a feed-forward for one image, beside what is held, provided and exported."""
    return _feed_forward(mlp_ratio, ffn_rank, num_tokens + backbone.num_prefix_tokens, embed_dim, 1)


def values_before(embed_dim: int, backbone: Backbone) -> int:
    """Most values for one image before the first layer."""
    return max(n for _, n in _before(embed_dim, backbone, 1))


def values_after(num_tokens: int, provided: int, embed_dim: int, backbone: Backbone) -> int:
    """Most values for one image behind a last layer of so many patch tokens."""
    return max(n for _, n in _after(num_tokens, provided, embed_dim, backbone, 1))


def _before(D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    images, prefix = B * backbone.in_chans * backbone.image_size**2, backbone.num_prefix_tokens
    patches, tokens = B * backbone.num_patches * D, B * (backbone.num_patches + prefix) * D
    yield "patch_embed", images + patches
    yield "pos_embed", images + tokens + (max(patches, tokens) if prefix else tokens)


def _after(num_tokens: int, provided: int, D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    images, last = (
        B * backbone.in_chans * backbone.image_size**2,
        B * (num_tokens + backbone.num_prefix_tokens),
    )
    if backbone.class_token:
        yield "norm", images + provided + 2 * last * D + 2 * last
    yield "head", images + last * D + B * (2 * D + backbone.num_classes)


def _layer(layer: LayerChoice, context: LayerContext, D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    yield from _tokens(layer, context, D, backbone, B)
    T = layer.num_tokens + backbone.num_prefix_tokens
    exported = exported_values(layer, context, backbone, B)
    yield "mlp", exported + _feed_forward(layer.mlp_ratio, layer.ffn_rank, T, D, B)


def _feed_forward(mlp_ratio: float, ffn_rank: float, T: int, D: int, B: int) -> int:
    X, hidden, rank = B * T * D, B * T * round(D * mlp_ratio), B * T * round(D * ffn_rank)
    if ffn_rank < 1:
        return 3 * X + max(2 * hidden, hidden + rank, rank + X)
    return 3 * X + max(2 * hidden, hidden + X)


def _tokens(layer: LayerChoice, context: LayerContext, D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    T = layer.num_tokens + backbone.num_prefix_tokens
    X, held = B * T * D, 0
    if layer.reducer is not None:
        yield layer.reducer.value, _reducer(layer, context.tokens_before, D, backbone, B)
        held = X
    yield "norm1", held + X + 2 * B * T
    given = held + X
    match layer.attention:
        case AttentionKind.DYNAMIC:
            stages = _dynamic(layer, context, D, backbone, B)
        case AttentionKind.SHARED:
            stages = _shared(layer, D, backbone, B)
        case AttentionKind.STATIC:
            stages = _static(layer, D, backbone, B)
        case AttentionKind.LINEAR:
            stages = _linear(layer, context, D, backbone, B)
    for name, values in stages:
        yield name, given + values
    exported = exported_values(layer, context, backbone, B)
    yield "norm2", exported + max(held + 2 * X, 3 * X + 2 * B * T)


def _reducer(layer: LayerChoice, tokens_before: int, D: int, backbone: Backbone, B: int) -> int:
    prefix, N = backbone.num_prefix_tokens, layer.num_tokens
    old, new = B * tokens_before * D, B * N * D
    reduced = new + B * (N + prefix) * D
    if layer.reducer is Reducer.POOL:
        return max(old, reduced)
    if layer.reducer is Reducer.CONV_POOL:
        return max(2 * old, old + new, reduced)
    whole, weights = B * (tokens_before + prefix), B * N * tokens_before
    normed = whole * D
    return max(
        normed + 2 * whole, normed + N * D + weights, normed + 2 * weights, normed + weights + new, 3 * new
    )


def _dynamic(
    layer: LayerChoice, context: LayerContext, D: int, backbone: Backbone, B: int
) -> Iterator[Stage]:
    d, H, R, E = backbone.head_dim, layer.num_heads, layer.num_real, layer.num_hallucinated
    T = layer.num_tokens + backbone.num_prefix_tokens
    X, row = B * T * D, B * T * d
    qkv = row * (2 * R + H)
    yield "qkv", qkv
    if context.exports or layer.hallucination not in (None, Hallucination.COPY):
        size = chunks.images_of_maps(H, T, VALUE_BYTES, _convolved(layer))

        def stages(n: int) -> Iterator[Stage]:
            logits = n * R * T * T
            yield "scores", n * T * R * d * (3 if n > 1 and R > 1 else 1) + logits
            for name, values in _by_logits(layer, backbone, n):
                yield name, logits + values

        kept = (H * T * d, H * T * T * context.exports_maps, R * T * T * context.exports_logits)
        for name, values in _chunked(stages, B, size, sum(kept)):
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


def _shared(layer: LayerChoice, D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    d, H = backbone.head_dim, layer.num_heads
    T = layer.num_tokens + backbone.num_prefix_tokens
    V, X = B * T * H * d, B * T * D
    yield "v", V
    size = B
    if layer.num_hallucinated:
        size = chunks.images_of_maps(H, T, VALUE_BYTES, _convolved(layer))
        for name, values in _chunked(lambda n: _by_logits(layer, backbone, n), B, size, H * T * d):
            yield name, V + values
    else:
        yield "mix_values", V + (2 if B > 1 and H > 1 else 1) * V
    yield "proj", 2 * V + (V if size >= B and H > 1 else 0) + X


def _by_logits(layer: LayerChoice, backbone: Backbone, n: int) -> Iterator[Stage]:
    """From the logits of the real heads of n images, which are not counted, to the mixed values."""
    d, H, R, E = backbone.head_dim, layer.num_heads, layer.num_real, layer.num_hallucinated
    N, T = layer.num_tokens, layer.num_tokens + backbone.num_prefix_tokens
    square, V = n * T * T, n * T * H * d
    softmaxed = H * square
    if E:
        rounds = -(-E // R)  # of parents
        mixing = layer.hallucination is not Hallucination.COPY
        weights = R * R + E * R if mixing else 0
        repeated = rounds * R * square if E > R and layer.hallucination is not Hallucination.MIX else 0
        yield "hallucinate", weights + repeated + E * square
        if _convolved(layer):
            blocks = chunks.row_blocks(n * E, N)
            kernels = 9 * n * E * blocks if E > 1 and (n > 1 or blocks > 1) else 0
            if blocks > 1:
                rows = N // blocks + 2
                cut = n * E * (N + 2) * N + (n * E * blocks * rows * N if n * E > 1 else 0)
            else:
                cut = n * E * N * N if n > 1 and 1 < E < rounds * R else 0
            yield "hallucinate", weights + repeated + E * square + cut + kernels + n * E * N * N
        yield "hallucinate", (E + H) * square
        softmaxed += H * square
    yield "softmax", softmaxed
    yield "mix_values", H * square + (2 if n > 1 and H > 1 else 1) * V


def _convolved(layer: LayerChoice) -> int:
    """Derived heads that are convolved."""
    return layer.num_hallucinated if layer.hallucination is Hallucination.MIX_CONV else 0


def _chunked(stages: Callable[[int], Iterator[Stage]], B: int, size: int, kept: int) -> Iterator[Stage]:
    """Stages of `size` images at a time, whose results of `kept` values an image are gathered."""
    if size >= B:
        yield from stages(B)
        return
    yield from stages(size)
    yield "mix_values", (size + B) * kept
    for n in {min(size, B - size), B % size or size}:
        for name, values in stages(n):
            yield name, (B + size) * kept + values


def _static(layer: LayerChoice, D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    d, H = backbone.head_dim, layer.num_heads
    T = layer.num_tokens + backbone.num_prefix_tokens
    V, X = B * T * H * d, B * T * D
    yield "v", V
    yield "mix_values", 2 * V
    yield "proj", V + (V if H > 1 or B > 1 else 0) + X


def _linear(layer: LayerChoice, context: LayerContext, D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    d, H, N = backbone.head_dim, layer.num_heads, layer.num_tokens
    T = N + backbone.num_prefix_tokens
    size = min(chunks.images_of_tokens(T, D, VALUE_BYTES), B)
    for start in range(0, B, size):
        n, done = min(size, B - start), start * T * D
        V, X, norms = n * T * H * d, n * T * D, n * T * H
        yield "qkv", done + 3 * V
        yield "mix_values", done + 8 * V + norms + n * H * d * d
        if context.on_grid:
            grid = n * N * H * d
            yield "conv_values", done + 5 * V + norms + 2 * grid + 9 * H * d
            yield "proj", done + 5 * V + norms + X
        else:
            yield "proj", done + 5 * V + norms + (V if H > 1 else 0) + X
    if size < B:
        yield "proj", 2 * B * T * D
