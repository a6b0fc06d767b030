"""A convolutional stem: 3x3 convolutions of stride 2 down to the grid of patches (LeViT, arXiv 2104.01136; 2106.14881).

For patches of 2^k pixels there are k of them, with D / 2^(k-1), ..., D / 2, D channels, rounded up to whole ones;
between two a norm over the channels of each position, and GELU. What they leave has the shape of embedded patches.
"""

from itertools import pairwise

from nas.arch.backbone import Backbone
from nas.arch.operator import Operations, Stem

STEM_KERNEL = 3  # pixels; stride 2, one pixel of padding


def stem_channels(D: int, backbone: Backbone) -> tuple[int, ...]:
    """Channels of the image, then behind each convolution."""
    halvings = backbone.patch_size.bit_length() - 1
    return (backbone.in_chans, *(-(-D // 2**i) for i in reversed(range(halvings))))


def _broken(backbone: Backbone) -> str:
    patch = backbone.patch_size
    if patch > 1 and patch.bit_count() == 1:
        return ""
    return f"a conv stem halves the image, so patch_size must be 2, 4, 8, 16 or another power of two, not {patch}"


def _positions(backbone: Backbone) -> list[int]:
    """Pixels of the image, then positions behind each convolution."""
    halvings = backbone.patch_size.bit_length() - 1
    return [(backbone.image_size >> i) ** 2 for i in range(halvings + 1)]


def _cost(D: int, backbone: Backbone) -> Operations:
    channels = stem_channels(D, backbone)
    steps = list(zip(pairwise(channels), _positions(backbone)[1:], strict=True))
    macs = sum(n * STEM_KERNEL**2 * before * after for (before, after), n in steps)
    params = sum((STEM_KERNEL**2 * before + 1) * after for (before, after), _ in steps)
    return (("conv_stem", macs, params + 2 * sum(channels[1:-1])),)


def _memory(D: int, backbone: Backbone, B: int) -> int:
    """A convolution's operand and result, or a norm's, with the two numbers that it keeps a position."""
    positions = _positions(backbone)[1:]
    held = [n * C for n, C in zip(positions, stem_channels(D, backbone)[1:], strict=True)]
    most = held[0]
    for (before, after), n in zip(pairwise(held), positions, strict=False):
        most = max(most, 2 * before + 2 * n, before + after)
    return B * most


CONV_STEM = Stem(
    name="conv",
    words="3x3 convolutions of stride 2 down to the grid of patches",
    rank=20,
    cost=_cost,
    memory=_memory,
    broken=_broken,
)
