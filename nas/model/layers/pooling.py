"""Token pooling: fewer patch tokens on their square grid, the class token untouched.

Shape letters: B batch, P prefix tokens, N patch tokens in, M patch tokens out, D channels, G and g sides of
the grids.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL: dict[str, Callable[[Tensor], Tensor]] = {"conv.weight": nn.init.zeros_}


def to_grid(x_BND: Tensor, sides: tuple[int, int]) -> Tensor:
    """Patch tokens in raster order as an image of rows and columns, [B, D, rows, columns]."""
    # Unflattened before the axes move: else the strides of a single image hide that channels are last, and
    # pooling it takes 8 to 16 times as long on a CPU (196 tokens of 192 and 384 channels).
    return torch.unflatten(x_BND, 1, sides).permute(0, 3, 1, 2)


def average_grid(x_BDGG: Tensor, sides: tuple[int, int]) -> Tensor:
    """Adaptive average over a grid of other rows and columns, as patch tokens [B, M, D]."""
    return functional.adaptive_avg_pool2d(x_BDGG, sides).flatten(2).transpose(1, 2)


class TokenPool(nn.Module):
    """Average the patch tokens over a coarser grid.

    The windows are those of adaptive average pooling, so any side can shrink to any smaller one.

    Shapes: x [B, P + N, D] -> [B, P + M, D]; N and M are squares.

    Source: PSViT (arXiv 2108.03428), token pooling. Differs: the paper leaves the operator open; this is the
    2-D average of METHODS 4.2, without widening.
    """

    def __init__(self, num_tokens: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.side = math.isqrt(num_tokens)
        self.num_prefix_tokens = num_prefix_tokens

    def correct(self, x_BDGG: Tensor) -> Tensor:
        """What happens to the grid before it is averaged; nothing here."""
        return x_BDGG

    def forward(self, x: Tensor) -> Tensor:
        """Pool the patch tokens; prefix tokens pass through bit for bit."""
        prefix, patches_BND = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        side = math.isqrt(patches_BND.shape[1])
        grid_BDGG = to_grid(patches_BND, (side, side))
        return torch.cat([prefix, average_grid(self.correct(grid_BDGG), (self.side, self.side))], dim=1)


class ConvTokenPool(TokenPool):
    """Token pooling with a learned depth-wise 3x3 correction of the grid before the average.

    The correction starts at zero, so that a network starts as with `TokenPool`. One kernel per channel and
    layer, whatever the token counts.

    Source: METHODS 4.2; the learned anti-aliasing follows PiT's depth-wise pooling convolution. Differs:
    residual, stride 1 before the average, no widening.
    """

    def __init__(self, embed_dim: int, num_tokens: int, num_prefix_tokens: int) -> None:
        super().__init__(num_tokens, num_prefix_tokens)
        self.conv = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, groups=embed_dim, bias=False)
        INITIAL["conv.weight"](self.conv.weight)

    def correct(self, x_BDGG: Tensor) -> Tensor:
        """Add the convolution to the grid."""
        corrected: Tensor = x_BDGG + self.conv(x_BDGG)
        return corrected
