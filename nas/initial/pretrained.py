"""Weights of a trained plain ViT: where they come from, and what makes them fit a backbone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor, nn

from nas.arch import Architecture, Backbone, LayerChoice
from nas.base import ConfigError, one_line
from nas.initial.plain import Weights, depth_of, plain_weights
from nas.model import UNREADABLE, Subnet, check_model_folder

KINDS = ("timm", "local-dir", "file")


def initial_weights(spec: str, backbone: Backbone) -> dict[str, Tensor]:
    """Weights of a trained plain ViT, made to fit a backbone: float32 by timm's names.

    `timm:NAME` takes them from timm's registry, `local-dir:DIR` from a folder that timm wrote, and `file:PATH` from a
    state dict (.safetensors, or .pth read without running code in it; one that holds it under `model` or `state_dict`
    will do). LayerScale is folded into the projections, and a class token without a position gets a zero one. Patch and
    position embeddings of other sizes are resampled, input channels adapted. The backbone's `head_dim` cannot be
    compared with a file's, which does not say how many heads there are.

    Raises:
        ConfigError: No such model or file, it cannot be read, or it is not a plain ViT of this `head_dim` with or
            without the class token as the backbone says. Distilled models, which have a second prefix token, are not
            plain: without that token they compute something else.
    """
    kind, _, name = spec.partition(":")
    if kind not in KINDS or not name:
        raise ConfigError(
            f"--init {spec}: not understood", hint="timm:NAME, local-dir:DIR, file:PATH or a run's folder"
        )
    if kind == "file":
        weights = plain_weights(spec, _read_file(spec, name), backbone.class_token)
    else:
        weights = _from_timm(spec, name if kind == "timm" else spec, backbone)
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
    width, patches = weights["pos_embed"].shape[-1], backbone.num_patches
    layers = tuple(
        LayerChoice(
            num_tokens=patches,
            num_heads=len(weights[f"blocks.{i}.attn.qkv.weight"]) // (3 * backbone.head_dim),
            mlp_ratio=len(weights[f"blocks.{i}.mlp.fc1.weight"]) / width,
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
        return dict(found)
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
        plain_weights(spec, skeleton.state_dict(), backbone.class_token)
        head_dim = skeleton.blocks[0].attn.head_dim
        if head_dim != backbone.head_dim:
            raise ConfigError(
                f"--init {spec}: its heads are {head_dim} channels wide, backbone.head_dim is {backbone.head_dim}",
                hint=f"set backbone.head_dim of the search space to {head_dim}",
            )
        model = timm.create_model(name, pretrained=True, in_chans=backbone.in_chans).eval()
    except ConfigError as error:
        if error.message.startswith("--init"):
            raise
        raise ConfigError(f"--init {spec}: {error.message}", hint=error.hint) from error
    except UNREADABLE as error:
        raise ConfigError(
            f"--init {spec}: {_reason(error)}",
            hint="timm.list_models('vit*') names them; without a network, use local-dir:DIR or file:PATH",
        ) from error
    weights = plain_weights(spec, model.state_dict(), backbone.class_token)
    (image_size, _), (patch_size, _) = model.patch_embed.img_size, model.patch_embed.patch_size
    own = plain_subnet(weights, replace(backbone, image_size=image_size, patch_size=patch_size))
    _check_same(spec, model, own)
    return weights


@torch.no_grad()
def _check_same(spec: str, model: nn.Module, subnet: Subnet) -> None:
    """Names do not say which activation, which norm epsilon, or norms before or after."""
    size = subnet.backbone.image_size
    images = torch.randn(2, subnet.backbone.in_chans, size, size, generator=torch.Generator().manual_seed(0))
    theirs, ours = model(images), subnet(images)
    if (theirs - ours).abs().max() > 1e-3 * max(1.0, float(theirs.abs().max())):
        raise ConfigError(
            f"--init {spec}: it has the weights of a plain ViT but computes something else",
            hint="plain: pre-norm layers, GELU, LayerNorm with epsilon 1e-6, no extras",
        )


def _fitted(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Patch and position embeddings for the backbone's input channels, patch size and grid."""
    kernel, side = weights["patch_embed.proj.weight"], backbone.image_size // backbone.patch_size
    kernel = adapt_input_conv(backbone.in_chans, kernel, base_chans=kernel.shape[1])
    return weights | {
        "patch_embed.proj.weight": resample_patch_embed(kernel, [backbone.patch_size] * 2),
        "pos_embed": resample_abs_pos_embed(
            weights["pos_embed"], new_size=[side, side], num_prefix_tokens=backbone.num_prefix_tokens
        ),
    }


def _reason(error: Exception) -> str:
    return one_line(str(error).splitlines()[0]) if str(error).strip() else type(error).__name__
