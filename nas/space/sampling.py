"""Drawing from a `SearchSpace`: uniformly, evenly over the range of MACs, and near a given architecture."""

import math
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from nas.arch import Architecture, cost
from nas.space.bounds import NOT_EMPTY, Extremes
from nas.space.constraints import Constraints
from nas.space.domain import with_feed_forward
from nas.space.genome import Genome

TRIES = 32  # draws before a constrained sample is made by repair
NEAR = 0.02  # of the wanted MACs: near enough
EXCESS_WEIGHT = 1.5  # of what exceeds a bound, against the distance in MACs; 1.5, 3 and 10 were tried
PASSES = 3  # over all genes
TILT_STEPS = 14  # halvings of the tilt interval: resolves 16 / 2**14


def sample(space: Genome, rng: np.random.Generator, tries: int) -> Architecture:
    """See `SearchSpace.sample`."""
    return first_within(space, rng, _sample_unconstrained, tries)


def first_within(
    space: Genome,
    rng: np.random.Generator,
    draw: Callable[[Genome, np.random.Generator], Architecture],
    tries: int = TRIES,
) -> Architecture:
    """The first of at most `tries` draws that keeps the constraints; else the last one repaired."""
    for _ in range(tries):
        architecture = draw(space, rng)
        if space.within_constraints(architecture):
            return architecture
    return space.repair(architecture)


def _sample_unconstrained(space: Genome, rng: np.random.Generator) -> Architecture:
    walk, layers = space.walk, []
    if walk.grows:
        depths = frozenset(space.depth)
        width = space.embed_dim[_weighted([walk.total(walk.begin(width), depths) for width in space.embed_dim], rng)]
    else:
        width = space.embed_dim[int(rng.integers(len(space.embed_dim)))]
    state = walk.begin(width)
    depth = space.depth[_weighted([walk.count(state, depth) for depth in space.depth], rng)]
    for _ in range(depth):
        options = walk.alive(state, depth)
        pairs = walk.feed_forwards(state.layer)
        structure, state = options[_weighted([walk.count(following, depth) for _, following in options], rng)]
        layers.append(with_feed_forward(structure, *pairs[int(rng.integers(len(pairs)))]))
    return Architecture(embed_dim=width, stem=any_stem(space, rng), layers=tuple(layers))


def any_stem(space: Genome, rng: np.random.Generator) -> str:
    """A stem, uniformly; a space that has only one takes nothing of the generator, as before there were stems."""
    return space.stem[int(rng.integers(len(space.stem)))] if len(space.stem) > 1 else space.stem[0]


def sample_near(space: Genome, macs: float, rng: np.random.Generator) -> Architecture:
    """Draw an architecture with about so many MACs.

    Every gene gets a uniform number, read through a distribution tilted towards its cheap or costly values;
    the tilt is bisected until the MACs come near. Then single genes are changed, in random order, where that
    brings the MACs nearer or the architecture closer to keeping the constraints.
    """
    ranked = space.choices_cheap_first
    uniform = {name: float(rng.random()) for name in ranked}

    def error(architecture: Architecture) -> float:
        return abs(cost.macs(architecture, space.backbone) / macs - 1) + EXCESS_WEIGHT * space.excess(architecture)

    bottom, top = -8.0, 8.0
    drawn = []
    for _ in range(TILT_STEPS):
        tilt = (bottom + top) / 2
        drawn.append(space.nearest(_tilted(ranked, uniform, tilt)))
        if error(drawn[-1]) <= NEAR and not space.excess(drawn[-1]):
            return drawn[-1]
        less = cost.macs(drawn[-1], space.backbone) < macs
        bottom, top = (tilt, top) if less else (bottom, tilt)
    best = min(drawn, key=error)
    params, least = space.encode_unbounded(best), error(best)
    changes = [(name, value) for name, values in ranked.items() if len(values) > 1 for value in values]
    for i in [i for _ in range(PASSES) for i in rng.permutation(len(changes))]:
        if least <= NEAR and not space.excess(best):
            return best
        wanted = params | dict([changes[i]])
        candidate = space.nearest(wanted)
        if candidate != best and (remaining := error(candidate)) < least:
            best, least, params = candidate, remaining, wanted
    return space.repair(best)


def _tilted(ranked: Mapping[str, Sequence[Any]], uniform: Mapping[str, float], tilt: float) -> dict[str, Any]:
    shares = {}
    for count in {len(values) for values in ranked.values()}:
        weights = [math.exp(tilt * (i - (count - 1) * (tilt > 0))) for i in range(count)]
        shares[count] = list(accumulate(weight / sum(weights) for weight in weights))[:-1]
    return {name: values[bisect(shares[len(values)], uniform[name])] for name, values in ranked.items()}


def mutate(space: Genome, architecture: Architecture, rng: np.random.Generator) -> Architecture:
    """See `SearchSpace.mutate`."""
    params = space.encode(architecture)
    changes = [
        [(name, value) for value in values if value != params[name]]
        for name, values in space.choices().items()
        if len(values) > 1
    ]
    for i in rng.permutation(len(changes)):
        for j in rng.permutation(len(changes[i])):
            name, value = changes[i][j]
            neighbour = space.decode(params | {name: value})
            if neighbour != architecture:
                return neighbour
    return architecture


def _weighted(weights: Sequence[int], rng: np.random.Generator) -> int:
    """Index drawn with probability proportional to whole weights of any size."""
    total = sum(weights)
    drawn = int.from_bytes(rng.bytes(total.bit_length() // 8 + 9), "big") % total
    for i, weight in enumerate(weights):
        if drawn < weight:
            return i
        drawn -= weight
    return len(weights) - 1


STARTS = 16  # draws among which it is looked for


def largest_within(space: Genome, extremes: Extremes) -> Architecture:
    """See `SearchSpace.largest`."""
    most, rng = extremes.weighted(-1, 0), np.random.default_rng(0)
    assert most is not None, NOT_EMPTY
    if space.within_constraints(most.architecture):
        return most.architecture
    near = min(most.macs, space.constraints.max_macs or math.inf)
    lean = extremes.least("max_params", space.constraints)  # leaves the most room to grow
    assert lean is not None, NOT_EMPTY
    large = [network.architecture for network in extremes.most_macs(space.constraints)]
    starts = [lean.architecture, _largest_of(space, _spliced(space, large, lean.architecture))]
    climbed = [_climbed(space, architecture) for architecture in dict.fromkeys(starts)]
    drawn = [sample_near(space, near, rng) for _ in range(STARTS)]
    return _climbed(space, _largest_of(space, [*drawn, *climbed]))


def _largest_of(space: Genome, architectures: Iterable[Architecture]) -> Architecture:
    legal = (architecture for architecture in architectures if space.within_constraints(architecture))
    return max(legal, key=lambda architecture: cost.macs(architecture, space.backbone))


def _spliced(space: Genome, large: Sequence[Architecture], lean: Architecture) -> Iterator[Architecture]:
    """First layers of large networks, last layers of a lean one: their MACs lie in between."""
    end = space.encode_unbounded(lean)
    for begin in map(space.encode_unbounded, large):
        yield from (
            space.nearest(end | {name: value for name, value in begin.items() if name not in _layers_from(space, i)})
            for i in range(max(space.depth) + 1)
        )
    yield from (lean, *large)


def _layers_from(space: Genome, first: int) -> set[str]:
    """The flat parameters of the layers from one on."""
    return {name for name in space.choices() if name.startswith("layers.") and name >= f"layers.{first:02d}"}


def _climbed(space: Genome, architecture: Architecture) -> Architecture:
    """Change single genes, or add lean layers, while that gives more MACs and breaks the bounds no more."""
    deepest = replace(space, depth=(max(space.depth),), constraints=Constraints())
    lean = deepest.encode_unbounded(deepest.smallest())
    best, improved = architecture, True
    while improved:
        improved = False
        params = space.encode_unbounded(best)
        added = {name: lean[name] for name in _layers_from(space, best.depth)}
        deeper = [added | {"depth": depth} for depth in space.depth if depth > best.depth]
        single = [{name: value} for name, values in space.choices().items() for value in values]
        for change in [*single, *deeper]:
            candidate = space.nearest(params | change)
            more = candidate != best and cost.macs(candidate, space.backbone) > cost.macs(best, space.backbone)
            if more and space.excess(candidate) <= space.excess(best):
                best, improved, params = candidate, True, params | change
    return best
