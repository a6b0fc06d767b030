"""Attention: dynamic maps, of which some may be hallucinated, and shared ones; the choice among all kinds.

`forward(x, provided, guidance) -> (x, provided for the next layer)`: maps are materialised only where a later
layer consumes them or a head is hallucinated by mixing; elsewhere the fused kernel runs, where it is the faster.

Shape letters: B batch, T tokens, D channels, d channels per head, H heads, R real heads, E = H - R hallucinated
heads.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import AttentionKind, Backbone, Hallucination, LayerChoice, LayerContext
from nas.arch import tiling as chunks
from nas.model.layers.hallucination import Hallucinate, eager_cpu_inference
from nas.model.layers.linear import LinearAttention
from nas.model.layers.maps import Guidance, Provided, Stored, slice_qkv, slice_values
from nas.model.layers.static import StaticAttention

MIN_EXPLICIT_ENTRIES = 2**16
"""Entries of all maps from which bf16 inference on a CPU makes them explicitly: 0.75 to 0.95 of the time that attention
takes with the fused kernel (0.93 to 1.05 with 197 tokens, 3 heads, one image). With a fifth of them it took 1.0 to 1.4
times as long."""


class DynamicAttention(nn.Module):
    """Multi-head self-attention whose maps come from queries and keys; some heads' maps may be hallucinated.

    With E hallucinated heads (`Hallucinate`), only the first R heads have queries and keys; all H have values.
    Copies stay on the fused kernel, as if their parents' queries were scaled.

    Shapes: x [B, T, D] -> ([B, T, D], what is exported or None).

    Attributes:
        exports_maps: Whether to return the maps [B, H, T, T]. Can be switched on a built module.
        exports_logits: Whether to return the real heads' logits [B, R, T, T]. Likewise.

    Source: hMHSA (arXiv 2306.10875); METHODS 1.2.
    """

    def __init__(self, embed_dim: int, layer: LayerChoice, context: LayerContext, backbone: Backbone) -> None:
        super().__init__()
        self.heads, self.real, self.hallucinated = layer.num_heads, layer.num_real, layer.num_hallucinated
        self.head_dim = backbone.head_dim
        self.exports_maps, self.exports_logits = context.exports_maps, context.exports_logits
        self.qkv = nn.Linear(embed_dim, (2 * self.real + self.heads) * self.head_dim)
        self.proj = nn.Linear(self.heads * self.head_dim, embed_dim)
        self.hallucinate = _build_hallucinate(layer, backbone)
        self.mixes = layer.hallucination in (Hallucination.MIX, Hallucination.MIX_CONV)

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """The weights of this layer as slices of the stored ones: whole heads, the first ones."""
        real, every = self.real * self.head_dim, self.heads * self.head_dim
        return _slice_prefixes(self, stored) | slice_qkv(stored, real, every, self.qkv.in_features)

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Attend; returns maps and logits where they are exported."""
        del provided, guidance
        widths = [self.real * self.head_dim, self.real * self.head_dim, self.heads * self.head_dim]
        q, k, v = (_to_heads(part, self.head_dim) for part in self.qkv(x).split(widths, dim=2))
        exported: Provided | None = None
        if self.exports_maps or self.exports_logits or self.mixes:
            size = _images_at_once(v, self.hallucinate)
            out, maps, logits = _in_chunks(self._attend_by_maps, size, q, k, v)
            if self.exports_maps or self.exports_logits:
                exported = Provided(maps, logits)
        elif self.hallucinate is not None:
            real_BTRd = self._attend(q, k, v[:, : self.real])
            keys, values = self.hallucinate.parents(k), v[:, self.real :]
            out = torch.cat([real_BTRd, self._attend(self.hallucinate.scaled(q), keys, values)], dim=2)
        else:
            out = self._attend(q, k, v)
        return self.proj(cast(Tensor, out).flatten(2)), exported

    def _attend(self, q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor) -> Tensor:
        """Out [B, T, H, d] of heads with queries and keys of their own."""
        if self._is_explicit_faster(q_BHTd):
            (out,) = _in_chunks(self._attend_explicitly, _images_at_once(v_BHTd), q_BHTd, k_BHTd, v_BHTd)
            return cast(Tensor, out)
        return functional.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd).transpose(1, 2)

    def _is_explicit_faster(self, q_BHTd: Tensor) -> bool:
        if q_BHTd.dtype is not torch.bfloat16 or q_BHTd.device.type != "cpu":
            return False
        B, H, T, _ = q_BHTd.shape
        # The fused kernel's backward takes 59 % of a bf16 step on a CPU; explicit, the step takes 0.57 of the
        # time (results/LOG.md, same MACs). In fp32 the fused kernel wins.
        return self.training or (eager_cpu_inference(q_BHTd) and B * H * T * T >= MIN_EXPLICIT_ENTRIES)

    def _attend_explicitly(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        return (_mix_values(self._logits(q, k).softmax(dim=-1), v),)

    def _attend_by_maps(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        logits = self._logits(q, k)
        maps = (logits if self.hallucinate is None else self.hallucinate(logits)).softmax(dim=-1)
        out = _mix_values(maps, v)
        return out, maps if self.exports_maps else None, logits if self.exports_logits else None

    def _logits(self, q: Tensor, k: Tensor) -> Tensor:
        logits: Tensor = (q * self.head_dim**-0.5) @ k.transpose(2, 3)
        return logits


class SharedAttention(nn.Module):
    """Attention with what the nearest earlier dynamic layer provides (not detached); it has values only.

    Plain, it applies the provider's maps. With hallucinated heads it derives maps anew from the logits of the
    provider's real heads, with weights of its own. Either way the next layer is given the same as this one.

    Shapes: x [B, T, D], provided maps [B, H, T, T] or logits [B, R, T, T] -> ([B, T, D], the same).

    Raises:
        ValueError: `forward`: the provider did not provide what this layer takes.

    Source: PSViT (arXiv 2108.03428), attention sharing, METHODS 4.3; sharing with hMHSA is METHODS 5.3.
    """

    def __init__(self, embed_dim: int, layer: LayerChoice, context: LayerContext, backbone: Backbone) -> None:
        super().__init__()
        del context
        self.head_dim = backbone.head_dim
        self.v = nn.Linear(embed_dim, layer.num_heads * self.head_dim)
        self.proj = nn.Linear(layer.num_heads * self.head_dim, embed_dim)
        self.hallucinate = _build_hallucinate(layer, backbone)

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """The weights of this layer as slices of the stored ones: whole heads, the first ones."""
        return _slice_prefixes(self, stored) | slice_values(stored, *self.v.weight.shape)

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Mix the values by the provider's maps, and pass on what was provided; a ValueError where that is missing."""
        del guidance
        v = _to_heads(self.v(x), self.head_dim)
        if self.hallucinate is not None:
            if provided is None or provided.logits is None:
                raise ValueError("a layer that hallucinates from its provider needs the provider's logits")
            size = _images_at_once(v, self.hallucinate)
            (out,) = _in_chunks(self._attend_anew, size, provided.logits, v)
        else:
            if provided is None or provided.maps is None:
                raise ValueError("a shared layer needs the maps of its provider")
            out = _mix_values(provided.maps, v)
        return self.proj(cast(Tensor, out).flatten(2)), provided

    def _attend_anew(self, logits: Tensor, v: Tensor) -> tuple[Tensor]:
        assert self.hallucinate is not None, "plain sharing has maps already"
        return (_mix_values(self.hallucinate(logits).softmax(dim=-1), v),)


Attention = DynamicAttention | StaticAttention | SharedAttention | LinearAttention


def build_attention(
    embed_dim: int, layer: LayerChoice, context: LayerContext, backbone: Backbone, *, guided: bool = False
) -> Attention:
    """The attention module of a layer; `guided`: with the parameters that only guided training uses."""
    match layer.attention:
        case AttentionKind.DYNAMIC:
            return DynamicAttention(embed_dim, layer, context, backbone)
        case AttentionKind.STATIC:
            return StaticAttention(embed_dim, layer, context, backbone, guided=guided)
        case AttentionKind.SHARED:
            return SharedAttention(embed_dim, layer, context, backbone)
        case AttentionKind.LINEAR:
            return LinearAttention(embed_dim, layer, context, backbone)


def _build_hallucinate(layer: LayerChoice, backbone: Backbone) -> Hallucinate | None:
    if layer.hallucination is None:
        return None
    heads = layer.num_real, layer.num_hallucinated
    return Hallucinate(*heads, layer.hallucination, backbone.num_prefix_tokens)


def _slice_prefixes(module: nn.Module, stored: Stored) -> dict[str, Tensor]:
    """Prefixes of the stored weights, but for the projections that the store keeps together."""
    own = {name: p for name, p in module.named_parameters() if not name.startswith(("qkv.", "v."))}
    return {name: stored[name][tuple(map(slice, p.shape))] for name, p in own.items()}


def _to_heads(x_BTC: Tensor, head_dim: int) -> Tensor:
    return torch.unflatten(x_BTC, 2, (-1, head_dim)).transpose(1, 2)


def _mix_values(maps_BHTT: Tensor, v_BHTd: Tensor) -> Tensor:
    """Every head's maps applied to its values: [B, T, H, d]."""
    mixed_BHTd: Tensor = maps_BHTT.to(v_BHTd.dtype) @ v_BHTd
    return mixed_BHTd.transpose(1, 2)


def _images_at_once(v_BHTd: Tensor, hallucinate: Hallucinate | None = None) -> int:
    """Images whose maps are made together: those of `CHUNK_BYTES` where a CPU only infers, elsewhere all."""
    B, H, T, _ = v_BHTd.shape
    if not eager_cpu_inference(v_BHTd):
        return B
    convolved = 0 if hallucinate is None or hallucinate.conv is None else hallucinate.derived
    return chunks.images_of_maps(H, T, v_BHTd.element_size(), convolved)


def _in_chunks(
    compute: Callable[..., tuple[Tensor | None, ...]], size: int, *inputs: Tensor
) -> tuple[Tensor | None, ...]:
    """`compute(*inputs)`, on `size` images at a time."""
    B = inputs[0].shape[0]
    if size >= B:
        return compute(*inputs)
    whole: list[Tensor | None] = []
    for start in range(0, B, size):
        parts = compute(*(x[start : start + size] for x in inputs))
        if not whole:
            whole = [None if part is None else part.new_empty(B, *part.shape[1:]) for part in parts]
        for all_images, part in zip(whole, parts, strict=True):
            if all_images is not None and part is not None:
                all_images[start : start + size] = part
    return tuple(whole)
