"""Fewer keys than queries.

Shape letters: B batch, T patch tokens, K keys, D channels, S side of the square of tokens that becomes a key.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import Backbone
from nas.model.layers.part import FirstValue, Frame
from nas.model.layers.pool import to_grid


def fan_out_normal(weight: Tensor) -> Tensor:
    """Fill the kernel of a convolution as timm's PVT v2 does; returns it."""
    return nn.init.normal_(weight, std=math.sqrt(2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])))


KEYS_INITIAL: dict[str, FirstValue] = {
    "keys.conv.weight": fan_out_normal,  # as timm's PVT v2
    "keys.conv.bias": nn.init.zeros_,
    "keys.norm.weight": nn.init.ones_,
    "keys.norm.bias": nn.init.zeros_,
}
"""First values, by the names within an attention module."""


class KeyReduction(nn.Module):
    """The tokens that keys and values are made of: squares of S x S tokens become one each.

    In a supernet there is one for each S: see `stored_name`. Of a grid whose sides S does not divide, the last rows and
    columns have no key, as in PVT.

    Shapes: x [B, T, D] -> [B, K, D], patch tokens on their grid alone.

    Source: the spatial reduction of PVT (arXiv 2102.12122) and PVT v2 (2106.13797).
    """

    def __init__(self, embed_dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(embed_dim, embed_dim, stride, stride)
        self.norm = nn.LayerNorm(embed_dim)
        for name, first_value in KEYS_INITIAL.items():
            first_value(self.get_parameter(name.removeprefix("keys.")))

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """Reduce the tokens."""
        sides = (math.isqrt(x.shape[1]),) * 2 if frame is None else frame.after
        grid_BDhw = self.conv(to_grid(x, sides))
        reduced: Tensor = self.norm(grid_BDhw.flatten(2).transpose(1, 2))
        return reduced


def build_key_reduction(embed_dim: int, num_tokens: int, backbone: Backbone) -> KeyReduction | None:
    """What reduces the keys of a layer; None where all its tokens are keys."""
    stride = backbone.key_stride(num_tokens)
    return KeyReduction(embed_dim, stride) if stride > 1 else None


def stored_keys_name(name: str, reduction: KeyReduction | None) -> str:
    """The store's name for a weight of an attention that reduces its keys: one set for every side of a square."""
    return name if reduction is None else name.replace("keys.", f"keys_{reduction.stride}.", 1)


def project(
    qkv: nn.Linear, x: Tensor, reduction: KeyReduction | None, rows: list[int], frame: Frame | None
) -> tuple[Tensor, ...]:
    """Queries [B, T, rows[0]], keys [B, K, rows[1]] and values [B, K, rows[2]]; the weight has them in this order."""
    if reduction is None:
        every: Tensor = qkv(x)
        return torch.split(every, rows, dim=2)
    reduced, queries = reduction(x, frame), rows[0]
    q = functional.linear(x, qkv.weight[:queries], qkv.bias[:queries])
    both = functional.linear(reduced, qkv.weight[queries:], qkv.bias[queries:])
    k, v = torch.split(both, rows[1:], dim=2)
    return q, k, v
