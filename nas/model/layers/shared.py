"""Shared attention: values of its own, mixed by what an earlier layer provides.

Shape letters: B batch, T tokens, D channels, H heads, R real heads.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from nas.arch import Backbone, LayerChoice, LayerContext
from nas.model.key_reduction import KEYS_INITIAL, build_key_reduction, stored_keys_name
from nas.model.layers.hallucination import INITIAL, build_hallucinate, images_at_once, stored_name
from nas.model.layers.maps import Guidance, Provided, in_chunks, mix_values, slice_values, to_heads
from nas.model.layers.part import FirstValue, Frame, Part, Stored


class SharedAttention(Part):
    """Attention with what the nearest earlier dynamic layer provides (not detached); it has values only.

    Plain, it applies the provider's maps. With hallucinated heads it derives maps anew from the logits of the
    provider's real heads, with weights of its own. Either way the next layer is given the same as this one.

    Shapes: x [B, T, D], provided maps [B, H, T, T] or logits [B, R, T, T] -> ([B, T, D], the same).

    Source: PSViT (arXiv 2108.03428), attention sharing, METHODS 4.3; sharing with hMHSA is METHODS 5.3.
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {**INITIAL, **KEYS_INITIAL}

    def __init__(
        self, embed_dim: int, layer: LayerChoice, _context: LayerContext, backbone: Backbone, **_: Any
    ) -> None:
        super().__init__()
        self.head_dim = backbone.head_dim
        self.keys = build_key_reduction(embed_dim, layer.num_tokens, backbone)
        self.v = nn.Linear(embed_dim, layer.num_heads * self.head_dim)
        self.proj = nn.Linear(layer.num_heads * self.head_dim, embed_dim)
        self.hallucinate = build_hallucinate(layer, backbone)

    def stored_name(self, name: str) -> str:
        """What derives heads fits one number of real heads, what reduces keys one side of squares."""
        return stored_keys_name(stored_name(name, self.hallucinate), self.keys)

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """Whole heads, the first ones."""
        return self.prefixes(stored, but="v.") | slice_values(stored, *self.v.weight.shape)

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None, frame: Frame | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Mix the values by the provider's maps, and pass on what was provided; a ValueError where that is missing."""
        del guidance
        v = to_heads(self.v(x if self.keys is None else self.keys(x, frame)), self.head_dim)
        if self.hallucinate is not None:
            if provided is None or provided.logits is None:
                raise ValueError("a layer that hallucinates from its provider needs the provider's logits")
            size = images_at_once(v, x.shape[1], self.hallucinate)
            attend = partial(self._attend_anew, mask=None if frame is None else frame.mask)
            (out,) = in_chunks(attend, size, provided.logits, v)
        else:
            if provided is None or provided.maps is None:
                raise ValueError("a shared layer needs the maps of its provider")
            out = mix_values(provided.maps, v)
        return self.proj(cast(Tensor, out).flatten(2)), provided

    def _attend_anew(self, logits: Tensor, v: Tensor, *, mask: Tensor | None) -> tuple[Tensor]:
        return (mix_values(self._maps(logits, mask), v),)  # apart, or logits of all heads would live as long

    def _maps(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        assert self.hallucinate is not None, "plain sharing has maps already"
        every: Tensor = self.hallucinate(logits)
        return (every if mask is None else every + mask).softmax(dim=-1)


build = SharedAttention
