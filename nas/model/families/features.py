"""Feature maps: which layers have one, and how timm lets them be chosen.

Shape letters: B batch, D channels, H and W rows and columns of the map.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import Architecture, Backbone
from nas.base import ArchitectureError
from nas.model.families.input_size import layer_sides, searched_grid
from nas.model.layers.maps import Guidance, Provided
from nas.model.layers.part import Frame, Sides


def layers_on_grid(architecture: Architecture, backbone: Backbone) -> list[int]:
    """The layers whose patch tokens lie on a square grid, so that they are a feature map.

    64 tokens, half of them (8 x 4) and 16 keep to the grid; after an average along the raster, nothing does.
    """
    layers = layer_sides(architecture, backbone, searched_grid(backbone))
    return [i for i, ((rows, columns), on_grid) in enumerate(layers) if on_grid and rows == columns]


def stage_ends(architecture: Architecture) -> list[int]:
    """The last layers of the stages of a pyramid, which begins one wherever it embeds its tokens anew; else none."""
    begins = [i for i, layer in enumerate(architecture.layers) if layer.reducer == "embed"]
    return [i - 1 for i in (*begins, architecture.depth)] if begins else []


def chosen_layers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Layers as timm lets them be chosen: None for all, so many of the last, or numbers; else an ArchitectureError."""
    if indices is None or isinstance(indices, int):
        chosen = list(range(depth - (depth if indices is None else indices), depth))
    else:
        chosen = [i + depth if i < 0 else i for i in indices]
    if not chosen or min(chosen) < 0 or max(chosen) >= depth:
        raise ArchitectureError(f"out_indices {indices}: the layers of the network are 0 to {depth - 1}")
    return chosen


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


def as_map(tokens: Tensor, sides: Sides) -> Tensor:
    """Patch tokens on their grid: [B, H W, D] -> [B, D, H, W]."""
    return torch.unflatten(tokens, 1, sides).permute(0, 3, 1, 2).contiguous()


def at_stride(found: Tensor, images: Tensor, stride: int) -> Tensor:
    """A map [B, D, h, w] of images [B, C, H, W] as one of that stride, [B, D, H / stride, W / stride], rounded up."""
    rows, columns = (-(-side // stride) for side in images.shape[-2:])
    if found.shape[-2:] == (rows, columns):
        return found
    return functional.interpolate(found, (rows, columns), mode="bilinear", align_corners=False)


def warn_of_strides(layers: Sequence[int], strides: Sequence[float]) -> None:
    """Say which of the layers chosen have strides that heads which infer one from the sizes of maps would get wrong."""
    odd = [(i, s) for i, s in zip(layers, strides, strict=True) if not math.log2(s).is_integer()]
    if odd:
        powers = [min(2 ** round(math.log2(s)), 32) for s in strides]
        warnings.warn(
            f"strides that are no powers of two: {', '.join(f'{s:.3g} of layer {i}' for i, s in odd)}; torchvision's "
            f"RoI pooling would cut beside its boxes: out_strides={powers} resamples the maps",
            stacklevel=4,  # the line that calls timm.create_model
        )


class StridedFeatures(FeatureGetterNet):  # type: ignore[misc]
    """timm's `features_only` network, its maps resampled to the strides asked for."""

    feature_info: Any

    def __init__(self, model: "Intermediates", out_indices: Sequence[int], out_strides: Sequence[int], **others: Any):
        super().__init__(model, out_indices, **others)
        if len(out_strides) != len(self.out_indices) or any(not isinstance(s, int) or s < 1 for s in out_strides):
            raise ArchitectureError(
                f"out_strides {out_strides}: a whole number of pixels for each of layers {list(self.out_indices)}",
                hint="choose as many out_indices",
            )
        self.out_strides = tuple(out_strides)
        self.feature_info = self.feature_info.from_other(self.out_indices)
        for i, stride in zip(self.out_indices, out_strides, strict=True):
            self.feature_info.info[i]["reduction"] = stride

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images [B, C, H, W] to maps [B, D, H / stride, W / stride], one for each layer chosen."""
        return [at_stride(found, x, s) for found, s in zip(super().forward(x), self.out_strides, strict=True)]


class Intermediates(nn.Module):
    """The part of timm's interface that gives out what layers compute, beside the logits."""

    architecture: Architecture
    backbone: Backbone
    blocks: nn.ModuleList
    norm: nn.Module
    fc_norm: nn.Module
    num_prefix_tokens: int

    @abstractmethod
    def _grid(self, images: Tensor) -> Sides: ...

    @abstractmethod
    def _embedded(
        self, images: Tensor, attn_mask: Tensor | None, is_causal: bool
    ) -> tuple[Tensor, Sequence[Frame | None]]: ...

    @abstractmethod
    def _layer(
        self, block: nn.Module, x: Tensor, provided: Provided | None, guidance: Guidance | None, frame: Frame | None
    ) -> tuple[Tensor, Provided | None]: ...

    @abstractmethod
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier."""

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """What layers put out (timm's interface; `features_only=True` calls it).

        Args:
            images: Normalised, [B, C, S, S].
            indices: Layers; a number: so many of the last ones; None: all.
            return_prefix_tokens: Give (found, class token [B, 1, D]) for each layer, where there is a class token.
            norm: Apply the last norm to each, where the network has it before pooling.
            stop_early: Do not run the layers after the last one asked for.
            output_fmt: `NCHW`: feature maps [B, D, H, W]; `NLC`: patch tokens [B, T, D], on a grid or not.
            intermediates_only: Leave out the tokens that `forward_features` returns, which stand first otherwise.
            output_dict: Give a mapping with `image_intermediates`, `image_features` and `image_intermediates_prefix`.
            attn_mask: As in `forward_features`.
            is_causal: As in `forward_features`.

        Raises:
            ArchitectureError: The tokens of a layer asked for lie on no grid; names those that do.
            ValueError: Another `output_fmt`.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        taken = chosen_layers(indices, len(self.blocks))
        if output_fmt == "NCHW":
            check_on_grid(taken, self.architecture, self.backbone)
        sides = layer_sides(self.architecture, self.backbone, self._grid(images))
        x, told = self._embedded(images, attn_mask, is_causal)
        provided: Provided | None = None
        found, prefixes = [], []
        for i, block in enumerate(self.blocks[: max(taken) + 1] if stop_early else self.blocks):
            x, provided = self._layer(block, x, provided, None, told[i])
            if i in taken:
                tokens = self.norm(x) if norm else x
                prefixes.append(tokens[:, : self.num_prefix_tokens])
                tokens = tokens[:, self.num_prefix_tokens :]
                found.append(as_map(tokens, sides[i][0]) if output_fmt == "NCHW" else tokens)
        with_prefixes = return_prefix_tokens and self.num_prefix_tokens > 0
        if output_dict:
            named: dict[str, Any] = {"image_intermediates": found}
            named |= {"image_intermediates_prefix": prefixes} if with_prefixes else {}
            return named if intermediates_only else named | {"image_features": self.norm(x)}
        listed = list(zip(found, prefixes, strict=True)) if with_prefixes else found
        return listed if intermediates_only else (self.norm(x), listed)

    def get_intermediate_layers(
        self,
        images: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        attn_mask: Tensor | None = None,
    ) -> list[Any]:
        """What layers put out, as DINO's interface has it: `forward_intermediates`, tokens unless `reshape`."""
        found: list[Any] = self.forward_intermediates(
            images,
            n,
            return_prefix_tokens=return_prefix_tokens,
            norm=norm,
            output_fmt="NCHW" if reshape else "NLC",
            intermediates_only=True,
            attn_mask=attn_mask,
        )
        return found

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the layers after the last one asked for, and the classifier (timm's interface); returns those asked for.

        Raises:
            ArchitectureError: The tokens of such a layer lie on no grid; names those that do.
        """
        taken = chosen_layers(indices, len(self.blocks))
        check_on_grid(taken, self.architecture, self.backbone)
        self.blocks = self.blocks[: max(taken) + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.fc_norm = nn.Identity()
            self.reset_classifier(0, "")
        return taken
