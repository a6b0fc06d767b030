"""Drawing from a `SearchSpace`: uniformly, evenly over the range of MACs, and near a given architecture."""

from bisect import bisect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas import cost
from nas.architecture import Architecture

if TYPE_CHECKING:
    from nas.space import SearchSpace

UNIFORM_TRIES = 32  # draws before a constrained sample is made by repair
TILT_STEPS = 14  # halvings of the tilt interval: resolves 16 / 2**14
COST_ORDER = {"shared": 0, "static": 1, "dynamic": 2, "pool": 0, "conv_pool": 1, "copy": 0, "mix_conv": 1}


def sample(space: "SearchSpace", rng: np.random.Generator) -> Architecture:
    """See `SearchSpace.sample`."""
    for _ in range(UNIFORM_TRIES):
        architecture = _sample_unconstrained(space, rng)
        if space.within_constraints(architecture):
            return architecture
    return space.repair(architecture)


def _sample_unconstrained(space: "SearchSpace", rng: np.random.Generator) -> Architecture:
    walk, layers = space.walk, []
    width = space.embed_dim[int(rng.integers(len(space.embed_dim)))]
    depth = space.depth[_weighted([walk.count(walk.start, depth) for depth in space.depth], rng)]
    state = walk.start
    for _ in range(depth):
        options = walk.alive(state, depth)
        choice, state = options[_weighted([walk.count(following, depth) for _, following in options], rng)]
        layers.append(choice)
    return Architecture(embed_dim=width, layers=tuple(layers))


def sample_stratified(space: "SearchSpace", rng: np.random.Generator) -> Architecture:
    """See `SearchSpace.sample_stratified`.

    A target is drawn uniformly; every gene gets a uniform number, read through a distribution tilted towards
    its cheap or its costly values; the tilt is bisected until the MACs meet the target as nearly as they can.
    """
    low, high = space.macs_range()
    target = rng.uniform(low, high)
    uniform = {name: float(rng.random()) for name in space.choices()}
    ranked = {name: sorted(values, key=_price(name)) for name, values in space.choices().items()}
    best = _tilted(space, ranked, uniform, 0.0)
    bottom, top = -8.0, 8.0
    for _ in range(TILT_STEPS):
        tilt = (bottom + top) / 2
        candidate = _tilted(space, ranked, uniform, tilt)
        macs = cost.macs(candidate, space.backbone)
        if abs(macs - target) < abs(cost.macs(best, space.backbone) - target):
            best = candidate
        bottom, top = (tilt, top) if macs < target else (bottom, tilt)
    return best


def _tilted(
    space: "SearchSpace", ranked: Mapping[str, Sequence[Any]], uniform: Mapping[str, float], tilt: float
) -> Architecture:
    shares = {}
    for count in {len(values) for values in ranked.values()}:
        weights = np.exp(tilt * (np.arange(count) - (count - 1) * (tilt > 0)))
        shares[count] = np.cumsum(weights / weights.sum())[:-1].tolist()
    wanted = {name: values[bisect(shares[len(values)], uniform[name])] for name, values in ranked.items()}
    return space.repair(space.nearest(wanted))


def _price(name: str) -> Any:
    """A sort key that puts the cheap values of a gene first."""
    sign = -1 if name.endswith("hallucination_ratio") else 1
    return lambda value: COST_ORDER[value] if isinstance(value, str) else sign * value


def mutate(space: "SearchSpace", architecture: Architecture, rng: np.random.Generator) -> Architecture:
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
