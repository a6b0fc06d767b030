"""Hard bounds of a search space: the least that is possible within them, or the proof that nothing is.

A bounded shortest-path problem, fewest MACs with at most so many parameters, say, solved exactly in three steps:

1. *Weighted sums.* `Cheapest` finds the least of a MACs + b parameters for any weights a and b, under a limit on the
   peak of memory. These are the corners of the lower left hull of all networks in the plane of the two costs.
2. *The hull up to the bound* (`_hull`; LARAC, as for delay-constrained routes). Start with the fewest MACs, which break
   the bound, and the fewest parameters, which keep it. Ask for the least weighted sum along the line between the two:
   either there is a corner below the line, which replaces one of them, or they are neighbours on the hull.
3. *Off the hull* (`_off_hull`, `_labelled`). Between two neighbours there may be better networks above the line.
   Partial networks grow layer by layer; given up is what another one beats in both costs at the same node, and what
   cannot end within the bounds, by the three exact lower bounds for the rest that step 1 left behind: of MACs, of
   parameters, and of the hull's weighted sum. The last one leaves only what is near the line, so few remain.

A bound on memory is on parameters plus the peak of activations, and the peak is a limit of step 1 that the others
inherit. Where the peak is not known beforehand, ranges of it are searched apart (`_fewest_macs`, `_least_memory`):
within a range its upper end limits the peak, and what its lower end leaves of the bound limits the parameters.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Literal, NamedTuple

from nas.arch import VALUE_BYTES, LayerChoice, memory
from nas.base import cached_method
from nas.space.constraints import UNITS, Bound, Constraints
from nas.space.paths import Cheapest, CostedNetwork, Edge, Graph, Node
from nas.space.walk import LegalSequences

# Of a bound on memory, for activations, when much is looked for; four of them missed more than a tenth in small spaces.
SHARES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
MOST_STATES = (
    3_000  # of a space, for its range of memory to be found: 4,000 took 10 s, all of search_spaces/ are below 400
)
NOT_EMPTY = "that some architecture is within the bounds is checked at construction"


class Extremes:
    """The least and most that networks need, with and without bounds; what it has found once, it keeps."""

    def __init__(
        self, walk: LegalSequences, embed_dims: Sequence[int], stems: Sequence[str], depths: Sequence[int]
    ) -> None:
        self._walk, self._ends, self._depths = walk, tuple(product(embed_dims, stems)), depths
        self._known: dict[tuple[int, int, bool], list[tuple[float, CostedNetwork | None]]] = {}

    def weighted(self, macs_weight: int, params_weight: int, limit: float | None = None) -> CostedNetwork | None:
        """The network with the least weighted sum of MACs and parameters, exactly; None where none keeps the limit.

        Negative weights ask for the greatest. The limit is on the values of images and activations alive at once; where
        it is None, memory does not count, and networks do not know their peak.
        """
        shared, most = math.gcd(macs_weight, params_weight), math.inf if limit is None else limit
        weights = (macs_weight // shared, params_weight // shared)
        known = self._known.setdefault((*weights, limit is not None), [])
        for looser, best in known:  # the best within a looser limit is the best within all that it keeps
            if looser >= most and (best is None or best.peak <= most):
                return best
        found = [cheapest.network() for cheapest in self._solved(*weights, limit)]
        best = min((one for one in found if one), key=lambda one: _dot(weights, one), default=None)
        known.append((most, best))
        return best

    def params_range(self) -> tuple[int, int]:
        """Fewest and most parameters."""
        fewest, most = self.weighted(0, 1), self.weighted(0, -1)
        assert fewest is not None, NOT_EMPTY
        assert most is not None, NOT_EMPTY
        return fewest.params, most.params

    @cached_method
    def memory_range(self) -> tuple[int, int] | None:
        """Fewest and most bytes to run a network (`memory.bytes_to_run`); None where that would take too long."""
        if self._walk.has_more_states(MOST_STATES, tuple(dict.fromkeys(width for width, _ in self._ends))):
            return None
        fewest = self.least("max_memory", Constraints())
        assert fewest is not None, NOT_EMPTY
        most = max(most_values(graph) for graph in self._with_memory(True))
        return VALUE_BYTES * (fewest.params + fewest.peak), VALUE_BYTES * most

    def least(self, key: Bound, constraints: Constraints) -> CostedNetwork | None:
        """The network that needs the least of what `key` bounds, exactly; None where none keeps the other bounds."""
        macs, params = _whole(constraints.max_macs), _whole(constraints.max_params)
        values = None if constraints.max_memory is None else math.floor(constraints.max_memory / VALUE_BYTES)
        if key == "max_macs":
            return self._fewest_macs(params, values)
        return self._fewest_params(macs, values) if key == "max_params" else self._least_memory(macs, params)

    def most_macs(self, constraints: Constraints) -> Iterator[CostedNetwork]:
        """Networks with many MACs within the bounds on parameters and memory: the most but for those off the hull.

        With a bound on memory there is one for each of a few divisions of it among activations and parameters.
        """
        bound = _whole(constraints.max_params)
        if constraints.max_memory is None:
            shares: Sequence[tuple[float, float | None]] = [(bound, None)]
        else:
            values = constraints.max_memory / VALUE_BYTES
            shares = [(min(bound, values * (1 - share)), values * share) for share in SHARES]
        for params, limit in shares:
            found = self._hull(-1, 0, params, limit)[1]
            if found is not None:
                yield found

    def _fewest_macs(self, params: float, values: int | None) -> CostedNetwork | None:
        """Branch and bound over the peak: where it is in a range, so much is left for parameters."""
        if values is None:
            return self._fewest(0, params, None)
        leanest, best = self._fewest_params(math.inf, values), None
        if leanest is None or leanest.params > params:
            return None
        ranges = [(0, values - leanest.params)]
        while ranges:
            low, high = ranges.pop()
            found = self._fewest(0, min(params, values - low), high, below=best.macs if best else math.inf)
            if found is None:
                continue
            if found.params + found.peak <= values:
                best = found
            else:  # its peak is above `low`, as its parameters leave room for `low`
                ranges += [(low, found.peak - 1), (found.peak, high)]
        return best

    def _fewest_params(self, macs: float, values: int | None) -> CostedNetwork | None:
        found = self._fewest(1, macs, values)
        while found and values is not None and found.params + found.peak > values:
            found = self._fewest(1, macs, values - found.params)  # no network has fewer, so none has this peak
        return found

    def _least_memory(self, macs: float, params: float) -> CostedNetwork | None:
        best, limit = None, math.inf
        while (found := self._fewest(1, macs, limit)) and found.params <= params:
            if best is None or found.params + found.peak < best.params + best.peak:
                best = found
            # what is better has a lower peak than this one, which has the fewest parameters up to the limit
            limit = min(found.peak - 1, best.params + best.peak - found.params - 1)
        return best

    def _fewest(
        self, wanted: Literal[0, 1], bound: float, limit: float | None, below: float = math.inf
    ) -> CostedNetwork | None:
        """Fewest MACs (0) or parameters (1), fewer than `below`, with a bound on the other and on the peak: exactly."""
        over, under, weights = self._hull(1, wanted, bound, limit, below)
        if under is None or over is None:
            return None
        if under is not over:  # between the hull and what was found there may be better ones
            under = self._off_hull(wanted, bound, limit, weights, min(below, under[wanted])) or under
        return under if under[wanted] < below else None

    def _hull(
        self, sign: int, wanted: Literal[0, 1], bound: float, limit: float | None, below: float = math.inf
    ) -> tuple[CostedNetwork | None, CostedNetwork | None, tuple[int, int]]:
        """Follow the hull to a bound on what is not wanted (LARAC); `sign` -1 for the most of what is.

        The best beyond the bound and the best within it, which are the same where the bound does not bind, and the
        weights that the hull has between the two. None within the bound where none is, or none `below` what is of use.
        """
        other: Literal[0, 1] = 1 if wanted == 0 else 0

        def weights(of_wanted: int, of_other: int) -> tuple[int, int]:
            return (sign * of_wanted, of_other) if wanted == 0 else (of_other, sign * of_wanted)

        over = self.weighted(*weights(1, 0), limit)
        if over is None or over[wanted] >= below:
            return over, None, weights(1, 0)
        if over[other] <= bound:
            return over, over, weights(1, 0)
        under = self.weighted(*weights(0, 1), limit)
        if under is None or under[other] > bound:
            return over, None, weights(0, 1)
        while under[wanted] != over[wanted]:
            slope = weights(over[other] - under[other], sign * (under[wanted] - over[wanted]))
            between = self.weighted(*slope, limit)
            of_use = slope[wanted] * (below - 1) + slope[other] * bound
            if between and below < math.inf and _dot(slope, between) > of_use:
                return over, None, slope
            if between is None or _dot(slope, between) >= _dot(slope, under):
                return over, under, slope
            over, under = (over, between) if between[other] <= bound else (between, under)
        return under, under, weights(1, 0)

    def _off_hull(
        self, wanted: Literal[0, 1], bound: float, limit: float | None, weights: tuple[int, int], below: float
    ) -> CostedNetwork | None:
        best = None
        solved = (self._solved(*pair, limit) for pair in (weights, (1, 0), (0, 1)))
        for hull, macs, params in zip(*solved, strict=True):
            if hull.value(hull.graph.start) < math.inf:
                found = _labelled(hull, (macs, params), wanted, bound, below)
                if found is not None:
                    best, below = found, found[wanted]
        return best

    def _solved(self, macs_weight: int, params_weight: int, limit: float | None) -> list[Cheapest]:
        most, graphs = math.inf if limit is None else limit, self._with_memory(limit is not None)
        return [Cheapest(graph, macs_weight, params_weight, most) for graph in graphs]

    @cached_method
    def _with_memory(self, counts: bool) -> list[Graph]:
        return [Graph(self._walk, *ends, self._depths, with_memory=counts) for ends in self._ends]


def _whole(bound: float | None) -> float:
    return math.inf if bound is None else math.floor(bound)


class _Label(NamedTuple):
    """A way from the start to a node."""

    costs: tuple[int, int]
    edge: Edge | None
    before: "_Label | None"


def _labelled(
    hull: Cheapest, apart: tuple[Cheapest, Cheapest], wanted: int, bound: float, below: float
) -> CostedNetwork | None:
    """The network with the fewest of what is wanted, below a number, with a bound on the other.

    All ways that are not beaten in both are followed, layer by layer; one that cannot end within the bounds, be it by
    MACs, by parameters, or by their sum weighted as on the hull, is given up. Few are left, as the hull is near.
    """
    graph, weights = hull.graph, (hull.macs_weight, hull.params_weight)
    found: _Label | None = None
    reached: dict[Node, list[_Label]] = {graph.start: [_Label((graph.macs, graph.params), None, None)]}
    while reached:
        following: dict[Node, list[_Label]] = {}
        for node, labels in reached.items():
            end, unbeaten = graph.end(node), _unbeaten(labels)
            if end is not None and end[2] <= hull.limit:
                for label in unbeaten:
                    costs = (label.costs[0] + end[0], label.costs[1] + end[1])
                    if costs[wanted] < below and costs[1 - wanted] <= bound:
                        found, below = label._replace(costs=costs), costs[wanted]
            most = (below - 1, bound) if wanted == 0 else (bound, below - 1)
            budget = _dot(weights, most)
            lowest = min(_dot(weights, label.costs) for label in unbeaten)
            for edge in graph.edges(node, hull.limit):
                macs, params, behind = edge.macs, edge.params, edge.following
                if lowest + _dot(weights, (macs, params)) + hull.value(behind) > budget:
                    continue
                room = (most[0] - macs - apart[0].value(behind), most[1] - params - apart[1].value(behind))
                total = budget - _dot(weights, (macs, params)) - hull.value(behind)
                for label in unbeaten:
                    costs = label.costs
                    if costs[0] <= room[0] and costs[1] <= room[1] and _dot(weights, costs) <= total:
                        way = _Label((costs[0] + macs, costs[1] + params), edge, label)
                        following.setdefault(behind, []).append(way)
        reached = following
    return None if found is None else _network(found, graph)


def _dot(weights: tuple[int, int], costs: tuple[float, float] | CostedNetwork) -> float:
    return weights[0] * costs[0] + weights[1] * costs[1]


def _unbeaten(labels: Iterable[_Label]) -> list[_Label]:
    """Those than which no other has fewer or as many of both."""
    kept: list[_Label] = []
    for label in sorted(labels, key=lambda label: label.costs):
        if not kept or label.costs[1] < kept[-1].costs[1]:
            kept.append(label)
    return kept


def _network(label: _Label, graph: Graph) -> CostedNetwork:
    macs, params = label.costs
    layers: list[LayerChoice] = []
    while label.edge is not None and label.before is not None:
        layers.insert(0, label.edge.choice)
        label = label.before
    network = CostedNetwork(macs, params, 0, graph.embed_dim, graph.stem, tuple(layers))
    if not graph.with_memory:
        return network
    peak = memory.peak_activation_bytes(network.architecture, graph.backbone) // VALUE_BYTES
    return network._replace(peak=peak)


def most_values(graph: Graph) -> int:
    """The most that parameters and the peak of activations come to, together, exactly.

    The peak is that of one layer, or of what is before or after all layers. So a path takes the most parameters
    everywhere but in the layer that makes the peak, whose choice weighs both; each node tries its own layer for it.
    """
    params = Cheapest(graph, 0, -1, math.inf)
    found: dict[Node, float] = {}

    def with_peak(node: Node) -> float:
        """Most parameters still to come and the peak from here on, which is that of one layer."""
        if node not in found:
            end, held = graph.end(node), graph.held(node.state) + node.provided
            ways: list[float] = [] if end is None else [end[1] + end[2]]
            for group in (group for groups in graph.groups(node) for group in groups):
                if params.rest(behind := group.behind(node.state)) is None:
                    continue
                feed_forwards = graph.feed_forwards(node.state.layer, group.size)
                widest = max(own for _, own, _, _ in feed_forwards)
                rest = held - params.value(behind)
                fullest = group.exported + max(own + values for _, own, values, _ in feed_forwards)
                most, together = group.most
                ways.append(most + max(widest + with_peak(behind), rest + fullest))
                ways.append(widest + together + rest)
            found[node] = max(ways, default=-math.inf)
        return found[node]

    before = graph.before - params.value(graph.start)
    return graph.params + int(max(with_peak(graph.start), before))


def why_infeasible(extremes: Extremes, constraints: Constraints) -> str:
    """That no architecture meets the bounds, and the least that is possible: of each alone, and within the others."""
    alone, within = [], []
    for key, _ in constraints.bounds():
        found, kept = extremes.least(key, Constraints()), extremes.least(key, constraints)
        assert found is not None, NOT_EMPTY
        alone.append(f"{_amount(key, found):,} {UNITS[key]}")
        if kept is not None:
            within.append(f"{_amount(key, kept):,} {UNITS[key]}")
    text = f"no architecture meets {constraints.text()}; the least possible is {' and '.join(alone)}"
    if len(alone) > 1:
        text += ", each without the other bounds"
        text += f"; within the other bounds it is {' or '.join(within)}" if within else ""
    return text


def _amount(key: Bound, network: CostedNetwork) -> int:
    amounts = {"max_macs": network.macs, "max_params": network.params}
    return amounts[key] if key in amounts else VALUE_BYTES * (network.params + network.peak)
