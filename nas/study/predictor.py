"""Predictor-guided rounds: surrogates of what must be measured, exact arithmetic for the rest, a diverse batch.

As DyNAS-T's LINAS (arXiv 2205.10358): measure, fit, search on the predictions, measure the best of what was
found. Unlike it the surrogate knows its own uncertainty (a Gaussian process with a length for every gene), MACs and
parameters are never predicted, and a batch is chosen one by one by the hypervolume that each is expected to add,
taking those before it, and those in flight, as measured at their expected values.
"""

import heapq
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import moocore
import numpy as np
from numpy.typing import NDArray

from nas.arch import ATTENTION, HALLUCINATION, REDUCERS, STEMS, Architecture, cost
from nas.base import BALANCED, LATENCIES, MACS, PARAMS, TOP1, Objective
from nas.runs import non_dominated
from nas.space import SearchSpace
from nas.study.process import GaussianProcess

MOST_POINTS = 384  # a Gaussian process learns from: its time grows with their third power
OPTIMISM = 1.0  # standard deviations added to the predicted top-1 of what parents are chosen from
# Gauss and Hermite's seven points, without the two lowest: standard deviations, and their weights; where the mean lies.
NODES, MIDDLE = (-1.1544, 0.0, 1.1544, 2.3668, 3.7504), 1
WEIGHTS = np.array([0.2401, 0.4571, 0.2401, 0.0308, 0.0005])
GENERATIONS = 4  # of the search on the predictions
CHILDREN = 160  # candidates of a generation, or four times the batch
NEWCOMERS = 0.25  # share of the candidates that are drawn uniformly
PARENTS = 48
LOG_MACS = -2  # among the features

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Observation:
    """What was measured of an architecture."""

    architecture: Architecture  # the network
    top1: float | None  # percent; of the images seen, where a race ended early. None where it was not measured
    top1_error: float  # standard error of that for all images, percent
    latencies: Mapping[str, float]  # milliseconds per batch by the name of the metric; empty where none was measured
    is_whole: bool  # whether it may be on a front
    balanced_top1: float | None = None  # percent; None where it was not measured
    own: Mapping[str, float] = field(default_factory=dict)  # of metrics of a Python program, by their names


def propose(
    space: SearchSpace,
    objectives: Sequence[Objective],
    observations: Sequence[Observation],
    pending: Sequence[Architecture],
    seen: Collection[str],
    size: int,
    rng: np.random.Generator,
) -> list[Architecture]:
    """A batch of at most `size` new architectures that together promise the most hypervolume.

    It takes two observations at least. `pending` are in flight, `seen` digests that must not be proposed again. `rng`
    decides everything that is not determined.
    """
    model = _Model(space, objectives, observations, rng)
    whole = [observation.architecture for observation in observations if observation.is_whole]
    measured = model.losses(whole, observed={o.architecture.digest: o for o in observations})[0]
    front = measured[non_dominated(measured, ["minimize"] * len(objectives))]
    expected = model.losses(pending)[0] if pending else np.empty((0, len(objectives)))
    candidates: dict[str, tuple[Architecture, Floats]] = {}
    parents = _best(whole, measured)
    children = max(CHILDREN, 4 * size)
    for _ in range(GENERATIONS):
        fresh = {}
        for child in _children(space, parents, children, rng):
            digest = child.digest
            if digest not in seen and digest not in candidates:
                fresh[digest] = child
        if fresh:
            rows = model.losses(list(fresh.values()), (OPTIMISM,))[0]
            candidates |= {digest: (child, row) for (digest, child), row in zip(fresh.items(), rows, strict=True)}
        found = [*candidates.values()]
        parents = _best(
            [*whole, *(child for child, _ in found)], np.vstack([measured, *(row[None] for _, row in found)])
        )
    return _most_promising(model, np.vstack([front, expected]), pending, [a for a, _ in candidates.values()], size)


def _most_promising(
    model: "_Model", front: Floats, pending: Sequence[Architecture], candidates: Sequence[Architecture], size: int
) -> list[Architecture]:
    """Choose candidates one by one, each by the hypervolume that it is expected to add to the front.

    The front has what is in flight, and what was chosen before, at its expected values; and the surrogates are as sure
    near these as if they had been measured so, which is what spreads a round. What a candidate is expected to add only
    falls as others are chosen, so one that still leads after being looked at again is the best (lazy greedy). Of those
    that promise nothing, what is least beyond the reference comes first.
    """
    if not candidates:
        return []
    believed: list[Architecture] = list(pending)
    chosen: list[int] = []
    losses = model.losses(candidates, NODES, believed=believed)
    beyond = np.maximum(losses[MIDDLE].max(axis=1) - 1, 0.0)

    def promise(i: int) -> float:
        return float(WEIGHTS @ [_volume(np.vstack([front, row])) - base for row in losses[:, i]])

    base = _volume(front)
    hopeless = (front[None] <= losses[-1][:, None]).all(axis=2).any(axis=1)
    queue = [(0.0 if hopeless[i] else -promise(i), beyond[i], i, 0) for i in range(len(candidates))]
    heapq.heapify(queue)
    while queue and len(chosen) < size:
        gain, _, i, looked = heapq.heappop(queue)
        if looked < len(chosen) and gain:
            heapq.heappush(queue, (-promise(i), beyond[i], i, len(chosen)))
            continue
        chosen.append(i)
        believed.append(candidates[i])
        front = np.vstack([front, losses[MIDDLE, i]])
        base = _volume(front)
        if len(chosen) < size:
            losses = model.losses(candidates, NODES, believed=believed)
    return [candidates[i] for i in chosen]


def _volume(rows: Floats) -> float:
    inside = rows[(rows < 1.0).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=np.ones(rows.shape[1]))) if len(inside) else 0.0


class _Model:
    """Losses of architectures, 0 the ideal and 1 the reference of each objective."""

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        observations: Sequence[Observation],
        rng: np.random.Generator,
    ) -> None:
        self._space = space
        self._objectives = objectives
        self._known: dict[Architecture, Floats] = {}
        self._accuracies: dict[str, GaussianProcess] = {}
        self._latencies: dict[str, GaussianProcess] = {}
        names = [objective.metric.name for objective in objectives]
        if TOP1.name in names:
            points = [(o.architecture, o.top1, o.top1_error) for o in observations if o.top1 is not None]
            self._accuracies[TOP1.name] = self._fit(points, rng)
        if BALANCED.name in names:
            points = [(o.architecture, o.balanced_top1, 0.0) for o in observations if o.balanced_top1 is not None]
            self._accuracies[BALANCED.name] = self._fit(points, rng)
        self._own = {
            name: self._fit([(o.architecture, o.own[name], 0.0) for o in observations if name in o.own], rng)
            for name in sorted({name for o in observations for name in o.own} & set(names))
        }
        bounds = space.constraints.max_latency
        for name in LATENCIES:
            points = [(o.architecture, math.log(o.latencies[name]), 0.0) for o in observations if name in o.latencies]
            if points and (name in names or name in bounds):
                self._latencies[name] = self._fit(points, rng)
        self._bounds = {name: bound for name, bound in bounds.items() if name in self._latencies}

    def _fit(self, points: Sequence[tuple[Architecture, float, float]], rng: np.random.Generator) -> GaussianProcess:
        chosen = [points[i] for i in sorted(rng.permutation(len(points))[:MOST_POINTS])]
        architectures, values, errors = zip(*chosen, strict=True)
        rows = self._features(architectures)
        return GaussianProcess(rows, genes_of_features(self._space), np.array(values), np.array(errors), LOG_MACS)

    def losses(
        self,
        architectures: Sequence[Architecture],
        optimisms: Sequence[float] = (0.0,),
        *,
        observed: Mapping[str, Observation] | None = None,
        believed: Sequence[Architecture] = (),
    ) -> Floats:
        """[optimisms, n, objectives]; measured values where there are any, else predicted ones.

        Accuracies are so many standard deviations above what is expected, of which less is left near what is
        `believed`. Where a bound on latency is broken they are all beyond the reference, the more the further (Deb's
        rule).
        """
        known = [(observed or {}).get(architecture.digest) for architecture in architectures]
        rows, others = self._features(architectures), self._features(believed) if believed else None
        latencies = {
            name: np.array(
                [
                    v if o is None else o.latencies.get(name, v)
                    for o, v in zip(known, np.exp(surrogate.predict(rows)[0]), strict=True)
                ]
            )
            for name, surrogate in self._latencies.items()
        }
        columns = []
        for objective in self._objectives:
            name = objective.metric.name
            if name in self._accuracies:
                mean, deviation = self._accuracies[name].predict(rows, others)
                values = mean + np.outer(optimisms, deviation)
                for i, observation in enumerate(known):
                    if observation is not None and (found := getattr(observation, name)) is not None:
                        values[:, i] = found
            elif name in latencies:
                values = latencies[name][None]
            elif name in self._own:
                predicted = self._own[name].predict(rows)[0]
                values = np.array(
                    [[v if o is None else o.own.get(name, v) for o, v in zip(known, predicted, strict=True)]]
                )
            else:
                count = {MACS.name: cost.macs, PARAMS.name: cost.params}[name]
                values = np.array([[count(a, self._space.backbone) for a in architectures]], dtype=float)
            values = np.broadcast_to(values, (len(optimisms), len(architectures)))
            columns.append((objective.ideal - values) / (objective.ideal - objective.reference))
        losses = np.maximum(np.stack(columns, axis=2), 0.0)
        for name, bound in self._bounds.items():
            excess = latencies[name][:, None] / bound - 1
            losses = np.where(excess > 0, np.maximum(losses, 1 + excess), losses)
        return losses

    def _features(self, architectures: Sequence[Architecture]) -> Floats:
        """`features`, which are asked for again and again."""
        for architecture in architectures:
            if architecture not in self._known:
                self._known[architecture] = features([architecture], self._space)[0]
        return np.array([self._known[a] for a in architectures])


def features(architectures: Sequence[Architecture], space: SearchSpace) -> Floats:
    """What a surrogate sees: each layer's choices, sizes as logarithms, and the totals: [n, features]."""
    return np.array([list(_features(architecture, space)) for architecture in architectures], dtype=float)


def genes_of_features(space: SearchSpace) -> list[int]:
    """[features]; the gene that each belongs to: those of a choice among operators are one."""
    grows, convolves = [1] * space.walk.grows, [1] * _convolves(space)
    sizes = [1, 1, len(REDUCERS), *grows, len(ATTENTION), 1, 1, len(HALLUCINATION), 1, 1, *convolves]
    sizes = sizes * len(space.layers) + [1] * 5
    stems = [len(space.stem)] if space.has_stems else []
    return [gene for gene, size in enumerate((*stems, *sizes)) for _ in range(size)]


def _convolves(space: SearchSpace) -> bool:
    """Whether convolutions in feed-forwards are searched."""
    return any(len(domain.ffn_conv) > 1 for domain in space.layers)


def _features(architecture: Architecture, space: SearchSpace) -> Iterator[float]:
    yield from (float(architecture.stem == name) for name in STEMS if space.has_stems and name in space.stem)
    tokens = []
    for i in range(len(space.layers)):
        if i >= architecture.depth:
            named = len(REDUCERS) + len(ATTENTION) + len(HALLUCINATION)
            yield from [0.0] * (6 + space.walk.grows + _convolves(space) + named)
            continue
        layer = architecture.layers[i]
        tokens.append(layer.num_tokens)
        yield 1.0
        yield math.log(layer.num_tokens / space.backbone.num_patches)
        yield from (float(layer.reducer == name) for name in REDUCERS)
        if space.walk.grows:
            yield math.log(architecture.widths[i] / architecture.embed_dim)
        yield from (float(layer.attention == name) for name in ATTENTION)
        yield float(layer.num_heads)
        yield layer.num_hallucinated / layer.num_heads
        yield from (float(layer.hallucination == name) for name in HALLUCINATION)
        yield layer.ffn_rank
        yield math.log(layer.mlp_ratio)
        if _convolves(space):
            yield float(layer.ffn_conv)
    yield math.log(architecture.embed_dim)
    yield float(architecture.depth)
    yield math.log(sum(tokens) / len(tokens))
    yield math.log(cost.macs(architecture, space.backbone))
    yield math.log(cost.params(architecture, space.backbone))


def _best(architectures: Sequence[Architecture], losses: Floats) -> list[Architecture]:
    """Parents: the least dominated, front after front, of one front those far from others (NSGA-II's crowding)."""
    ranks = moocore.pareto_rank(losses)
    distances = np.zeros(len(losses))
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        for column in losses[members].T:
            order = np.argsort(column, kind="stable")
            gaps = np.full(len(members), np.inf)
            gaps[1:-1] = (column[order[2:]] - column[order[:-2]]) / (np.ptp(column) or 1.0)
            distances[members[order]] += gaps
    return [architectures[i] for i in np.lexsort((-distances, ranks))[:PARENTS]]


def _children(
    space: SearchSpace, parents: Sequence[Architecture], count: int, rng: np.random.Generator
) -> Iterator[Architecture]:
    """Uniform draws; crossovers gene by gene of two parents; and changes of one to three genes of one."""
    choices = {name: values for name, values in space.choices().items() if len(values) > 1}
    names = list(choices)
    encoded = [space.encode(parent) for parent in parents]
    for _ in range(count):
        if rng.random() < NEWCOMERS:
            yield space.sample(rng)
            continue
        first, second = (encoded[int(i)] for i in rng.integers(len(encoded), size=2))
        params = dict(first)
        if rng.random() < 0.5:
            taken = rng.random(len(names)) < 0.5
            params |= {name: second[name] for name, take in zip(names, taken, strict=True) if take}
        for i in rng.permutation(len(names))[: int(rng.integers(1, 4))]:
            values = choices[names[i]]
            params[names[i]] = values[int(rng.integers(len(values)))]
        yield space.decode(params)
