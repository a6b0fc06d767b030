"""The order of heads and hidden neurons, and the axes of channels, in the weights that a supernet starts from.

Subnets take the first ones of each, so the order decides what a narrow subnet keeps, and which head a
hallucinated head copies. For the whole network every order is the same function.

Shape letters: D channels of the residual stream, F hidden channels, H heads, R real heads, d channels per head.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from nas.initial.plain import Weights, depth_of
from nas.initial.rotation import rotate_stream
from nas.model import RIDGE
from nas.training import Calibration, LayerCalibration

STEPS = 48
"""In how many steps neurons are removed; errors of those that are left are computed anew after each. One by one, 1,536
neurons take a minute a layer; so, less than a second."""


def order_by_importance(
    weights: Weights, head_dim: int, calibration: Calibration, *, fitted: bool, num_real: int | None = None
) -> dict[str, Tensor]:
    """The same plain ViT with its heads and hidden neurons sorted, and its channels rotated, the most important first.

    - Heads and hidden neurons (one order per layer): where what is left will be `fitted` to stand in for what is cut,
      by `elimination_order`, for the errors in what the layer adds to the stream; else by their own size: of a head the
      mean norm of what it adds, E||A_h V_h W_o,h||, of a neuron its root mean square times the norm of its outgoing
      weights. Heads with `num_real` as by `pair_heads`.
    - Channels of the residual stream: by `rotate_stream`. Whatever their order, single channels all matter.

    The calibration is of the network with these weights, and does not hold for the result.
    """
    heads, hidden = [], []
    for i, layer in enumerate(calibration.layers):
        outgoing = [weights[f"blocks.{i}.{name}.weight"].double() for name in ("attn.proj", "mlp.fc2")]
        proj, fc2 = (weight - weight.mean(dim=0) for weight in outgoing)  # layer norms see no more
        if num_real is not None:
            heads.append(_paired(layer, num_real))
        elif fitted:
            heads.append(elimination_order(proj, layer.gathered_moment, head_dim))
        else:
            heads.append(_descending(layer.output_norm))
        if fitted:
            hidden.append(elimination_order(fc2, layer.second_moment))
        else:
            hidden.append(_descending(layer.second_moment.diagonal().sqrt() * fc2.norm(dim=0)))
    return rotate_stream(_reordered(weights, head_dim, heads, hidden), calibration)


def elimination_order(weight: Tensor, moment: Tensor, size: int = 1) -> Tensor:
    """Groups of so many inputs of a matrix, first those that the others replace worst: their numbers, [F / size].

    Backwards: of the groups that are left, the one goes without which the outputs can still be had with the least mean
    square error when the rest is fitted to stand in for it, as `fit_cuts` does; the rest is then fitted. They go in
    `STEPS` steps, or one by one where they are no more. Shapes: weight [O, F], second moment of the inputs [F, F].

    Source: Optimal Brain Surgeon, by columns as in ZipLM (arXiv 2302.04089). Differs: one order for every cut.
    """
    weight, left, gone = weight.double(), torch.arange(len(moment)).view(-1, size), list[int]()
    count = max(1, len(left) // STEPS)
    damped = moment.double() + RIDGE * moment.diagonal().mean() * torch.eye(len(moment))
    inverse = torch.linalg.inv(damped)
    while len(left):
        groups = torch.arange(weight.shape[1]).view(-1, size)
        corners = inverse[groups[:, :, None], groups[:, None, :]]
        parts = weight[:, groups].transpose(0, 1)
        errors = (parts * torch.linalg.solve(corners, parts, left=False)).sum(dim=(1, 2))
        worst, best = errors.argsort(stable=True).tensor_split([count])
        best = best.sort().values
        gone += (left[worst, 0] // size).tolist()
        out, stay = groups[worst].flatten(), groups[best].flatten()
        fit = torch.linalg.solve(inverse[out][:, out], inverse[out][:, stay])
        weight = weight[:, stay] - weight[:, out] @ fit
        inverse = inverse[stay][:, stay] - inverse[stay][:, out] @ fit
        left = left[best]
    return torch.tensor(gone[::-1])


def pair_heads(weights: Weights, head_dim: int, calibration: Calibration, num_real: int) -> dict[str, Tensor]:
    """The same plain ViT with heads where hallucination, which starts by copying maps, changes it least.

    Heads R + j, 2 R + j, ... of the result are those whose maps real head j stands in for, of `num_real` = R, 1 to H.
    Which heads are real and which they stand in for minimises the sum of `LayerCalibration.copy_error`, up to what no
    exchange of two heads improves. Real heads that stand in for as many are in descending order of their output norms.

    Source: METHODS 1.2. Differs: there heads are matched by the cosine of their maps, and the one with the larger
    output norm is real; the error that is minimised here also says what the difference of the maps does.
    """
    heads = [_paired(layer, num_real) for layer in calibration.layers]
    hidden = [torch.arange(len(weights[f"blocks.{i}.mlp.fc1.bias"])) for i in range(depth_of(weights))]
    return _reordered(weights, head_dim, heads, hidden)


def _paired(layer: LayerCalibration, num_real: int) -> Tensor:
    """Old index of every head: the real ones, then those they stand in for, one of each at a time."""
    order: list[int] = _descending(layer.output_norm).tolist()
    norms: list[float] = layer.output_norm.tolist()
    error: list[list[float]] = layer.copy_error.tolist()
    if not 1 <= num_real <= len(order):
        raise ValueError(f"{num_real} real of {len(order)} heads")

    def lost(order: Sequence[int]) -> float:
        return sum(error[order[j % num_real]][head] for j, head in enumerate(order[num_real:]))

    while (better := min(_exchanges(order), key=lost, default=order)) and lost(better) < lost(order):
        order = better
    groups = [order[j::num_real] for j in range(num_real)]
    groups.sort(key=lambda group: (-len(group), -norms[group[0]]))
    return torch.tensor([group[k] for k in range(len(groups[0])) for group in groups if len(group) > k])


def _exchanges(order: Sequence[int]) -> Iterator[list[int]]:
    """The order with two of its heads exchanged."""
    for i, j in combinations(range(len(order)), 2):
        exchanged = list(order)
        exchanged[i], exchanged[j] = order[j], order[i]
        yield exchanged


def _descending(importance: Tensor) -> Tensor:
    return importance.argsort(descending=True, stable=True)


def _reordered(weights: Weights, head_dim: int, heads: Sequence[Tensor], hidden: Sequence[Tensor]) -> dict[str, Tensor]:
    """Every tensor with its old heads and neurons at their new places."""
    ordered = dict(weights)
    for i, (its, neurons) in enumerate(zip(heads, hidden, strict=True)):
        qkv, proj, fc2 = (f"blocks.{i}.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc2"))
        for kind in ("weight", "bias"):
            split = torch.unflatten(weights[f"{qkv}.{kind}"], 0, (3, -1, head_dim))
            ordered[f"{qkv}.{kind}"] = split[:, its].flatten(0, 2)
            inner = [name for of in ("fc1", "dwconv") if (name := f"blocks.{i}.mlp.{of}.{kind}") in weights]
            ordered |= {name: weights[name][neurons] for name in inner}
        split = torch.unflatten(weights[f"{proj}.weight"], 1, (-1, head_dim))
        ordered[f"{proj}.weight"] = split[:, its].flatten(1)
        ordered[f"{fc2}.weight"] = weights[f"{fc2}.weight"][:, neurons]
    return ordered
