"""`Subnet`: the only forward pass there is. A plain module built from a backbone and an architecture.

It holds just what the architecture needs, under timm's parameter names wherever timm has the part, and is registered
with timm as `nas_vit`, so that `timm.create_model("local-dir:...", pretrained=True)` loads an exported one.

Shape letters: B batch, C input channels, S image side, T tokens, D channels, K classes, H and W of a feature map.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from timm.layers import PatchEmbed, global_pool_nlc
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from nas.arch import Architecture, Backbone
from nas.base import ArchitectureError
from nas.model.block import Block, LayerNorm
from nas.model.families.features import as_map, check_on_grid, chosen_layers
from nas.model.layers.maps import Guidance
from nas.model.layers.part import Part


class Subnet(nn.Module):
    """One architecture as an ordinary image classifier with timm's interface.

    With the plain choice everywhere this is timm's `VisionTransformer`, parameter for parameter (law 2). For training
    only: `drop_path` is the stochastic depth rate of the last layer, rising linearly from 0, and `guided` gives static
    layers queries and keys too (`Guidance`). `build_block` makes a layer from the arguments of `Block`.

    Shapes: images [B, C, S, S], normalised -> logits [B, K].
    """

    def __init__(
        self,
        backbone: Backbone,
        architecture: Architecture,
        *,
        drop_path: float = 0.0,
        guided: bool = False,
        build_block: Callable[..., Block] = Block,
    ) -> None:
        super().__init__()
        self.backbone, self.architecture = backbone, architecture
        width, depth = architecture.embed_dim, architecture.depth
        first, patches = architecture.layers[0], backbone.num_patches
        if first.num_tokens > patches or (first.reducer is not None) != (first.num_tokens < patches):
            raise ArchitectureError(
                f"layer 0 has {first.num_tokens} tokens of {patches} patches and reducer {first.reducer}; "
                "a reducer is present exactly where num_tokens falls"
            )
        self.num_classes, self.in_chans = backbone.num_classes, backbone.in_chans
        self.embed_dim = self.num_features = self.head_hidden_size = width
        self.global_pool = "token" if backbone.class_token else "avg"
        self.num_prefix_tokens = backbone.num_prefix_tokens
        self.patch_embed = PatchEmbed(backbone.image_size, backbone.patch_size, backbone.in_chans, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width)) if backbone.class_token else None
        self.pos_embed = nn.Parameter(torch.empty(1, backbone.num_patches + backbone.num_prefix_tokens, width))
        self.blocks = nn.ModuleList(
            build_block(
                width,
                layer,
                architecture.context(i, backbone),
                backbone,
                drop_path=drop_path * i / max(depth - 1, 1),
                guided=guided,
            )
            for i, layer in enumerate(architecture.layers)
        )
        normed_before_pool = backbone.class_token
        self.norm = LayerNorm(width) if normed_before_pool else nn.Identity()
        self.fc_norm = nn.Identity() if normed_before_pool else LayerNorm(width)
        self.head: nn.Module = nn.Linear(width, backbone.num_classes) if backbone.num_classes else nn.Identity()
        self.feature_info = [
            {
                "module": f"blocks.{i}",
                "num_chs": width,
                "reduction": _whole(backbone.image_size / math.sqrt(layer.num_tokens)),
            }
            for i, layer in enumerate(architecture.layers)
        ]

    def init_weights(self) -> None:
        """Initialise as timm's ViT does; the operators' own weights keep the values they are built with."""
        own = {f"{path}.{name}" for path, part in self._parts() for name in part.INITIAL}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and f"{name}.weight" not in own:
                init_weights_vit_timm(module)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)

    def forward_features(self, images: Tensor, guidance: Guidance | None = None) -> Tensor:
        """Images to tokens [B, T of the last layer, D], normalised where a class token is read."""
        x, provided = self._embedded(images), None
        for block in self.blocks:
            x, provided = block(x, provided, guidance)
        return cast(Tensor, self.norm(x))

    def _embedded(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return cast(Tensor, x + self.pos_embed)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens to logits, or to the features before the classifier."""
        pooled = global_pool_nlc(tokens, self.global_pool, num_prefix_tokens=self.num_prefix_tokens)
        features = self.fc_norm(pooled)
        return cast(Tensor, features if pre_logits else self.head(features))

    def forward(self, images: Tensor, guidance: Guidance | None = None) -> Tensor:
        """Classify; `guidance` is for training."""
        return self.forward_head(self.forward_features(images, guidance))

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """What layers put out (timm's interface; `features_only=True` calls it).

        Args:
            images: Normalised, [B, C, S, S].
            indices: Layers; a number: so many of the last ones; None: all.
            norm: Apply the last norm to each, where the network has it before pooling.
            stop_early: Do not run the layers after the last one asked for.
            output_fmt: `NCHW`: feature maps [B, D, H, W]; `NLC`: patch tokens [B, T, D], on a grid or not.
            intermediates_only: Leave out the tokens that `forward_features` returns, which stand first otherwise.

        Raises:
            ArchitectureError: The tokens of a layer asked for lie on no grid; names those that do.
            ValueError: Another `output_fmt`.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        taken = chosen_layers(indices, len(self.blocks))
        if output_fmt == "NCHW":
            check_on_grid(taken, self.architecture, self.backbone)
        x, provided = self._embedded(images), None
        found: list[Tensor] = []
        for i, block in enumerate(self.blocks[: taken[-1] + 1] if stop_early else self.blocks):
            x, provided = block(x, provided)
            if i in taken:
                tokens = (self.norm(x) if norm else x)[:, self.num_prefix_tokens :]
                found.append(as_map(tokens) if output_fmt == "NCHW" else tokens)
        return found if intermediates_only else (self.norm(x), found)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the layers after the last one asked for, and the classifier (timm's interface); returns those asked for.

        Raises:
            ArchitectureError: The tokens of such a layer lie on no grid; names those that do.
        """
        taken = chosen_layers(indices, len(self.blocks))
        check_on_grid(taken, self.architecture, self.backbone)
        self.blocks = self.blocks[: taken[-1] + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.fc_norm = nn.Identity()
            self.reset_classifier(0)
        return taken

    def get_classifier(self) -> nn.Module:
        """The last linear layer (timm's interface)."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one for `num_classes`; 0 removes it (timm's interface)."""
        self.global_pool = global_pool or self.global_pool
        self.num_classes = num_classes
        self.backbone = replace(self.backbone, num_classes=num_classes)
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()

    def no_weight_decay(self) -> set[str]:
        """Parameters that the optimiser does not decay (timm's interface)."""
        own = {f"{path}.{name}" for path, part in self._parts() for name in part.NO_DECAY}
        return {"pos_embed", "cls_token"} | own

    def _parts(self) -> Iterator[tuple[str, Part]]:
        return ((path, part) for path, part in self.named_modules() if isinstance(part, Part))


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() else value
