"""Feed-forward networks: timm's, and one whose hidden-to-output matrix is a product of two thin ones.

Also what the factors start from, and parallel branches that train beside them and are fused away.

Shape letters: B batch, T tokens, D channels, F hidden channels, r rank.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial, reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import LayerChoice
from nas.base import DataError
from nas.model.layers.maps import Stored


def _factor_init(weight: Tensor, *, rank_dim: int) -> Tensor:
    return nn.init.trunc_normal_(weight, std=(0.02**2 / weight.shape[rank_dim]) ** 0.25)


INITIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "down.weight": partial(_factor_init, rank_dim=0),
    "up.weight": partial(_factor_init, rank_dim=1),
}
"""First values of the factors: entries of their product have the std 0.02 of timm's `fc2.weight`.

Further stored branches `down.weight_<b>` and `up.weight_<b>`, b = 1, 2, ..., start at zero.
"""


class BranchedLinear(nn.Module):
    """A linear layer trained as the sum of parallel ones, each with its own batch normalisation or none.

    `y = sum_b BN_b(W_b x) + bias`, statistics per feature over all rows of a batch (images and tokens). One
    matrix holds the branches below one another, so they cost one product and one normalisation. Without
    normalisation the weights are added first, which is the same function without more activations.

    Shapes: x [..., in_features] -> [..., out_features].

    Source: re-parameterisation of cFFN (arXiv 2306.10875), whose form is open; this is METHODS 1.3.
    """

    def __init__(
        self, in_features: int, out_features: int, branches: int, *, batch_norm: bool, bias: bool
    ) -> None:
        super().__init__()
        self.branches = branches
        self.linear = nn.Linear(in_features, branches * out_features, bias=False)
        self.norm = nn.BatchNorm1d(branches * out_features) if batch_norm else None
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def _sum(self, x: Tensor, dim: int) -> Tensor:
        return torch.unflatten(x, dim, (self.branches, -1)).sum(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Add up the branches."""
        if self.norm is None:
            return functional.linear(x, self._sum(self.linear.weight, 0), self.bias)
        rows = self._sum(self.norm(self.linear(x.flatten(0, -2))), 1)
        return torch.unflatten(rows if self.bias is None else rows + self.bias, 0, x.shape[:-1])

    @torch.no_grad()
    def fuse(self) -> nn.Linear:
        """The plain layer with the same function in evaluation mode; computed in float64.

        It has a bias where this one has, or has normalisation.
        """
        weight = self.linear.weight.double()
        bias: Tensor | None = self.bias
        if self.norm is not None:
            scale, shift = _affine(self.norm)
            weight, shift = weight * scale[:, None], self._sum(shift, 0)
            bias = shift if bias is None else shift + bias
        weight = self._sum(weight, 0)
        out_features, in_features = weight.shape
        fused = nn.Linear(in_features, out_features, bias=bias is not None).to(self.linear.weight)
        fused.weight.copy_(weight)
        if bias is not None:
            fused.bias.copy_(bias)
        return fused.train(self.training)


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift that the normalisation applies in evaluation mode, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


class CompactMlp(nn.Module):
    """Feed-forward whose hidden-to-output matrix has rank r: `up(down(gelu(fc1(x))))`.

    Nothing lies between `down` and `up`, and they stay two products: theirs would be the full matrix again.
    Per image D F + F r + r D multiply-accumulates a token, so r < D F / (D + F) saves.

    Shapes: x [B, T, D] -> [B, T, D].

    Source: cFFN (arXiv 2306.10875) fixes that this matrix is factorised and re-parameterised while training;
    rank, bias and branches are METHODS 1.3.
    """

    def __init__(self, embed_dim: int, hidden_dim: int, rank: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = nn.GELU()
        self.down: nn.Linear | BranchedLinear = nn.Linear(hidden_dim, rank, bias=False)
        self.up: nn.Linear | BranchedLinear = nn.Linear(rank, embed_dim)
        for name, first_value in INITIAL.items():
            first_value(self.get_parameter(name))

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """The weights of this layer as slices of the stored ones; `up.bias` is the full one's `fc2.bias`.

        A factor is the sum of its stored branches `down.weight`, `down.weight_1`, ...: the same function as
        the parallel branches of METHODS 1.3 with their sum in place of batch normalisation, exactly and with
        no more activations. They add no capacity: all branches of a factor have the same gradient, and take
        the same step. So n of them train as one would with n times the learning rate, under SGD and under
        Adam, and with 1/n of the weight decay under AdamW; gradient clipping counts the factor n times.
        """
        sliced = {name: stored[name][_prefix(self, name)] for name in ("fc1.weight", "fc1.bias")}
        for name in INITIAL:
            branches = [key for key in stored if key == name or key.startswith(f"{name}_")]
            sliced[name] = reduce(torch.add, (stored[key][_prefix(self, name)] for key in branches))
        sliced["up.bias"] = stored["fc2.bias"][_prefix(self, "up.bias")]
        return sliced

    def forward(self, x: Tensor) -> Tensor:
        """Run the two layers, the second one as two factors."""
        y: Tensor = self.up(self.down(self.act(self.fc1(x))))
        return y


def _prefix(module: nn.Module, name: str) -> tuple[slice, ...]:
    return tuple(map(slice, module.get_parameter(name).shape))


def build_feed_forward(embed_dim: int, layer: LayerChoice) -> nn.Module:
    """The feed-forward of a layer: timm's `Mlp`, or `CompactMlp` where the layer has a rank."""
    # Not at the top: importing timm imports `nas.model.subnet` (to register it), which needs this module whole.
    from timm.layers import Mlp

    hidden_dim = round(embed_dim * layer.mlp_ratio)
    if layer.ffn_rank == 1:
        return Mlp(embed_dim, hidden_dim)  # type: ignore[no-any-return]
    return CompactMlp(embed_dim, hidden_dim, round(embed_dim * layer.ffn_rank))


def add_branches(module: nn.Module, branches: int = 2, *, batch_norm: bool = True) -> None:
    """Train the factors of every `CompactMlp` within a network as sums of parallel branches, from now on.

    The first branch holds the present factor and the others contribute nothing yet, so the function in
    evaluation mode stays. With batch normalisation, call `calibrate_branches` next, for training to start
    from the same function too. For a network that trains alone; in a supernet batch statistics would depend
    on the path, see `CompactMlp.slice_from`.
    """
    for mlp in _compact_mlps(module):
        if isinstance(mlp.down, nn.Linear) and isinstance(mlp.up, nn.Linear):
            mlp.down = _branched(mlp.down, branches, batch_norm)
            mlp.up = _branched(mlp.up, branches, batch_norm)


@torch.no_grad()
def calibrate_branches(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the batch statistics of all branches to those of some images, and keep the function.

    The affine part of every normalisation takes back what its new statistics change: right after
    `add_branches`, gamma = sigma and beta = mean in the first branch (METHODS 1.3). Statistics are exact over
    all images, not a running average.

    Args:
        model: A network with branches; its mode is kept.
        batches: Normalised images [B, C, S, S] on the model's device; some 2,000 images in all.

    Raises:
        DataError: No batch.
    """
    branched = [part for mlp in _compact_mlps(model) for part in (mlp.down, mlp.up)]
    norms = [part.norm for part in branched if isinstance(part, BranchedLinear) and part.norm is not None]
    seen: dict[nn.Module, tuple[int, Tensor, Tensor]] = {}
    for norm in norms:
        zeros = torch.zeros_like(norm.weight, dtype=torch.float64)
        seen[norm] = (0, zeros, zeros)

    def count(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        rows, (number, total, squares) = inputs[0].double(), seen[norm]
        seen[norm] = number + len(rows), total + rows.sum(0), squares + rows.square().sum(0)

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    training = model.training
    try:
        model.eval()
        for images in batches:
            model(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for norm in norms:
        number, total, squares = seen[norm]
        if not number:
            raise DataError("branches are calibrated on images, got none", hint="give at least one batch")
        scale, shift = _affine(norm)
        mean = total / number
        variance = (squares / number - mean.square()).clamp_min(0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + scale * mean)


@torch.no_grad()
def fuse_branches(module: nn.Module) -> None:
    """Put plain linear layers back in place of all branches; the function in evaluation mode stays.

    What the normalisation of `down` adds passes through `up` into its bias, so `down` has none again.
    """
    for mlp in _compact_mlps(module):
        if isinstance(mlp.down, BranchedLinear) and isinstance(mlp.up, BranchedLinear):
            down, up = mlp.down.fuse(), mlp.up.fuse()
            if down.bias is not None:
                up.bias.copy_(up.bias.double() + up.weight.double() @ down.bias.double())
                down.register_parameter("bias", None)
            mlp.down, mlp.up = down, up


def _compact_mlps(module: nn.Module) -> Iterator[CompactMlp]:
    return (part for part in module.modules() if isinstance(part, CompactMlp))


@torch.no_grad()
def _branched(linear: nn.Linear, branches: int, batch_norm: bool) -> BranchedLinear:
    bias: Tensor | None = linear.bias
    branched = BranchedLinear(
        linear.in_features, linear.out_features, branches, batch_norm=batch_norm, bias=bias is not None
    ).to(linear.weight)
    first, others = slice(linear.out_features), slice(linear.out_features, None)
    branched.linear.weight[first] = linear.weight
    if branched.bias is not None and bias is not None:
        branched.bias.copy_(bias)
    if branched.norm is None:
        branched.linear.weight[others] = 0
    else:
        branched.norm.weight[first] = (1 + branched.norm.eps) ** 0.5  # statistics are mean 0, variance 1
        branched.norm.weight[others] = 0
    return branched.train(linear.training)


def svd_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of a matrix whose inputs are alike: its truncated singular value decomposition.

    The squared error of `up @ down` is the sum of the discarded squared singular values. Singular values are
    shared evenly, and their order is descending: the first rows and columns for a greater rank are the
    factors for a smaller one.

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

    Shapes: weight [D, F], as timm's `fc2.weight`; second_moment [F, F] -> down [r, F], up [D, r]; r at
    most D.
    """
    matrix = weight.detach().double()
    axes = torch.linalg.eigh(matrix @ second_moment.detach().to(matrix) @ matrix.T).eigenvectors
    axes_Dr = axes.flip(1)[:, :rank]
    rows_rF = axes_Dr.T @ matrix
    root = rows_rF.norm(dim=1).sqrt().clamp_min(torch.finfo(matrix.dtype).tiny)
    return (rows_rF / root[:, None]).to(weight), (axes_Dr * root).to(weight)
