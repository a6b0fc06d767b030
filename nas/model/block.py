"""One layer of a network: reducer, more channels, attention, feed-forward."""

from importlib import import_module
from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn

from nas.arch import Backbone, LayerChoice, LayerContext
from nas.model.layers.feed_forward import build_feed_forward
from nas.model.layers.maps import Guidance, Provided
from nas.model.layers.part import Frame, Part
from nas.model.widen import Widen


class Block(nn.Module):
    """One layer: reduce tokens where the architecture says so, attend, feed forward; both with residuals.

    Shapes: x [B, T', D'] -> [B, T, D]; beside it, what layers that share attention hand on.
    """

    def __init__(
        self,
        embed_dim: int,
        layer: LayerChoice,
        context: LayerContext,
        backbone: Backbone,
        *,
        drop: float = 0.0,
        drop_path: float = 0.0,
        guided: bool = False,
    ) -> None:
        super().__init__()
        before = context.width_before or embed_dim
        self.reducer = None if layer.reducer is None else build_operator(layer.reducer, before, layer, backbone)
        self.widen = Widen(before, embed_dim) if layer.widens else None
        self.norm1 = nn.LayerNorm(embed_dim, eps=backbone.norm_eps)
        self.attn = build_operator(layer.attention, embed_dim, layer, context, backbone, guided=guided)
        self.norm2 = nn.LayerNorm(embed_dim, eps=backbone.norm_eps)
        self.mlp = build_feed_forward(embed_dim, layer, backbone, drop)
        self.proj_drop = nn.Dropout(drop) if drop else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None, frame: Frame | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Run the layer; returns tokens and what the next layer may share."""
        x, exported = self.attend(x, provided, guidance, frame)
        return self.feed(x, frame), exported

    def attend(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None, frame: Frame | None = None
    ) -> tuple[Tensor, Provided | None]:
        """The first half of the layer, up to the attention; returns tokens and what the next layer may share."""
        framed = () if frame is None else (frame,)  # an operator that knows no frames runs as it was searched
        if self.reducer is not None:
            x = self.reducer(x, *framed)
        if self.widen is not None:
            x = self.widen(x)
        attended, exported = self.attn(self.norm1(x), provided, guidance, *framed)
        return x + self.drop_path(self.proj_drop(attended)), exported

    def feed(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """The second half: the feed-forward."""
        framed = (frame,) if frame is not None and hasattr(self.mlp, "dwconv") else ()
        fed: Tensor = x + self.drop_path(self.mlp(self.norm2(x), *framed))
        return fed


def build_operator(operator: str, *args: Any, **options: Any) -> Part:
    """The module of an operator: what `build` makes of a layer, in the file of `layers` that has its name."""
    part: Part = import_module(f"nas.model.layers.{operator}").build(*args, **options)
    return part
