"""Linear-angular attention: no maps, a cost linear in the number of tokens.

Shape letters: B batch, T tokens, N patch tokens, S sides of their grid, D channels, d channels per head, H heads,
C = H * d channels of all heads, G = H * B, K = 3 * H.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import Backbone, LayerChoice, LayerContext, is_square
from nas.arch import tiling as chunks
from nas.model.layers.hallucination import eager_cpu_inference
from nas.model.layers.maps import Guidance, Provided, slice_qkv
from nas.model.layers.part import FirstValue, Frame, Part, Sides, Stored

EPS = 1e-6
"""Least norm of a query or a key; an output, which is a multiple of its query's norm, may be EPS times that."""


class LinearAttention(Part):
    """Multi-head attention whose similarity is the linear part of the angle between query and key.

    With unit queries and keys q, k and values v, of one head:

        y = v / 2 + q (k^T v) / pi
        out = gain * y / |y| + depth-wise 3x3 of v over the patch grid

    The convolution has one filter a head, and exists where the patch tokens lie on their grid. The class token is no
    part of it, neither as its input nor as its output.

    Shapes: x [B, T, D] -> ([B, T, D], None).

    Source: Castling-ViT (arXiv 2211.10526), linear-angular attention; METHODS 3.2. Differs: the convolution is 3x3 on
    the grid, where the released one has 9 taps along the tokens; a gain per head sets the length of the outputs
    (METHODS 5.9); there is no masked softmax branch in training, without which networks are better (results/LOG.md).
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {"linear_gain": nn.init.ones_, "linear_conv.weight": nn.init.zeros_}

    def __init__(self, embed_dim: int, layer: LayerChoice, context: LayerContext, backbone: Backbone, **_: Any) -> None:
        super().__init__()
        self.heads, self.head_dim = layer.num_heads, backbone.head_dim
        self.prefix, self.sides = backbone.num_prefix_tokens, (math.isqrt(layer.num_tokens),) * 2
        channels = self.heads * self.head_dim
        self.qkv = nn.Linear(embed_dim, 3 * channels)
        self.proj = nn.Linear(channels, embed_dim)
        self.linear_gain = nn.Parameter(self.INITIAL["linear_gain"](torch.empty(self.heads)))
        self.linear_conv: nn.Conv2d | None = None
        if context.on_grid and is_square(layer.num_tokens):
            self.linear_conv = nn.Conv2d(self.heads, self.heads, 3, padding=1, groups=self.heads, bias=False)
            self.INITIAL["linear_conv.weight"](self.linear_conv.weight)

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """Whole heads, the first ones."""
        channels = self.proj.in_features
        return self.prefixes(stored, but="qkv.") | slice_qkv(stored, channels, channels, self.qkv.in_features)

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None, frame: Frame | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Attend; on a CPU without gradients a few images at a time."""
        del provided, guidance
        if not eager_cpu_inference(x):
            return self._attend(x, frame), None
        images = chunks.images_of_tokens(x.shape[1], x.shape[2], x.element_size())
        if len(x) <= images:
            return self._attend(x, frame), None
        return torch.cat([self._attend(part, frame) for part in torch.split(x, images)]), None

    def _attend(self, x: Tensor, frame: Frame | None) -> Tensor:
        B, T, _ = x.shape
        H, d = self.heads, self.head_dim
        qkv_BTKd = self.qkv(x).view(B, T, 3 * H, d)
        y_BHTd = self._mix(qkv_BTKd, 1.0 if frame is None else self._share(frame))
        scale_BHT1 = self.linear_gain.to(y_BHTd.dtype).view(H, 1, 1) / _norm(y_BHTd, EPS**2)
        if self.linear_conv is None:
            out_BHTd = y_BHTd * scale_BHT1
        else:
            sides = self.sides if frame is None else frame.after
            local_BTHd = self._convolve(qkv_BTKd[:, self.prefix :, 2 * H :], sides, self.linear_conv.weight)
            out_BHTd = local_BTHd.transpose(1, 2).addcmul_(y_BHTd, scale_BHT1)
        attended: Tensor = self.proj(out_BHTd.transpose(1, 2).reshape(B, T, H * d))
        return attended

    def _share(self, frame: Frame) -> float:
        """Tokens of the search for each one now: the sum over all keys stays as long, beside the value itself."""
        searched = frame.searched[0] * frame.searched[1]
        return (searched + self.prefix) / (frame.num_tokens + self.prefix)

    def _mix(self, qkv_BTKd: Tensor, share: float) -> Tensor:
        """The direction y of every output, times twice the norm of its query: [B, H, T, d]."""
        # Only the direction matters, and at this length neither v is halved nor q divided.
        B, T, K, d = qkv_BTKd.shape
        H = K // 3
        # One copy to heads first, so that every product runs on contiguous matrices; no tensor has five axes, which
        # mobile GPUs do not take.
        heads_first = qkv_BTKd.permute(2, 0, 1, 3).contiguous()
        q, k, v = heads_first.view(3, H * B, T, d).unbind(0)
        q_norm = _norm(q, EPS)
        products_Gdd = torch.bmm(k.transpose(1, 2), v / _norm(k, EPS))
        y_GTd = torch.baddbmm(v * q_norm, q, products_Gdd, alpha=2 / math.pi * share)
        return y_GTd.view(H, B, T, d).transpose(0, 1)

    def _convolve(self, values_BNHd: Tensor, sides: Sides, weight_H133: Tensor) -> Tensor:
        """Every head's filter over the grid of its values, zeros for the prefix tokens: [B, T, H, d]."""
        B, N, _, _ = values_BNHd.shape
        H, d = self.heads, self.head_dim  # as numbers, which torch.fx of earlier versions needs in a convolution
        # Made contiguous here: inside the convolution, with its layout, that takes longer.
        grid_BCSS = values_BNHd.contiguous().view(B, *sides, H * d).permute(0, 3, 1, 2)
        weight_C133 = weight_H133.expand(-1, d, -1, -1).reshape(H * d, 1, 3, 3)
        local_BCSS = functional.conv2d(grid_BCSS, weight_C133, padding=1, groups=H * d)
        local_BNHd = local_BCSS.permute(0, 2, 3, 1).reshape(B, N, H, d)
        return functional.pad(local_BNHd, (0, 0, 0, 0, self.prefix, 0))


def _norm(x: Tensor, least: float) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.clamp_min(least).to(x.dtype)  # autocast on CUDA takes norms in fp32


build = LinearAttention
