"""How timm builds an exported model."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from huggingface_hub import constants, get_session
from safetensors import SafetensorError
from timm.layers import resample_patch_embed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._input import get_pretrained_grid_size
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from nas.arch import Architecture, Backbone, cost
from nas.base import ArchitectureError, ConfigError
from nas.model.families.features import StridedFeatures, chosen_layers, layers_on_grid, stage_ends, warn_of_strides
from nas.model.families.input_size import resized_weights
from nas.model.families.vit import Subnet

UNREADABLE = (
    RuntimeError, OSError, ValueError, AssertionError, LookupError, TypeError, AttributeError, EOFError,
    ArithmeticError, SafetensorError, ArchitectureError,
)  # fmt: skip
"""What timm, torch and safetensors raise for names they do not know and files that are not weights."""


PATIENCE_S = 10
"""Seconds after which a hub that has not answered is not asked for weights."""


def pretrained_model(name: str, **options: Any) -> Any:
    """Timm's model with its weights; where the hub cannot be reached, with those that were downloaded before.

    Asked once: the hub's own client tries for a minute, and prints each try.

    Raises:
        OSError: The hub cannot be reached, and the weights are not here.
    """
    if constants.HF_HUB_OFFLINE or name.startswith("local-dir:") or _hub_answers():
        return timm.create_model(name, pretrained=True, **options)
    constants.HF_HUB_OFFLINE = True
    try:
        return timm.create_model(name, pretrained=True, **options)
    except UNREADABLE as error:
        raise OSError(f"{constants.ENDPOINT} cannot be reached, and the weights are not on this machine") from error
    finally:
        constants.HF_HUB_OFFLINE = False


def _hub_answers() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_S)
    except Exception:  # noqa: BLE001 - whatever the client of the day raises
        return False
    return True


_DEFAULT_CFG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": None,
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "fixed_input_size": True,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}
default_cfgs = generate_default_cfgs({"nas_vit.searched": _DEFAULT_CFG})

TAKEN = frozenset({
    "fc_norm", "drop_rate", "pos_drop_rate", "proj_drop_rate", "dynamic_img_size", "dynamic_img_pad",
})  # fmt: skip
"""Arguments of timm's ViT that a `Subnet` has too, beside those of `_create`."""

REFUSED = {name: given.default for name, given in inspect.signature(VisionTransformer).parameters.items()}
"""Those that are taken only where they change nothing: at timm's own default, or at what the network has."""


def _create(
    architecture: Mapping[str, Any],
    backbone: Mapping[str, Any],
    num_classes: int,
    in_chans: int,
    img_size: int | Sequence[int] | None = None,
    patch_size: int | Sequence[int] | None = None,
    global_pool: str | None = None,
    drop_path_rate: float = 0.0,
    device: Any = None,
    dtype: Any = None,
    **others: Any,
) -> Subnet:
    fixed = Backbone(**backbone)
    fixed = replace(fixed, num_classes=max(num_classes, 0), in_chans=in_chans)
    found = Architecture.from_dict(architecture)
    taken = {name: others.pop(name) for name in TAKEN & set(others)}
    has: dict[str, Any] = {
        "embed_dim": found.embed_dim,
        "depth": found.depth,
        "class_token": fixed.class_token,
        "drop_block_rate": 0.0,
    }
    for name in ("num_heads", "mlp_ratio"):
        values = {getattr(layer, name) for layer in found.layers}
        has[name] = values.pop() if len(values) == 1 else ...
    if unused := {name: value for name, value in others.items() if (REFUSED | has).get(name, ...) != value}:
        given = ", ".join(f"{name}={value!r}" for name, value in sorted(unused.items()))
        raise TypeError(f"nas_vit cannot take {given}: it is defined by architecture and backbone")
    subnet = Subnet(fixed, found, drop_path=drop_path_rate, global_pool=global_pool, **taken)
    subnet.init_weights()
    subnet.set_input_size(img_size, patch_size)
    return subnet.to(device=device, dtype=dtype)


def _adapted(weights: Mapping[str, Tensor], model: Subnet) -> dict[str, Tensor]:
    """A bundle's weights for a model with another image size, patch size or place of the last norm."""
    found = dict(weights)
    ours, theirs = ("fc_norm", "norm") if isinstance(model.norm, nn.Identity) else ("norm", "fc_norm")
    for part in ("weight", "bias"):
        if f"{theirs}.{part}" in found:
            found[f"{ours}.{part}"] = found.pop(f"{theirs}.{part}")
    patch, wanted = found.get("patch_embed.proj.weight"), model.patch_embed.grid_size
    tokens = found["pos_embed"].shape[1] - model.num_prefix_tokens if "pos_embed" in found else 0
    cut = torch.empty(1, 1, *model.patch_embed.patch_size, device="meta") if patch is None else patch
    held = get_pretrained_grid_size(model, cut, tokens) or (wanted if math.prod(wanted) == tokens else None)
    if held is None and not tokens and model.pos_embed is None:  # only the folder says what the weights are for
        said, config = getattr(model, "pretrained_model_args", {}), cast("dict[str, Any]", model.pretrained_cfg)
        size = said.get("img_size") or config["input_size"][-2:]
        rows, columns = (size, size) if isinstance(size, int) else size
        held = (rows // cut.shape[-2], columns // cut.shape[-1])
    if held is None and math.isqrt(tokens) ** 2 == tokens:
        held = (math.isqrt(tokens),) * 2
    if held is not None and held != wanted:
        found |= dict(resized_weights(found, model.architecture, model.backbone, held, wanted))
    if patch is not None and patch.shape[-2:] != model.patch_embed.proj.weight.shape[-2:]:
        size = list(model.patch_embed.proj.weight.shape[-2:])
        found["patch_embed.proj.weight"] = resample_patch_embed(patch, size)
    return found


def _check_size(folder: Any, architecture: Architecture, backbone: Backbone) -> None:
    """Refuse a folder whose config.json is of a larger network than its weights, before memory is taken for it.

    Raises:
        ConfigError: Says both sizes.
    """
    there = max((path.stat().st_size for path in Path(folder).iterdir() if path.is_file()), default=0)
    if there < (needed := cost.params(architecture, backbone)):  # a byte each, though floats have two at least
        raise ConfigError(
            f"{folder}: its config.json is of {needed:,} parameters, its weights have {there:,} bytes",
            hint="a folder that timm or `export` wrote",
        )


@register_model  # type: ignore[untyped-decorator]
def nas_vit(pretrained: bool = False, **kwargs: Any) -> Subnet:
    """A searched Vision Transformer; `architecture` and `backbone` come from the bundle's config.json.

    It takes the arguments of timm's own ViT that do not say what the network is: classes, channels, pooling, dropout,
    `img_size` and `dynamic_img_size` among them.

    With `features_only=True` it returns a list of feature maps [B, D, H, W], one a layer of `out_indices`; by default
    of every layer whose tokens lie on a square grid. Of a pyramid they are the ends of its stages, as timm's pyramids
    count them. `out_strides` resamples them, one number of pixels for each; without it, strides that are no powers of
    two are warned of. Without position embeddings images may have any size, unless `dynamic_img_size` is false.

    Raises:
        TypeError: `architecture` or `backbone` is missing, or an argument would change the network.
        ArchitectureError: An argument has a value that this network cannot have.
        ConfigError: The folder that it comes from holds weights of a smaller network.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    for name in ("architecture", "backbone"):
        if not isinstance(kwargs.get(name), Mapping):
            raise TypeError(f"nas_vit needs {name}=..., a mapping; load an exported model with local-dir:DIR")
    # timm would fill these in from its default configuration: 1000 classes, 224 pixels.
    fixed, found = Backbone(**kwargs["backbone"]), Architecture.from_dict(kwargs["architecture"])
    source = kwargs.get("pretrained_cfg") or {}
    if isinstance(source, Mapping) and source.get("source") == "local-dir":
        _check_size(source["file"], found, fixed)
    kwargs = {"num_classes": fixed.num_classes, "in_chans": fixed.in_chans, "img_size": fixed.image_size} | kwargs
    if kwargs.get("feature_cls", "getter") not in ("getter", "fx"):
        raise TypeError(f"nas_vit cannot take feature_cls={kwargs['feature_cls']!r}: take getter or fx")
    if fixed.positions == "none" and kwargs.get("feature_cls") != "fx":  # whose graphs know no sizes
        kwargs.setdefault("dynamic_img_size", True)
    features: dict[str, Any] = {"feature_cls": "getter"}
    if kwargs.get("features_only"):
        ends = stage_ends(found)
        features["out_indices"] = ends or layers_on_grid(found, fixed)
        if ends and "out_indices" in kwargs:
            kwargs["out_indices"] = [ends[i] for i in chosen_layers(kwargs["out_indices"], len(ends))]
        if "out_strides" in kwargs:
            if kwargs.pop("feature_cls", "getter") != "getter":
                raise TypeError("nas_vit cannot take out_strides with feature_cls='fx'")
            features |= {"feature_cls": StridedFeatures, "out_strides": kwargs.pop("out_strides")}
    built = build_model_with_cfg(
        _create, "nas_vit", pretrained, feature_cfg=features, pretrained_filter_fn=_adapted, **kwargs
    )
    if kwargs.get("features_only") and "out_strides" not in features:
        warn_of_strides(built.feature_info.out_indices, built.feature_info.reduction())
    return cast(Subnet, built)
