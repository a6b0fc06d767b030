"""`Subnet`: the only forward pass there is. A plain module built from a backbone and an architecture.

It holds just what the architecture needs, under timm's parameter names wherever timm has the part, and is registered
with timm as `nas_vit`, so that `timm.create_model("local-dir:...", pretrained=True)` loads an exported one.

What timm's own ViT can do, this can: the same methods, arguments and shapes (tests/model/families/test_timm_vit.py).

Shape letters: B batch, C input channels, S image side, T tokens, D channels, K classes, H and W of a feature map.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from timm.layers import global_pool_nlc, resample_abs_pos_embed
from timm.models import checkpoint
from timm.models._input import update_model_args, update_model_input_size
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, fx, nn

from nas.arch import REDUCERS, Architecture, Backbone
from nas.base import ArchitectureError
from nas.model.block import Block
from nas.model.families.features import Intermediates
from nas.model.families.input_size import frames, layer_sides, resized_weights
from nas.model.layers.maps import Guidance, Provided
from nas.model.layers.part import Frame, Part, Sides, is_symbolic
from nas.model.stem import build_stem

POOLS = ("", "avg", "avgmax", "max", "token")
"""Ways to pool the tokens before the classifier; none, with the first: all tokens are given out."""


@fx.wrap
def _images_alone(images: Tensor, attn_mask: Tensor | None, is_causal: bool, guidance: Guidance | None) -> Tensor:
    """What a graph of `torch.fx` takes, whose arguments are unknown when it is made: an ArchitectureError for more."""
    if attn_mask is not None or is_causal or guidance is not None:
        raise ArchitectureError("a graph made by torch.fx takes images alone", hint="call the network itself")
    return images


class Subnet(Intermediates):
    """One architecture as an ordinary image classifier with timm's interface.

    With the plain choice everywhere this is timm's `VisionTransformer`, parameter for parameter (law 2). For training
    only: `drop_path` is the stochastic depth rate of the last layer, rising linearly from 0, and `guided` gives static
    layers queries and keys too (`Guidance`). `build_block` makes a layer from the arguments of `Block`.

    Shapes: images [B, C, S, S], normalised -> logits [B, K].

    The other arguments are those of timm's ViT. `global_pool` is one of `POOLS`, or None for the class token, or the
    average where there is none; `fc_norm` whether the last norm comes after pooling, or None for where an average or a
    maximum is taken. Images may have any size that is a multiple of the patches with `dynamic_img_size`, and any other
    with `dynamic_img_pad` too.
    """

    def __init__(
        self,
        backbone: Backbone,
        architecture: Architecture,
        *,
        drop_path: float = 0.0,
        guided: bool = False,
        build_block: Callable[..., Block] = Block,
        global_pool: str | None = None,
        fc_norm: bool | None = None,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        dynamic_img_size: bool = False,
        dynamic_img_pad: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.architecture = backbone, architecture
        width, last, depth = architecture.embed_dim, architecture.widths[-1], architecture.depth
        first, patches = architecture.layers[0], backbone.num_patches
        if first.num_tokens > patches or (first.reducer is not None) != (first.num_tokens < patches):
            raise ArchitectureError(
                f"layer 0 has {first.num_tokens} tokens of {patches} patches and reducer {first.reducer}; "
                "a reducer is present exactly where num_tokens falls"
            )
        reducers = [REDUCERS[layer.reducer] for layer in architecture.layers if layer.reducer is not None]
        broken = reducers[0].broken(first.num_tokens, True, patches) if first.reducer is not None else ""
        if broken := next(filter(None, (broken, *(reducer.refused(backbone) for reducer in reducers))), ""):
            raise ArchitectureError(broken)
        self.num_classes, self.in_chans = backbone.num_classes, backbone.in_chans
        self.embed_dim, self.num_features, self.head_hidden_size = width, last, last
        self.has_class_token = backbone.class_token
        self.global_pool = _checked_pool(global_pool or "", self.has_class_token)
        if global_pool is None:
            self.global_pool = backbone.pooling
        self.num_prefix_tokens, self.num_reg_tokens = backbone.num_prefix_tokens, backbone.reg_tokens
        self.no_embed_class = self.pool_include_prefix = self.grad_checkpointing = False
        self.dynamic_img_size, self.attn_pool = dynamic_img_size, None
        cut = {"strict_img_size": not dynamic_img_size, "dynamic_img_pad": dynamic_img_pad}
        self.patch_embed = build_stem(architecture.stem, width, backbone, **cut)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width)) if backbone.class_token else None
        registers = backbone.reg_tokens
        self.reg_token = nn.Parameter(torch.empty(1, registers, width)) if registers else None
        positions = backbone.num_patches + backbone.num_prefix_tokens if backbone.positions == "learned" else 0
        self.pos_embed = nn.Parameter(torch.empty(1, positions, width)) if positions else None
        self.pos_drop = nn.Dropout(pos_drop_rate)
        norm: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=backbone.norm_eps)
        self.patch_drop, self.norm_pre = nn.Identity(), norm(width) if backbone.norm_pre else nn.Identity()
        self.blocks = nn.ModuleList(
            build_block(
                architecture.widths[i],
                layer,
                architecture.context(i, backbone),
                backbone,
                drop=proj_drop_rate,
                drop_path=drop_path * i / max(depth - 1, 1),
                guided=guided,
            )
            for i, layer in enumerate(architecture.layers)
        )
        place = backbone.final_norm or ("after" if self.global_pool in ("avg", "avgmax", "max") else "before")
        if fc_norm is not None and place != "none":
            place = "after" if fc_norm else "before"
        self.norm = norm(last) if place == "before" else nn.Identity()
        self.fc_norm = norm(last) if place == "after" else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Linear(last, backbone.num_classes) if backbone.num_classes else nn.Identity()
        self.feature_info = self._feature_info()

    def _feature_info(self) -> list[dict[str, Any]]:
        sides = layer_sides(self.architecture, self.backbone, self.patch_embed.grid_size)
        patch, patches = math.prod(self.patch_embed.patch_size), math.prod(self.patch_embed.grid_size)
        found, stride, arriving = list[dict[str, Any]](), math.sqrt(patch), self.backbone.num_patches
        for i, (layer, (of, _)) in enumerate(zip(self.architecture.layers, sides, strict=True)):
            if layer.reducer is not None and REDUCERS[layer.reducer].halves:
                stride *= 2  # whatever the rounding of the sides
            elif layer.num_tokens != arriving:
                stride = math.sqrt(patch * patches / math.prod(of))
            arriving = layer.num_tokens
            info = {"module": f"blocks.{i}", "num_chs": self.architecture.widths[i], "reduction": _whole(stride)}
            found.append(info)
        return found

    def init_weights(self, mode: str = "") -> None:
        """Initialise as timm's ViT does; the operators' own weights keep the values they are built with."""
        del mode  # timm's interface
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not self.is_own(f"{name}.weight"):
                init_weights_vit_timm(module)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=1e-6)

    def forward_features(
        self,
        images: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Images to tokens [B, T of the last layer, D], normalised where a class token is read.

        Args:
            images: Normalised.
            attn_mask: True where a query may see a key, or what is added to the logits; [..., T, T].
            is_causal: No token sees a later one.
            guidance: For training.

        Raises:
            ArchitectureError: A mask, and a layer that has no maps or fewer tokens.
        """
        if is_symbolic(images):
            images, attn_mask, is_causal, guidance = (
                _images_alone(images, attn_mask, is_causal, guidance),
                None,
                False,
                None,
            )
        x, found = self._embedded(images, attn_mask, is_causal)
        provided: Provided | None = None
        for block, frame in zip(self.blocks, found, strict=False):
            x, provided = self._layer(block, x, provided, guidance, frame)
        return cast(Tensor, self.norm(x))

    def _layer(
        self, block: nn.Module, x: Tensor, provided: Provided | None, guidance: Guidance | None, frame: Frame | None
    ) -> tuple[Tensor, Provided | None]:
        framed = () if frame is None else (frame,)
        if self.grad_checkpointing and guidance is None and torch.is_grad_enabled():
            found: tuple[Tensor, Provided | None] = checkpoint(
                block, x, provided, guidance, *framed, use_reentrant=False
            )
            return found
        return cast("tuple[Tensor, Provided | None]", block(x, provided, guidance, *framed))

    def embed(self, images: Tensor) -> Tensor:
        """What the first layer is given [B, T, D]: patches and class token with their positions, if any."""
        return self._embedded(images, None, is_causal=False)[0]

    def _embedded(
        self, images: Tensor, attn_mask: Tensor | None, is_causal: bool
    ) -> tuple[Tensor, Sequence[Frame | None]]:
        """The tokens, with their positions, and what every layer is told."""
        held, grid = self.patch_embed.grid_size, self._grid(images)
        x = self.patch_embed(images)
        prefix = [token.expand(x.shape[0], -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        if prefix:
            x = torch.cat([*prefix, x], dim=1)
        positions = self.pos_embed
        if positions is not None and grid != held:
            positions = resample_abs_pos_embed(positions, grid, held, num_prefix_tokens=self.num_prefix_tokens)
        mask = self._mask(attn_mask, is_causal, x)
        x = x.contiguous() if positions is None else x + positions  # what comes out of a convolution is not
        x = self.norm_pre(self.patch_drop(self.pos_drop(x)))
        # torch.fx knows no numbers of tokens: frames say them.
        return x, frames(self.architecture, self.backbone, held, grid, mask, always=is_symbolic(x))

    def _grid(self, images: Tensor) -> Sides:
        """Rows and columns of the patches."""
        rows, columns = self.patch_embed.grid_size
        if self.dynamic_img_size:
            rows, columns = self.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
        return rows, columns

    def _mask(self, attn_mask: Tensor | None, is_causal: bool, x: Tensor) -> Tensor | None:
        if attn_mask is None and not is_causal:
            return None
        layers = enumerate(self.architecture.layers)
        strides = map(self.backbone.key_stride, (layer.num_tokens for layer in self.architecture.layers))
        if unable := [
            i
            for (i, layer), stride in zip(layers, strides, strict=True)
            if layer.reducer is not None or layer.attention == "linear" or stride > 1
        ]:
            layers_unable = ", ".join(map(str, unable))
            raise ArchitectureError(
                f"no attention mask for this network: layers {layers_unable} reduce tokens or keys, or have no maps",
                hint="leave attn_mask and is_causal out",
            )
        if is_causal and attn_mask is not None:
            raise ArchitectureError("attn_mask and is_causal together", hint="put what is causal into the mask")
        if is_causal:
            return x.new_full((x.shape[1], x.shape[1]), -math.inf).triu(1)
        assert attn_mask is not None, "asked above"
        if attn_mask.dtype is torch.bool:
            return torch.zeros_like(attn_mask, dtype=x.dtype).masked_fill(~attn_mask, -math.inf)
        return attn_mask

    def pool(self, tokens: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens to one vector an image, as `pool_type`, else the network's own pooling, says; all tokens for ""."""
        kind = self.global_pool if pool_type is None else pool_type
        pooled: Tensor = global_pool_nlc(tokens, kind, num_prefix_tokens=self.num_prefix_tokens)
        return pooled

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens to logits, or to the features before the classifier."""
        features = self.head_drop(self.fc_norm(self.pool(tokens)))
        return cast(Tensor, features if pre_logits else self.head(features))

    def forward(
        self,
        images: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Classify; the arguments are those of `forward_features`."""
        return self.forward_head(self.forward_features(images, attn_mask, is_causal, guidance=guidance))

    def get_classifier(self) -> nn.Module:
        """The last linear layer (timm's interface)."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one for `num_classes`; 0 or less removes it (timm's interface).

        The last norm stays where it is, whatever the pooling; with `global_pool` "" all tokens are given out.
        """
        if global_pool is not None:
            self.global_pool = _checked_pool(global_pool, self.has_class_token)
            update_model_args(self, fc_norm=not isinstance(self.fc_norm, nn.Identity))
        self.num_classes = max(num_classes, 0)
        self.backbone = replace(self.backbone, num_classes=self.num_classes)
        like = next(self.patch_embed.parameters())
        head = (
            nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype) if num_classes > 0 else None
        )
        self.head = (head or nn.Identity()).train(self.training)

    def set_input_size(
        self, img_size: int | Sequence[int] | None = None, patch_size: int | Sequence[int] | None = None
    ) -> None:
        """Take images of another size from now on, with weights made for it (timm's interface).

        Raises:
            ArchitectureError: A size that is none, an image smaller than a patch, or, for a stem other than `patch`,
                another patch size or an image that is no multiple of it.
        """
        size, patch = (None if of is None else _pair(of) for of in (img_size, patch_size))
        wanted, cut = size or self.patch_embed.img_size, patch or self.patch_embed.patch_size
        if any(a < b for a, b in zip(wanted, cut, strict=True)):
            raise ArchitectureError(f"images of {wanted} pixels hold no patch of {cut}")
        if (stem := self.architecture.stem) != "patch":
            if cut != (own := self.patch_embed.patch_size):
                raise ArchitectureError(f"the {stem} stem is made for patches of {own}, not {cut}")
            if not self.patch_embed.dynamic_img_pad and any(a % b for a, b in zip(wanted, cut, strict=True)):
                raise ArchitectureError(f"the {stem} stem needs images that are a multiple of {cut}, not {wanted}")
        held = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size=size, patch_size=patch)
        grid = self.patch_embed.grid_size
        weights = dict(self.named_parameters()) if grid != held else {}
        with torch.no_grad():
            for name, value in resized_weights(weights, self.architecture, self.backbone, held, grid):
                path, _, last = name.rpartition(".")
                again = nn.Parameter(value.detach().clone(), requires_grad=weights[name].requires_grad)
                setattr(self.get_submodule(path), last, again)
        self.feature_info = self._feature_info()
        update_model_input_size(self, self.patch_embed.img_size, patch_size=patch)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether layers forget what only their backward pass needs, and compute it again (timm's interface)."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002 - timm's interface
        """Which layer a parameter belongs to, for layer-wise decay of the learning rate (timm's interface)."""
        return {
            "stem": r"^cls_token|reg_token|pos_embed|patch_embed|norm_pre",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def no_weight_decay(self) -> set[str]:
        """Parameters that the optimiser does not decay (timm's interface)."""
        own = {f"{path}.{name}" for path, part in self._parts() for name in part.NO_DECAY}
        return {"cls_token"} | own | {name for name in ("pos_embed", "reg_token") if getattr(self, name) is not None}

    def is_own(self, name: str) -> bool:
        """Whether a plain ViT has no such weight."""
        return any(name.removeprefix(f"{path}.") in part.INITIAL for path, part in self._parts())

    def _parts(self) -> Iterator[tuple[str, Part]]:
        return ((path, part) for path, part in self.named_modules() if isinstance(part, Part))


def _checked_pool(kind: str, has_class_token: bool) -> str:
    if kind not in POOLS or (kind == "token" and not has_class_token):
        without = "" if has_class_token else "; there is no class token"
        raise ArchitectureError(f"global_pool {kind!r}{without}", hint=f"one of {', '.join(map(repr, POOLS))}")
    return kind


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    try:
        pair = tuple(map(operator.index, size if isinstance(size, Sequence) else (size, size)))
    except TypeError:
        pair = ()
    if len(pair) != 2 or min(pair) < 1:
        raise ArchitectureError(f"a size is a positive whole number of pixels, or (rows, columns): not {size!r}")
    return pair


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() else value
