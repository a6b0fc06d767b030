"""Feed-forward networks: timm's, and one whose second matrix is a product of two thin ones; what these start from.

Shape letters: B batch, T tokens, N patch tokens, D channels, F hidden channels, r rank.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from nas.arch import Backbone, LayerChoice
from nas.model.layers.part import FirstValue, Frame, Part
from nas.model.layers.pool import to_grid


def _factor_init(weight: Tensor, *, rank_dim: int) -> Tensor:
    """Entries of the factors' product have the std 0.02 of timm's `fc2.weight`."""
    return nn.init.trunc_normal_(weight, std=(0.02**2 / weight.shape[rank_dim]) ** 0.25)


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
}


class GridConv(nn.Conv2d):
    """A depth-wise 3x3 convolution over the grid of the patch tokens; prefix tokens pass by it bit for bit.

    It starts as PVT v2's in timm, by a normal distribution of variance 2 / 9; behind a trained plain ViT, which has
    none, as the identity (`nas.initial`).

    Shapes: x [B, T, F] -> [B, T, F]; weight [F, 1, 3, 3].

    Source: the feed-forward of PVT v2 (arXiv 2106.13797), also of CeiT (2103.11816) and LocalViT (2104.05707).
    Differs: there are tokens before the patches.
    """

    def __init__(self, channels: int, num_prefix_tokens: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)
        self.num_prefix_tokens = num_prefix_tokens

    def reset_parameters(self) -> None:
        """Set the first values (PyTorch's interface)."""
        assert self.bias is not None, "asked for"
        nn.init.normal_(self.weight, std=math.sqrt(2 / 9))
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """Convolve the patch tokens, which lie on a square grid, or on the one that a frame says."""
        prefix = self.num_prefix_tokens
        patches_BNF = x[:, prefix:] if prefix else x
        sides = (math.isqrt(patches_BNF.shape[1]),) * 2 if frame is None else frame.after
        y_BNF = super().forward(to_grid(patches_BNF, sides)).flatten(2).transpose(1, 2)
        return torch.cat([x[:, :prefix], y_BNF], dim=1) if prefix else y_BNF


class ConvMlp(Mlp):  # type: ignore[misc]
    """timm's `Mlp` with a convolution before the activation; x [B, T, D] -> [B, T, D]."""

    def __init__(self, *sizes: int, num_prefix_tokens: int, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.dwconv = GridConv(self.fc1.out_features, num_prefix_tokens)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """Run both layers."""
        y: Tensor = self.drop2(self.fc2(self.drop1(self.act(self.dwconv(self.fc1(x), frame)))))
        return y


class CompactMlp(Part):
    """Feed-forward whose hidden-to-output matrix has rank r: `up(down(gelu(fc1(x))))`; x [B, T, D] -> [B, T, D].

    With `dwconv`, the number of prefix tokens, there is a `GridConv` before the activation.

    Nothing lies between `down` and `up`, and they stay two products: theirs would be the full matrix again. Per image
    D F + F r + r D multiply-accumulates a token, so r < D F / (D + F) saves.

    Source: cFFN (arXiv 2306.10875) fixes that this matrix is factorised; rank and bias are METHODS 1.3. Differs: not
    re-parameterised while training. Parallel branches are one with a greater learning rate, and with BatchNorm they
    were 4 points worse (results/reference/ablation.csv).
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {
        "down.weight": partial(_factor_init, rank_dim=0),
        "up.weight": partial(_factor_init, rank_dim=1),
    }

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        rank: int,
        act: str = "gelu",
        drop: float = 0.0,
        dwconv: int | None = None,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.dwconv = None if dwconv is None else GridConv(hidden_dim, dwconv)
        self.act = ACTIVATIONS[act]()
        self.down = nn.Linear(hidden_dim, rank, bias=False)
        self.up = nn.Linear(rank, embed_dim)
        self.drop = nn.Dropout(drop)
        for name, first_value in self.INITIAL.items():
            first_value(self.get_parameter(name))

    def stored_name(self, name: str) -> str:
        """The bias is that of the whole matrix."""
        return "fc2.bias" if name == "up.bias" else name

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """Run the two layers, the second one as two factors."""
        y: Tensor = self.drop(self.up(self.down(self.drop(self.act(self._hidden(x, frame))))))
        return y

    def _hidden(self, x: Tensor, frame: Frame | None) -> Tensor:
        hidden: Tensor = self.fc1(x)
        return hidden if self.dwconv is None else self.dwconv(hidden, frame)


def build_feed_forward(embed_dim: int, layer: LayerChoice, backbone: Backbone, drop: float = 0.0) -> nn.Module:
    """The feed-forward of a layer: timm's `Mlp`, or `CompactMlp` where the layer has a rank; or with a convolution."""
    hidden_dim, prefix = round(embed_dim * layer.mlp_ratio), backbone.num_prefix_tokens
    if layer.ffn_rank < 1:
        rank, dwconv = round(embed_dim * layer.ffn_rank), prefix if layer.ffn_conv else None
        return CompactMlp(embed_dim, hidden_dim, rank, backbone.act, drop, dwconv)
    options: dict[str, Any] = {"act_layer": ACTIVATIONS[backbone.act], "drop": drop}
    if layer.ffn_conv:
        return ConvMlp(embed_dim, hidden_dim, num_prefix_tokens=prefix, **options)
    return Mlp(embed_dim, hidden_dim, **options)  # type: ignore[no-any-return]


def svd_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of a matrix whose inputs are alike: its truncated singular value decomposition.

    The squared error of `up @ down` is the sum of the discarded squared singular values. Singular values are shared
    evenly and descend: the first rows and columns for a greater rank are the factors for a smaller one.

    Shapes: weight [D, F], as timm's `fc2.weight` -> down [r, F], up [D, r]; r at most min(D, F).
    """
    left, spectrum, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    root = spectrum[:rank].sqrt()
    return (root[:, None] * right[:rank]).to(weight), (left[:, :rank] * root).to(weight)


def activation_aware_factors(weight: Tensor, rank: int, second_moment: Tensor) -> tuple[Tensor, Tensor]:
    """The factors that change the outputs least: they minimise E ||(W - up down) h||^2.

    The minimum is the projection of W on the r greatest principal axes of its outputs, P P^T W, where P are
    eigenvectors of W C W^T and C = E[h h^T]; the error is the sum of the discarded eigenvalues. This equals
    the truncated decomposition of W C^(1/2) in METHODS 1.3, which puts C^(-1/2) into `down`, but needs no
    inverse: hidden channels that are never active need no damping, and the eigenproblem is D x D, not F x F.
    A row of `down` and its column of `up` have the same norm; the order is descending, as in `svd_factors`.

    Shapes: weight [D, F], as timm's `fc2.weight`; second_moment [F, F] -> down [r, F], up [D, r]; r at most D.
    """
    matrix = weight.detach().double()
    axes = torch.linalg.eigh(matrix @ second_moment.detach().to(matrix) @ matrix.T).eigenvectors
    axes_Dr = axes.flip(1)[:, :rank]
    rows_rF = axes_Dr.T @ matrix
    root = rows_rF.norm(dim=1).sqrt().clamp_min(torch.finfo(matrix.dtype).tiny)
    return (rows_rF / root[:, None]).to(weight), (axes_Dr * root).to(weight)
