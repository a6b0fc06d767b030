"""What subnets of a trained start need to stand in for the heads, neurons and channels that they lack."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.model import FACTOR, Supernet, cut_matrices, factor_of


@torch.no_grad()
def fit_cuts(supernet: Supernet, batches: Iterable[Tensor]) -> None:
    """Fit every matrix whose inputs the space can cut to what it sees in the supernet's plain ViT, in place.

    The outputs of a subnet's layer are then the nearest to the whole one's (`nas.model.fitted`), also while the
    supernet is trained. The plain ViT computes what it did. The batches are normalised images [B, C, S, S].

    Source: SparseGPT, SliceGPT and others correct weights after a cut by second moments of the inputs. Differs: one
    triangular factor for all cuts of a matrix, since subnets take first inputs.
    """
    model = supernet.dense()
    moments: dict[str, Tensor] = {}

    def see(matrix: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].flatten(0, -2)
        moments[matrix] = moments.get(matrix, 0) + (rows.T @ rows).double()

    for matrix in cut_matrices(supernet.space):
        model.get_submodule(matrix).register_forward_pre_hook(partial(see, matrix))
    for images in batches:
        model(images.to(next(model.parameters()).device))
    supernet.load_factors({f"{matrix}{FACTOR}": factor_of(moment) for matrix, moment in moments.items()})
