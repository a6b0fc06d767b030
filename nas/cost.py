"""Exact MACs, parameters and peak activation memory of an architecture from arithmetic alone.

1 MAC = one multiply-accumulate = half of what `torch.utils.flop_counter.FlopCounterMode` counts; equal to it
exactly (law 3). Counted: linear layers, convolutions, both attention products, mixing of heads. Not counted,
as
there: softmax, norms, biases, average pooling, element-wise operations. Latency speaks for those.

Letters: D channels, H heads, R real heads, E = H - R hallucinated heads, d channels per head, N patch tokens,
T = N + prefix tokens, F hidden channels.
"""

from dataclasses import dataclass
from functools import lru_cache

from nas.architecture import Architecture, AttentionKind, Backbone, Hallucination, LayerChoice, Reducer


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


def layer_cost(
    layer: LayerChoice, tokens_before: int, embed_dim: int, backbone: Backbone, exports_map: bool
) -> tuple[tuple[str, int, int], ...]:
    """(operation, MACs per image, parameters) of one layer, in order of execution.

    Args:
        layer: The choice.
        tokens_before: Patch tokens that arrive, before the reducer.
        embed_dim: Channels D.
        backbone: The fixed part.
        exports_map: Whether the next layer consumes this layer's maps; then they are materialised.
    """
    D, d, H, R = embed_dim, backbone.head_dim, layer.num_heads, layer.num_real
    E, N = H - R, layer.num_tokens
    T = N + backbone.num_prefix_tokens
    F = round(D * layer.mlp_ratio)
    operations: list[tuple[str, int, int]] = []
    if layer.reducer is Reducer.CONV_POOL:
        operations.append(("conv_pool", 9 * D * tokens_before, 9 * D))
    operations.append(("norm1", 0, 2 * D))
    if layer.attention is AttentionKind.DYNAMIC:
        rows = (2 * R + H) * d
        operations.append(("qkv", T * D * rows, (D + 1) * rows))
        fused_copy = layer.hallucination is Hallucination.COPY and not exports_map
        operations.append(("scores", (H if fused_copy else R) * T * T * d, 0))
        if layer.hallucination is Hallucination.COPY:
            operations.append(("hallucinate", 0, E))
        elif layer.hallucination is Hallucination.MIX_CONV:
            operations.append(("hallucinate", E * R * T * T + 9 * E * N * N, E * R + 9 * E))
    else:
        operations.append(("v", T * D * H * d, (D + 1) * H * d))
        if layer.attention is AttentionKind.STATIC:
            operations.append(("static_map", 0, H * T * T))
    operations.append(("mix_values", H * T * T * d, 0))
    operations.append(("proj", T * H * d * D, (H * d + 1) * D))
    operations.append(("norm2", 0, 2 * D))
    operations.append(("mlp", 2 * T * D * F, 2 * D * F + F + D))
    return tuple(operations)


def _outside(embed_dim: int, backbone: Backbone) -> tuple[tuple[str, int, int], ...]:
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
        for cost in layer_cost(
            layer,
            architecture.tokens_before(i, backbone),
            architecture.embed_dim,
            backbone,
            architecture.exports_map(i),
        )
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
    sums = [outside_macs_params(architecture.embed_dim, backbone)]
    sums += [
        layer_macs_params(
            layer,
            architecture.tokens_before(i, backbone),
            architecture.embed_dim,
            backbone,
            architecture.exports_map(i),
        )
        for i, layer in enumerate(architecture.layers)
    ]
    return sum(m for m, _ in sums), sum(p for _, p in sums)


def live_values(
    architecture: Architecture, backbone: Backbone, batch_size: int = 1
) -> tuple[tuple[int | None, str, int], ...]:
    """(layer, operation, most values alive at once) of an inference forward pass, in order of execution.

    Alive are the images, a layer's input until the layer ends, maps from their provider to the layer after
    their last consumer, and an operation's operands, results and copies. Weights are not counted.
    """
    B, D, prefix = batch_size, architecture.embed_dim, backbone.num_prefix_tokens
    images = B * backbone.in_chans * backbone.image_size**2
    patches, tokens = B * backbone.num_patches * D, B * (backbone.num_patches + prefix) * D
    found: list[tuple[int | None, str, int]] = [(None, "patch_embed", images + patches)]
    found.append((None, "pos_embed", images + tokens + (max(patches, tokens) if prefix else tokens)))
    maps = 0
    for i, layer in enumerate(architecture.layers):
        before, exports = architecture.tokens_before(i, backbone), architecture.exports_map(i)
        held = images + B * (before + prefix) * D + maps
        found += [(i, name, held + n) for name, n in _layer_values(layer, before, D, backbone, exports, B)]
        if layer.attention is not AttentionKind.SHARED:
            maps = B * layer.num_heads * (layer.num_tokens + prefix) ** 2 if exports else 0
    last = B * (architecture.layers[-1].num_tokens + prefix)
    if backbone.class_token:
        found.append((None, "norm", images + maps + 2 * last * D + 2 * last))
    found.append((None, "head", images + last * D + B * (2 * D + backbone.num_classes)))
    return tuple(found)


def _layer_values(
    layer: LayerChoice, tokens_before: int, embed_dim: int, backbone: Backbone, exports_map: bool, B: int
) -> list[tuple[str, int]]:
    """Most values alive in each operation of a layer, beside its input and the maps it is given."""
    D, d, H, R, E = embed_dim, backbone.head_dim, layer.num_heads, layer.num_real, layer.num_hallucinated
    N, T = layer.num_tokens, layer.num_tokens + backbone.num_prefix_tokens
    X, V, square = B * T * D, B * T * H * d, B * T * T
    copied = int(B > 1 and H > 1)  # a batched product copies operands whose heads lie between their channels
    repeated = -(-E // R) * R if E > R else 0  # heads of the copies when parents have to be repeated
    found: list[tuple[str, int]] = []
    held = 0
    if layer.reducer is not None:
        old, new = B * tokens_before * D, B * N * D
        corrected = 2 * old if layer.reducer is Reducer.CONV_POOL else 0
        found.append((layer.reducer.value, max(corrected, corrected // 2 + new, new + X)))
        held = X
    found.append(("norm1", held + X + 2 * B * T))
    given = held + X
    if layer.attention is AttentionKind.DYNAMIC:
        given += B * T * (2 * R + H) * d
        found.append(("qkv", given))
        if exports_map or layer.hallucination is Hallucination.MIX_CONV:
            found.append(("scores", given + B * T * R * d * (3 if B > 1 and R > 1 else 1) + R * square))
            if E:
                extra = 3 if layer.hallucination is Hallucination.MIX_CONV else 1  # derived, mixed, local
                found.append(("hallucinate", given + (R + repeated + extra * E + H) * square))
            found.append(("softmax", given + 2 * H * square))
            given += H * square
            found.append(("mix_values", given + (1 + copied) * V))
            found.append(("proj", given + V + (V if H > 1 else 0) + X))
        else:
            if E:
                queries, keys = max(repeated + E, E + H), H + repeated + H
                found.append(("hallucinate", given + B * T * d * max(queries, keys)))
                given += 2 * V
            found.append(("mix_values", given + V + B * T * H))
            found.append(("proj", given + V + (V if E else 0) + X))
    else:
        given += V
        spread = 0
        if layer.attention is AttentionKind.STATIC:
            given += H * T * T
            spread = copied * H * square
        found.append(("v", given))
        found.append(("mix_values", given + max(spread + copied * V + V, 2 * V if H > 1 else V)))
        found.append(("proj", given + V + X))
    exported = H * square if exports_map else 0
    found.append(("norm2", exported + max(held + 2 * X, 3 * X + 2 * B * T)))
    hidden = B * T * round(D * layer.mlp_ratio)
    found.append(("mlp", exported + 3 * X + max(2 * hidden, hidden + X)))
    return found


def peak_activation_bytes(
    architecture: Architecture, backbone: Backbone, batch_size: int = 1, bytes_per_value: int = 4
) -> int:
    """Most bytes of images and activations alive at once in an inference forward pass of the `Subnet`.

    Equal, byte for byte, to the storages of an eager pass on a CPU in fp32 without gradients (a test tracks
    them). Inside kernels more is allocated for a moment (blocks of the fused attention, reordered
    convolutions), and other devices and compilers copy less or more.

    Args:
        architecture: What was chosen.
        backbone: The fixed part.
        batch_size: Images in one pass.
        bytes_per_value: 4 for fp32, 2 for bf16.
    """
    return bytes_per_value * max(n for _, _, n in live_values(architecture, backbone, batch_size))


@lru_cache(maxsize=65536)
def layer_macs_params(
    layer: LayerChoice, tokens_before: int, embed_dim: int, backbone: Backbone, exports_map: bool
) -> tuple[int, int]:
    """(MACs per image, parameters) of one layer: what `SearchSpace` adds up to find its extremes."""
    operations = layer_cost(layer, tokens_before, embed_dim, backbone, exports_map)
    return sum(o[1] for o in operations), sum(o[2] for o in operations)


@lru_cache(maxsize=256)
def outside_macs_params(embed_dim: int, backbone: Backbone) -> tuple[int, int]:
    """(MACs per image, parameters) of everything that is not in a layer."""
    operations = _outside(embed_dim, backbone)
    return sum(o[1] for o in operations), sum(o[2] for o in operations)
