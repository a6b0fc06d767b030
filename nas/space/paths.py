"""Cheapest networks of a search space, exactly: shortest paths over the layers, within a limit on memory.

The idea: a network is a path. A node is what the layers so far leave to the next one, an edge is one choice for a
layer, the end is any depth that the space has. MACs and parameters add up along a path, so the least weighted sum
from a node to the end is the least, over the edges, of what the edge costs plus the least from the node behind it.
Each node is solved once and kept (`Cheapest`); a space of 10^40 networks has some thousands of nodes. The peak of
memory does not add up, it is the greatest of the layers', so it is no part of the sum but a limit: edges whose layer
needs more are left out. Which weights and limits to ask for, `nas.space.bounds` finds out.

Four things make a node more than a `State` of the walk, and its edges less than the choices of a layer:

- What is shared costs memory: maps, logits or both stay alive from their provider to their last consumer, and how
  much depends on what the consumers take. So the provider guesses what it will hand on (one edge for each guess),
  pays for it, and the path *owes* it until some layer has taken it; no path ends in debt. A guess that comes true
  costs exactly what the network does, one that does not is no path.
- Behind a layer whose guess is that nobody shares, the state forgets that somebody could (`without_sharing`).
- Layers with the same choices have the same edges, and are listed once (`LegalSequences.alike`). What has many ways
  to be shared is solved only where a lower bound for all of them (`_at_least`) does not say that it is not the best.
- The feed-forward depends on nothing but its layer's tokens, so it is chosen apart, the best one within the room
  that is left; what remains of a layer, its structures, is grouped by the node it leads to (`Group`), so that what is
  behind is looked up once a group.

Counts of memory are values (4 bytes each in fp32) of one image, as in `nas.arch.memory`.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nas.arch import Architecture, Backbone, LayerChoice, LayerContext, cost, feed_forward_memory, memory
from nas.base import cached_method
from nas.space.domain import with_feed_forward
from nas.space.walk import LegalSequences, State

MAPS, LOGITS = 1, 2
"""What a provider may hand on; both is their sum."""
Size = tuple[int, int, bool]  # tokens and channels of a layer, and whether its feed-forward convolves


class Node(NamedTuple):
    """The layers chosen so far, as far as later ones depend on them."""

    state: State  # that of the walk
    taken: int = 0  # what the layers behind a provider take of it; 0: the next layer does not share
    owed: int = 0  # what of this no layer has taken yet
    provided: int = 0  # values alive for it


class Group(NamedTuple):
    """The structures of a layer that lead to the same node."""

    following: Node  # this node
    size: Size
    exported: int  # values that it hands on
    # (MACs, parameters, most values beside what is held and provided, structure).
    structures: list[tuple[int, int, int, LayerChoice]]
    most: tuple[int, int] = (0, 0)  # parameters of a structure, and parameters and values together

    def behind(self, state: State) -> Node:
        """The node that they lead to from a state, which may be of another layer with the same choices."""
        following, layer = self.following, state.layer + 1
        return following if following.state.layer == layer else Node(following.state.at(layer), *following[1:])


class CostedNetwork(NamedTuple):
    """A network with its costs: a path from the start to an end."""

    macs: int  # per image
    params: int  # parameters
    peak: int  # most values of images and activations alive at once; 0 where memory does not count
    embed_dim: int  # its width
    stem: str  # how its images become tokens
    layers: tuple[LayerChoice, ...]  # its choices

    @property
    def architecture(self) -> Architecture:
        """The network as a value."""
        return Architecture(embed_dim=self.embed_dim, stem=self.stem, layers=self.layers)


class Edge(NamedTuple):
    """One choice for a layer: its costs and the node behind it."""

    macs: int
    params: int
    following: Node
    choice: LayerChoice


class Graph:
    """The networks of one first width and stem as nodes and edges, made when asked for; what is found once, it keeps.

    They end with any of `depths` layers. Without memory all peaks are 0, and the graph is smaller.
    """

    def __init__(
        self, walk: LegalSequences, embed_dim: int, stem: str, depths: Sequence[int], *, with_memory: bool
    ) -> None:
        self.walk, self.embed_dim, self.stem, self.depths = walk, embed_dim, stem, frozenset(depths)
        self.backbone: Backbone = walk.backbone
        self.with_memory = with_memory
        self.start = Node(walk.begin(embed_dim))
        self.macs, self.params = cost.before_macs_params(embed_dim, stem, self.backbone)
        self.before = max(n for _, n in memory.before(embed_dim, stem, self.backbone)) if with_memory else 0

    def width(self, state: State) -> int:
        """Channels that arrive at the next layer."""
        return state.width or self.embed_dim

    def held(self, state: State) -> int:
        """Values alive throughout the next layer, beside what is provided."""
        return memory.held_values(state.arriving, self.width(state), self.backbone) if self.with_memory else 0

    def end(self, node: Node) -> tuple[int, int, int] | None:
        """(MACs, parameters, most values) behind the last layer; None where no network ends."""
        if node.owed or node.state.layer not in self.depths:
            return None
        width, values = self.width(node.state), 0
        if self.with_memory:
            values = max(n for _, n in memory.after(node.state.arriving, node.provided, width, self.backbone))
        return (*cost.behind_macs_params(width, self.backbone), values)

    def groups(self, node: Node) -> Iterator[list[Group]]:
        """The choices for the next layer: those that do not share, then those that do."""
        if node.state.layer < max(self.depths):
            if not node.owed:
                yield self.free(node.state.without_sharing())
            if node.taken:
                yield self._sharing(node)

    @cached_method
    def free(self, state: State) -> list[Group]:
        """The choices that do not share, in a state `without_sharing`."""
        if (first := self.walk.alike(state)) != state:
            return self.free(first)
        return self._grouped(self._not_shared(state))

    @cached_method
    def _sharing(self, node: Node) -> list[Group]:
        if (first := self.walk.alike(node.state)) != node.state:
            return self._sharing(Node(first, *node[1:]))
        return self._grouped(self._shared(node))

    @cached_method
    def most(self, state: State) -> int:
        """Most values of any choice that does not share, beside what is held, in a state `without_sharing`."""
        most = 0
        for group in self.free(state):
            hidden = (group.exported + values for _, _, values, _ in self.feed_forwards(state.layer, group.size))
            most = max(most, *hidden, *(values for _, _, values, _ in group.structures))
        return most

    @cached_method
    def feed_forwards(self, layer: int, size: Size) -> list[tuple[int, int, int, tuple[float, float]]]:
        """(MACs, parameters, most values, (mlp_ratio, ffn_rank)) of a layer of a `Size`."""
        found = []
        for pair in self.walk.feed_forwards(layer):
            costs = cost.feed_forward_macs_params(*pair, *size, self.backbone)
            values = feed_forward_memory(pair[0], pair[1], *size, self.backbone) if self.with_memory else 0
            found.append((*costs, values, pair))
        return found

    def edges(self, node: Node, limit: float) -> Iterator[Edge]:
        """Every choice for the next layer whose peak keeps a limit."""
        room = limit - self.held(node.state) - node.provided
        for groups in self.groups(node):
            for group in groups:
                for macs, params, values, structure in group.structures:
                    if values > room:
                        continue
                    for more, more_params, hidden, pair in self.feed_forwards(node.state.layer, group.size):
                        if hidden + group.exported <= room:
                            choice = with_feed_forward(structure, *pair)
                            yield Edge(macs + more, params + more_params, group.behind(node.state), choice)

    def _shared(self, node: Node) -> Iterator[tuple[Node, LayerChoice, LayerContext]]:
        for choice, state in self.walk.sharing(node.state):
            takes = LOGITS if choice.num_hallucinated else MAPS
            if takes & node.taken:
                owed = node.owed & ~takes if self.with_memory else 0
                taken = node.taken if state.shares_left else 0
                context = LayerContext(tokens_before=node.state.arriving, on_grid=state.on_grid)
                if not owed or taken:
                    yield Node(state, taken, owed, node.provided), choice, context

    def _not_shared(self, before: State) -> Iterator[tuple[Node, LayerChoice, LayerContext]]:
        for choice, state in self.walk.unshared(before):
            for exports in self._exports(choice) if state.shares_left else (0,):
                exported = {"exports_maps": bool(exports & MAPS), "exports_logits": bool(exports & LOGITS)}
                width_before = self.width(before) if choice.embed_dim else 0
                context = LayerContext(
                    tokens_before=before.arriving, width_before=width_before, on_grid=state.on_grid, **exported
                )
                provided = memory.exported_values(choice, context, self.backbone) if self.with_memory else 0
                yield (Node(state if exports else state.without_sharing(), exports, exports, provided), choice, context)

    def _exports(self, choice: LayerChoice) -> tuple[int, ...]:
        if not self.with_memory:
            return (0, MAPS + LOGITS)
        return (0, MAPS, LOGITS, MAPS + LOGITS) if choice.num_hallucinated else (0, MAPS)

    def _grouped(self, choices: Iterator[tuple[Node, LayerChoice, LayerContext]]) -> list[Group]:
        grouped: dict[tuple[Node, Size, int], Group] = {}
        for following, choice, context in choices:
            exported, values, width = 0, 0, self.width(following.state)
            if self.with_memory:
                exported = memory.exported_values(choice, context, self.backbone)
                values = memory.token_values(choice, context, width, self.backbone)
            macs, params = cost.token_macs_params(choice, context, width, self.backbone)
            key = (following, (choice.num_tokens, width, choice.ffn_conv), exported)
            group = grouped.setdefault(key, Group(*key, []))
            group.structures.append((macs, params, values, choice))
        most = [
            (max(n for _, n, _, _ in group.structures), max(n + values for _, n, values, _ in group.structures))
            for group in grouped.values()
        ]
        return [group._replace(most=pair) for group, pair in zip(grouped.values(), most, strict=True)]

    @cached_method
    def sharing_costs(self, layer: int, tokens: int, on_grid: bool, width: int) -> frozenset[tuple[int, int]]:
        """(MACs, parameters) of all that could share in a layer of so many channels, behind whatever provider."""
        context, domain = LayerContext(tokens_before=tokens, on_grid=on_grid), self.walk.layers[layer]
        shared = self.walk.could_share(layer, tokens) if tokens in domain.num_tokens else ()
        return frozenset(cost.token_macs_params(choice, context, width, self.backbone) for choice in shared)


class _Rest(NamedTuple):
    """The best way from a node to the end; `peak` is the most values from there on."""

    value: float
    macs: int
    params: int
    peak: int
    choice: LayerChoice | None
    rest: "_Rest | None"


class _FeedForward(NamedTuple):
    """The best feed-forward of a layer; `peak` is beside what is held, provided and exported."""

    value: float
    peak: int
    macs: int
    params: int
    pair: tuple[float, float]


class _Bundle(NamedTuple):
    """Groups that leave the same to later layers, but for what may be shared."""

    behind: State  # without heads
    size: Size
    groups: list[tuple[int, int, Group]]  # the least weighted sum of a structure, and the group's number


class Cheapest:
    """The least weighted sums of MACs and parameters from every node to the end, exactly (dynamic programming).

    Among equal sums the one with the lower peak, then the one that comes first. Negative weights ask for the greatest.
    At most `limit` values are alive at once.
    """

    def __init__(self, graph: Graph, macs_weight: int, params_weight: int, limit: float) -> None:
        self.graph, self.limit = graph, limit
        self.macs_weight, self.params_weight = macs_weight, params_weight
        self._free: dict[tuple[State, float], _Rest | None] = {}
        self._bundled: dict[int, list[_Bundle]] = {}  # by the identity of lists that the graph keeps
        self._kept: dict[int, list[tuple[int, int, int, int, LayerChoice]]] = {}

    def network(self) -> CostedNetwork | None:
        """The best network; None where no network keeps the limit."""
        found = self.rest(self.graph.start) if self.graph.before <= self.limit else None
        if found is None:
            return None
        layers, step = [], found
        while step.rest is not None and step.choice is not None:
            layers.append(step.choice)
            step = step.rest
        costs = (found.macs + self.graph.macs, found.params + self.graph.params, max(found.peak, self.graph.before))
        return CostedNetwork(*costs, self.graph.embed_dim, self.graph.stem, tuple(layers))

    def value(self, node: Node) -> float:
        """Least weighted sum of what is still to come; infinite where no network goes on from here."""
        found = self.rest(node)
        return math.inf if found is None else found.value

    @cached_method
    def rest(self, node: Node) -> _Rest | None:
        """The best way from a node to the end, if any."""
        end = self.graph.end(node)
        ways = []
        if end is not None and end[2] <= self.limit:
            ways.append(_Rest(self.macs_weight * end[0] + self.params_weight * end[1], *end, None, None))
        held = self.graph.held(node.state) + node.provided
        for i, groups in enumerate(self.graph.groups(node)):
            free = i == 0 and not node.owed
            way = self._best_free(node.state, held) if free else self._best(groups, node.state, held)
            if way is not None and way.rest is not None:
                ways.append(way._replace(peak=max(held + way.peak, way.rest.peak)))
        return min(ways, key=lambda way: (way.value, way.peak), default=None)

    def _best_free(self, state: State, held: int) -> _Rest | None:
        """`_best` of what does not share: the same for all nodes of a state that leave as much room.

        Room for more than the neediest choice is no more room, so most nodes of a state ask the same.
        """
        state = state.without_sharing()
        key = (state, min(self.limit - held, self.graph.most(state)))
        if key not in self._free:
            self._free[key] = self._best(self.graph.free(state), state, held)
        return self._free[key]

    def _best(self, groups: Sequence[Group], state: State, held: int) -> _Rest | None:
        """The best next layer; its `peak` is that of this layer, beside what is held.

        Groups come in bundles, and the most promising first, by lower bounds: what cannot be the best is not solved.
        """
        room, best, order = self.limit - held, None, (math.inf, math.inf, 0)
        bundles = []
        for bundle in self._bundles(groups):
            hidden = self._feed_forward(state.layer, bundle.size, math.inf)
            least = self._at_least(bundle.behind.at(state.layer + 1)) + (hidden.value if hidden else math.inf)
            bundles.append((least + bundle.groups[0][0], least, bundle))
        bundles.sort(key=lambda one: one[0])
        for _, least, bundle in bundles:
            for own, number, group in bundle.groups:
                if least + own > order[0] or least == math.inf:
                    break
                rest = self.rest(group.behind(state))
                hidden = self._feed_forward(state.layer, group.size, room - group.exported)
                if rest is None or hidden is None:
                    continue
                behind, inner = rest.value + hidden.value, group.exported + hidden.peak
                for weighted, macs, params, values, structure in self._unbeaten(group):
                    if values > room:
                        continue
                    if behind + weighted > order[0]:
                        break
                    local = max(values, inner)
                    found = (behind + weighted, max(held + local, rest.peak), number)
                    if found < order:
                        order, best = found, (rest, hidden, macs, params, local, structure)
        if best is None:
            return None
        rest, hidden, macs, params, local, structure = best
        choice = with_feed_forward(structure, *hidden.pair)
        macs, params = macs + hidden.macs + rest.macs, params + hidden.params + rest.params
        return _Rest(order[0], macs, params, local, choice, rest)

    def _bundles(self, groups: Sequence[Group]) -> list[_Bundle]:
        """Groups by what they leave but for the heads that can be shared; in each the cheapest first, by number."""
        if (key := id(groups)) not in self._bundled:
            bundles: dict[tuple[State, Size], _Bundle] = {}
            for number, group in enumerate(groups):
                state = group.following.state
                behind = State(*state[:4], 0, 0, state.shares_left if group.following.taken else 0, state[-1])
                bundle = bundles.setdefault((behind, group.size), _Bundle(behind, group.size, []))
                bundle.groups.append((self._unbeaten(group)[0][0], number, group))
            for bundle in bundles.values():
                bundle.groups.sort(key=lambda one: one[:2])
            self._bundled[key] = list(bundles.values())
        return self._bundled[key]

    def _unbeaten(self, group: Group) -> list[tuple[int, int, int, int, LayerChoice]]:
        """Structures and their weighted sums, the least first, and none that needs as much memory as a better one."""
        if (key := id(group.structures)) not in self._kept:
            macs_weight, params_weight = self.macs_weight, self.params_weight
            rows = [(macs_weight * one[0] + params_weight * one[1], *one) for one in group.structures]
            kept: list[tuple[int, int, int, int, LayerChoice]] = []
            lowest = math.inf
            for row in sorted(rows, key=lambda row: row[0]):
                if row[3] < lowest:
                    lowest = row[3]
                    kept.append(row)
            self._kept[key] = kept
        return self._kept[key]

    @cached_method
    def _at_least(self, state: State) -> float:
        """A lower bound of `value` behind any provider; the state has none, but says how many layers may share."""
        least = self.value(Node(state.without_sharing()))
        layer, shares = state.layer, state.shares_left
        if not shares or layer == max(self.graph.depths):
            return least
        width = self.graph.width(state)
        costs = self.graph.sharing_costs(layer, state.arriving, state.on_grid, width)
        convolves = self.graph.walk.layers[layer].convolutions(state.on_grid)
        hidden = (self._feed_forward(layer, (state.arriving, width, each), math.inf) for each in convolves)
        own = min((self.macs_weight * macs + self.params_weight * params for macs, params in costs), default=math.inf)
        own += min((found.value for found in hidden if found is not None), default=math.inf)
        return min(least, own + self._at_least(self.graph.walk.behind_sharing(state)))

    @cached_method
    def _feed_forward(self, layer: int, size: Size, room: float) -> _FeedForward | None:
        fitting = (
            _FeedForward(self.macs_weight * macs + self.params_weight * params, values, macs, params, pair)
            for macs, params, values, pair in self.graph.feed_forwards(layer, size)
            if values <= room
        )
        return min(fitting, default=None)
