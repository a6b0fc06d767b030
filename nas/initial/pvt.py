"""A trained PVT v2 as the plain ViT with components that it is: other names, and stages one after the other."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nas.arch import Architecture, Backbone, LayerChoice
from nas.base import ConfigError
from nas.initial.kind import settings_for
from nas.model import Subnet

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)")
_KNOWN = re.compile(
    r"(patch_embed\.(proj|norm)|head|stages\.\d+\.(norm|downsample\.(proj|norm))"
    r"|stages\.\d+\.blocks\.\d+\.(norm1|norm2|attn\.(q|kv|sr|norm|proj)|mlp\.(fc1|dwconv|fc2)))\.(weight|bias)"
)
_IN_BLOCK = re.compile(r"(stages\.\d+\.blocks\.\d+)\..*")
_PARTS = ("norm1", "attn.q", "attn.kv", "attn.proj", "norm2", "mlp.fc1", "mlp.dwconv", "mlp.fc2")
_STAGE = re.compile(r"stages\.(\d+)\.(norm|downsample\.proj|downsample\.norm)\.(weight|bias)")
_KEYS = re.compile(r"\battn\.keys_\d+\.")
_REDUCER = {"norm": "embed_before", "downsample.proj": "embed", "downsample.norm": "embed_after"}


def is_pvt(weights: Mapping[Any, Any]) -> bool:
    """Whether weights have timm's names of a PVT v2."""
    return any(isinstance(name, str) and _BLOCK.fullmatch(name) for name in weights) and (
        "patch_embed.norm.weight" in weights
    )


def is_pyramid(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are those of `from_pvt`."""
    return any(".reducer." in name for name in weights)


def pvt_weights(spec: str, given: Mapping[Any, Any], backbone: Backbone) -> dict[str, Tensor]:
    """The weights of a trained PVT v2 for a supernet's store (`from_pvt`), where its backbone is of that kind.

    Raises:
        ConfigError: It is not; says which keys to set. Or the weights are not those of a PVT v2 alone.
    """
    if lacking := _lacking(given):
        raise ConfigError(
            f"--init {spec}: no PVT v2 that a search knows: {lacking}",
            hint="timm's pvt_v2_b0 to pvt_v2_b5; pvt_v2_b2_li pools its keys, which no network of a search does",
        )
    if keys := settings_for(backbone, pvt_facts(given, backbone)):
        raise ConfigError(
            f"--init {spec}: the backbone of the search space is of another kind", hint=f"--set {' --set '.join(keys)}"
        )
    return from_pvt(given)


def _lacking(weights: Mapping[Any, Any]) -> str:
    """What is wrong with the names; empty for a PVT v2 whose keys are reduced by convolutions."""
    if strange := [name for name in weights if not (isinstance(name, str) and _KNOWN.fullmatch(name))]:
        return f"it has {', '.join(map(str, strange[:3]))}"
    blocks = {found[1] for name in weights if (found := _IN_BLOCK.fullmatch(name))}
    stages = {block.split(".")[1] for block in blocks}
    needed = {"patch_embed.proj", "patch_embed.norm", *(f"stages.{stage}.norm" for stage in stages)}
    needed |= {f"stages.{stage}.downsample.{part}" for stage in stages - {"0"} for part in ("proj", "norm")}
    needed |= {f"{block}.{part}" for block in blocks for part in _PARTS}
    names = {f"{module}.{kind}" for module in needed for kind in ("weight", "bias")}
    if missing := sorted(names - set(weights)):
        return f"it lacks {', '.join(missing[:3])}"
    numbers = [name for name, value in weights.items() if isinstance(value, Tensor) and value.is_floating_point()]
    if strange := sorted(
        set(weights) - {name for name in numbers if weights[name].is_meta or weights[name].isfinite().all()}
    ):
        return f"{', '.join(strange[:3])} are no numbers"
    reduced = [block for block in sorted(blocks) if f"{block}.attn.sr.weight" in weights]
    if pooled := [block for block in reduced if weights[f"{block}.attn.sr.weight"].shape[-1] == 1]:
        return f"keys of {pooled[0]} are pooled"
    return ""


def pvt_facts(weights: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Any]:
    """The options of a backbone that the weights of a PVT v2 need.

    The width of its heads is not told by them: all of timm's have one head in the first stage.
    """
    patch = (weights["patch_embed.proj.weight"].shape[-1] + 1) // 2
    reductions = [weight.shape[-1] for name, weight in weights.items() if name.endswith("attn.sr.weight")]
    side = backbone.image_size // patch // max(reductions, default=1)
    return {
        "patch_size": patch,
        "head_dim": len(weights["patch_embed.proj.weight"]),
        "class_token": False,
        "reg_tokens": 0,
        "pool": "avg",
        "final_norm": "before",
        "norm_pre": False,
        "positions": "none",
        "norm_eps": 1e-6,
        "act": "gelu",
        "key_tokens": side**2 if reductions else 0,
    }


def from_pvt(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a PVT v2 in float32 by the names of a supernet's store, layer after layer.

    The end of a stage and the embedding of the next are the reducer of the layer behind; queries, keys and values are
    one matrix; what reduces keys has the side of its squares in its name.
    """
    depths: dict[int, int] = {}
    for name in weights:
        if found := _BLOCK.fullmatch(name):
            depths[int(found[1])] = max(depths.get(int(found[1]), 0), int(found[2]) + 1)
    first = {stage: sum(depths[before] for before in depths if before < stage) for stage in depths}
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if found := _BLOCK.fullmatch(name):
            renamed[f"blocks.{first[int(found[1])] + int(found[2])}.{found[3]}"] = value.float()
        elif found := _STAGE.fullmatch(name):
            stage = int(found[1]) + (found[2] == "norm")
            part = f"blocks.{first[stage]}.reducer.{_REDUCER[found[2]]}" if stage in first else "norm"
            renamed[f"{part}.{found[3]}"] = value.float()
        else:
            renamed[name.replace("patch_embed.proj.", "patch_embed.proj.overlap.")] = value.float()
    for i in range(sum(depths.values())):
        attention = f"blocks.{i}.attn"
        for kind in ("weight", "bias"):
            parts = [renamed.pop(f"{attention}.{part}.{kind}") for part in ("q", "kv")]
            renamed[f"{attention}.qkv.{kind}"] = torch.cat(parts)
        if (kernel := renamed.get(f"{attention}.sr.weight")) is not None:
            for part, own in (("sr", "conv"), ("norm", "norm")):
                for kind in ("weight", "bias"):
                    keys = f"{attention}.keys_{kernel.shape[-1]}.{own}.{kind}"
                    renamed[keys] = renamed.pop(f"{attention}.{part}.{kind}")
    return renamed


def pvt_subnet(weights: Mapping[str, Tensor], backbone: Backbone) -> Subnet:
    """The network that weights of `from_pvt` are, for evaluation; they are not copied."""
    side, layers, width = backbone.image_size // backbone.patch_size, list[LayerChoice](), 0
    while f"blocks.{len(layers)}.norm1.weight" in weights:
        prefix = f"blocks.{len(layers)}."
        before, width = width, len(weights[f"{prefix}norm1.weight"])
        reducer = "embed" if f"{prefix}reducer.embed.weight" in weights else None
        side = -(-side // 2) if reducer else side
        layers.append(
            LayerChoice(
                num_tokens=side**2,
                reducer=reducer,
                embed_dim=width if reducer and width != before else 0,
                num_heads=width // backbone.head_dim,
                mlp_ratio=len(weights[f"{prefix}mlp.fc1.weight"]) / width,
                ffn_conv=True,
            )
        )
    first, classes = len(weights["patch_embed.norm.weight"]), len(weights.get("head.weight", ()))
    architecture = Architecture(embed_dim=first, stem="overlap", layers=tuple(layers))
    with torch.device("meta"):
        subnet = Subnet(replace(backbone, num_classes=classes), architecture)
    own = {_KEYS.sub("attn.keys.", name): value for name, value in weights.items()}
    subnet.load_state_dict(own, assign=True)
    return subnet.eval()
