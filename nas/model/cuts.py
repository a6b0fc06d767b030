"""Matrices whose inputs are cut: what is left of the inputs stands in for those that are gone."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from nas.space import SearchSpace

FACTOR = ".factor"
"""Ends the names of what `Supernet.load_factors` stores, behind the matrix that it is for."""

RIDGE = 1e-4  # over the mean square of the inputs

_STORED = {"v": "qkv"}  # in which matrix of the store one lies
_ALIKE = {"v": "qkv", "down": "fc2"}  # which matrix that every supernet has has the same inputs
_BEHIND_A_NORM = ("qkv", "fc1", "head")


def cut_inputs(module: nn.Module) -> Iterator[tuple[str, str, int]]:
    """Of every matrix of a subnet, or of parts of one: stored weight, matrix that a factor is for, number of inputs."""
    for path, part in module.named_modules():
        if isinstance(part, nn.Linear):
            parent, dot, last = path.rpartition(".")
            stored, alike = _STORED.get(last, last), _ALIKE.get(last, last)
            yield f"{parent}{dot}{stored}.weight", f"{parent}{dot}{alike}", part.in_features


def factor_of(moment: Tensor) -> Tensor:
    """What `fitted` needs of the second moment [F, F] of a matrix's inputs: its Cholesky factor [F, F], float32."""
    damped = moment.double() + RIDGE * moment.diagonal().mean() * torch.eye(len(moment), device=moment.device)
    factor: Tensor = torch.linalg.cholesky(damped).float()
    return factor


def fitted(weight: Tensor, factor: Tensor, kept: int, matrix: str) -> Tensor:
    """The matrix on its first inputs whose outputs are nearest to those of the whole one on all inputs.

    Those that are cut are predicted linearly from those that are left (least squares): W M[:, :k] M[:k, :k]^-1 for the
    second moment M = L L^T, which is W L[:, :k] L[:k, :k]^-1. So one factor serves every k, and what is fitted to
    fewer inputs with the first rows and columns of L is the same as at once. A layer norm gives the channels that are
    left the size of all; behind one they have again the size that they had.

    `matrix` is its path in a subnet, such as `blocks.3.mlp.fc2`. Shapes: weight [O, F], factor [F, F] -> [O, kept].
    """
    with torch.autocast(weight.device.type, enabled=False):
        corner = factor[:kept, :kept]
        gone = torch.linalg.solve_triangular(corner, weight[:, kept:] @ factor[kept:, :kept], upper=False, left=False)
        found: Tensor = weight[:, :kept] + gone
        if matrix.endswith(_BEHIND_A_NORM):
            found = found * (corner.square().sum() / kept / (factor.square().sum() / len(factor))).sqrt()
    return found


def fitted_to(weights: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights by name, with factors, of which matrices and factors are fitted to the inputs that these shapes have."""
    found = dict(weights)
    for name, factor in weights.items():
        matrix = name.removesuffix(FACTOR)
        shape = shapes.get(f"{matrix}.weight")
        if matrix == name or shape is None or shape[1] >= len(factor):
            continue
        parent = matrix.rpartition(".")[0]
        for alike in (matrix, f"{parent}.down" if matrix.endswith(".fc2") else matrix):
            if f"{alike}.weight" in weights:
                found[f"{alike}.weight"] = fitted(weights[f"{alike}.weight"], factor, shape[1], matrix)
        found[name] = factor[: shape[1], : shape[1]]
    return found


def cut_matrices(space: SearchSpace) -> list[str]:
    """Matrices, by their path in a subnet, of which some network of a space has fewer inputs than another."""
    is_narrow = len(space.widths) > 1
    reads_a_norm = space.backbone.num_classes and space.backbone.final_norm != "none"
    found = ["head"] if is_narrow and reads_a_norm else []
    for i, domain in enumerate(space.layers):
        found += [f"blocks.{i}.{matrix}" for matrix in ("attn.qkv", "mlp.fc1") if is_narrow]
        found += [f"blocks.{i}.attn.proj"] if len(domain.num_heads) > 1 else []
        found += [f"blocks.{i}.mlp.fc2"] if is_narrow or len(domain.mlp_ratio) > 1 else []
    return found
