"""Feed-forward networks: timm's, and one whose second matrix is a product of two thin ones; what these start from.

Shape letters: B batch, T tokens, D channels, F hidden channels, r rank.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from nas.arch import LayerChoice
from nas.model.layers.part import FirstValue, Part


def _factor_init(weight: Tensor, *, rank_dim: int) -> Tensor:
    """Entries of the factors' product have the std 0.02 of timm's `fc2.weight`."""
    return nn.init.trunc_normal_(weight, std=(0.02**2 / weight.shape[rank_dim]) ** 0.25)


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
}


class CompactMlp(Part):
    """Feed-forward whose hidden-to-output matrix has rank r: `up(down(gelu(fc1(x))))`; x [B, T, D] -> [B, T, D].

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

    def __init__(self, embed_dim: int, hidden_dim: int, rank: int, act: str = "gelu", drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = ACTIVATIONS[act]()
        self.down = nn.Linear(hidden_dim, rank, bias=False)
        self.up = nn.Linear(rank, embed_dim)
        self.drop = nn.Dropout(drop)
        for name, first_value in self.INITIAL.items():
            first_value(self.get_parameter(name))

    def stored_name(self, name: str) -> str:
        """The bias is that of the whole matrix."""
        return "fc2.bias" if name == "up.bias" else name

    def forward(self, x: Tensor) -> Tensor:
        """Run the two layers, the second one as two factors."""
        y: Tensor = self.drop(self.up(self.down(self.drop(self.act(self.fc1(x))))))
        return y


def build_feed_forward(embed_dim: int, layer: LayerChoice, act: str, drop: float = 0.0) -> nn.Module:
    """The feed-forward of a layer: timm's `Mlp`, or `CompactMlp` where the layer has a rank."""
    hidden_dim = round(embed_dim * layer.mlp_ratio)
    if layer.ffn_rank == 1:
        return Mlp(embed_dim, hidden_dim, act_layer=ACTIVATIONS[act], drop=drop)  # type: ignore[no-any-return]
    return CompactMlp(embed_dim, hidden_dim, round(embed_dim * layer.ffn_rank), act, drop)


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
