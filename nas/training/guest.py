"""A model of timm in the place of a supernet of one network, so that the same trainer trains it."""

import copy
import difflib
import re
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.arch import Architecture, Backbone
from nas.base import ConfigError, one_line
from nas.data import DataInfo
from nas.model import UNREADABLE, Guidance, check_finite, pretrained_model
from nas.space import LayerDomain, SearchSpace
from nas.training.schedule import FULL_RATE_WIDTH

PREFIX = "timm:"
NEAREST = 3  # names that are proposed


class Guest(nn.Module):
    """A classification model of timm, by its name, for images of a backbone and their classes.

    `timm:NAME` has random weights, by torch's generator with this seed; `timm:NAME.TAG` those that timm has under the
    tag, with a new classifier, and sees images normalised as they were trained. `space` is what a trainer asks of a
    supernet's: it holds one plain network, which stands for the model. Its width decides the learning rate: that of a
    transformer; others learn best at the full rate, however many channels they have (results/LOG.md).

    Raises:
        ConfigError: timm has no such model or cannot get its weights, or it cannot take images of this size.
    """

    def __init__(self, spec: str, backbone: Backbone, info: DataInfo, *, seed: int = 0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = _created(spec, backbone, drop_path)
        self.is_pretrained = has_weights(spec)
        scale, shift = torch.ones(backbone.in_chans), torch.zeros(backbone.in_chans)
        config = self.model.pretrained_cfg
        if self.is_pretrained and len(config["mean"]) == backbone.in_chans == len(info.mean):
            # pixels = x * std + mean; what it was trained on = (pixels - own mean) / own std
            own_mean, own_std = torch.tensor(config["mean"]), torch.tensor(config["std"])
            scale, shift = torch.tensor(info.std) / own_std, (torch.tensor(info.mean) - own_mean) / own_std
        self.scale = nn.Buffer(scale.view(1, -1, 1, 1), persistent=False)
        self.shift = nn.Buffer(shift.view(1, -1, 1, 1), persistent=False)
        self.space = _stand_in(spec, backbone, getattr(self.model, "embed_dim", None))
        _check_runs(self, backbone)

    def forward(
        self,
        images: Tensor,
        architecture: Architecture | None = None,  # noqa: ARG002 - there is one
        *,
        drop_path: float = 0.0,  # noqa: ARG002 - the model was made with it
        guidance: Guidance | None = None,  # noqa: ARG002 - for static maps
    ) -> Tensor:
        """Logits [B, K] of normalised images [B, C, S, S]; takes what a supernet takes."""
        logits: Tensor = self.model(images * self.scale + self.shift)
        return logits

    def no_weight_decay(self) -> set[str]:
        """Parameters that the optimiser does not decay (timm's interface)."""
        named: set[str] = getattr(self.model, "no_weight_decay", set)()
        return {f"model.{name}" for name in named}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which layer a parameter belongs to (timm's interface)."""
        found: dict[str, Any] = self.model.group_matcher(coarse=coarse)
        return _behind_a_prefix(found)  # type: ignore[no-any-return]

    def macs(self) -> int:
        """Multiply-accumulates of one image, as torch counts them."""
        backbone = self.space.backbone
        # On `meta`, because torch 2.13 and earlier count fused attention on a CPU as 0.
        module = copy.deepcopy(self).to("meta").eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.empty(1, backbone.in_chans, backbone.image_size, backbone.image_size, device="meta"))
        return int(counter.get_total_flops()) // 2

    def params(self) -> int:
        """Parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def has_weights(spec: str) -> bool:
    """Whether `timm:NAME` has a tag: the name of trained weights, without which they are random."""
    return "." in spec


def _created(spec: str, backbone: Backbone, drop_path: float) -> Any:
    name = spec.removeprefix(PREFIX)
    if not timm.is_model(name) or (has_weights(spec) and name not in timm.list_pretrained()):
        known = timm.list_pretrained(f"{name.partition('.')[0]}.*") if has_weights(spec) else timm.list_models()
        near = difflib.get_close_matches(name, known, n=NEAREST, cutoff=0.5)
        kind = "trained weights" if timm.is_model(name) else "model"
        raise ConfigError(
            f"--baseline {spec}: timm {timm.__version__} has no such {kind}",
            hint=f"near: {', '.join(PREFIX + one for one in near)}" if near else "timm.list_models() has them all",
        )
    options: dict[str, Any] = {"num_classes": backbone.num_classes, "in_chans": backbone.in_chans}
    if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        options["img_size"] = backbone.image_size
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        model = pretrained_model(name, **options) if has_weights(spec) else timm.create_model(name, **options)
        check_finite(model.state_dict(), f"--baseline {spec}")
    except UNREADABLE as error:
        if isinstance(error, OSError):
            hint = f"{PREFIX}{name.partition('.')[0]}, without a tag, starts from random weights"
        else:
            hint = "another model, or a space of another image_size"
        if drop_path and "drop_path_rate" in str(error):
            hint = "it has no stochastic depth: --set train.drop_path=0, or another model"
        raise ConfigError(f"--baseline {spec}: {_reason(error)}", hint=hint) from error
    return model


def _check_runs(guest: Guest, backbone: Backbone) -> None:
    """Run it on two images; a ConfigError: it cannot take them, or does not classify."""
    size, wanted = backbone.image_size, (2, backbone.num_classes)
    try:
        with torch.inference_mode():
            found = guest.eval()(torch.zeros(2, backbone.in_chans, size, size))
    except (*UNREADABLE, NotImplementedError) as error:
        reason = f"it cannot take images of {size} pixels: {_reason(error)}"
    else:
        if isinstance(found, Tensor) and found.shape == wanted:
            return
        reason = f"it gives no {wanted[1]} logits an image"
    raise ConfigError(f"--baseline {guest.spec}: {reason}", hint="another model, or a space of another image_size")


def _stand_in(spec: str, backbone: Backbone, embed_dim: Any) -> SearchSpace:
    """A space of one plain network, of the name of the model and as wide as it, where that is one number."""
    width = embed_dim if isinstance(embed_dim, int) else FULL_RATE_WIDTH
    domain = LayerDomain(num_tokens=(backbone.num_patches,), num_heads=(1,))
    return SearchSpace(name=spec, backbone=backbone, embed_dim=(width,), depth=(1,), layers=(domain,))


def _behind_a_prefix(patterns: Any) -> Any:
    """Patterns of names as timm has them, for names that begin with `model.`."""
    if isinstance(patterns, str):
        unanchored = re.sub(r"(?<!\[)\^", "", patterns)
        return rf"model\.(?:{unanchored})"  # timm matches at the beginning, with ^ or without
    if isinstance(patterns, dict):
        return {key: _behind_a_prefix(value) for key, value in patterns.items()}
    if isinstance(patterns, list | tuple):
        return type(patterns)(_behind_a_prefix(value) for value in patterns)
    return patterns


def _reason(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
