"""Whether the operators of a supernet do anything: numbers from a few of its networks on a few images.

Nothing here draws from a random generator of others, or changes the supernet.

Shape letters: B batch, T tokens, M patch tokens, D channels, H heads, R real heads.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.arch import Architecture, Backbone, LayerChoice
from nas.model.families.vit import Subnet
from nas.model.layers.conv_pool import ConvTokenPool
from nas.model.layers.feed_forward import CompactMlp
from nas.model.layers.glad import GlobalAggregation, average_tokens
from nas.model.layers.hallucination import Hallucinate
from nas.model.layers.linear import LinearAttention
from nas.model.layers.maps import Provided
from nas.model.layers.shared import SharedAttention
from nas.model.layers.static import StaticAttention
from nas.model.supernet import Supernet
from nas.space import DESIGNS, SearchSpace, known_designs

NETWORKS = 3  # at most: a look takes about as long as half a step of training
DRAWS = 256
Found = Iterator[tuple[str, Tensor]]
"""Values of diagnostics by name, each a scalar."""


def watched_networks(space: SearchSpace) -> tuple[Architecture, ...]:
    """A few architectures that between them have each operator of the space in as many layers as possible.

    Each is the one, of 256 drawn ones and the designs of the field, that has most operators which those before it have
    not, and of these the one that has them in most other layers: up to three. The same for the same space; none where
    the space has the plain ViT's operators alone.
    """
    rng = np.random.default_rng(0)
    designs = known_designs(space, DESIGNS)
    found = {a: _operators(a) for a in (*designs.values(), *(space.sample(rng) for _ in range(DRAWS)))}
    chosen: list[Architecture] = []
    seen: set[tuple[int, str]] = set()
    while len(chosen) < NETWORKS:
        kinds = {operator for _, operator in seen}
        best = max(found, key=lambda a: (len({operator for _, operator in found[a]} - kinds), len(found[a] - seen)))
        if found[best] <= seen:
            break
        chosen.append(best)
        seen |= found[best]
    return tuple(chosen)


def _operators(architecture: Architecture) -> set[tuple[int, str]]:
    """Layers, and what they have that a plain ViT's have not."""
    return {(i, operator) for i, layer in enumerate(architecture.layers) for operator in _own(layer)}


def _own(layer: LayerChoice) -> Iterator[str]:
    derives_anew = layer.kind.shares and layer.hallucination is not None  # and takes no maps as they are
    named = ("dynamic" if derives_anew else layer.attention, layer.reducer, layer.hallucination)
    yield from (name for name in named if name not in (None, "dynamic", "pool"))
    if layer.ffn_rank < 1:
        yield "ffn_rank"


class Instruments:
    """Reads the numbers of `nas.arch.DIAGNOSTICS` off a few networks of a supernet, with its weights of the moment."""

    def __init__(self, supernet: Supernet, architectures: Sequence[Architecture]) -> None:
        self.supernet = supernet
        self._watched = [_Watched(supernet.space.backbone, architecture) for architecture in architectures]

    @torch.no_grad()
    def read(self, images: Tensor) -> dict[str, float]:
        """Those numbers that the networks have, each the mean over layers and networks.

        The images are normalised, [B, C, S, S]. What is not finite is left out.
        """
        found: dict[str, list[Tensor]] = {}
        for watched in self._watched:
            for name, value in watched.read(self.supernet, images):
                found.setdefault(name, []).append(value)
        if not found:
            return {}
        means = torch.stack([torch.stack(values).mean() for values in found.values()]).tolist()
        return {name: mean for name, mean in zip(found, means, strict=True) if math.isfinite(mean)}


class _Watched(nn.Module):
    """A network without weights and its plain twin, which lends it dynamic attention and whole feed-forwards."""

    def __init__(self, backbone: Backbone, architecture: Architecture) -> None:
        super().__init__()
        plain: dict[str, Any] = {"attention": "dynamic", "hallucination_ratio": 0.0, "ffn_rank": 1.0}
        layers = tuple(replace(layer, hallucination=None, **plain) for layer in architecture.layers)
        with torch.device("meta"):
            self.subnet = Subnet(backbone, architecture)
            self.twin = Subnet(backbone, replace(architecture, layers=layers))
        self.eval()
        self._seen: list[dict[str, list[Tensor]]] = [{} for _ in architecture.layers]
        blocks: Iterator[tuple[Any, Any]] = zip(self.subnet.blocks, self.twin.blocks, strict=True)
        for (block, twin), seen in zip(blocks, self._seen, strict=True):
            twin.attn.exports_maps = True
            derives = getattr(block.attn, "hallucinate", None)
            for part, other in ((block.reducer, None), (block.attn, twin.attn), (derives, None), (block.mlp, twin.mlp)):
                if part is not None and (look := INSTRUMENTS.get(type(part))) is not None:
                    part.register_forward_hook(partial(_note, seen, look, other))

    def forward(self, images: Tensor) -> None:
        """Run the network, and what is asked of its twin."""
        self.subnet(images)
        for block, seen in zip(self.subnet.blocks, self._seen, strict=True):
            derives = getattr(block.attn, "hallucinate", None)
            if derives is not None and derives.gain is not None:  # such heads need no pass through it
                seen["copy_change"] = [(derives.gain - 1).abs().mean()]

    def read(self, supernet: Supernet, images: Tensor) -> Found:
        """What is seen on the images, a value for each number of each layer."""
        for seen in self._seen:
            seen.clear()
        parts = {"subnet": self.subnet, "twin": self.twin}
        weights = {f"{of}.{name}": w for of, part in parts.items() for name, w in supernet.weights_of(part).items()}
        functional_call(self, weights, (images.to(next(iter(weights.values())).device),))
        for name, chunks in (item for seen in self._seen for item in seen.items()):
            yield name, torch.stack(chunks).double().mean()


def _note(seen: dict[str, list[Tensor]], look: Callable[..., Found], other: nn.Module | None, *of_pass: Any) -> None:
    for name, value in look(other, *of_pass):
        seen.setdefault(name, []).append(value)


def _glad(_: None, module: GlobalAggregation, inputs: tuple[Tensor], output: Tensor) -> Found:
    prefix = module.num_prefix_tokens
    patches = inputs[0][:, prefix:]
    weights_BMP = module.weights(module.norm(patches), module.queries)
    yield "glad_entropy", _evenness(weights_BMP)
    average_BMD = average_tokens(patches, module.num_tokens)
    yield "glad_share", _ratio(output[:, prefix:] - average_BMD, average_BMD)


def _conv_pool(_: None, module: ConvTokenPool, inputs: tuple[Tensor], output: Tensor) -> Found:
    prefix = module.num_prefix_tokens
    average_BMD = average_tokens(inputs[0][:, prefix:], math.prod(module.sides))
    yield "conv_pool_change", _ratio(output[:, prefix:] - average_BMD, average_BMD)


def _static(twin: nn.Module, module: StaticAttention, inputs: tuple[Any, ...], _: Any) -> Found:
    log_HTT = module.static_map.log_softmax(dim=-1)
    yield "static_entropy", _evenness(log_HTT.exp())
    dynamic_BHTT = _dynamic(twin, inputs)[1]
    entropy = torch.special.entr(dynamic_BHTT).sum(dim=-1).mean()
    yield "static_kl", -(dynamic_BHTT.mean(dim=0) * log_HTT).sum(dim=-1).mean() - entropy


def _linear(twin: nn.Module, module: LinearAttention, inputs: tuple[Any, ...], output: tuple[Tensor, Any]) -> Found:
    dynamic_BTD, _ = _dynamic(twin, inputs)
    yield "linear_scale", _ratio(output[0] - module.proj.bias, dynamic_BTD - module.proj.bias)


def _hallucinate(_: None, module: Hallucinate, inputs: tuple[Tensor], output: Tensor) -> Found:
    if module.gain is None:
        real = inputs[0].shape[1]
        # The softmax does not see what all keys of a row have in common.
        derived, parents = (x - x.mean(dim=-1, keepdim=True) for x in (output[:, real:], module.parents(inputs[0])))
        yield "mix_change", _ratio(derived - parents, parents)


def _shared(twin: nn.Module, _: SharedAttention, inputs: tuple[Any, ...], __: Any) -> Found:
    provided: Provided | None = inputs[1]
    if provided is not None and provided.maps is not None:
        own_BHTT = _dynamic(twin, inputs)[1]
        yield "shared_cosine", nn.functional.cosine_similarity(provided.maps.flatten(2), own_BHTT.flatten(2), -1).mean()


def _compact(twin: nn.Module, module: CompactMlp, inputs: tuple[Tensor], output: Tensor) -> Found:
    yield "ffn_scale", _ratio(output - module.up.bias, twin(inputs[0]) - module.up.bias)  # their bias is one


INSTRUMENTS: Mapping[type, Callable[..., Found]] = {
    GlobalAggregation: _glad,
    ConvTokenPool: _conv_pool,
    StaticAttention: _static,
    LinearAttention: _linear,
    Hallucinate: _hallucinate,
    SharedAttention: _shared,
    CompactMlp: _compact,
}
"""What is read off a part: from its plain twin, where it has one, the part, its inputs and its output."""


def _dynamic(twin: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Output [B, T, D] and maps [B, H, T, T] of dynamic attention with the same weights."""
    output, provided = twin(inputs[0], None)
    return output, provided.maps


def _evenness(maps: Tensor) -> Tensor:
    """Mean entropy of the rows of maps over that of an even one."""
    entropy: Tensor = torch.special.entr(maps).sum(dim=-1).mean()
    return entropy / math.log(maps.shape[-1])


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    ratio: Tensor = torch.linalg.vector_norm(part) / torch.linalg.vector_norm(whole)
    return ratio
