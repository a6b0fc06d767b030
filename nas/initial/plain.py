"""Which weights are those of a plain ViT: names, kinds, shapes and values; one message says all that is wrong."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nas.arch import Backbone
from nas.base import ConfigError
from nas.initial.kind import facts_of_names, settings_for
from nas.initial.names import timm_names

Weights = Mapping[str, Tensor]
"""State dict of a plain timm ViT."""
LAYER_PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
SCALES = {"ls1": "attn.proj", "ls2": "mlp.fc2"}
LAYER = re.compile(r"blocks\.(0|[1-9]\d{0,2})\.\w.*")
DEFINING = ("attn.qkv.weight", "mlp.fc1.weight", "head.weight")  # of two that differ, these are right
LISTED = 5  # names of a kind that a message repeats


def depth_of(weights: Weights) -> int:
    """How many layers the weights are of."""
    return 1 + max((int(found[1]) for name in weights if (found := LAYER.fullmatch(name))), default=-1)


def plain_weights(
    spec: str, given: Mapping[object, object], backbone: Backbone, *, quick_gelu: bool = False
) -> dict[str, Tensor]:
    """The weights in float32 under the names of a plain ViT of the backbone's kind, all of them and no others.

    What is the same network in other weights becomes that: LayerScale goes into the projections, and so does the
    factor of `quick_gelu`, so that silu is left; what has no bias gets a zero one, and so do tokens without a position.
    `spec` is what the user calls them.

    Raises:
        ConfigError: They are not; says all that is wrong, and what the space has to set where that is enough.
    """
    strange = [str(name) for name, value in given.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise ConfigError(
            f"--init {spec}: not a state dict: {_listed(strange)} are no tensors",
            hint="save model.state_dict(), or the same under the key model or state_dict",
        )
    weights = timm_names({str(name): value.detach() for name, value in given.items() if isinstance(value, Tensor)})
    depth = depth_of(weights)
    weights |= _zero_biases(weights, depth)
    expected = _names(depth, backbone, convolves=any(".dwconv." in name for name in weights))
    scales = {f"blocks.{i}.{scale}.gamma" for i in range(depth) for scale in SCALES}
    unknown = [name for name in weights if name not in expected and name not in scales]
    missing = sorted(expected - set(weights) - ({"head.weight", "head.bias"} - set(_partner(weights))))
    wrong = [f"{word} {_listed(names)}" for word, names in (("has", unknown), ("lacks", missing)) if names]
    problems = [" and ".join(wrong)] if wrong else [] if depth else ["has no layers"]
    known = {name: value for name, value in weights.items() if name in expected or name in scales}
    problems += _kinds(known) or _shapes(known, backbone) or _values(known)
    if problems:
        kind = "with" if backbone.class_token else "without"
        keys = settings_for(backbone, facts_of_names(weights, backbone))
        raise ConfigError(
            f"--init {spec}: not a plain ViT {kind} class token: {'; '.join(problems)}",
            hint=f"the space has to say of its backbone what the weights are: --set {' --set '.join(keys)}"
            if keys
            else "backbone.class_token, reg_tokens, positions, norm_pre and final_norm say which kind it must be; "
            "norms within attention, rotary positions and gates have no place in the searched networks",
        )
    return _rewritten({name: value.float() for name, value in weights.items()}, depth, backbone, quick_gelu)


def _zero_biases(weights: Weights, depth: int) -> dict[str, Tensor]:
    """Of the attention of models that have none at all, and of patches before a norm."""
    found = {}
    modules = [f"blocks.{i}.attn.qkv" for i in range(depth)]
    if any(f"{module}.bias" in weights for module in modules):
        modules = []
    modules += ["patch_embed.proj"] * ("norm_pre.weight" in weights)
    for module in modules:
        weight = weights.get(f"{module}.weight")
        if weight is not None and weight.ndim and weight.is_floating_point() and f"{module}.bias" not in weights:
            found[f"{module}.bias"] = weight.new_zeros(len(weight))
    return found


def _last_norm(backbone: Backbone) -> str:
    return {"before": "norm", "after": "fc_norm", "none": "blocks.0.norm1"}[backbone.norm_place]


def _names(depth: int, backbone: Backbone, *, convolves: bool) -> set[str]:
    modules = ["patch_embed.proj", "head"] + ["norm_pre"] * backbone.norm_pre
    modules += [_last_norm(backbone)] * (backbone.norm_place != "none")
    modules += [f"blocks.{i}.{part}" for i in range(depth) for part in LAYER_PARTS]
    modules += [f"blocks.{i}.mlp.dwconv" for i in range(depth) if convolves]
    names = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    tokens = {"cls_token": backbone.class_token, "reg_token": backbone.reg_tokens}
    tokens["pos_embed"] = backbone.positions == "learned"
    return names | {name for name, there in tokens.items() if there}


def _partner(weights: Weights) -> Iterator[str]:
    """What a half classifier lacks."""
    for one, other in (("weight", "bias"), ("bias", "weight")):
        if f"head.{one}" in weights:
            yield f"head.{other}"


def _kinds(weights: Weights) -> list[str]:
    """Weights that are no floating-point numbers one after the other."""
    strange = [
        f"{name} ({str(value.dtype).removeprefix('torch.')}{'' if value.layout == torch.strided else ', sparse'})"
        for name, value in weights.items()
        if not value.is_floating_point() or value.layout != torch.strided or value.is_quantized
    ]
    return [f"{_listed(strange)} {'is' if len(strange) == 1 else 'are'} not of floating point"] if strange else []


def _shapes(weights: Weights, backbone: Backbone) -> list[str]:
    """Shapes that do not belong together.

    D is the width, N patches, A heads times their width, H hidden, K classes, R registers.
    """
    norm = weights.get(f"{_last_norm(backbone)}.weight")
    sizes: dict[str, int] = {"D": norm.shape[0]} if norm is not None and norm.ndim == 1 and len(norm) else {}
    sizes |= {"R": backbone.reg_tokens} if "reg_token" in weights else {}
    wrong, prefix = [], backbone.num_prefix_tokens
    for name in sorted(weights, key=lambda name: (not name.endswith(DEFINING), name)):
        value = weights[name]
        block, part = (found[1], name.split(".", 2)[2]) if (found := LAYER.fullmatch(name)) else ("", name)
        letters, shape = _SHAPES.get(part, "D").split(), tuple(value.shape)
        own = {"A": f"A of block {block}", "H": f"H of block {block}", "3A": f"A of block {block}"}
        fits = len(shape) == len(letters) and all(shape)
        for letter, size in zip(letters, shape, strict=False) if fits else ():
            if letter == "3A":
                fits &= size % 3 == 0 and sizes.setdefault(own[letter], size // 3) == size // 3
            else:
                fits &= size == (int(letter) if letter.isdigit() else sizes.setdefault(own.get(letter, letter), size))
        if fits and part == "pos_embed":
            fits = _prefix_rows(shape[1], backbone) is not None
        if not fits:
            more = {1: ", or one more"}.get(prefix, f", or 1 or {prefix} more") if prefix else ""
            grid = f" with N a square{more}" if part == "pos_embed" else ""
            wrong.append(f"{name} is {list(shape)}, expected [{', '.join(letters)}]{grid}")
    said = f" (where {', '.join(f'{letter} is {size}' for letter, size in sizes.items() if len(letter) == 1)})"
    return [_listed(wrong, "; ") + (said if sizes else "")] if wrong else []


_SHAPES = {
    "pos_embed": "1 N D",
    "cls_token": "1 1 D",
    "reg_token": "1 R D",
    "patch_embed.proj.weight": "D C P P",
    "head.weight": "K D",
    "head.bias": "K",
    "attn.qkv.weight": "3A D",
    "attn.qkv.bias": "3A",
    "attn.proj.weight": "D A",
    "mlp.fc1.weight": "H D",
    "mlp.fc1.bias": "H",
    "mlp.fc2.weight": "D H",
    "mlp.dwconv.weight": "H 1 3 3",
    "mlp.dwconv.bias": "H",
}
"""By the name of a part; all others are [D]."""


def _values(weights: Weights) -> list[str]:
    """Weights with a number that is none, or that float32 cannot hold."""
    strange = [name for name, value in weights.items() if not (value.is_meta or value.float().isfinite().all())]
    return [f"{_listed(strange)} {'holds' if len(strange) == 1 else 'hold'} NaN or infinity"] if strange else []


def _prefix_rows(rows: int, backbone: Backbone) -> int | None:
    """How many of the rows of a position embedding are of tokens before the patches; None where it cannot be."""
    possible = (0, backbone.num_prefix_tokens, int(backbone.class_token))
    return next((n for n in possible if math.isqrt(max(rows - n, 0)) ** 2 == rows - n > 0), None)


def _rewritten(weights: dict[str, Tensor], depth: int, backbone: Backbone, quick_gelu: bool) -> dict[str, Tensor]:
    for i in range(depth):
        if quick_gelu:  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702
            for name, factor in (("fc1.weight", 1.702), ("fc1.bias", 1.702), ("fc2.weight", 1 / 1.702)):
                weights[f"blocks.{i}.mlp.{name}"] = factor * weights[f"blocks.{i}.mlp.{name}"]
        for scale, last in SCALES.items():
            if (gamma := weights.pop(f"blocks.{i}.{scale}.gamma", None)) is not None:
                weights[f"blocks.{i}.{last}.weight"] = gamma[:, None] * weights[f"blocks.{i}.{last}.weight"]
                weights[f"blocks.{i}.{last}.bias"] = gamma * weights[f"blocks.{i}.{last}.bias"]
    if (positions := weights.get("pos_embed")) is None:
        return weights
    there, prefix = _prefix_rows(positions.shape[1], backbone), backbone.num_prefix_tokens
    if there != prefix:
        assert there is not None, "its shape was looked at"
        none = positions.new_zeros(1, prefix - there, positions.shape[2])
        weights["pos_embed"] = torch.cat([positions[:, :there], none, positions[:, there:]], dim=1)
    return weights


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return between.join(name if len(name) < 200 else f"{name[:200]}..." for name in names[:LISTED]) + more
