"""Feature maps: which layers have one, and how timm lets them be chosen.

Shape letters: B batch, D channels, H and W rows and columns of the map.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.arch import Architecture, Backbone
from nas.base import ArchitectureError
from nas.model.layers.glad import grid_sides


def layers_on_grid(architecture: Architecture, backbone: Backbone) -> list[int]:
    """The layers whose patch tokens lie on a square grid, so that they are a feature map.

    64 tokens, half of them (8 x 4) and 16 keep to the grid; after an average along the raster, nothing does.
    """
    sides = grid_sides(backbone.num_patches)
    found = []
    for i, layer in enumerate(architecture.layers):
        before, sides = sides, grid_sides(layer.num_tokens)
        if before is None or sides is None or sides[0] > before[0] or sides[1] > before[1]:
            break
        if sides[0] == sides[1]:
            found.append(i)
    return found


def chosen_layers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Layers as timm lets them be chosen: None for all, so many of the last, or numbers; else an ArchitectureError."""
    if indices is None or isinstance(indices, int):
        chosen = set(range(depth - (depth if indices is None else indices), depth))
    else:
        chosen = {i + depth if i < 0 else i for i in indices}
    if not chosen or min(chosen) < 0 or max(chosen) >= depth:
        raise ArchitectureError(f"out_indices {indices}: the layers of the network are 0 to {depth - 1}")
    return sorted(chosen)


def check_on_grid(layers: Sequence[int], architecture: Architecture, backbone: Backbone) -> None:
    """Refuse layers that are no feature map: an ArchitectureError that names them, and those that are."""
    there = layers_on_grid(architecture, backbone)
    if lost := [i for i in layers if i not in there]:
        counts = ", ".join(f"layer {i} ({architecture.layers[i].num_tokens} tokens)" for i in lost)
        raise ArchitectureError(
            f"no feature map of {counts}: they do not lie on a square grid; "
            + (f"those of layers {', '.join(map(str, there))} do" if there else "those of no layer do"),
            hint="choose other out_indices, or forward_intermediates(images, output_fmt='NLC') for the tokens",
        )


def as_map(tokens: Tensor) -> Tensor:
    """Patch tokens on their grid: [B, H W, D] -> [B, D, H, W]."""
    side = math.isqrt(tokens.shape[1])
    return torch.unflatten(tokens, 1, (side, side)).permute(0, 3, 1, 2).contiguous()
