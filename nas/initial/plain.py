"""Which weights are those of a plain ViT: names, kinds, shapes and values; one message says all that is wrong."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nas.base import ConfigError

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


def plain_weights(spec: str, given: Mapping[object, object], class_token: bool) -> dict[str, Tensor]:
    """The weights in float32 under the names of a plain ViT, all of them and no others.

    LayerScale is folded into the projections, and a class token without a position gets a zero one. `spec` is what the
    user calls them.

    Raises:
        ConfigError: They are not; says all that is wrong.
    """
    strange = [str(name) for name, value in given.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise ConfigError(
            f"--init {spec}: not a state dict: {_listed(strange)} are no tensors",
            hint="save model.state_dict(), or the same under the key model or state_dict",
        )
    weights = {str(name): value.detach() for name, value in given.items() if isinstance(value, Tensor)}
    if "dist_token" in weights:
        raise ConfigError(
            f"--init {spec}: it has a distillation token, which no network of this search has",
            hint="use the model without one, such as deit_tiny_patch16_224",
        )
    depth = depth_of(weights)
    expected = _names(depth, class_token)
    scales = {f"blocks.{i}.{scale}.gamma" for i in range(depth) for scale in SCALES}
    unknown = [name for name in weights if name not in expected and name not in scales]
    missing = sorted(expected - set(weights) - ({"head.weight", "head.bias"} - set(_partner(weights))))
    wrong = [f"{word} {_listed(names)}" for word, names in (("has", unknown), ("lacks", missing)) if names]
    problems = [" and ".join(wrong)] if wrong else [] if depth else ["has no layers"]
    known = {name: value for name, value in weights.items() if name in expected or name in scales}
    problems += _kinds(known) or _shapes(known, class_token) or _values(known)
    if problems:
        kind = "with" if class_token else "without"
        raise ConfigError(
            f"--init {spec}: not a plain ViT {kind} class token: {'; '.join(problems)}",
            hint="backbone.class_token says which kind it must be; register tokens, rotary positions and "
            "other extras have no place in the searched networks",
        )
    return _rewritten({name: value.float() for name, value in weights.items()}, depth, class_token)


def _names(depth: int, class_token: bool) -> set[str]:
    modules = ["patch_embed.proj", "norm" if class_token else "fc_norm", "head"]
    modules += [f"blocks.{i}.{part}" for i in range(depth) for part in LAYER_PARTS]
    names = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    return names | {"pos_embed"} | ({"cls_token"} if class_token else set())


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


def _shapes(weights: Weights, class_token: bool) -> list[str]:
    """Shapes that do not belong together: D is the width, N patches, A heads times their width, H hidden, K classes."""
    norm = weights.get("norm.weight" if class_token else "fc_norm.weight")
    sizes: dict[str, int] = {"D": norm.shape[0]} if norm is not None and norm.ndim == 1 and len(norm) else {}
    wrong = []
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
                fits &= size == (1 if letter == "1" else sizes.setdefault(own.get(letter, letter), size))
        if fits and part == "pos_embed":
            fits = any(math.isqrt(n) ** 2 == n > 0 for n in {shape[1], shape[1] - class_token})
        if not fits:
            grid = " with N a square" + (", or one more" if class_token else "") if part == "pos_embed" else ""
            wrong.append(f"{name} is {list(shape)}, expected [{', '.join(letters)}]{grid}")
    said = f" (where {', '.join(f'{letter} is {size}' for letter, size in sizes.items() if len(letter) == 1)})"
    return [_listed(wrong, "; ") + (said if sizes else "")] if wrong else []


_SHAPES = {
    "pos_embed": "1 N D",
    "cls_token": "1 1 D",
    "patch_embed.proj.weight": "D C P P",
    "head.weight": "K D",
    "head.bias": "K",
    "attn.qkv.weight": "3A D",
    "attn.qkv.bias": "3A",
    "attn.proj.weight": "D A",
    "mlp.fc1.weight": "H D",
    "mlp.fc1.bias": "H",
    "mlp.fc2.weight": "D H",
}
"""By the name of a part; all others are [D]."""


def _values(weights: Weights) -> list[str]:
    """Weights with a number that is none, or that float32 cannot hold."""
    strange = [name for name, value in weights.items() if not (value.is_meta or value.float().isfinite().all())]
    return [f"{_listed(strange)} {'holds' if len(strange) == 1 else 'hold'} NaN or infinity"] if strange else []


def _rewritten(weights: dict[str, Tensor], depth: int, class_token: bool) -> dict[str, Tensor]:
    for i in range(depth):
        for scale, last in SCALES.items():
            if (gamma := weights.pop(f"blocks.{i}.{scale}.gamma", None)) is not None:
                weights[f"blocks.{i}.{last}.weight"] = gamma[:, None] * weights[f"blocks.{i}.{last}.weight"]
                weights[f"blocks.{i}.{last}.bias"] = gamma * weights[f"blocks.{i}.{last}.bias"]
    positions = weights["pos_embed"]
    if class_token and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        weights["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return weights


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return between.join(name if len(name) < 200 else f"{name[:200]}..." for name in names[:LISTED]) + more
