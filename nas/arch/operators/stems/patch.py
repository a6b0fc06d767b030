"""The patch embedding of ViT (arXiv 2010.11929): one linear map of every patch."""

from nas.arch.backbone import Backbone
from nas.arch.operator import Operations, Stem


def _cost(D: int, backbone: Backbone) -> Operations:
    patch = backbone.in_chans * backbone.patch_size**2
    return (("patch_embed", backbone.num_patches * D * patch, D * (patch + 1)),)


def _memory(D: int, backbone: Backbone, B: int) -> int:
    return B * backbone.num_patches * D


PATCH_STEM = Stem(name="patch", words="one linear map of every patch", rank=10, cost=_cost, memory=_memory)
