"""Designs of the field as architectures of a search space, where a search starts from, and its plain ViTs.

A paper's design is a pattern over the layers. It is put on the widest and deepest network of the space, and becomes
the nearest architecture that the space has: an operator that it lacks is left out, a token count is replaced by one
that it has. Where hard bounds are broken, all sizes are taken lower, and what still breaks them is repaired.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeVar, get_args

from nas.arch import Architecture, LayerChoice, cost, hallucinated_heads, is_square
from nas.base import SearchSpaceError, keys_hint
from nas.space.domain import LayerDomain, feed_forwards
from nas.space.genome import Genome

Design = Literal["deit", "psvit", "dgssa_glad", "hmhsa_cffn", "castling", "uniform", "plain"]
DESIGNS: tuple[str, ...] = get_args(Design)
UNIFORM = (0.8, 0.6, 0.4, 0.2)  # shares of the way from the lowest to the highest size; 1 is `deit`
MOST_SHAPES = 24  # plain ViTs that a search measures
ANEW = "embed"  # the reducer that pyramids have where others have none
MOST_VALUES = 12  # of a gene that are looked at for them: 1,728 shapes at most
Value = TypeVar("Value", int, float)


def known_designs(space: Genome, names: Sequence[str]) -> dict[str, Architecture]:
    """Any of `DESIGNS` by their names, in that order, as architectures of a space within its hard bounds.

    Those that become the same architecture are there once, by their first name.

    | name | design |
    |---|---|
    | `deit` | the plain ViT (arXiv 2012.12877): all layers dynamic, all tokens, full feed-forwards |
    | `psvit` | PSViT (2108.03428): tokens pooled after 1/3 and 2/3 of the layers, every second layer shared |
    | `dgssa_glad` | DGSSA + GLAD (2310.07664): the first third static, one `glad` in the middle |
    | `hmhsa_cffn` | hMHSA + cFFN (2306.10875): half of the heads derived, feed-forwards of half rank |
    | `castling` | Castling-ViT (2211.10526): linear-angular attention but in the last layer |
    | `uniform` | the plain ViT with all sizes at the same share of their ranges: `uniform-1`, `uniform-2`, ... |

    `plain` stands for the plain ViTs of many shapes, which `plain_shapes` has, and none of which is here.

    Raises:
        SearchSpaceError: A name is not known.
    """
    if unknown := [name for name in names if name not in DESIGNS]:
        problems = [f"seeds: {name!r} is not one of {', '.join(DESIGNS)}" for name in unknown]
        raise SearchSpaceError(space.name, problems, hint=keys_hint())
    drawn: dict[str, Architecture] = {}
    for name in names:
        if name == "uniform":
            sized = (space.repair(_sized(space, name, share)) for share in UNIFORM)
            drawn |= {f"{name}-{i}": architecture for i, architecture in enumerate(sized, start=1)}
        elif name != "plain":
            drawn[name] = _design(space, name)
    first = {architecture: name for name, architecture in reversed(drawn.items())}
    return {name: architecture for name, architecture in drawn.items() if first[architecture] == name}


def is_plain(architecture: Architecture) -> bool:
    """Whether it is a plain ViT, or a plain pyramid, whose tokens are embedded anew from stage to stage.

    No other token reduction, dynamic attention with real heads only, feed-forwards of full rank, and all layers of a
    width have as many heads and the same hidden width. All feed-forwards convolve, or none.
    """
    sizes: dict[int, tuple[int, float]] = {}
    return all(
        layer.reducer in (None, ANEW)
        and layer.attention == "dynamic"
        and not layer.num_hallucinated
        and layer.ffn_rank == 1
        and layer.ffn_conv == architecture.layers[0].ffn_conv
        and (layer.num_heads, layer.mlp_ratio) == sizes.setdefault(width, (layer.num_heads, layer.mlp_ratio))
        for layer, width in zip(architecture.layers, architecture.widths, strict=True)
    )


def plain_shapes(space: Genome, most: int = MOST_SHAPES) -> tuple[Architecture, ...]:
    """The plain ViTs of a space within its hard bounds, cheapest first: width x depth x MLP ratio x stem.

    A width has the number of heads, of those that all layers can have, that is nearest to `embed_dim` / `head_dim`, the
    more in doubt. Feed-forwards convolve only in a space where all of them must. Where there are more than `most`
    shapes, so many are spread evenly over the logarithm of their MACs, from the one with the fewest to the one with the
    most. None where the space has no plain ViT. Of pyramids, those of each depth whose sizes are at the same share of
    their ranges, with stages of equal depth where the space lets them.
    """
    shapes = {
        shape: cost.macs(shape, space.backbone)
        for depth in _spread(space.depth)
        for shape in (*_of_depth(space, depth), *_pyramids(space, depth))
        if space.within_constraints(shape)
    }
    rest = sorted(shapes, key=lambda shape: (shapes[shape], shape.digest))
    if len(rest) <= most:
        return tuple(rest)
    logs = {shape: math.log(macs) for shape, macs in shapes.items()}
    low, high = logs[rest[0]], logs[rest[-1]]
    chosen = {rest.pop(0), rest.pop()}
    for i in range(1, most - 1):
        goal = low + (high - low) * i / (most - 1)
        chosen.add(nearest := min(rest, key=lambda shape: abs(logs[shape] - goal)))
        rest.remove(nearest)
    return tuple(sorted(chosen, key=lambda shape: (shapes[shape], shape.digest)))


def _design(space: Genome, name: str) -> Architecture:
    """A design at the greatest sizes that keep the hard bounds, else repaired."""
    sized = [_sized(space, name, share) for share in (1.0, *UNIFORM, 0.0)]
    return next((a for a in sized if space.within_constraints(a)), space.repair(sized[0]))


def _pyramids(space: Genome, depth: int) -> list[Architecture]:
    """The plain pyramids of so many layers, before the hard bounds."""
    if not any(ANEW in domain.reducer for domain in space.layers):
        return []
    found = (_sized(space, "deit", share, depth) for share in (1.0, *UNIFORM, 0.0))
    return [shape for shape in found if is_plain(shape) and shape.depth == depth]


def _sized(space: Genome, name: str, share: float, depth: int = 0) -> Architecture:
    """A design with width, depth (unless it is given), heads and hidden width at a share of their ranges."""
    depth = depth or _at(space.depth, share)
    wanted: dict[str, Any] = {"embed_dim": _at(space.embed_dim, share), "depth": depth}
    wanted["stem"] = _first(space.stem, "patch")
    for i, domain in enumerate(space.layers):
        genes = _plain(domain, share)
        if ANEW in domain.reducer:
            stage = _stage(i, depth)
            genes["num_tokens"] = _tokens(domain, space.backbone.num_patches / 4**stage, on_grid=True)
            if len(domain.num_tokens) > 1 and 0 not in domain.embed_dim:  # wider ones are for later stages
                genes["embed_dim"] = _at(domain.embed_dim, share * stage / 2)
        genes |= _pattern(name, domain, i, depth, space.backbone.num_patches)
        if name == "uniform":
            genes["num_tokens"] = _at(domain.num_tokens, share)
        wanted |= {f"layers.{i:02d}.{gene}": genes[gene] for gene in domain.genes}
    return space.nearest(wanted)


def _plain(domain: LayerDomain, share: float) -> dict[str, Any]:
    return {
        "num_tokens": max(domain.num_tokens),
        "reducer": domain.reducer[0],
        "embed_dim": 0 if 0 in domain.embed_dim else _at(domain.embed_dim, share),
        "attention": _first(domain.attention, "dynamic"),
        "hallucination_ratio": min(domain.hallucination_ratio),
        "hallucination": domain.hallucination[0],
        "ffn_rank": max(domain.ffn_rank),
        "ffn_conv": min(domain.ffn_conv),
    } | {gene: _at(getattr(domain, gene), share) for gene in ("num_heads", "mlp_ratio")}


def _pattern(name: str, domain: LayerDomain, i: int, depth: int, patches: int) -> dict[str, Any]:
    """What a design wants of layer `i`, beside the plain ViT's genes."""
    match name:
        case "psvit":
            starts = _starts(depth)
            stage = _stage(i, depth)
            shares = (i - starts[stage]) % 2 == 1
            return {
                "num_tokens": _tokens(domain, patches / 2**stage, on_grid=True),
                "reducer": _first(domain.reducer, "pool", "conv_pool"),
                "embed_dim": sorted(domain.embed_dim)[: stage + 1][-1],
                "attention": _first(domain.attention, *["shared"] * shares, "dynamic"),
            }
        case "dgssa_glad":
            late, static = i >= max(1, depth // 2), i < max(1, round(depth / 3))
            return {
                "num_tokens": _tokens(domain, patches / 4 if late else patches, on_grid=False),
                "reducer": _first(domain.reducer, "glad"),
                "attention": _first(domain.attention, *["static"] * static, "dynamic"),
            }
        case "hmhsa_cffn":
            return {
                "hallucination_ratio": _nearest_half([r for r in domain.hallucination_ratio if r > 0] or [0.0]),
                "hallucination": _first(domain.hallucination, "mix_conv", "mix"),
                "ffn_rank": _nearest_half([r for r in domain.ffn_rank if r < 1] or [1.0]),
            }
        case "castling":
            return {"attention": _first(domain.attention, *["linear"] * (i < depth - 1), "dynamic")}
    return {}


def _starts(depth: int) -> list[int]:
    """The first layers of three stages."""
    return [0, max(1, round(depth / 3)), max(2, round(2 * depth / 3))]


def _stage(i: int, depth: int) -> int:
    """The stage of layer `i`."""
    return sum(start <= i for start in _starts(depth)) - 1


def _at(values: Sequence[Any], share: float) -> Any:
    """The value at a share of the way from the lowest to the highest."""
    return sorted(values)[round(share * (len(values) - 1))]


def _first(values: Sequence[Any], *wanted: Any) -> Any:
    """The first wanted value that there is, else any."""
    return next((value for value in wanted if value in values), values[0])


def _nearest_half(values: Sequence[float]) -> float:
    return min(values, key=lambda value: (abs(value - 0.5), value))


def _tokens(domain: LayerDomain, wanted: float, *, on_grid: bool) -> int:
    """The count whose ratio to the wanted one is nearest to 1; on the grid, if there is one."""
    squares = [n for n in domain.num_tokens if is_square(n)] if on_grid else []
    return min(squares or domain.num_tokens, key=lambda n: (abs(math.log(n / wanted)), n))


def _of_depth(space: Genome, depth: int) -> list[Architecture]:
    """The shapes of so many layers, before the hard bounds."""
    domains, patches = dict.fromkeys(space.layers[:depth]), space.backbone.num_patches
    if not all(patches in domain.num_tokens and "dynamic" in domain.attention for domain in domains):
        return []
    heads = set.intersection(*(_real_heads(domain) for domain in domains))
    ratios = set.intersection(*({ratio for ratio, rank in feed_forwards(domain) if rank == 1} for domain in domains))
    if not (convolves := set.intersection(*(set(domain.ffn_conv) for domain in domains))):
        return []
    found = []
    for width in _spread(space.embed_dim) if heads else ():
        wanted = width / space.backbone.head_dim
        own = min(heads, key=lambda count: (abs(count - wanted), -count))
        for ratio in _spread(ratios):
            layer = LayerChoice(num_tokens=patches, num_heads=own, mlp_ratio=ratio, ffn_conv=min(convolves))
            found += [Architecture(embed_dim=width, stem=stem, layers=(layer,) * depth) for stem in space.stem]
    return found


def _real_heads(domain: LayerDomain) -> set[int]:
    """Numbers of heads of which none has to be derived."""
    ratios = domain.hallucination_ratio
    return {heads for heads in domain.num_heads if any(hallucinated_heads(heads, ratio) == 0 for ratio in ratios)}


def _spread(values: Collection[Value]) -> list[Value]:
    """At most `MOST_VALUES` of the values, from the lowest to the highest."""
    found = sorted(values)
    if len(found) <= MOST_VALUES:
        return found
    return [found[round(i * (len(found) - 1) / (MOST_VALUES - 1))] for i in range(MOST_VALUES)]
