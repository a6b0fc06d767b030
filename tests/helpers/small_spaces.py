"""Small search spaces over every operator, and their architectures listed the long way round."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product, takewhile
from typing import Any

import numpy as np
from factories import backbone

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operators import ATTENTION, HALLUCINATION, REDUCERS
from nas.base.errors import ArchitectureError, SearchSpaceError
from nas.space.domain import GENES, LayerDomain
from nas.space.space import SearchSpace, parse_space

TINY = """
name: tiny
backbone: {image_size: 8, patch_size: 2, num_classes: auto, head_dim: 8}
embed_dim: [16, 24]
depth: [1, 2]
layers: {num_tokens: [16, 4], attention: [dynamic, static], num_heads: [1, 2], mlp_ratio: [1, 2]}
"""


def tiny_space() -> SearchSpace:
    return parse_space(TINY, "tiny.yaml").with_num_classes(10)


def every_choice(**changes: Any) -> LayerDomain:
    """Every operator beside a class token, three square token counts of 16 patches and one that is none, up to 3 heads.

    With heads of 8 channels and a class token, linear attention pays at 16 tokens alone (C8).
    """
    genes: dict[str, Any] = {
        "num_tokens": (16, 9, 6, 4),
        "reducer": tuple(name for name, reducer in REDUCERS.items() if not reducer.refused(backbone())),
        "attention": tuple(ATTENTION),
        "hallucination_ratio": (0.0, 0.34, 0.7),
        "hallucination": tuple(HALLUCINATION),
        "num_heads": (1, 2, 3),
        "ffn_rank": (0.25, 0.5, 1.0),
        "ffn_conv": (False, True),
        "mlp_ratio": (0.5, 2.0),
    }
    return LayerDomain(**{**genes, **changes})


def space(domain: LayerDomain | None = None, **changes: Any) -> SearchSpace:
    """Some 10**12 architectures of two to four layers, or those of another domain."""
    domain = domain or every_choice()
    fields: dict[str, Any] = {
        "name": "small",
        "backbone": backbone(),
        "embed_dim": (16, 24),
        "depth": (2, 3, 4),
    } | changes
    fields.setdefault("layers", (domain,) * max(fields["depth"]))
    return SearchSpace(**fields)


def tiny(**changes: Any) -> SearchSpace:
    """Few enough architectures to list them all, with everything that makes them differ in cost."""
    domain = every_choice(
        num_tokens=(16, 6, 4),
        num_heads=(1, 2),
        hallucination_ratio=(0.0, 0.5),
        ffn_rank=(0.25, 1.0),
        mlp_ratio=(1.0,),
        ffn_conv=(False,),
    )
    return space(domain, **{"embed_dim": (8,), "depth": (1, 2), **changes})


def chains(**changes: Any) -> SearchSpace:
    """Deeper and with few genes: what many layers in a row may do."""
    domain = every_choice(
        num_tokens=(16, 6, 4),
        reducer=("pool", "glad"),
        hallucination_ratio=(0.0,),
        num_heads=(2,),
        ffn_rank=(1.0,),
        mlp_ratio=(1.0,),
    )
    return space(domain, **{"embed_dim": (8,), "depth": (4,), **changes})


def growing(**changes: Any) -> SearchSpace:
    """Three layers that may widen where they reduce, in the second of which a reduction must."""
    fixed: dict[str, Any] = {"reducer": ("pool", "glad"), "num_heads": (1, 2), "hallucination_ratio": (0.0,)}
    fixed |= {"attention": ("dynamic", "shared"), "mlp_ratio": (1.0,), "ffn_rank": (0.25, 1.0), "ffn_conv": (False,)}
    domains = tuple(
        every_choice(num_tokens=counts, embed_dim=widths, **fixed)
        for counts, widths in (((16, 9), (0, 12)), ((16, 4), (12, 16)), ((9, 4), (16, 0)))
    )
    return space(**{"layers": domains, "embed_dim": (8,), "depth": (2, 3), **changes})


def embedding(**changes: Any) -> SearchSpace:
    """Grids of 7, 4 and 2 tokens a side, embedded anew or averaged, and perhaps wider."""
    domain = every_choice(
        num_tokens=(49, 16, 9, 4),
        reducer=("embed", "pool"),
        embed_dim=(0, 12),
        attention=("dynamic", "shared"),
        hallucination_ratio=(0.0,),
        num_heads=(1,),
        ffn_rank=(1.0,),
        ffn_conv=(False,),
        mlp_ratio=(1.0, 2.0),
    )
    fixed = backbone(image_size=28, class_token=False, positions="none")
    return space(domain, **{"embed_dim": (8, 16), "depth": (2, 3), "backbone": fixed, **changes})


def only_half() -> SearchSpace:
    """Dynamic layers with two or more heads derive half of them: maps are never shared as they are."""
    genes = {"num_tokens": (16, 4), "reducer": ("pool",), "num_heads": (1, 2), "ffn_rank": (1.0,)}
    return space(every_choice(hallucination_ratio=(0.5,), mlp_ratio=(1.0,), **genes), embed_dim=(8,), depth=(2,))


def stems(**changes: Any) -> SearchSpace:
    """Two stems and two widths, with what acts on costs and memory in short networks."""
    domain = every_choice(
        num_tokens=(16, 4),
        reducer=("pool",),
        attention=("dynamic", "shared"),
        hallucination_ratio=(0.0, 0.5),
        hallucination=("mix",),
        num_heads=(1, 2),
        ffn_rank=(0.25, 1.0),
        mlp_ratio=(1.0,),
    )
    return space(domain, **{"embed_dim": (8, 16), "stem": ("patch", "conv"), "depth": (1, 2), **changes})


def listed(space: SearchSpace) -> Iterator[Architecture]:
    """Every architecture of a space, before its constraints: all combinations but the illegal ones."""
    for width, depth in product(space.embed_dim, space.depth):
        for found in _extended(space, width, depth, ()):
            yield from (replace(found, stem=stem) for stem in space.stem)


def _extended(space: SearchSpace, width: int, depth: int, layers: tuple[LayerChoice, ...]) -> Iterator[Architecture]:
    if len(layers) == depth:
        yield Architecture(embed_dim=width, layers=layers)
        return
    for layer in _spelled(space.layers[len(layers)]):
        if _may_follow(space, layers, layer):
            try:
                Architecture(embed_dim=width, layers=(*layers, layer))
            except ArchitectureError:
                continue
            yield from _extended(space, width, depth, (*layers, layer))


def _may_follow(space: SearchSpace, before: tuple[LayerChoice, ...], layer: LayerChoice) -> bool:
    """The rules of a space, spelled out; what `Architecture` refuses by itself is left to it."""
    rules, fixed, kind = space.rules, space.backbone, layer.attention
    so_far = (*before, layer)
    arriving = before[-1].num_tokens if before else fixed.num_patches
    reducers = [la.reducer for la in so_far if la.reducer]
    gathered = "glad" in reducers
    squares = [side**2 for side in range(1, arriving)]
    shared = list(takewhile(lambda la: la.attention == "shared", reversed(so_far)))
    provider = so_far[len(before) - len(shared)]
    derived = {int(layer.num_heads * r + 1e-9) for r in space.layers[len(before)].hallucination_ratio}
    broken = {
        "C4": len(shared) > rules.max_shared,
        # with no other ratio to choose, maps of which some are derived cannot be taken as they are
        "C6": shared and not layer.num_hallucinated and derived == {provider.num_hallucinated} != {0},
        "C7": kind == "static" and (gathered or (reducers and not rules.static_after_reduction)),
        "C8": kind == "linear" and layer.num_tokens + fixed.num_prefix_tokens <= fixed.head_dim + 4,
        "C10": layer.reducer in ("pool", "conv_pool", "embed") and (gathered or layer.num_tokens not in squares),
        "C11": layer.num_tokens > arriving or (layer.reducer is None) == (layer.num_tokens < arriving),
        "C12": len(reducers) > rules.max_reductions,
        "C19": layer.ffn_conv and gathered,
        "C18": layer.reducer == "embed" and layer.num_tokens != math.ceil(math.sqrt(arriving) / 2) ** 2,
        "C16": layer.reducer and layer.embed_dim not in space.layers[len(before)].embed_dim,
    }
    return not any(broken.values())


@cache
def _spelled(domain: LayerDomain) -> frozenset[LayerChoice]:
    choices = set()
    listed: dict[str, tuple[Any, ...]] = {gene: getattr(domain, gene) for gene in GENES}
    values = (listed | {"reducer": (None, *domain.reducer), "embed_dim": {0, *domain.embed_dim}}).values()
    for genes in product(*values):
        named = dict(zip(GENES, genes, strict=True))
        if named["attention"] != "dynamic":
            named["hallucination_ratio"] = 0.0  # as is, whatever the ratio; derived anew: below
        try:
            choices.add(LayerChoice(**named))
            if named["attention"] == "shared":
                ratio = genes[GENES.index("hallucination_ratio")]
                choices.add(LayerChoice(**named | {"hallucination_ratio": ratio}))
        except ArchitectureError:
            continue
    return frozenset(choices)


def randomise(module: Any, seed: int = 0) -> None:
    """Give every weight a value that acts: the operators' own start at zero or one."""
    import torch  # spaces need none

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)


def part_of(whole: SearchSpace, rng: np.random.Generator) -> SearchSpace:
    """A space with some of the choices of another; drawn until there is a network."""

    def some(values: tuple) -> tuple:
        kept = rng.random(len(values)) < 0.6
        kept[rng.integers(len(values))] = True
        return tuple(value for value, keep in zip(values, kept, strict=True) if keep)

    while True:
        depth = some(whole.depth)
        layers = tuple(
            LayerDomain(**{gene: some(getattr(domain, gene)) for gene in GENES})
            for domain in whole.layers[: max(depth)]
        )
        try:
            sizes = {"embed_dim": some(whole.embed_dim), "depth": depth, "layers": layers}
            stem = some(whole.stem) if whole.has_stems else whole.stem
            return replace(whole, name="part", stem=stem, **sizes)
        except SearchSpaceError:
            continue
