"""The processes that train one supernet together, as a step sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many processes this one is; with several, torch's default process group must be initialised."""

    rank: int = 0  # from 0; rank 0 writes the checkpoints
    size: int = 1  # processes

    def share(self, count: int) -> slice:
        """This process's part of `count` images, contiguous; the parts differ by one image at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, which all give the same shapes in the same order."""
        if self.size == 1 or not tensors:
            return
        flat = _flatten_dense_tensors(tensors)  # type: ignore[no-untyped-call]
        torch.distributed.all_reduce(flat)
        parts = _unflatten_dense_tensors(flat, tensors)  # type: ignore[no-untyped-call]
        for tensor, summed in zip(tensors, parts, strict=True):
            tensor.copy_(summed)
