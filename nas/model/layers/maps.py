"""What the attention modules share: what a layer hands to its consumers, training aids, slices of the store, chunks.

Shape letters: B batch, T tokens, D channels, d channels per head, H heads, R real heads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nas.model.layers.part import Stored


class Provided(NamedTuple):
    """What a dynamic layer exports to the layers that share its attention; what none of them needs is None."""

    maps: Tensor | None  # after the softmax, [B, H, T, T]
    logits: Tensor | None  # of the real heads, before the softmax, [B, R, T, T]


@dataclass(frozen=True, slots=True)
class Guidance:
    """Training aids of one forward pass; inference has none."""

    static: float  # share of the dynamic map in the mixture that a static layer applies (lambda of METHODS 2.2)


def slice_qkv(stored: Stored, real: int, all_heads: int, columns: int) -> dict[str, Tensor]:
    """Queries and keys of the first `real` channels, values of the first `all_heads`: rows of one projection."""
    sliced = {}
    for name in ("qkv.weight", "qkv.bias"):
        q, k, v = torch.unflatten(stored[name], 0, (3, -1))
        whole = torch.cat([q[:real], k[:real], v[:all_heads]])
        sliced[name] = whole[:, :columns] if whole.ndim == 2 else whole
    return sliced


def slice_values(stored: Stored, channels: int, columns: int) -> dict[str, Tensor]:
    """`v.weight` [channels, columns] and `v.bias`: the values' part of the stored projection."""
    _, _, weight = torch.unflatten(stored["qkv.weight"], 0, (3, -1))
    _, _, bias = torch.unflatten(stored["qkv.bias"], 0, (3, -1))
    return {"v.weight": weight[:channels, :columns], "v.bias": bias[:channels]}


def to_heads(x_BTC: Tensor, head_dim: int) -> Tensor:
    """The channels of all heads, one head at a time: [B, H, T, d]."""
    return torch.unflatten(x_BTC, 2, (-1, head_dim)).transpose(1, 2)


def mix_values(maps_BHTT: Tensor, v_BHTd: Tensor) -> Tensor:
    """Every head's maps applied to its values: [B, T, H, d]."""
    mixed_BHTd: Tensor = maps_BHTT.to(v_BHTd.dtype) @ v_BHTd
    return mixed_BHTd.transpose(1, 2)


def in_chunks(
    compute: Callable[..., tuple[Tensor | None, ...]], size: int | None, *inputs: Tensor
) -> tuple[Tensor | None, ...]:
    """`compute(*inputs)`, on `size` images at a time; None: on all."""
    if size is None or size >= inputs[0].shape[0]:
        return compute(*inputs)
    B = inputs[0].shape[0]
    whole: list[Tensor | None] = []
    for start in range(0, B, size):
        parts = compute(*(x[start : start + size] for x in inputs))
        if not whole:
            whole = [None if part is None else part.new_empty(B, *part.shape[1:]) for part in parts]
        for all_images, part in zip(whole, parts, strict=True):
            if all_images is not None and part is not None:
                all_images[start : start + size] = part
    return tuple(whole)
