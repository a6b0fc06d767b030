"""How images become patch tokens: timm's patch embedding, whose projection may be another, or a stack of convolutions.

Shape letters: B batch, C input channels, S image side, N patches, D channels.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from timm.layers import LayerNorm2d, PatchEmbed
from torch import nn

from nas.arch import STEM_KERNEL, STEMS, Backbone, overlap_kernel, stem_channels
from nas.base import ArchitectureError


class ConvStem(nn.Sequential):
    """3x3 convolutions of stride 2, with a norm and GELU between, in the place of `PatchEmbed.proj`.

    The norm is over the channels of each position, so that nothing depends on the batch and a narrower network has the
    first channels of a wider one. The first convolution starts as timm's patch embedding does, whose images it is
    given. The others start as LeCun has it, standard deviation 1 / sqrt(inputs) and no bias: so tokens begin with the
    scale that those of patches have.

    Source: LeViT, arXiv 2104.01136. Differs: LayerNorm for BatchNorm, GELU for Hardswish.

    Shapes: images [B, C, S, S] -> [B, D, sqrt(N), sqrt(N)].
    """

    def __init__(self, embed_dim: int, backbone: Backbone) -> None:
        if broken := STEMS["conv"].broken(backbone):
            raise ArchitectureError(broken)
        super().__init__(*_convolutions(stem_channels(embed_dim, backbone), backbone.norm_eps))


def _convolutions(channels: tuple[int, ...], eps: float) -> Iterator[nn.Module]:
    for i, (before, after) in enumerate(pairwise(channels)):
        convolution = nn.Conv2d(before, after, STEM_KERNEL, stride=2, padding=STEM_KERNEL // 2)
        if i and convolution.bias is not None:
            yield LayerNorm2d(before, eps=eps)
            yield nn.GELU()
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")
            nn.init.zeros_(convolution.bias)
        yield convolution


class OverlapStem(nn.Sequential):
    """A convolution over overlapping patches, in the place of `PatchEmbed.proj`, whose own norm is behind it.

    It has a name of its own, so that a store may have its kernel beside that of plain patches. The first values are
    PVT's: a normal distribution by the fan-out, no bias.

    Source: PVT v2, arXiv 2106.13797; for patches of 4 pixels it is timm's.

    Shapes: images [B, C, S, S] -> [B, D, sqrt(N), sqrt(N)].
    """

    EPS = 1e-5  # of the norm behind it, whatever the other norms have

    def __init__(self, embed_dim: int, backbone: Backbone) -> None:
        if broken := STEMS["overlap"].broken(backbone):
            raise ArchitectureError(broken)
        patch, kernel = backbone.patch_size, overlap_kernel(backbone)
        overlap = nn.Conv2d(backbone.in_chans, embed_dim, kernel, stride=patch, padding=patch - 1)
        nn.init.kaiming_normal_(overlap.weight, mode="fan_out")
        super().__init__(OrderedDict(overlap=overlap))
        if overlap.bias is not None:
            nn.init.zeros_(overlap.bias)


def build_stem(stem: str, embed_dim: int, backbone: Backbone, **options: Any) -> PatchEmbed:
    """The stem of a network, with options of timm's `PatchEmbed`: images [B, C, S, S] to tokens [B, N, D]."""
    built = PatchEmbed(backbone.image_size, backbone.patch_size, backbone.in_chans, embed_dim, **options)
    if stem == "conv":
        built.proj = ConvStem(embed_dim, backbone)
    elif stem == "overlap":
        built.proj = OverlapStem(embed_dim, backbone)
        built.norm = nn.LayerNorm(embed_dim, eps=OverlapStem.EPS)
    return built
