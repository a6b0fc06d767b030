"""Tokens embedded anew: half as many rows and columns, of as many channels as are wanted.

Shape letters: B batch, N patch tokens in, M patch tokens out, W channels in, D channels out.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from nas.arch import Backbone, LayerChoice
from nas.model.key_reduction import fan_out_normal
from nas.model.layers.part import FirstValue, Frame, Part
from nas.model.layers.pool import to_grid


class TokenEmbed(Part):
    """A 3x3 convolution of stride 2 over the grid, between two norms; sides halve, rounded up.

    The first norm ends what came before, and has the epsilon of all others; the second is the embedding's, with
    timm's. The convolution starts as timm's PVT v2 does, with a normal distribution by the fan-out and no bias.

    Shapes: x [B, N, W] -> [B, M, D]; patch tokens alone.

    Source: PVT v2 (arXiv 2106.13797), the end of a stage and the overlapping embedding of the next.
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {
        "embed_before.weight": nn.init.ones_,
        "embed_before.bias": nn.init.zeros_,
        "embed.weight": fan_out_normal,
        "embed.bias": nn.init.zeros_,
        "embed_after.weight": nn.init.ones_,
        "embed_after.bias": nn.init.zeros_,
    }

    def __init__(self, before: int, after: int, eps: float) -> None:
        super().__init__()
        self.embed_before = nn.LayerNorm(before, eps=eps)
        self.embed = nn.Conv2d(before, after, 3, stride=2, padding=1)
        self.embed_after = nn.LayerNorm(after, eps=1e-5)
        for name, first_value in self.INITIAL.items():
            first_value(self.get_parameter(name))

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """Embed the tokens anew."""
        sides = (math.isqrt(x.shape[1]),) * 2 if frame is None else frame.before
        x = to_grid(self.embed_before(x), sides)
        x = self.embed(x)
        embedded: Tensor = self.embed_after(x.flatten(2).transpose(1, 2))
        return embedded


def build(embed_dim: int, layer: LayerChoice, backbone: Backbone) -> Part:
    """The reducer of a layer that so many channels arrive at."""
    return TokenEmbed(embed_dim, layer.embed_dim or embed_dim, backbone.norm_eps)
