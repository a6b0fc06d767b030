"""The overlapping patch embedding of PVT v2 (arXiv 2106.13797): one convolution, wider than its stride, and a norm."""

from nas.arch.backbone import Backbone
from nas.arch.operator import Operations, Stem


def overlap_kernel(backbone: Backbone) -> int:
    """Pixels of the convolution: 7 for patches of 4. The stride is a patch, the padding a patch less one."""
    return 2 * backbone.patch_size - 1


def _broken(backbone: Backbone) -> str:
    return "" if backbone.patch_size > 1 else "an overlap stem needs a patch_size of 2 or more: pixels do not overlap"


def _cost(D: int, backbone: Backbone) -> Operations:
    inputs = backbone.in_chans * overlap_kernel(backbone) ** 2
    return (("overlap_stem", backbone.num_patches * D * inputs, D * (inputs + 1) + 2 * D),)


def _memory(D: int, backbone: Backbone, B: int) -> int:
    """The operand and result of the norm, with the two numbers that it keeps a position."""
    return 2 * B * backbone.num_patches * (D + 1)


OVERLAP_STEM = Stem(
    name="overlap",
    words="one convolution over overlapping patches, normed",
    rank=30,
    cost=_cost,
    memory=_memory,
    broken=_broken,
)
