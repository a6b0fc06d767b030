"""Weights of ViTs that others wrote, under timm's names: prefixes, tables of names, and what is the same network."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

QKV = ("q", "k", "v")
PREFIXES = (
    "module.", "_orig_mod.", "model.", "teacher.", "student.", "backbone.", "encoder_q.", "vision_encoder.",
    "visual.trunk.", "vit.", "deit.", "vision_model.",
)  # fmt: skip
"""Before every name: of wrappers (DataParallel, torch.compile, DINO) and of whole models around the ViT."""


class Table(NamedTuple):
    """How another library names its ViT: known by the end of one name, then (pattern, timm's name) in turn."""

    mark: str
    names: tuple[tuple[str, str], ...]


TABLES = (
    Table(  # transformers: ViTModel, ViTForImageClassification, DeiTModel, Dinov2Model, Dinov2WithRegisters
        "attention.attention.query.weight",
        (
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^embeddings\.cls_token$", "cls_token"),
            (r"^embeddings\.register_tokens$", "reg_token"),
            (r"^embeddings\.distillation_token$", "dist_token"),
            (r"^embeddings\.mask_token$", "mask_token"),
            (r"^encoder\.layer\.", "blocks."),
            (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"\.(layernorm_before)\.", ".norm1."),
            (r"\.(layernorm_after)\.", ".norm2."),
            (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
            (r"^layernorm\.", "norm."),
            (r"^(cls_)?classifier\.", "head."),
            (r"^distillation_classifier\.", "head_dist."),
        ),
    ),
    Table(  # torchvision
        "self_attention.in_proj_weight",
        (
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.layers\.encoder_layer_", "blocks."),
            (r"^encoder\.ln\.", "norm."),
            (r"\.ln_(\d)\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.linear_(\d)\.", r".mlp.fc\1."),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.3\.", ".mlp.fc2."),
            (r"^heads\.head\.", "head."),
        ),
    ),
    Table(  # OpenAI's CLIP and OpenCLIP
        "visual.class_embedding",
        (
            (r"^visual\.", ""),
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^conv1\.", "patch_embed.proj."),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"\.ln_(\d)\.", r".norm\1."),
            (r"\.attn\.in_proj_", ".attn.qkv."),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        ),
    ),
)
OWN = ((r"^register_tokens$", "reg_token"), (r"\.gamma_(\d)$", r".ls\1.gamma"))  # DINOv2's and DeiT III's own files
IGNORED = re.compile(
    r"mask_token|decoder_.*|decoder\..*|pooler\..*|attn_pool\..*|head_dist\..*|pre_logits\..*|dino_head\..*|"
    r"ibot_head\..*|(head|projection_head)\.(mlp|last_layer)\..*|logit_scale|logit_bias"
)
"""Parts that no image is classified through here: of pre-training, and second heads."""


def timm_names(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by timm's names, without what is not the ViT; other names stay as they are.

    Queries, keys and values become one matrix, parallel layers one, a distillation token a register; where the head
    reads an attention pooling, it is left out too.
    """
    weights = _without_prefixes(given)
    for mark, names in TABLES:
        if any(name.endswith(mark) for name in weights):
            if mark == "visual.class_embedding":  # of a model of images and texts
                weights = {name: value for name, value in weights.items() if name.startswith("visual.")}
                if (projection := weights.get("visual.proj")) is not None and projection.ndim == 2:
                    del weights["visual.proj"]
                    weights["head.weight"] = projection.T
                    weights["head.bias"] = projection.new_zeros(projection.shape[-1])
                for name in ("visual.class_embedding", "visual.positional_embedding"):
                    if name in weights:
                        weights[name] = weights[name][(None,) * max(3 - weights[name].ndim, 0)]
            weights = {_renamed(name, names): value for name, value in weights.items()}
    weights = {_renamed(name, OWN): value for name, value in weights.items()}
    pooled = any(name.startswith("attn_pool.") for name in weights)
    weights = {
        name: value
        for name, value in weights.items()
        if not IGNORED.fullmatch(name) and not (pooled and name.startswith("head."))
    }
    if "dist_token" in weights and "reg_token" not in weights:
        weights["reg_token"] = weights.pop("dist_token")
    return _merged(weights)


def _without_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what stands before the names of the ViT; of several networks (DINO's two heads), only the ViT's own."""
    found = dict(weights)
    while not any(name == "pos_embed" or name.startswith("blocks.") for name in found):
        prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in found)), None)
        if prefix is None:
            break
        outside = {name: value for name, value in found.items() if not name.startswith(prefix)}
        found = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        found |= {
            name: value for name, value in outside.items() if re.match(r"(cls_|distillation_)?classifier\.", name)
        }
    return found


def _renamed(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in names:
        name = re.sub(pattern, new, name)
    return name


def _merged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """One `attn.qkv` of three matrices, and one layer of those that run in parallel on the same tokens."""
    for name in [name for name in weights if re.fullmatch(r"blocks\.\d+\.attn\.q\.(weight|bias)", name)]:
        thirds = [name.replace(".attn.q.", f".attn.{part}.") for part in QKV]
        shapes = {weights[third].shape if third in weights else None for third in thirds}
        kinds = {weights[third].layout for third in thirds if third in weights}
        if len(shapes) == 1 and shapes != {torch.Size()} and kinds == {torch.strided}:
            weights[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([weights.pop(third) for third in thirds])
    for block in sorted({found[1] for name in weights if (found := re.match(r"(blocks\.\d+)\.attns\.\d+\.", name))}):
        own = {name.removeprefix(f"{block}."): value for name, value in weights.items() if name.startswith(f"{block}.")}
        try:
            one = _one_layer(own)
        except (KeyError, RuntimeError, IndexError):  # a part is missing or of another shape: its name will be said
            continue
        weights = {name: value for name, value in weights.items() if not name.startswith(f"{block}.")}
        weights |= {f"{block}.{name}": value for name, value in one.items()}
    return weights


def _one_layer(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer with the heads and hidden neurons of all parallel ones, whose norms' weights go into what reads them."""
    found: dict[str, Tensor] = {}
    for kind, norm, first, last in (
        ("attns", "norm1", "attn.qkv", "attn.proj"),
        ("ffns", "norm2", "mlp.fc1", "mlp.fc2"),
    ):
        ins, in_biases, outs, out_biases = [], [], [], []
        for j in sorted({int(name.split(".")[1]) for name in own if name.startswith(f"{kind}.")}):
            at = f"{kind}.{j}"
            weight, bias = own[f"{at}.{first}.weight"], own[f"{at}.{first}.bias"]
            ins.append(weight * own[f"{at}.norm.weight"])
            in_biases.append(bias + weight @ own[f"{at}.norm.bias"])
            scale = own.get(f"{at}.ls.gamma", torch.ones_like(own[f"{at}.{last}.bias"]))
            outs.append(scale[:, None] * own[f"{at}.{last}.weight"])
            out_biases.append(scale * own[f"{at}.{last}.bias"])
        parts = 3 if kind == "attns" else 1  # all queries, then all keys, then all values
        found[f"{norm}.weight"] = torch.ones_like(out_biases[0])
        found[f"{norm}.bias"] = torch.zeros_like(out_biases[0])
        found[f"{first}.weight"] = torch.cat([torch.unflatten(w, 0, (parts, -1)) for w in ins], dim=1).flatten(0, 1)
        found[f"{first}.bias"] = torch.cat([torch.unflatten(b, 0, (parts, -1)) for b in in_biases], dim=1).flatten(0, 1)
        found[f"{last}.weight"] = torch.cat(outs, dim=1)
        found[f"{last}.bias"] = torch.stack(out_biases).sum(dim=0)
    return found
