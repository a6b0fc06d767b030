"""Attention maps moved to another grid of tokens.

Shape letters: P prefix tokens, N and M patch tokens of two grids, H heads.
"""

import torch
from torch import Tensor
from torch.nn import functional

from nas.model.layers.part import Sides


def transport_map(
    mean_map: Tensor,
    side_from: int | tuple[int, int],
    side_to: int | tuple[int, int],
    prefix: int,
    keys: tuple[Sides, Sides] | None = None,
) -> Tensor:
    """The map between averaged tokens: P S U. Its rows sum to 1, as those of S do.

    P averages queries over the windows of adaptive average pooling, as the reducers do. U gives an old key's weight to
    the windows that it lies in, in equal parts: windows overlap where the sides do not divide, and to choose one of
    them would be arbitrary. Prefix tokens are groups of their own. A side is that of a square grid, or its rows and
    columns; (N, 1) is a raster. Where there are fewer keys than queries, `keys` are the two grids of keys.

    Shapes: mean_map [H, P + N, P + N] -> [H, P + M, P + M], N and M the patch tokens of the two grids, P = prefix.

    Source: METHODS 2.5. Differs: U is 0 or 1 there, which needs sides that divide.
    """
    sides = [side if isinstance(side, tuple) else (side, side) for side in (side_from, side_to)]
    queries = [_average_and_share(old, new, mean_map)[0] for old, new in zip(*sides, strict=True)]
    shares = [_average_and_share(old, new, mean_map)[1] for old, new in zip(*(keys or sides), strict=True)]
    return _moved(mean_map, prefix, *zip(queries, shares, strict=True))


def resize_map(maps: Tensor, held: Sides, wanted: Sides, prefix: int) -> Tensor:
    """Maps after the softmax for the grid of images of another size, in both directions; rows still sum to 1.

    By area, as if both grids lay over the same image: a query is the average of the old ones under it, and a key has
    the part of an old one's weight that it covers. The same grid gives the same maps.

    Shapes: maps [H, P + N, P + N] -> [H, P + M, P + M].
    """
    return _moved(maps, prefix, *(_overlap(*pair, maps) for pair in zip(held, wanted, strict=True)))


def _moved(maps: Tensor, prefix: int, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """P S U for P and U of the rows and of the columns of a grid; prefix tokens keep to themselves."""
    # Not `torch.kron`, which stops at some matrices of one row.
    pairs = (torch.einsum("ij,kl->ikjl", *parts) for parts in zip(rows, columns, strict=True))
    average, share = (pair.flatten(2).flatten(0, 1) for pair in pairs)
    itself = torch.eye(prefix, dtype=maps.dtype, device=maps.device)
    into, out_of = (torch.block_diag(itself, part) for part in (average, share))  # type: ignore[no-untyped-call]
    moved: Tensor = into @ maps @ out_of
    return moved


def _overlap(before: int, after: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """P [after, before] and U [before, after] of one direction: shares of a new cell, and of an old one."""
    old, new = torch.arange(before, device=like.device) * after, torch.arange(after, device=like.device) * before
    ends = torch.minimum(new[:, None] + before, old + after) - torch.maximum(new[:, None], old)
    common = ends.clamp_min(0).to(like.dtype)  # in 1 / (before * after) of the image
    return common / before, common.T / after


def _average_and_share(before: int, after: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """P [after, before] and U [before, after] of one direction of the grid."""
    each = torch.eye(before, dtype=like.dtype, device=like.device)
    average = functional.adaptive_avg_pool1d(each[None], after)[0].T
    inside = (average.T > 0).to(like.dtype)
    return average, inside / inside.sum(dim=1, keepdim=True)
