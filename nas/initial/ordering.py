"""The order of channels, heads and hidden neurons in the weights that a supernet starts from.

Subnets take the first ones of each, so the order decides what a narrow subnet keeps, and which head a
hallucinated head copies. For the whole network every order is the same function.

Shape letters: D channels of the residual stream, F hidden channels, H heads, R real heads, d channels per head.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from nas.initial.plain import Weights, depth_of
from nas.training import Calibration, LayerCalibration

WRITING = ("patch_embed.proj.weight", "attn.proj.weight", "mlp.fc2.weight")
READING = ("attn.qkv.weight", "mlp.fc1.weight", "head.weight")
"""Linear layers that write to the residual stream by their rows, and that read from it by their columns."""


def order_by_importance(
    weights: Weights, head_dim: int, calibration: Calibration, *, num_real: int | None = None
) -> dict[str, Tensor]:
    """The same plain ViT with its channels, heads and hidden neurons sorted, the most important first.

    - Channel of the residual stream (one order for the whole network): over every linear layer that writes to the
      stream or reads from it, the channel's share of the L1 norm of the weights, added up.
    - Head (one order per layer): the mean norm of what it adds to the stream, E||A_h V_h W_o,h||; with `num_real` as by
      `pair_heads`.
    - Hidden neuron (one order per layer): its root mean square times the norm of its outgoing weights.

    The calibration is of the network with these weights, and does not hold for the result.

    Source: OFA sorts channels by the L1 norm of their weights (arXiv 1908.09791). Differs: heads and neurons are
    measured on images. For channels, what was measured on images kept less of the accuracy than their weights.
    """
    shares = []
    for name, weight in weights.items():
        if name.endswith(WRITING):
            shares.append(_share(weight.flatten(1).abs().sum(dim=1)))
        elif name.endswith(READING):
            shares.append(_share(weight.abs().sum(dim=0)))
    heads, hidden = [], []
    for i, layer in enumerate(calibration.layers):
        heads.append(_descending(layer.output_norm) if num_real is None else _paired(layer, num_real))
        outgoing = weights[f"blocks.{i}.mlp.fc2.weight"].norm(dim=0)
        hidden.append(_descending(layer.second_moment.diagonal().sqrt() * outgoing))
    return _reordered(weights, head_dim, _descending(torch.stack(shares).sum(dim=0)), heads, hidden)


def pair_heads(weights: Weights, head_dim: int, calibration: Calibration, num_real: int) -> dict[str, Tensor]:
    """The same plain ViT with heads where hallucination, which starts by copying maps, changes it least.

    Heads R + j, 2 R + j, ... of the result are those whose maps real head j stands in for, of `num_real` = R, 1 to H.
    Which heads are real and which they stand in for minimises the sum of `LayerCalibration.copy_error`, up to what no
    exchange of two heads improves. Real heads that stand in for as many are in descending order of their output norms.

    Source: METHODS 1.2. Differs: there heads are matched by the cosine of their maps, and the one with the larger
    output norm is real; the error that is minimised here also says what the difference of the maps does.
    """
    width = weights["pos_embed"].shape[-1]
    heads = [_paired(layer, num_real) for layer in calibration.layers]
    hidden = [torch.arange(len(weights[f"blocks.{i}.mlp.fc1.bias"])) for i in range(depth_of(weights))]
    return _reordered(weights, head_dim, torch.arange(width), heads, hidden)


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


def _share(sizes: Tensor) -> Tensor:
    return sizes / sizes.sum()


def _descending(importance: Tensor) -> Tensor:
    return importance.argsort(descending=True, stable=True)


def _reordered(
    weights: Weights, head_dim: int, channels: Tensor, heads: Sequence[Tensor], hidden: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Every tensor with its old channels, heads and neurons at their new places."""
    ordered = {}
    for name, value in weights.items():
        match name.split("."):
            case ["blocks", layer, "attn", "qkv", kind]:
                rows = torch.unflatten(value, 0, (3, -1, head_dim))[:, heads[int(layer)]].flatten(0, 2)
                ordered[name] = rows[:, channels] if kind == "weight" else rows
            case ["blocks", layer, "attn", "proj", "weight"]:
                columns = torch.unflatten(value, 1, (-1, head_dim))[:, heads[int(layer)]].flatten(1)
                ordered[name] = columns[channels]
            case ["blocks", layer, "mlp", "fc1", kind]:
                rows = value[hidden[int(layer)]]
                ordered[name] = rows[:, channels] if kind == "weight" else rows
            case ["blocks", layer, "mlp", "fc2", "weight"]:
                ordered[name] = value[channels][:, hidden[int(layer)]]
            case ["head", "bias"]:
                ordered[name] = value
            case ["cls_token" | "pos_embed"] | ["head", "weight"]:
                ordered[name] = value[..., channels]
            case _:  # patch embedding, norms, biases that are added to the residual stream
                ordered[name] = value[channels]
    return ordered
