"""What is alive in an eager pass, as torch has it: the truth that `nas.arch.memory` computes."""

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.model.families.vit import Subnet


class LiveStorages(TorchDispatchMode):
    """Adds up the storages alive after every operation, weights excepted."""

    def __init__(self, subnet: Subnet, images: torch.Tensor) -> None:
        super().__init__()
        self.weights = {p.untyped_storage()._cdata for p in subnet.parameters()}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0
        self._add(images)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def tracked_peak(subnet: Subnet, batch_size: int) -> int:
    """Most bytes alive at once in a pass of so many black images."""
    fixed = subnet.backbone
    images = torch.zeros(batch_size, fixed.in_chans, fixed.image_size, fixed.image_size)
    with torch.no_grad():
        subnet(images)  # static layers make their maps once
        with LiveStorages(subnet, images) as tracked:
            subnet(images)
    return tracked.peak
