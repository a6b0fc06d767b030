"""What subnets of a trained start need to stand in for the heads, neurons and channels that they lack."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.model import DEPTH, FACTOR, Supernet, cut_matrices, factor_of

DAMPING = 0.1
"""Over the variance of the features of a shallower network: an image has one row of them, and there are few images."""


@torch.no_grad()
def fit_cuts(supernet: Supernet, batches: Iterable[Tensor]) -> None:
    """Fit every matrix whose inputs the space can cut to what it sees in the supernet's plain ViT, in place.

    The outputs of a subnet's layer are then the nearest to the whole one's (`nas.model.fitted`), also while the
    supernet is trained. The plain ViT computes what it did. The batches are normalised images [B, C, S, S].

    Source: SparseGPT, SliceGPT and others correct weights after a cut by second moments of the inputs. Differs: one
    triangular factor for all cuts of a matrix, since subnets take first inputs.
    """
    matrices = cut_matrices(supernet.space)
    if not matrices:
        return
    model = supernet.dense()
    moments: dict[str, Tensor] = {}

    def see(matrix: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].flatten(0, -2)
        moments[matrix] = moments.get(matrix, 0) + (rows.T @ rows).double()

    for matrix in matrices:
        model.get_submodule(matrix).register_forward_pre_hook(partial(see, matrix))
    for images in batches:
        model(images.to(next(model.parameters()).device))
    supernet.load_factors({f"{matrix}{FACTOR}": factor_of(moment) for matrix, moment in moments.items()})


@torch.no_grad()
def fit_depths(supernet: Supernet, batches: Iterable[Tensor]) -> None:
    """Fit the classifier of the supernet's plain ViT to the features that there are after fewer layers, in place.

    They are mapped to those of the whole network by least squares. Shallower networks are still those without the last
    layers: with this they answer better than without the layers that change least (docs/decisions.md). The batches are
    normalised images [B, C, S, S].
    """
    model, depths = supernet.dense(), sorted(supernet.space.depth)[:-1]
    if not depths or not model.num_classes:
        return
    seen: dict[int, Tensor] = {}  # features of the batch under way
    device = next(model.parameters()).device
    zero, count = torch.zeros((), dtype=torch.float64, device=device), 0
    sums = {depth: [zero, zero, zero] for depth in depths}

    def see(depth: int, _: nn.Module, __: Any, output: tuple[Tensor, Any]) -> None:
        seen[depth] = model.forward_head(model.norm(output[0]), pre_logits=True).double()

    def compare(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        whole = inputs[0].double()
        for depth, early in seen.items():
            found = (whole.T @ early, early.T @ early, early.sum(dim=0))
            sums[depth] = [a + b for a, b in zip(sums[depth], found, strict=True)]

    for depth in depths:
        model.blocks[depth - 1].register_forward_hook(partial(see, depth))
    model.get_submodule("head").register_forward_pre_hook(compare)
    for images in batches:
        model(images.to(device))
        count += len(images)
    maps = {}
    for depth, (cross, moment, total) in sums.items():
        variance = (moment.diagonal().sum() - total.square().sum() / count) / len(total)
        damped = moment + DAMPING * variance * torch.eye(len(total), device=total.device)
        maps[f"{DEPTH}{depth}"] = torch.linalg.solve(damped, cross.T).T.float()
    supernet.load_factors(maps)
