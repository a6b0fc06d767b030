"""Which weights the store of a supernet has: those of a plain ViT and of every operator, at their greatest."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn

from nas.arch import ATTENTION, REDUCERS, Architecture, Backbone, LayerChoice, LayerContext, Place, hallucinated_heads
from nas.model.block import Block
from nas.model.families.vit import Subnet
from nas.model.layers.part import OwnWeight, Part
from nas.model.stem import build_stem
from nas.space import AttentionChoice, LayerDomain, SearchSpace, attention_choices, feed_forwards


def first_weights(space: SearchSpace) -> tuple[dict[str, nn.Parameter], set[str]]:
    """The weights by their stored names, with first values of torch's generator; and those not to be decayed."""
    plain, widths = plain_largest(space), space.greatest_widths
    weights, undecayed = _plain_weights(space, plain), set[str]()
    for i, domain in enumerate(space.layers):
        providers = _providers(space.layers[:i])
        for own in _own_weights(domain, providers, widths[i], widths[max(i - 1, 0)], space.backbone):
            name = f"blocks.{i}.{own.name}"
            weights[name] = nn.Parameter(own.first_value(torch.empty(own.shape)))
            if not own.decays:
                undecayed.add(name)
    for stem in space.stem:
        if stem != plain.stem:
            other = build_stem(stem, plain.embed_dim, space.backbone)
            weights |= {f"patch_embed.{name}": weight for name, weight in other.named_parameters()}
    return weights, undecayed


def plain_largest(space: SearchSpace) -> Architecture:
    """Dynamic attention on all patches at every greatest size, and the patch stem, if any; maybe not in the space.

    With a convolution in the feed-forwards that may have one.
    """
    layers = tuple(
        LayerChoice(
            num_tokens=space.backbone.num_patches,
            num_heads=max(domain.num_heads),
            mlp_ratio=max(domain.mlp_ratio),
            ffn_conv=max(domain.ffn_conv),
        )
        for domain in space.layers
    )
    stem = "patch" if "patch" in space.stem else space.stem[0]
    return Architecture(embed_dim=max(space.embed_dim), stem=stem, layers=layers)


def _plain_weights(space: SearchSpace, plain: Architecture) -> dict[str, nn.Parameter]:
    """The weights of a plain ViT whose layers have the greatest width that they can have, with their first values."""
    widths = iter(space.greatest_widths)

    def widest(_: int, *args: Any, **options: Any) -> Block:
        return Block(next(widths), *args, **options)

    full = Subnet(space.backbone, plain, build_block=widest)
    full.init_weights()
    weights = {name: weight for name, weight in full.named_parameters() if not full.is_own(name)}
    if (last := space.greatest_widths[-1]) > plain.embed_dim:
        behind = Subnet(space.backbone, replace(plain, embed_dim=last), build_block=_no_block)
        behind.init_weights()
        weights |= {name: w for name, w in behind.named_parameters() if name.startswith(("norm.", "fc_norm.", "head."))}
    return weights


def _no_block(*_: Any, **__: Any) -> Block:
    return cast(Block, nn.Identity())


def _providers(domains: Sequence[LayerDomain]) -> tuple[tuple[int, int], ...]:
    """(heads, hallucinated heads) of every dynamic layer that these domains allow, and (0, 0) for none."""
    pairs = {
        (heads, hallucinated_heads(heads, ratio))
        for domain in domains
        for heads in domain.num_heads
        for ratio in domain.hallucination_ratio
    }
    return tuple(sorted(pairs | {(0, 0)}))


def _attention_behind(domain: LayerDomain, heads: int, hallucinated: int) -> Iterator[AttentionChoice]:
    """Every attention that some network may have behind a provider of so many heads; 0: no provider."""
    for choice in attention_choices(domain, hallucinated):
        kind, own, ratio, _ = choice
        broken, derived = ATTENTION[kind].broken, hallucinated_heads(own, ratio)
        if broken is None or not broken(Place(1, own, derived, 1, True, heads, hallucinated, 1, None)):
            yield choice


def _layers_of(domain: LayerDomain, providers: Sequence[tuple[int, int]], backbone: Backbone) -> Iterator[LayerChoice]:
    """Choices of a layer that between them have every weight of the layer's operators."""
    attention = dict.fromkeys(choice for provider in providers for choice in _attention_behind(domain, *provider))
    for tokens in domain.num_tokens:
        for kind, heads, ratio, variant in attention:
            yield LayerChoice(
                num_tokens=tokens,
                attention=kind,
                hallucination_ratio=ratio,
                hallucination=variant,
                num_heads=heads,
                mlp_ratio=1.0,
            )
        for reducer in domain.reducer if tokens < backbone.num_patches else ():
            if not REDUCERS[reducer].broken(tokens, on_grid=True):
                # What widens by itself may be at its widest where it does not: what arrives is wider then.
                widths = {0, max(domain.embed_dim)} if REDUCERS[reducer].widens else {max(domain.embed_dim)}
                for width in widths & set(domain.embed_dim):
                    yield LayerChoice(num_tokens=tokens, reducer=reducer, embed_dim=width, num_heads=1, mlp_ratio=1.0)
    for ratio, rank in feed_forwards(domain):
        yield LayerChoice(num_tokens=domain.num_tokens[0], num_heads=1, mlp_ratio=ratio, ffn_rank=rank)


@lru_cache(maxsize=256)
def _own_weights(
    domain: LayerDomain, providers: tuple[tuple[int, int], ...], embed_dim: int, width_before: int, backbone: Backbone
) -> tuple[OwnWeight, ...]:
    """Every weight that a plain ViT does not have, at its greatest, by its stored name within the block."""
    found: dict[str, OwnWeight] = {}
    context = LayerContext(tokens_before=backbone.num_patches, width_before=width_before)
    for choice in _layers_of(domain, providers, backbone):
        with torch.device("meta"):
            block = Block(embed_dim, choice, context, backbone)
        for path, part in block.named_children():
            for own in part.own_weights() if isinstance(part, Part) else ():
                name = f"{path}.{own.name}"
                known = found.get(name, own).shape
                shape = tuple(max(pair) for pair in zip(known, own.shape, strict=True))
                found[name] = own._replace(name=name, shape=shape)
    return tuple(found.values())
