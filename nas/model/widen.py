"""More channels for every token.

Shape letters: B batch, T tokens, W channels in, D channels out.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.model.layers.part import FirstValue, Part


class Widen(Part):
    """A linear layer without bias to more channels; it starts as the identity, so that the new ones are zero.

    So the first channels mean the same before and behind it, whatever the widths, and one store serves all.

    Shapes: x [B, T, W] -> [B, T, D]; weight [D, W].

    Source: the widening of PiT (arXiv 2103.16302) and PSViT (2108.03428). Differs: it is behind the reducer, on fewer
    tokens; class token and patches share it; PiT's patches are widened by the pooling convolution itself.
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {"weight": nn.init.eye_}
    NO_DECAY = frozenset({"weight"})  # which would draw the tokens towards zero

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.eye_(torch.empty(after, before)))

    def forward(self, x: Tensor) -> Tensor:
        """Widen all tokens."""
        return functional.linear(x, self.weight)
