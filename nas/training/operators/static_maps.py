"""Static maps begin near what the dynamic maps that they replace have learnt on average; some weights learn faster.

Shape letters: H heads, T tokens, N patch tokens.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from nas.arch import Backbone
from nas.data import ImageSet
from nas.model import DynamicAttention, Provided, Supernet, log_mean_map, reduced_sides, transport_map
from nas.training.world import World

IMAGES = 512
BATCH = 64
REACH = 0.25
"""Of static maps from dynamic attention: standard deviation of the Gaussian that their mean is multiplied by, in sides
of the grid. Where images ask for different far places their mean is all of them, and next to an average of all tokens
(entropy 0.99 of log T), which maps do not leave any more (figures: results/LOG.md)."""
FASTER = 10.0
"""Learning rate of static maps and of linear attention's gains over that of other weights. They are logits and lengths,
and AdamW's steps are as long as the rate: at that of the others none moves by more than 1 in 900 steps, whatever the
task asks for."""
_STORED = ".attn.static_map_"
_FAST = (_STORED, ".attn.linear_gain")


@torch.no_grad()
def mean_maps(supernet: Supernet, images: ImageSet, world: World) -> dict[int, Tensor]:
    """E[A] of the plain ViT of every greatest size, [H, T, T], by layer, of those where the space has static maps.

    Over the first train images, without augmentation. Each process looks at its share of them, and all get the same
    maps, to the last bit. Where keys are reduced they are tokens by keys, [H, T, K].
    """
    network = supernet.dense()
    backbone, device = network.backbone, next(network.parameters()).device
    tokens = backbone.num_patches + backbone.num_prefix_tokens
    keys = tokens // backbone.key_stride(backbone.num_patches) ** 2
    sums: dict[int, Tensor] = {}

    def see(layer: int, _: nn.Module, __: Any, output: tuple[Tensor, Provided]) -> None:
        maps = output[1].maps
        assert maps is not None, "exports_maps is on"
        sums[layer] += maps.sum(dim=0, dtype=torch.float64)

    for layer in sorted({_layer(name) for name, _ in supernet.named_parameters() if _STORED in name}):
        attention = cast(DynamicAttention, network.blocks[layer].attn)
        attention.exports_maps = True
        sums[layer] = torch.zeros(attention.heads, tokens, keys, dtype=torch.float64, device=device)
        attention.register_forward_hook(partial(see, layer))
    count = min(IMAGES, len(images)) if sums else 0
    mine = world.share(count)
    for start in range(mine.start, mine.stop, BATCH):
        network(images.normalized(slice(start, min(start + BATCH, mine.stop))).to(device))
    world.add_up(list(sums.values()))
    return {layer: total / count for layer, total in sums.items()}


def near(mean_HTT: Tensor, backbone: Backbone) -> Tensor:
    """Mean maps whose patches look the less at others the farther these are (`REACH`); rows sum to 1, prefixes stay.

    Shapes: [H, T, T] -> [H, T, T], T the prefix and all patches of the backbone; [H, T, K] where keys are reduced.
    """
    prefix, side = backbone.num_prefix_tokens, math.isqrt(backbone.num_patches)
    place_N2 = torch.cartesian_prod(*(torch.arange(side, device=mean_HTT.device, dtype=mean_HTT.dtype) / side,) * 2)
    stride = backbone.key_stride(backbone.num_patches)
    centres = torch.arange(side // stride, device=mean_HTT.device, dtype=mean_HTT.dtype) * stride + (stride - 1) / 2
    place_K2 = torch.cartesian_prod(centres / side, centres / side)
    weight_NK = torch.exp(-torch.cdist(place_N2, place_K2).square() / (2 * REACH**2))
    nearer_HTT = mean_HTT.clone()
    nearer_HTT[:, prefix:, prefix:] *= weight_NK
    return nearer_HTT / nearer_HTT.sum(dim=-1, keepdim=True)


@torch.no_grad()
def set_static_maps(stored: Mapping[str, Tensor], means: Mapping[int, Tensor], backbone: Backbone) -> list[str]:
    """Set the static maps among a supernet's named parameters to their layers' mean maps, in place.

    For fewer tokens, a mean map is transported as the reducers average tokens. Where it has fewer heads than are
    stored, the first are set (METHODS 2.2, 2.5). Returns the names.
    """
    names = [name for name in stored if _STORED in name and _layer(name) in means]
    for name in names:
        mean, tokens = means[_layer(name)], int(name.rpartition("_")[2])
        if tokens != backbone.num_patches:
            counts = (backbone.num_patches, tokens)
            sides = reduced_sides(*counts)
            old, new = (
                (rows // stride, columns // stride)
                for (rows, columns), stride in zip(sides, map(backbone.key_stride, counts), strict=True)
            )
            mean = transport_map(mean, *sides, backbone.num_prefix_tokens, (old, new))
        stored[name][: len(mean)].copy_(log_mean_map(mean))
    return names


def quicken(optimizer: torch.optim.Optimizer, supernet: Supernet) -> None:
    """Give what learns `FASTER` groups of its own in an optimiser that timm made."""
    fast = {parameter for name, parameter in supernet.named_parameters() if any(word in name for word in _FAST)}
    for group in list(optimizer.param_groups):
        if mine := [parameter for parameter in group["params"] if parameter in fast]:
            group["params"] = [parameter for parameter in group["params"] if parameter not in fast]
            faster = FASTER * group.get("lr_scale", 1.0)
            optimizer.add_param_group({**group, "params": mine, "lr_scale": faster})  # timm's scheduler applies it


def _layer(name: str) -> int:
    return int(name.split(".")[1])
