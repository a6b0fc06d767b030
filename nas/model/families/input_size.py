"""Images of another size than the search's: which tokens every layer has then, and what becomes of its weights.

Positions and the queries of GLAD are interpolated, static maps are moved by area, token counts keep their share.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from nas.arch import REDUCERS, Architecture, Backbone
from nas.model.layers.glad import grid_sides, resample_queries
from nas.model.layers.part import Frame, Sides
from nas.model.transport import resize_map


def searched_grid(backbone: Backbone) -> Sides:
    """Rows and columns of the patches at the image size of the search."""
    side = backbone.image_size // backbone.patch_size
    return side, side


def layer_sides(architecture: Architecture, backbone: Backbone, grid: Sides) -> list[tuple[Sides, bool]]:
    """Rows and columns of the tokens of every layer where the patches have those of `grid`, and whether on a grid.

    Each side keeps its share of the grid, rounded, or is halved where the reducer halves, and a number of tokens that
    lie on no grid its share of the patches.
    """
    searched, arriving = searched_grid(backbone), backbone.num_patches
    old, new, on_grid = searched, grid, True
    found = []
    for layer in architecture.layers:
        if layer.num_tokens != arriving:
            arriving, sides = layer.num_tokens, grid_sides(layer.num_tokens)
            on_grid = on_grid and sides is not None and sides[0] <= old[0] and sides[1] <= old[1]
            if layer.reducer is not None and REDUCERS[layer.reducer].halves and sides is not None:
                old, new = sides, ((new[0] + 1) // 2, (new[1] + 1) // 2)
            elif on_grid and sides is not None:
                scaled = [n * now / then for n, now, then in zip(sides, grid, searched, strict=True)]
                old, new = sides, (_whole(scaled[0], new[0]), _whole(scaled[1], new[1]))
            else:
                share = arriving * math.prod(grid) / math.prod(searched)
                old, new = (arriving, 1), (_whole(share, math.prod(new)), 1)
        found.append((new, on_grid))
    return found


def _whole(value: float, most: int) -> int:
    return min(max(math.floor(value + 0.5), 1), most)


def frames(
    architecture: Architecture,
    backbone: Backbone,
    held: Sides,
    grid: Sides,
    mask: Tensor | None = None,
    *,
    always: bool = False,
) -> Sequence[Frame | None]:
    """What every layer is told for patches on `grid`, with weights for those on `held`.

    None, unless `always`: run as searched.
    """
    searched = searched_grid(backbone)
    if held == grid == searched and mask is None and not always:
        return (None,) * architecture.depth
    now, own, then = (layer_sides(architecture, backbone, sides) for sides in (grid, held, searched))
    found, before = [], grid
    for (after, on_grid), (of_weights, _), (at_first, _) in zip(now, own, then, strict=True):
        if not on_grid:
            before = math.prod(before), 1
        found.append(Frame(before, after, of_weights, at_first, mask))
        before = after
    return found


def resized_weights(
    weights: Mapping[str, Tensor], architecture: Architecture, backbone: Backbone, held: Sides, wanted: Sides
) -> Iterator[tuple[str, Tensor]]:
    """The weights that depend on the image size, for patches on another grid, by name."""
    prefix = backbone.num_prefix_tokens
    if "pos_embed" in weights:
        yield "pos_embed", resample_abs_pos_embed(weights["pos_embed"], wanted, held, num_prefix_tokens=prefix)
    for i, frame in enumerate(frames(architecture, backbone, held, wanted)):
        if frame is None or frame.held == frame.after:
            continue
        name = f"blocks.{i}.reducer.queries"
        if name in weights:
            yield name, resample_queries(weights[name], frame.held, frame.after)
        name = f"blocks.{i}.attn.static_map"
        if name in weights:
            maps = resize_map(weights[name].float().softmax(dim=-1), frame.held, frame.after, prefix)
            least = torch.finfo(maps.dtype).tiny
            yield name, maps.clamp_min(least).log().to(weights[name].dtype)
