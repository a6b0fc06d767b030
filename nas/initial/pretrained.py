"""Weights of a trained plain ViT: where they come from, and what makes them fit a backbone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import PyramidVisionTransformerV2, adapt_input_conv, load_state_dict
from torch import Tensor

from nas.arch import Architecture, Backbone, LayerChoice
from nas.base import ConfigError, one_line
from nas.initial.kind import facts_of, has_quick_gelu, left_out, settings_for, why_not_plain
from nas.initial.plain import Weights, depth_of, plain_weights
from nas.initial.pvt import is_pvt, is_pyramid, pvt_weights
from nas.model import UNREADABLE, Subnet, check_model_folder, pretrained_model

KINDS = ("timm", "local-dir", "hf-hub", "file")
NETWORKS = ("teacher", "target_encoder", "encoder", "student", "network")
"""Keys under which files keep one network of several, the best first."""


def initial_weights(spec: str, backbone: Backbone) -> dict[str, Tensor]:
    """Weights of a trained plain ViT, made to fit a backbone: float32 by timm's names.

    `timm:NAME` takes them from timm's registry, `hf-hub:OWNER/NAME` from the hub, `local-dir:DIR` from a folder that
    timm wrote, and `file:PATH` from a state dict (.safetensors, or .pth read without running code in it; one that holds
    it under `model`, `state_dict` or one of `NETWORKS` will do) by timm's names or those of `nas.initial.names`. What
    `plain_weights` can rewrite is rewritten. Patch and position embeddings of other sizes are resampled, input channels
    adapted. What a file does not say is the backbone's (`start_note`).

    Raises:
        ConfigError: No such model or file, it cannot be read, it is no plain ViT, or the backbone is of another kind:
            says which keys to set.
    """
    kind, _, name = spec.partition(":")
    if kind not in KINDS or not name:
        raise ConfigError(
            f"--init {spec}: not understood",
            hint="timm:NAME, hf-hub:OWNER/NAME, local-dir:DIR, file:PATH or a run's folder",
        )
    if kind == "file":
        found = _read_file(spec, name)
        if is_pvt(found):
            return pvt_weights(spec, found, backbone)
        weights = plain_weights(spec, found, backbone)
    else:
        weights = _from_timm(spec, name if kind == "timm" else spec, backbone)
        if is_pyramid(weights):
            return weights
    for i in range(depth_of(weights)):
        rows, width = weights[f"blocks.{i}.attn.qkv.weight"].shape
        if rows % (3 * backbone.head_dim):
            raise ConfigError(
                f"--init {spec}: {rows // 3} channels are not whole heads of {backbone.head_dim}",
                hint=f"set backbone.head_dim of the search space to a divisor of {width}",
            )
    return _fitted(weights, backbone)


def plain_subnet(weights: Weights, backbone: Backbone) -> Subnet:
    """The network that a plain ViT's weights are, for evaluation: dynamic attention everywhere, every size as given.

    The weights are those of `initial_weights`, and not copied; the backbone is theirs but for the number of classes.
    """
    width, patches = len(weights["patch_embed.proj.weight"]), backbone.num_patches
    layers = tuple(
        LayerChoice(
            num_tokens=patches,
            num_heads=len(weights[f"blocks.{i}.attn.qkv.weight"]) // (3 * backbone.head_dim),
            mlp_ratio=len(weights[f"blocks.{i}.mlp.fc1.weight"]) / width,
            ffn_conv=f"blocks.{i}.mlp.dwconv.weight" in weights,
        )
        for i in range(depth_of(weights))
    )
    classes = len(weights["head.weight"]) if "head.weight" in weights else 0
    with torch.device("meta"):
        subnet = Subnet(replace(backbone, num_classes=classes), Architecture(embed_dim=width, layers=layers))
    subnet.load_state_dict(dict(weights), assign=True)
    return subnet.eval()


def _read_file(spec: str, path: str) -> Mapping[object, object]:
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"--init {spec}: it is not a file", hint="file:PATH; a folder is local-dir:DIR, or a run")
    try:
        found: Mapping[object, object] = load_state_dict(path, weights_only=True)
        inner = next((found[key] for key in NETWORKS if isinstance(found.get(key), Mapping)), found)
        return dict(cast("Mapping[object, object]", inner))
    except AttributeError as error:
        text = f"--init {spec}: it holds something else than tensors by name"
        raise ConfigError(
            text, hint="save model.state_dict(), or the same under the key model or state_dict"
        ) from error
    except FileNotFoundError as error:
        raise ConfigError(f"--init {spec}: no such file", hint="file:PATH, relative to the current folder") from error
    except Exception as error:  # torch raises whatever a foreign file makes it stumble over
        raise ConfigError(
            f"--init {spec}: {_reason(error)}", hint="a .safetensors or .pth state dict of a plain timm ViT"
        ) from error


def _from_timm(spec: str, name: str, backbone: Backbone) -> dict[str, Tensor]:
    try:
        if spec.startswith("local-dir:"):
            check_model_folder(Path(name.removeprefix("local-dir:")))
        with torch.device("meta"):  # what it is, before anything is downloaded
            skeleton = timm.create_model(name, pretrained=False, in_chans=backbone.in_chans)
        if isinstance(skeleton, PyramidVisionTransformerV2):
            pvt_weights(spec, skeleton.state_dict(), backbone)
            model = pretrained_model(name, in_chans=backbone.in_chans)
            return pvt_weights(spec, model.state_dict(), backbone)
        if reasons := why_not_plain(skeleton):
            raise ConfigError(
                f"--init {spec}: not a plain ViT: {'; '.join(reasons)}",
                hint="plain ViTs are such as timm:deit_tiny_patch16_224; timm.list_models('vit_*') has more",
            )
        if keys := settings_for(backbone, facts_of(skeleton)):
            raise ConfigError(
                f"--init {spec}: the backbone of the search space is of another kind",
                hint=f"--set {' --set '.join(keys)}",
            )
        plain_weights(spec, skeleton.state_dict(), backbone)
        model = pretrained_model(name, in_chans=backbone.in_chans).eval()
    except ConfigError as error:
        if error.message.startswith("--init"):
            raise
        raise ConfigError(f"--init {spec}: {error.message}", hint=error.hint) from error
    except UNREADABLE as error:
        raise ConfigError(
            f"--init {spec}: {_reason(error)}",
            hint="timm.list_models('vit*') names them; without a network local-dir:DIR or file:PATH, "
            "or random weights (leave `init` out)",
        ) from error
    weights = plain_weights(spec, model.state_dict(), backbone, quick_gelu=has_quick_gelu(model))
    if difference(model, weights, backbone) > 1e-3:
        raise ConfigError(
            f"--init {spec}: it has the weights of a plain ViT but computes something else",
            hint="plain: pre-norm layers, one activation, LayerNorm with one epsilon, no extras",
        )
    return weights


@torch.no_grad()
def difference(model: Any, weights: Weights, backbone: Backbone) -> float:
    """Largest difference between a timm model and its plain weights on two random images.

    Of logits; of the normalised tokens where the model's head is left out (`left_out`); over the greatest one, if above
    1. The names of weights do not say what is computed with them.
    """
    (patch, _), (side, _) = model.patch_embed.patch_size, model.patch_embed.grid_size
    own = plain_subnet(weights, replace(backbone, image_size=side * patch, patch_size=patch))
    size = model.patch_embed.img_size[0]
    images = torch.randn(2, backbone.in_chans, size, size, generator=torch.Generator().manual_seed(0))
    seen = images[..., : side * patch, : side * patch]  # a rest beside the last patch is not
    if left_out(model):
        theirs, ours = model.forward_features(images), own.forward_features(seen)
    else:
        theirs, ours = model(images), own(seen)
    return float((theirs - ours).abs().max() / max(1.0, float(theirs.abs().max())))


def start_note(spec: str, backbone: Backbone) -> str:
    """What is to be known of a start beside where it is from; empty where there is nothing.

    Of a file, what it does not say and the backbone does; of a model, the part that is left out. Asks for no weights.
    """
    kind, _, name = spec.partition(":")
    if kind == "file":
        return (
            f"assumed, as no file says it: heads of {backbone.head_dim} channels, {backbone.act}, epsilon of norms "
            f"{backbone.norm_eps:g}, classified is the {'class token' if backbone.pooling == 'token' else 'average'}"
        )
    if kind not in KINDS:
        return ""
    with torch.device("meta"):
        return left_out(timm.create_model(name if kind == "timm" else spec, pretrained=False))


def _fitted(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Patch and position embeddings for the backbone's input channels, patch size and grid."""
    kernel, side = weights["patch_embed.proj.weight"], backbone.image_size // backbone.patch_size
    kernel = adapt_input_conv(backbone.in_chans, kernel, base_chans=kernel.shape[1])
    fitted = weights | {"patch_embed.proj.weight": resample_patch_embed(kernel, [backbone.patch_size] * 2)}
    if backbone.positions == "learned":
        fitted["pos_embed"] = resample_abs_pos_embed(
            weights["pos_embed"], new_size=[side, side], num_prefix_tokens=backbone.num_prefix_tokens
        )
    return fitted


def _reason(error: Exception) -> str:
    return one_line(str(error).splitlines()[0]) if str(error).strip() else type(error).__name__
