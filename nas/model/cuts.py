"""Matrices whose inputs are cut: what is left of the inputs stands in for those that are gone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from nas.base import CheckpointError
from nas.space import SearchSpace

FACTOR = ".factor"
"""Ends the names of what `Supernet.load_factors` stores, behind the matrix that it is for."""

DEPTH = "head.depth_"
"""Begins the names of what is stored for the classifier of shallower networks, [D, D]; their depth follows."""

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


def mapped(weight: Tensor, features: Tensor) -> Tensor:
    """A classifier [K, D] of the features that a map [D, D] makes of those of a shallower network."""
    with torch.autocast(weight.device.type, enabled=False):
        return weight @ features


class Fits:
    """The factors and maps of features that a supernet has as buffers, beside the matrices that they are for."""

    def __init__(self) -> None:
        self._factors: dict[str, nn.Module] = {}  # owners, by the path of the matrix
        self._maps: dict[int, nn.Module] = {}  # owners, by depth

    def load(self, supernet: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Register those among given weights."""
        for name, value in weights.items():
            matrix, _, last = name.rpartition(".")
            if name.endswith(FACTOR) or name.startswith(DEPTH):
                owner = supernet.get_submodule(matrix)
                own = value.detach().to(owner.get_parameter("weight").device, copy=True).contiguous()
                owner.register_buffer(last, own)
            if name.endswith(FACTOR):
                self._factors[matrix] = owner
            elif name.startswith(DEPTH):
                self._maps[int(name.removeprefix(DEPTH))] = owner

    def apply(self, stored: dict[str, Tensor], inputs: Iterable[tuple[str, str, int]], depth: int) -> None:
        """Replace stored weights by what a network with these inputs (`cut_inputs`) and so many layers slices."""
        if depth in self._maps:
            stored["head.weight"] = mapped(stored["head.weight"], self._maps[depth].get_buffer(f"depth_{depth}"))
        for weight, matrix, kept in inputs if self._factors else ():
            if matrix in self._factors and kept < len(factor := self._factors[matrix].get_buffer("factor")):
                stored[weight] = fitted(stored[weight], factor, kept, matrix)


def fitted_to(
    weights: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], space: SearchSpace
) -> dict[str, Tensor]:
    """Weights of a supernet as those of a part of its space slice them, and the factors and maps that it needs.

    Raises:
        CheckpointError: Maps of features fit to no smaller classifier, and the part has several depths.
    """
    found = {name: value for name, value in weights.items() if not name.startswith(DEPTH)}
    maps = {name: weights[name] for depth in space.depth if (name := f"{DEPTH}{depth}") in weights}
    if (deepest := maps.pop(f"{DEPTH}{max(space.depth)}", None)) is not None:
        found["head.weight"] = mapped(weights["head.weight"], deepest)
    if maps and (deepest is not None or shapes["head.weight"][1] < weights["head.weight"].shape[1]):
        raise CheckpointError(
            "the classifiers of shallower networks are fitted to the greatest depth and width, which this space lacks",
            hint="keep them, or one depth, or start from the weights that this run was started from",
        )
    for name in [name for name in found if name.endswith(FACTOR)]:
        matrix, factor = name.removesuffix(FACTOR), found.pop(name)
        kept = shapes[f"{matrix}.weight"][1] if f"{matrix}.weight" in shapes else len(factor)
        if kept < len(factor):
            for alike in {matrix, matrix.replace(".fc2", ".down")}:
                if (weight := found.get(f"{alike}.weight")) is not None:
                    found[f"{alike}.weight"] = fitted(weight, factor, kept, matrix)
        if matrix in cut_matrices(space):
            found[name] = factor[:kept, :kept]
    return found | maps


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
