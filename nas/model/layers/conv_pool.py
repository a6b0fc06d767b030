"""Token pooling after a learned correction of the grid.

Shape letters: B batch, D channels, G side of the grid.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from nas.arch import Backbone, LayerChoice
from nas.model.layers.part import FirstValue, Part, Sides
from nas.model.layers.pool import TokenPool


class ConvTokenPool(TokenPool):
    """Token pooling with a learned depth-wise 3x3 correction of the grid before the average.

    The correction starts at zero, as `TokenPool`. One kernel per channel and layer, whatever the token counts.

    Source: METHODS 4.2; the learned anti-aliasing follows PiT's depth-wise pooling convolution. Differs: residual,
    stride 1 before the average, no widening.
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {"conv.weight": nn.init.zeros_}

    def __init__(self, embed_dim: int, num_tokens: int, num_prefix_tokens: int) -> None:
        super().__init__(num_tokens, num_prefix_tokens)
        self.conv = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, groups=embed_dim, bias=False)
        self.INITIAL["conv.weight"](self.conv.weight)

    def reduce(self, x_BDGG: Tensor, sides: Sides) -> Tensor:
        """Add the convolution to the grid, then average."""
        return super().reduce(x_BDGG + self.conv(x_BDGG), sides)


def build(embed_dim: int, layer: LayerChoice, backbone: Backbone) -> Part:
    """The reducer of a layer."""
    return ConvTokenPool(embed_dim, layer.num_tokens, backbone.num_prefix_tokens)
