"""Attention: dynamic, partly hallucinated, static and shared maps, with one interface.

`forward(x, provided_map) -> (x, map_for_consumers | None)`: a map is materialised only where a later layer
consumes it or a head is hallucinated by mixing; everywhere else the fused kernel runs.

Shape letters: B batch, T tokens, P prefix tokens, D channels, d channels per head, H heads, R real heads,
E = H - R hallucinated heads.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture import AttentionKind, Backbone, Hallucination, LayerChoice

INITIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "gain": nn.init.ones_,
    "mix": nn.init.zeros_,
    "conv.weight": nn.init.zeros_,
    "static_map": partial(nn.init.trunc_normal_, std=0.02),
}
"""First values of the operators' own weights: hallucinated heads start as copies of their parents."""

Stored = Mapping[str, Tensor]
"""Weights of one attention layer at maximal size, by local name."""


class DynamicAttention(nn.Module):
    """Multi-head self-attention whose maps come from queries and keys; some heads' maps may be hallucinated.

    With E hallucinated heads, only the first R heads have queries and keys; all H have values. The logits of
    hallucinated head j derive from those of its parent, real head j mod R:

    - `copy`: gain_j * S[parent]. Runs on the fused kernel, as if the parent's query were scaled.
    - `mix_conv`: S[parent] + sum_g mix[j, g] S[g] + depth-wise 3x3 of S[parent] over the (query, key) plane
    of the
      patch tokens; rows and columns of prefix tokens get the mix only.

    Shapes: x [B, T, D] -> ([B, T, D], maps [B, H, T, T] or None).

    Source: hMHSA (arXiv 2306.10875), of which the abstract fixes only that half of the maps are made from the
    others by cheap operations; the operators and their place before the softmax are METHODS 1.2.
    """

    def __init__(self, embed_dim: int, layer: LayerChoice, backbone: Backbone, *, exports_map: bool) -> None:
        super().__init__()
        self.heads, self.real, self.hallucinated = layer.num_heads, layer.num_real, layer.num_hallucinated
        self.head_dim, self.prefix = backbone.head_dim, backbone.num_prefix_tokens
        self.variant = layer.hallucination
        self.exports_map = exports_map
        self.qkv = nn.Linear(embed_dim, (2 * self.real + self.heads) * self.head_dim)
        self.proj = nn.Linear(self.heads * self.head_dim, embed_dim)
        if self.variant is Hallucination.COPY:
            self.gain = nn.Parameter(INITIAL["gain"](torch.empty(self.hallucinated)))
        elif self.variant is Hallucination.MIX_CONV:
            self.mix = nn.Parameter(INITIAL["mix"](torch.empty(self.hallucinated, self.real)))
            self.conv = nn.Conv2d(
                self.hallucinated, self.hallucinated, 3, padding=1, groups=self.hallucinated, bias=False
            )
            INITIAL["conv.weight"](self.conv.weight)

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """The weights of this layer as slices of the stored ones: whole heads, the first ones."""
        sliced = {name: stored[name][tuple(map(slice, p.shape))] for name, p in self.named_parameters()}
        for name in ("qkv.weight", "qkv.bias"):
            q, k, v = torch.unflatten(stored[name], 0, (3, -1))
            real, all_heads = self.real * self.head_dim, self.heads * self.head_dim
            whole = torch.cat([q[:real], k[:real], v[:all_heads]])
            sliced[name] = whole[:, : self.qkv.in_features] if whole.ndim == 2 else whole
        return sliced

    def forward(self, x: Tensor, provided_map: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Attend; returns the maps where they are exported."""
        del provided_map
        widths = [self.real * self.head_dim, self.real * self.head_dim, self.heads * self.head_dim]
        q, k, v = (
            part.unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for part in self.qkv(x).split(widths, dim=2)
        )
        if self.variant is Hallucination.MIX_CONV or self.exports_map:
            maps = self._logits(q, k).softmax(dim=-1)
            out = maps @ v
        else:
            if self.variant is Hallucination.COPY:
                q = torch.cat(
                    [q, _parents(q, self.hallucinated) * self.gain[:, None, None].to(q.dtype)], dim=1
                )
                k = torch.cat([k, _parents(k, self.hallucinated)], dim=1)
            maps = None
            out = self._attend(q, k, v)
        y = self.proj(out.transpose(1, 2).flatten(2))
        return y, maps if self.exports_map else None

    def _attend(self, q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor) -> Tensor:
        if self.training and q_BHTd.dtype is torch.bfloat16 and q_BHTd.device.type == "cpu":
            # The fused kernel's backward takes 59 % of a bf16 step on a CPU; explicit, the step takes 0.57 of
            # the time (results/LOG.md, same MACs). In fp32 the fused kernel wins.
            out: Tensor = ((q_BHTd * self.head_dim**-0.5) @ k_BHTd.transpose(2, 3)).softmax(dim=-1) @ v_BHTd
            return out
        return functional.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd)

    def _logits(self, q_BRTd: Tensor, k_BRTd: Tensor) -> Tensor:
        logits_BRTT: Tensor = (q_BRTd * self.head_dim**-0.5) @ k_BRTd.transpose(2, 3)
        if not self.hallucinated:
            return logits_BRTT
        parents_BETT = _parents(logits_BRTT, self.hallucinated)
        if self.variant is Hallucination.COPY:
            derived = parents_BETT * self.gain[:, None, None].to(parents_BETT.dtype)
        else:
            patches = parents_BETT[:, :, self.prefix :, self.prefix :]
            local = functional.pad(self.conv(patches), (self.prefix, 0, self.prefix, 0))
            mixed = functional.conv2d(logits_BRTT, self.mix[:, :, None, None])
            derived = parents_BETT + mixed + local
        return torch.cat([logits_BRTT, derived], dim=1)


def _parents(x_BRTS: Tensor, hallucinated: int) -> Tensor:
    """Row j mod R for every hallucinated head j."""
    real = x_BRTS.shape[1]
    if hallucinated <= real:
        return x_BRTS[:, :hallucinated]
    return x_BRTS.repeat(1, -(-hallucinated // real), 1, 1)[:, :hallucinated]


class _ValueAttention(nn.Module):
    """Attention without queries and keys: given maps times values."""

    def __init__(self, embed_dim: int, layer: LayerChoice, backbone: Backbone) -> None:
        super().__init__()
        self.head_dim = backbone.head_dim
        self.v = nn.Linear(embed_dim, layer.num_heads * self.head_dim)
        self.proj = nn.Linear(layer.num_heads * self.head_dim, embed_dim)

    def _slice_values(self, stored: Stored) -> dict[str, Tensor]:
        names = ("proj.weight", "proj.bias")
        sliced = {name: stored[name][tuple(map(slice, self.get_parameter(name).shape))] for name in names}
        _, _, weight = torch.unflatten(stored["qkv.weight"], 0, (3, -1))
        _, _, bias = torch.unflatten(stored["qkv.bias"], 0, (3, -1))
        rows, columns = self.v.weight.shape
        return {**sliced, "v.weight": weight[:rows, :columns], "v.bias": bias[:rows]}

    def _apply_maps(self, x: Tensor, maps: Tensor) -> Tensor:
        v = self.v(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        y: Tensor = self.proj((maps.to(v.dtype) @ v).transpose(1, 2).flatten(2))
        return y


class StaticAttention(_ValueAttention):
    """Attention with learned maps, the same for every image: one T x T matrix per head, rows softmaxed.

    A map belongs to one token count; the store keeps one per count under `static_map_<patch tokens>`.

    Shapes: x [B, T, D] -> ([B, T, D], None).

    Source: DGSSA (arXiv 2310.07664); head-wise softmax parametrisation of METHODS 2.2.
    """

    def __init__(self, embed_dim: int, layer: LayerChoice, backbone: Backbone) -> None:
        super().__init__(embed_dim, layer, backbone)
        tokens = layer.num_tokens + backbone.num_prefix_tokens
        self.stored_map = f"static_map_{layer.num_tokens}"
        self.static_map = nn.Parameter(INITIAL["static_map"](torch.empty(layer.num_heads, tokens, tokens)))

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """The weights of this layer as slices of the stored ones."""
        static_map = stored[self.stored_map][: self.static_map.shape[0]]
        return {**self._slice_values(stored), "static_map": static_map}

    def forward(self, x: Tensor, provided_map: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Mix the values by the learned maps."""
        del provided_map
        return self._apply_maps(x, self.static_map.softmax(dim=-1)), None


class SharedAttention(_ValueAttention):
    """Attention with the maps of the nearest earlier dynamic layer (after softmax, not detached).

    Shapes: x [B, T, D], provided maps [B, H, T, T] -> ([B, T, D], the same maps).

    Source: PSViT (arXiv 2108.03428), attention sharing; METHODS 4.3.
    """

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """The weights of this layer as slices of the stored ones."""
        return self._slice_values(stored)

    def forward(self, x: Tensor, provided_map: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Mix the values by the provided maps, and pass these on."""
        if provided_map is None:
            raise ValueError("a shared layer needs the maps of its provider")
        return self._apply_maps(x, provided_map), provided_map


Attention = DynamicAttention | StaticAttention | SharedAttention


def build_attention(
    embed_dim: int, layer: LayerChoice, backbone: Backbone, *, exports_map: bool
) -> Attention:
    """The attention module of a layer."""
    match layer.attention:
        case AttentionKind.DYNAMIC:
            return DynamicAttention(embed_dim, layer, backbone, exports_map=exports_map)
        case AttentionKind.STATIC:
            return StaticAttention(embed_dim, layer, backbone)
        case AttentionKind.SHARED:
            return SharedAttention(embed_dim, layer, backbone)
