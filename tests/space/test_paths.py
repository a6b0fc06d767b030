"""Cheapest networks against a listing: weighted sums, with and without a limit on the peak of memory."""

import math
from collections.abc import Callable, Iterable
from functools import cache, partial

import numpy as np
import pytest
from factories import backbone
from small_spaces import chains, growing, listed, only_half, stems, tiny

from nas.arch import cost, memory
from nas.arch.architecture import Architecture
from nas.space.bounds import most_values
from nas.space.paths import Cheapest, Graph
from nas.space.space import SearchSpace
from nas.space.walk import State

WEIGHTS = [(1, 0), (0, 1), (-1, 0), (0, -1), (1, 7), (3, -50), (-2, 9)]
SPACES = [tiny, chains, only_half, growing, partial(stems, stem=("conv",), embed_dim=(8,))]


@cache
def counted(make: Callable[[], SearchSpace]) -> tuple[tuple[int, int, int], ...]:
    """MACs, parameters and peak of every network, in values of 4 bytes."""
    return tuple(sorted({costs_of(a) for a in listed(make())}))


def costs_of(architecture: Architecture) -> tuple[int, int, int]:
    peak = memory.peak_activation_bytes(architecture, backbone()) // 4
    return cost.macs(architecture, backbone()), cost.params(architecture, backbone()), peak


def graph_of(searched: SearchSpace, *, with_memory: bool) -> Graph:
    (width,), (stem,) = searched.embed_dim, searched.stem
    return Graph(searched.walk, width, stem, searched.depth, with_memory=with_memory)


def least(rows: Iterable[tuple[int, int, int]], weights: tuple[int, int]) -> int:
    return min(weights[0] * macs + weights[1] * params for macs, params, _ in rows)


@pytest.mark.parametrize("make", SPACES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_least_weighted_sum_is_that_of_the_listing(make, weights):
    found = Cheapest(graph_of(make(), with_memory=False), *weights, math.inf).network()
    assert weights[0] * found.macs + weights[1] * found.params == least(counted(make), weights)
    assert (found.macs, found.params) == costs_of(found.architecture)[:2]
    assert found.architecture in make()


@pytest.mark.parametrize("make", SPACES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_limit_leaves_out_exactly_what_needs_more(make, weights):
    graph = graph_of(make(), with_memory=True)
    peaks = sorted({peak for _, _, peak in counted(make)})
    for limit in (peaks[0], *np.random.default_rng(0).choice(peaks, 3), peaks[-1], math.inf):
        found = Cheapest(graph, *weights, float(limit)).network()
        kept = [row for row in counted(make) if row[2] <= limit]
        assert weights[0] * found.macs + weights[1] * found.params == least(kept, weights)
        assert (found.macs, found.params, found.peak) == costs_of(found.architecture)
        lowest = min(peak for macs, params, peak in kept if (macs, params) == (found.macs, found.params))
        assert found.peak <= limit
        assert found.peak >= lowest
    assert Cheapest(graph, *weights, peaks[0] - 1).network() is None


@pytest.mark.parametrize("make", SPACES)
def test_most_values_are_those_of_the_listing(make):
    graph = graph_of(make(), with_memory=True)
    assert most_values(graph) == max(params + peak for _, params, peak in counted(make))


@pytest.mark.parametrize("with_memory", [True, False])
def test_no_network_ends_where_the_space_has_no_such_depth(with_memory):
    graph = graph_of(tiny(depth=(2,)), with_memory=with_memory)
    assert graph.end(graph.start) is None
    found = Cheapest(graph, 1, 0, math.inf).network()
    assert found.architecture.depth == 2


def test_without_sharing_only_what_could_be_shared_is_forgotten():
    state = State(1, 16, True, 96, 2, 1, 3, 1)
    assert state.without_sharing() == State(1, 16, True, 96, 0, 0, 0, 1)
