"""What kind of ViT weights are of: the options of a backbone that a model, or names of weights, tell."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from timm.layers import GELU, Attention, GELUTanh, Mlp, PatchEmbed, QuickGELU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from nas.arch import Backbone
from nas.model import Subnet

ACTIVATIONS = {nn.GELU: "gelu", GELU: "gelu", GELUTanh: "gelu_tanh", QuickGELU: "silu", nn.SiLU: "silu"}
"""timm's activations by the name of ours; QuickGELU is x sigmoid(1.702 x), and that is silu of other weights."""
BLOCKS = {
    "ParallelScalingBlock": "attention and feed-forward run side by side, so neither sees what the other found",
    "DiffParallelScalingBlock": "attention, of two maps' difference, and feed-forward run side by side",
    "ResPostBlock": "its norms come after attention and feed-forward",
}


def why_not_plain(model: nn.Module) -> list[str]:
    """What a timm model computes that no network of a search can; empty for a plain ViT."""
    if not isinstance(model, VisionTransformer | Subnet):
        rotary = " with rotary positions" if getattr(model, "rope", None) is not None else ""
        return [f"it is timm's {type(model).__name__}{rotary}, not its VisionTransformer"]
    block, found = model.blocks[0], []
    stem = model.patch_embed.proj if isinstance(model.patch_embed, PatchEmbed) else model.patch_embed
    if not isinstance(stem, nn.Conv2d):
        return [f"its patches are not cut from the image but come from convolutions ({type(stem).__name__})"]
    if type(block).__name__ in BLOCKS:
        return [BLOCKS[type(block).__name__]]
    parts = dict(block.named_modules())
    attention, mlp = parts.get("attn", parts.get("attns.0.attn")), parts.get("mlp", parts.get("ffns.0.mlp"))
    if isinstance(model, VisionTransformer) and type(attention) is not Attention:
        found.append(f"its attention is {type(attention).__name__}")
    if isinstance(model, VisionTransformer) and type(mlp) is not Mlp:
        found.append(f"its feed-forward is {type(mlp).__name__}, with gates")
    elif type(activation := getattr(mlp, "act", None)) not in ACTIVATIONS:
        found.append(f"its activation is {type(activation).__name__}")
    inner = ("attn.norm", "attn.q_norm", "attn.k_norm", "mlp.norm")
    if there := [name for name in inner if not isinstance(parts.get(name, nn.Identity()), nn.Identity)]:
        found.append(f"it has norms inside layers ({', '.join(there)})")
    if strange := {type(norm).__name__ for norm in _norms(model) if not isinstance(norm, nn.LayerNorm)}:
        found.append(f"its norms are {', '.join(sorted(strange))}")
    elif len({norm.eps for norm in _norms(model) if isinstance(norm, nn.LayerNorm)}) > 1:
        found.append("its norms have different epsilons")
    return found


def facts_of(model: Any) -> dict[str, Any]:
    """The options of a backbone that a plain timm ViT has."""
    parts = dict(model.blocks[0].named_modules())
    activation = parts["mlp.act" if "mlp.act" in parts else "ffns.0.mlp.act"]
    place = "none" if isinstance(model.fc_norm, nn.Identity) else "after"
    act = ACTIVATIONS[type(activation)]
    return {
        "head_dim": parts["attn" if "attn" in parts else "attns.0.attn"].head_dim,
        "class_token": model.cls_token is not None,
        "reg_tokens": model.num_reg_tokens + isinstance(model, VisionTransformerDistilled),
        "pool": "token" if model.global_pool == "token" else "avg",
        "final_norm": place if isinstance(model.norm, nn.Identity) else "before",
        "norm_pre": not isinstance(model.norm_pre, nn.Identity),
        "positions": "none" if model.pos_embed is None else "learned",
        "norm_eps": next(_norms(model)).eps,
        "act": "gelu_tanh" if getattr(activation, "approximate", "none") == "tanh" else act,
    }


def has_quick_gelu(model: nn.Module) -> bool:
    """Whether its activation is x sigmoid(1.702 x)."""
    return any(isinstance(module, QuickGELU) for module in model.modules())


def left_out(model: Any) -> str:
    """What of a plain timm ViT no network of a search has, in words; empty where that is nothing."""
    if isinstance(model, VisionTransformerDistilled):
        return "its second classifier is left out: the class token alone is classified, and its second token a register"
    if getattr(model, "attn_pool", None) is not None:
        return "its attention pooling and classifier are left out: the mean of the patch tokens is classified"
    return ""


def facts_of_names(weights: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Any]:
    """The options that weights by timm's names tell; what is classified is the backbone's, where it can be."""
    registers, class_token = weights.get("reg_token"), "cls_token" in weights
    return {
        "class_token": class_token,
        "reg_tokens": registers.shape[1] if registers is not None and registers.ndim == 3 else 0,
        "pool": backbone.pooling if class_token else "avg",
        "final_norm": "before" if "norm.weight" in weights else "after" if "fc_norm.weight" in weights else "none",
        "norm_pre": "norm_pre.weight" in weights,
        "positions": "learned" if "pos_embed" in weights else "none",
    }


def settings_for(backbone: Backbone, facts: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` of the options that a space has to set so that its backbone is of that kind."""
    wanted = replace(backbone, **({"pool": "", "final_norm": ""} | dict(facts)))
    values = dict(facts) | {"pool": wanted.pooling, "final_norm": wanted.norm_place}
    return [
        f"backbone.{name}={str(value).lower()}"
        for name, value in values.items()
        if getattr(wanted, name) != getattr(backbone, name)
    ]


def _norms(model: nn.Module) -> Any:
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        named = last in ("norm", "fc_norm", "norm1", "norm2", "norm_pre") and not name.startswith("attn_pool")
        if named and not isinstance(module, nn.Identity):
            yield module
