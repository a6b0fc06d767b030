"""Dynamic attention: maps from queries and keys, of which some may be hallucinated.

Maps are materialised only where a later layer consumes them or a head is hallucinated by mixing; elsewhere the fused
kernel runs, where it is the faster.

Shape letters: B batch, T tokens, D channels, d channels per head, H heads, R real heads, E = H - R hallucinated heads.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import HALLUCINATION, Backbone, LayerChoice, LayerContext
from nas.model.key_reduction import KEYS_INITIAL, build_key_reduction, project, stored_keys_name
from nas.model.layers.hallucination import INITIAL, build_hallucinate, eager_cpu_inference, images_at_once, stored_name
from nas.model.layers.maps import Guidance, Provided, in_chunks, mix_values, slice_qkv, to_heads
from nas.model.layers.part import FirstValue, Frame, Part, Stored

MIN_EXPLICIT_ENTRIES = 2**16
"""Entries of all maps from which bf16 inference on a CPU makes them explicitly: 0.75 to 0.95 of the time that attention
takes with the fused kernel (0.93 to 1.05 with 197 tokens, 3 heads, one image). With a fifth of them it took 1.0 to 1.4
times as long."""


class DynamicAttention(Part):
    """Multi-head self-attention whose maps come from queries and keys.

    With E hallucinated heads (`Hallucinate`), only the first R heads have queries and keys; all H have values. Copies
    stay on the fused kernel, as if their parents' queries were scaled. Whether maps [B, H, T, T] and real heads' logits
    [B, R, T, T] are returned (`exports_maps`, `exports_logits`) can be switched on a built module.

    Where keys are reduced (`KeyReduction`), keys and values are K instead of T, and maps [B, H, T, K].

    Shapes: x [B, T, D] -> ([B, T, D], what is exported or None).

    Source: hMHSA (arXiv 2306.10875); METHODS 1.2.
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {**INITIAL, **KEYS_INITIAL}

    def __init__(self, embed_dim: int, layer: LayerChoice, context: LayerContext, backbone: Backbone, **_: Any) -> None:
        super().__init__()
        self.heads, self.real, self.hallucinated = layer.num_heads, layer.num_real, layer.num_hallucinated
        self.head_dim = backbone.head_dim
        self.exports_maps, self.exports_logits = context.exports_maps, context.exports_logits
        self.keys = build_key_reduction(embed_dim, layer.num_tokens, backbone)
        self.qkv = nn.Linear(embed_dim, (2 * self.real + self.heads) * self.head_dim)
        self.proj = nn.Linear(self.heads * self.head_dim, embed_dim)
        self.hallucinate = build_hallucinate(layer, backbone)
        self.mixes = layer.hallucination is not None and HALLUCINATION[layer.hallucination].mixes

    def stored_name(self, name: str) -> str:
        """What derives heads fits one number of real heads, what reduces keys one side of squares."""
        return stored_keys_name(stored_name(name, self.hallucinate), self.keys)

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """Whole heads, the first ones."""
        real, every = self.real * self.head_dim, self.heads * self.head_dim
        return self.prefixes(stored, but="qkv.") | slice_qkv(stored, real, every, self.qkv.in_features)

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None, frame: Frame | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Attend; returns maps and logits where they are exported."""
        del provided, guidance
        widths = [self.real * self.head_dim, self.real * self.head_dim, self.heads * self.head_dim]
        q, k, v = project(self.qkv, x, self.keys, widths, frame)
        q, k, v = to_heads(q, self.head_dim), to_heads(k, self.head_dim), to_heads(v, self.head_dim)
        mask = None if frame is None else frame.mask
        exported: Provided | None = None
        if self.exports_maps or self.exports_logits or self.mixes:
            size = images_at_once(v, q.shape[2], self.hallucinate)
            out, maps, logits = in_chunks(partial(self._attend_by_maps, mask=mask), size, q, k, v)
            if self.exports_maps or self.exports_logits:
                exported = Provided(maps, logits)
        elif self.hallucinate is not None:
            real_BTRd = attend(q, k, v[:, : self.real], mask, training=self.training)
            keys, values = self.hallucinate.parents(k), v[:, self.real :]
            derive = partial(attend, training=self.training)
            # Neither has a name: it would live as long as the output of the layer.
            out = torch.cat([real_BTRd, derive(self.hallucinate.scaled(q), keys, values, mask)], dim=2)
        else:
            out = attend(q, k, v, mask, training=self.training)
        return self.proj(cast(Tensor, out).flatten(2)), exported

    def _attend_by_maps(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        logits = _logits(q, k)
        maps = self._maps(logits, mask)  # apart, or logits of all heads would live as long as the maps
        out = mix_values(maps, v)
        return out, maps if self.exports_maps else None, logits if self.exports_logits else None

    def _maps(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        every = logits if self.hallucinate is None else self.hallucinate(logits)
        return (every if mask is None else every + mask).softmax(dim=-1)


build = DynamicAttention


def attend(q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor | None = None, *, training: bool) -> Tensor:
    """[B, T, H, d] of heads with queries, keys and values of their own."""
    if mask is None and _is_explicit_faster(q_BHTd, k_BHTd, training):
        (out,) = in_chunks(_attend_explicitly, images_at_once(v_BHTd, q_BHTd.shape[2]), q_BHTd, k_BHTd, v_BHTd)
        return cast(Tensor, out)
    return functional.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, mask).transpose(1, 2)


def _is_explicit_faster(q_BHTd: Tensor, k_BHTd: Tensor, training: bool) -> bool:
    if q_BHTd.dtype is not torch.bfloat16 or q_BHTd.device.type != "cpu":
        return False
    B, H, T, _ = q_BHTd.shape
    K = k_BHTd.shape[2]
    # The fused kernel's backward takes 59 % of a bf16 step on a CPU; explicit, the step takes 0.57 of the
    # time (results/LOG.md, same MACs). In fp32 the fused kernel wins.
    return training or (eager_cpu_inference(q_BHTd) and B * H * T * K >= MIN_EXPLICIT_ENTRIES)


def _attend_explicitly(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return (mix_values(_logits(q, k).softmax(dim=-1), v),)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    logits: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    return logits
