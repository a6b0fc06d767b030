"""Low-rank factors become those of the full matrices that were trained in their place."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nas.model import svd_factors
from nas.training.world import World

_DOWN = ".mlp.down.weight"


@torch.no_grad()
def set_factors(stored: Mapping[str, Tensor], world: World) -> list[str]:
    """Set the factors among a supernet's named parameters to the truncated decomposition of the full matrix, in place.

    The first of them are the factors for a smaller rank; a subnet of fewer channels takes their first entries. All
    processes get what the first one finds, to the last bit. Returns the names.
    """
    names: list[str] = []
    for path in [name.removesuffix("down.weight") for name in stored if name.endswith(_DOWN)]:
        pair = [f"{path}{factor}.weight" for factor in ("down", "up")]
        found = svd_factors(stored[f"{path}fc2.weight"], len(stored[pair[0]]))
        for name, value in zip(pair, found, strict=True):
            stored[name].copy_(value if world.rank == 0 else torch.zeros_like(value))
        names += pair
    world.add_up([stored[name] for name in names])
    return names
