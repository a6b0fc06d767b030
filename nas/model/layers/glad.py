"""GLAD: fewer patch tokens, each an average of its neighbours plus what a learned query finds anywhere.

Shape letters: B batch, P patch tokens in, M patch tokens out, D channels.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from nas.arch import Backbone, LayerChoice
from nas.model.layers.part import FirstValue, Frame, Part, Sides
from nas.model.layers.pool import average_grid, to_grid


class GlobalAggregation(Part):
    """Reduce the patch tokens to any smaller number: the average of neighbours, plus gamma times the gathered.

    `X' = average(X) + gamma * G Z`, with Z = LN(X) and G = softmax(Q Z^T / sqrt(D)) over the P tokens; one learned
    query per token that is left. The queries belong to one token count; the store has them as `queries_<patch tokens>`.

    Shapes: x [B, prefix + P, D] -> [B, prefix + M, D], prefix tokens bit for bit; queries [M, D], gamma [D].

    Source: GLAD (arXiv 2310.07664), of which the abstract fixes only that later layers get fewer tokens by a linear
    reduction; the operator is METHODS 2.3. Differs: no new position embedding, since the averaged tokens carry the old
    one; any token count, see `average_tokens`.
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {
        "queries": partial(nn.init.trunc_normal_, std=0.02),
        "gamma": nn.init.zeros_,  # so a network starts as if it averaged
        "norm.weight": nn.init.ones_,
        "norm.bias": nn.init.zeros_,
    }
    NO_DECAY = frozenset({"queries"})

    def __init__(self, embed_dim: int, num_tokens: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_tokens, self.num_prefix_tokens = num_tokens, num_prefix_tokens
        self.scale = embed_dim**-0.5
        self.queries = nn.Parameter(torch.empty(num_tokens, embed_dim))
        self.gamma = nn.Parameter(torch.empty(embed_dim))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        for name, first_value in self.INITIAL.items():
            first_value(self.get_parameter(name))

    def stored_name(self, name: str) -> str:
        """Queries fit one token count."""
        return f"queries_{self.num_tokens}" if name == "queries" else name

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """Reduce the patch tokens; prefix tokens pass through."""
        prefix, patches_BPD = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        queries_MD: Tensor = self.queries
        if frame is None:
            average_BMD = average_tokens(patches_BPD, self.num_tokens)
        else:
            queries_MD = resample_queries(self.queries, frame.held, frame.after)
            average_BMD = average_grid(to_grid(patches_BPD, frame.before), frame.after)
        return torch.cat([prefix, self.gamma * self._gather(x, queries_MD) + average_BMD], dim=1)

    def _gather(self, x: Tensor, queries_MD: Tensor) -> Tensor:
        # All tokens are normalised, then the patches taken: the other way round the norm copies them first.
        z_BPD = self.norm(x)[:, self.num_prefix_tokens :]
        # Two products, not the fused kernel: 0.95-1.05 of its time in fp32 on a CPU (196 tokens to 49 and 98,
        # 192 and 384 channels, batch 1 and 64), 0.44-0.96 in bf16, and no limit on D, which is the head here.
        gathered: Tensor = self.weights(z_BPD, queries_MD) @ z_BPD
        return gathered

    def weights(self, z_BPD: Tensor, queries_MD: Tensor) -> Tensor:
        """What each query takes of each normalised patch token, [B, M, P]; rows sum to 1."""
        weights_BMP: Tensor = ((queries_MD * self.scale) @ z_BPD.transpose(1, 2)).softmax(dim=-1)
        return weights_BMP


def build(embed_dim: int, layer: LayerChoice, backbone: Backbone) -> Part:
    """The reducer of a layer."""
    return GlobalAggregation(embed_dim, layer.num_tokens, backbone.num_prefix_tokens)


def average_tokens(x_BPD: Tensor, num_tokens: int) -> Tensor:
    """Average patch tokens with their neighbours to any smaller number.

    On the grid where both counts have one and the new one is not longer in either direction, as `TokenPool` does; else
    along the raster. The grid of a count is its most square one, with at least as many rows as columns and at most
    twice as many: 196 is 14 x 14, 98 is 14 x 7, 49 is 7 x 7, 97 has none. So 196 to 98 to 49 averages 2 x 2 patches.
    Tokens that an earlier `GlobalAggregation` left count as on the grid too: their averaged part is where it was. Only
    after an average along the raster to a count that has a grid, such as 196 to 150 (15 x 10), are neighbours on it up
    to a row off.

    Shapes: x [B, P, D] -> [B, M, D], M = num_tokens.
    """
    old, new = reduced_sides(x_BPD.shape[1], num_tokens)
    return average_grid(to_grid(x_BPD, old), new)


def reduced_sides(before: int, after: int) -> tuple[Sides, Sides]:
    """Rows and columns of the two grids between which `average_tokens` averages; of a raster, one column."""
    old, new = grid_sides(before), grid_sides(after)
    if old is None or new is None or new[0] > old[0] or new[1] > old[1]:
        return (before, 1), (after, 1)
    return old, new


def resample_queries(queries_MD: Tensor, held: Sides, wanted: Sides) -> Tensor:
    """Queries for another grid, interpolated as timm does position embeddings; for the same one, the same tensor."""
    if held == wanted:
        return queries_MD
    resampled: Tensor = resample_abs_pos_embed(queries_MD[None], wanted, held, num_prefix_tokens=0)[0]
    return resampled


def grid_sides(num_tokens: int) -> Sides | None:
    """Rows and columns of the most square grid of so many tokens; None where it has over 2 rows a column."""
    columns = next(c for c in range(math.isqrt(num_tokens), 0, -1) if num_tokens % c == 0)
    rows = num_tokens // columns
    return (rows, columns) if rows <= 2 * columns else None
