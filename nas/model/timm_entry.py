"""How timm builds an exported model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from safetensors import SafetensorError
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from nas.arch import Architecture, Backbone
from nas.model.families.features import layers_on_grid
from nas.model.families.vit import Subnet

UNREADABLE = (
    RuntimeError, OSError, ValueError, AssertionError, KeyError, TypeError, AttributeError, EOFError, SafetensorError,
)  # fmt: skip
"""What timm, torch and safetensors raise for names they do not know and files that are not weights."""


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
    "license": "apache-2.0",
}
default_cfgs = generate_default_cfgs({"nas_vit.searched": _DEFAULT_CFG})


def _create(
    architecture: Mapping[str, Any],
    backbone: Mapping[str, Any],
    num_classes: int,
    in_chans: int,
    img_size: int | Sequence[int] | None = None,
    global_pool: str | None = None,
    **unused: Any,
) -> Subnet:
    fixed = Backbone(**backbone)
    fixed = replace(fixed, num_classes=num_classes, in_chans=in_chans or fixed.in_chans)
    # timm passes both for every model of fixed input size; they may only repeat what the backbone says.
    side = fixed.image_size
    if img_size not in (None, side, (side, side), [side, side]):
        unused["img_size"] = img_size
    if global_pool not in (None, "token" if fixed.class_token else "avg"):
        unused["global_pool"] = global_pool
    if unused:
        given = ", ".join(f"{name}={value!r}" for name, value in sorted(unused.items()))
        raise TypeError(f"nas_vit cannot take {given}: it is defined by architecture and backbone")
    subnet = Subnet(fixed, Architecture.from_dict(architecture))
    subnet.init_weights()
    return subnet


@register_model  # type: ignore[untyped-decorator]
def nas_vit(pretrained: bool = False, **kwargs: Any) -> Subnet:
    """A searched Vision Transformer; `architecture` and `backbone` come from the bundle's config.json.

    With `features_only=True` it returns a list of feature maps [B, D, H, W], one a layer of `out_indices`; by default
    of every layer whose tokens lie on a square grid.

    Raises:
        TypeError: `architecture` or `backbone` is missing.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    for name in ("architecture", "backbone"):
        if not isinstance(kwargs.get(name), Mapping):
            raise TypeError(f"nas_vit needs {name}=..., a mapping; load an exported model with local-dir:DIR")
    # timm would fill these in from its default configuration: 1000 classes, 224 pixels.
    fixed = Backbone(**kwargs["backbone"])
    kwargs = {"num_classes": fixed.num_classes, "in_chans": fixed.in_chans, "img_size": fixed.image_size} | kwargs
    features: dict[str, Any] = {"feature_cls": "getter"}
    if kwargs.get("features_only"):
        features["out_indices"] = layers_on_grid(Architecture.from_dict(kwargs["architecture"]), fixed)
    return cast(Subnet, build_model_with_cfg(_create, "nas_vit", pretrained, feature_cfg=features, **kwargs))
