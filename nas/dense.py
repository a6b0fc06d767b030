"""Dense prediction with networks whose maps all have about one stride: maps for heads that expect a pyramid."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from nas.base import ArchitectureError
from nas.model import at_stride

COARSEST = 32
"""The largest stride that a map is resampled to: detectors pad images to multiples of it."""


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (arXiv 2203.16527): the last map of a network at several strides.

    Finer maps come by deconvolution, coarser ones by pooling, each through a 1x1 and a 3x3 convolution. A map whose
    stride is no power of two is resampled to the nearest one first, so that each has exactly the stride that it is
    said to have. It is a `backbone` of torchvision's detectors: five maps, as a `FeaturePyramidNetwork` gives them.

    Args:
        body: Gives a list of maps, as timm's networks do with `features_only=True`; sides other than those of the
            search need `dynamic_img_size=True`.
        out_channels: Of every map.
        strides: Powers of two, rising. Those for RetinaNet's own anchors are 8, 16, 32, 64.

    Raises:
        ArchitectureError: Strides that are none.
    """

    def __init__(self, body: nn.Module, out_channels: int = 256, strides: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        if not strides or any(s < 1 or s & (s - 1) for s in strides) or sorted(set(strides)) != list(strides):
            raise ArchitectureError(f"strides {tuple(strides)}: powers of two, rising", hint="(4, 8, 16, 32)")
        self.body, self.out_channels, self.strides = body, out_channels, tuple(strides)
        info = cast(Any, body).feature_info
        width, stride = info.channels()[-1], info.reduction()[-1]
        self.stride = min(2 ** round(math.log2(stride)), COARSEST)
        self.levels = nn.ModuleList(self._level(width, math.log2(self.stride / s)) for s in strides)

    def _level(self, width: int, doublings: float) -> nn.Sequential:
        """From the map of the body to one that is so many times finer, or coarser where that is negative."""
        parts: list[nn.Module] = [] if doublings >= 0 else [nn.MaxPool2d(2 ** round(-doublings), ceil_mode=True)]
        for _ in range(round(doublings)):
            parts += [LayerNorm2d(width), nn.GELU()] if parts else []
            parts.append(nn.ConvTranspose2d(width, max(width // 2, 1), 2, 2))
            width = max(width // 2, 1)
        for kernel in (1, 3):
            parts += [nn.Conv2d(width, self.out_channels, kernel, padding="same", bias=False)]
            parts += [LayerNorm2d(self.out_channels)]
            width = self.out_channels
        return nn.Sequential(*parts)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Maps [B, out_channels, H / stride, W / stride] as "0", "1", ..., and every other value of the last as "pool".

        Args:
            images: [B, C, H, W], normalised as the body wants it.

        Raises:
            ArchitectureError: Sides that are no multiples of the stride of the body's map.
        """
        if any(side % self.stride for side in images.shape[-2:]):
            raise ArchitectureError(
                f"images of {tuple(images.shape[-2:])} pixels: sides are multiples of {self.stride} here",
                hint="pad them, as torchvision's detectors do",
            )
        last = at_stride(self.body(images)[-1], images, self.stride)
        maps = OrderedDict((str(i), level(last)) for i, level in enumerate(self.levels))
        maps["pool"] = functional.max_pool2d(maps[str(len(self.levels) - 1)], 1, 2)
        return maps
