"""Token pooling: fewer patch tokens on their square grid, the class token untouched.

Shape letters: B batch, P prefix tokens, N patch tokens in, M patch tokens out, D channels, G and g sides of the grids.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from nas.arch import Backbone, LayerChoice
from nas.model.layers.part import Frame, Part, Sides


def to_grid(x_BND: Tensor, sides: Sides) -> Tensor:
    """Patch tokens in raster order as an image of rows and columns, [B, D, rows, columns]."""
    # Unflattened before the axes move: else the strides of a single image hide that channels are last, and
    # pooling it takes 8 to 16 times as long on a CPU (196 tokens of 192 and 384 channels).
    return torch.unflatten(x_BND, 1, sides).permute(0, 3, 1, 2)


def average_grid(x_BDGG: Tensor, sides: Sides) -> Tensor:
    """Adaptive average over a grid of other rows and columns, as patch tokens [B, M, D]."""
    return functional.adaptive_avg_pool2d(x_BDGG, sides).flatten(2).transpose(1, 2)


class TokenPool(Part):
    """Average the patch tokens over a coarser grid, in the windows of adaptive average pooling: any side can shrink.

    Shapes: x [B, P + N, D] -> [B, P + M, D]; N and M are squares.

    Source: PSViT (arXiv 2108.03428), token pooling. Differs: the paper leaves the operator open; this is the 2-D
    average of METHODS 4.2, without widening.
    """

    def __init__(self, num_tokens: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.sides = (math.isqrt(num_tokens),) * 2
        self.num_prefix_tokens = num_prefix_tokens

    def reduce(self, x_BDGG: Tensor, sides: Sides) -> Tensor:
        """The grid as patch tokens [B, M, D] of so many rows and columns."""
        return average_grid(x_BDGG, sides)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """Pool the patch tokens; prefix tokens pass through bit for bit."""
        prefix, patches_BND = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        before = (math.isqrt(patches_BND.shape[1]),) * 2 if frame is None else frame.before
        reduced_BMD = self.reduce(to_grid(patches_BND, before), self.sides if frame is None else frame.after)
        return torch.cat([prefix, reduced_BMD], dim=1)


def build(embed_dim: int, layer: LayerChoice, backbone: Backbone) -> Part:
    """The reducer of a layer."""
    del embed_dim
    return TokenPool(layer.num_tokens, backbone.num_prefix_tokens)
