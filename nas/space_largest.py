"""The largest architecture within hard bounds, as far as it can be found: exactly, it is a knapsack problem."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nas import cost
from nas.architecture import Architecture
from nas.space_bounds import NOT_EMPTY, Extremes
from nas.space_sampling import sample_near

if TYPE_CHECKING:
    from nas.space import SearchSpace

STARTS = 16  # draws among which it is looked for


def largest_within(space: "SearchSpace", extremes: Extremes) -> Architecture:
    """See `SearchSpace.largest`."""
    most, rng = extremes.weighted(-1, 0), np.random.default_rng(0)
    assert most is not None, NOT_EMPTY
    if space.within_constraints(most.architecture):
        return most.architecture
    near = min(most.macs, space.constraints.max_macs or math.inf)
    lean = extremes.least("max_params", space.constraints)  # leaves the most room to grow
    assert lean is not None, NOT_EMPTY
    large = [path.architecture for path in extremes.most_macs(space.constraints)]
    starts = [lean.architecture, _largest_of(space, _spliced(space, large, lean.architecture))]
    climbed = [_climbed(space, architecture) for architecture in dict.fromkeys(starts)]
    drawn = [sample_near(space, near, rng) for _ in range(STARTS)]
    return _climbed(space, _largest_of(space, [*drawn, *climbed]))


def _largest_of(space: "SearchSpace", architectures: Iterable[Architecture]) -> Architecture:
    legal = (architecture for architecture in architectures if space.within_constraints(architecture))
    return max(legal, key=lambda architecture: cost.macs(architecture, space.backbone))


def _spliced(
    space: "SearchSpace", large: Sequence[Architecture], lean: Architecture
) -> Iterator[Architecture]:
    """First layers of large networks, last layers of a lean one: their MACs lie in between."""
    end = space.encode_unbounded(lean)
    for begin in map(space.encode_unbounded, large):
        yield from (
            space.nearest(end | {name: value for name, value in begin.items() if name < f"layers.{i:02d}"})
            for i in range(max(space.depth) + 1)
        )
    yield from (lean, *large)


def _climbed(space: "SearchSpace", architecture: Architecture) -> Architecture:
    """Change single genes while that gives more MACs and breaks the bounds no more."""
    best, improved = architecture, True
    while improved:
        improved = False
        params = space.encode_unbounded(best)
        for name, value in [(name, value) for name, values in space.choices().items() for value in values]:
            candidate = space.nearest(params | {name: value})
            more = cost.macs(candidate, space.backbone) > cost.macs(best, space.backbone)
            if more and space.excess(candidate) <= space.excess(best):
                best, improved, params = candidate, True, params | {name: value}
    return best
