"""One layer of a network: reducer, attention, feed-forward."""

from functools import partial

from timm.layers import DropPath
from torch import Tensor, nn

from nas.arch import Backbone, LayerChoice, LayerContext, Reducer
from nas.model.layers.attention import build_attention
from nas.model.layers.feed_forward import build_feed_forward
from nas.model.layers.glad import GlobalAggregation
from nas.model.layers.maps import Guidance, Provided
from nas.model.layers.pooling import ConvTokenPool, TokenPool

LayerNorm = partial(nn.LayerNorm, eps=1e-6)  # timm's ViT


class Block(nn.Module):
    """One layer: reduce tokens where the architecture says so, attend, feed forward; both with residuals.

    Shapes: x [B, T', D] -> [B, T, D]; beside it, what layers that share attention hand on.
    """

    def __init__(
        self,
        embed_dim: int,
        layer: LayerChoice,
        context: LayerContext,
        backbone: Backbone,
        *,
        drop_path: float = 0.0,
        guided: bool = False,
    ) -> None:
        super().__init__()
        self.reducer = _build_reducer(embed_dim, layer, backbone)
        self.norm1 = LayerNorm(embed_dim)
        self.attn = build_attention(embed_dim, layer, context, backbone, guided=guided)
        self.norm2 = LayerNorm(embed_dim)
        self.mlp = build_feed_forward(embed_dim, layer)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Run the layer; returns tokens and what the next layer may share."""
        if self.reducer is not None:
            x = self.reducer(x)
        attended, exported = self.attn(self.norm1(x), provided, guidance)
        x = x + self.drop_path(attended)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x, exported


def _build_reducer(embed_dim: int, layer: LayerChoice, backbone: Backbone) -> nn.Module | None:
    prefix = backbone.num_prefix_tokens
    match layer.reducer:
        case Reducer.POOL:
            return TokenPool(layer.num_tokens, prefix)
        case Reducer.CONV_POOL:
            return ConvTokenPool(embed_dim, layer.num_tokens, prefix)
        case Reducer.GLAD:
            return GlobalAggregation(embed_dim, layer.num_tokens, prefix)
    return None
