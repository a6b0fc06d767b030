"""Peak activation memory of an architecture, and what a device must hold to run it, from arithmetic alone.

What is alive within an operator, its file in `nas.arch.operators` says. Letters: B images, D channels, T tokens.
"""

from collections.abc import Iterator
from functools import lru_cache

from nas.arch import cost
from nas.arch.architecture import Architecture, LayerChoice, LayerContext, sizes_of
from nas.arch.backbone import Backbone
from nas.arch.operator import Stage
from nas.arch.operators import REDUCERS, STEMS
from nas.arch.parts.low_rank import feed_forward_memory
from nas.arch.parts.widen import widen_memory
from nas.arch.tiling import VALUE_BYTES


def peak_activation_bytes(
    architecture: Architecture, backbone: Backbone, batch_size: int = 1, bytes_per_value: int = VALUE_BYTES
) -> int:
    """Most bytes of images and activations alive at once in an inference forward pass of the `Subnet`.

    Equal, byte for byte, to the storages of an eager pass on a CPU in fp32 without gradients (a test tracks them).
    Weights are not counted, nor the softmaxed maps of static layers, which are made once. Inside kernels more is
    allocated for a moment (blocks of the fused attention, reordered convolutions), and other devices, precisions and
    compilers copy less or more. bf16 has 2 bytes a value.
    """
    return bytes_per_value * max(n for _, _, n in live_values(architecture, backbone, batch_size))


@lru_cache(maxsize=4096)
def bytes_to_run(architecture: Architecture, backbone: Backbone) -> int:
    """What `constraints.max_memory` bounds: bytes of parameters and peak of activations for one image in fp32."""
    return peak_activation_bytes(architecture, backbone) + VALUE_BYTES * cost.params(architecture, backbone)


def live_values(
    architecture: Architecture, backbone: Backbone, batch_size: int = 1
) -> tuple[tuple[int | None, str, int], ...]:
    """(layer, operation, most values alive at once) of an inference forward pass, in order of execution.

    Alive are the images, a layer's input until the layer ends, maps from their provider to the layer after their last
    consumer, and an operation's operands, results and copies. Weights are not counted.
    """
    B, provided = batch_size, 0
    outside = before(architecture.embed_dim, architecture.stem, backbone, B)
    found: list[tuple[int | None, str, int]] = [(None, *stage) for stage in outside]
    for i, (layer, D) in enumerate(zip(architecture.layers, architecture.widths, strict=True)):
        context = architecture.context(i, backbone)
        held = held_values(context.tokens_before, context.width_before or D, backbone, B) + provided
        exported = exported_values(layer, context, backbone, B)
        sizes = (layer.mlp_ratio, layer.ffn_rank, layer.num_tokens, D, layer.ffn_conv)
        mlp = exported + feed_forward_memory(*sizes, backbone, B)
        found += [(i, name, held + n) for name, n in (*_tokens(layer, context, D, backbone, B), ("mlp", mlp))]
        if not layer.kind.shares:
            provided = exported
    behind = after(architecture.layers[-1].num_tokens, provided, architecture.widths[-1], backbone, B)
    return (*found, *((None, *stage) for stage in behind))


def held_values(num_tokens: int, embed_dim: int, backbone: Backbone, batch_size: int = 1) -> int:
    """Values alive throughout a layer that so many patch tokens arrive at: the images and its input."""
    tokens = (num_tokens + backbone.num_prefix_tokens) * embed_dim
    return batch_size * (backbone.in_chans * backbone.image_size**2 + tokens)


def exported_values(layer: LayerChoice, context: LayerContext, backbone: Backbone, batch_size: int = 1) -> int:
    """Values that a layer hands to those that share its attention."""
    T = layer.num_tokens + backbone.num_prefix_tokens
    entries = T * (T // backbone.key_stride(layer.num_tokens) ** 2)
    heads = layer.num_heads * context.exports_maps + layer.num_real * context.exports_logits
    return batch_size * entries * heads


@lru_cache(maxsize=65536)
def token_values(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> int:
    """Most values of a layer without its feed-forward, for one image, beside what is held and provided."""
    return max(n for _, n in _tokens(layer, context, embed_dim, backbone, 1))


def before(D: int, stem: str, backbone: Backbone, B: int = 1) -> Iterator[Stage]:
    """Operations before the first layer, and the values alive at once."""
    images, prefix = B * backbone.in_chans * backbone.image_size**2, backbone.num_prefix_tokens
    patches, tokens = B * backbone.num_patches * D, B * (backbone.num_patches + prefix) * D
    yield "patch_embed", images + STEMS[stem].memory(D, backbone, B)
    if backbone.positions == "none":
        yield "prefix", images + tokens + patches  # without any, tokens in raster order become contiguous ones
    else:
        yield "pos_embed", images + tokens + (max(patches, tokens) if prefix else tokens)
    if backbone.norm_pre:
        count = B * (backbone.num_patches + prefix)
        yield "norm_pre", images + 2 * tokens + 2 * count


def after(num_tokens: int, provided: int, D: int, backbone: Backbone, B: int = 1) -> Iterator[Stage]:
    """Operations behind a last layer of so many patch tokens, and the values alive at once."""
    images, last = (B * backbone.in_chans * backbone.image_size**2, B * (num_tokens + backbone.num_prefix_tokens))
    if backbone.norm_place == "before":
        yield "norm", images + provided + 2 * last * D + 2 * last
    yield "head", images + last * D + B * (2 * D + backbone.num_classes)


def _tokens(layer: LayerChoice, context: LayerContext, D: int, backbone: Backbone, B: int) -> Iterator[Stage]:
    sizes = sizes_of(layer, context, D, backbone)
    T = sizes.T
    X, held, W = B * T * D, 0, context.width_before or D
    if layer.reducer is not None:
        yield layer.reducer, REDUCERS[layer.reducer].memory(sizes._replace(D=W), B)
        held = X
    if layer.widens:
        yield "widen", widen_memory(T, W, D, B)
    yield "norm1", held + X + 2 * B * T
    given = held + X
    for name, values in layer.kind.memory(sizes, B):
        yield name, given + values
    exported = exported_values(layer, context, backbone, B)
    yield "norm2", exported + max(held + 2 * X, 2 * X + 2 * B * T)
