"""Predictor-guided rounds: surrogates of what must be measured, exact arithmetic for the rest, a diverse batch.

As DyNAS-T's LINAS (arXiv 2205.10358): measure, fit, search on the predictions, measure the best of what was
found. Unlike it the surrogate knows its own uncertainty (a Gaussian process on features of the layers), MACs and
parameters are never predicted, and a batch is chosen one by one by how much hypervolume each adds, taking those
before it, and those in flight, at their predicted values.
"""

import heapq
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

from nas.arch import ATTENTION, HALLUCINATION, REDUCERS, Architecture, cost
from nas.base import BALANCED, LATENCIES, MACS, PARAMS, TOP1, Objective
from nas.runs import non_dominated
from nas.space import SearchSpace

MOST_POINTS = 384  # a Gaussian process learns from: its time grows with their third power
OPTIMISM = 1.0  # standard deviations added to the predicted top-1
GENERATIONS = 4  # of the search on the predictions
CHILDREN = 160  # candidates of a generation, or four times the batch
NEWCOMERS = 0.25  # share of the candidates that are drawn uniformly
PARENTS = 48

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
    measured = model.losses(whole, observed={o.architecture.digest: o for o in observations})
    front = measured[non_dominated(measured, ["minimize"] * len(objectives))]
    expected = model.losses(pending) if pending else np.empty((0, len(objectives)))
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
            rows = model.losses(list(fresh.values()), optimism=OPTIMISM)
            candidates |= {digest: (child, row) for (digest, child), row in zip(fresh.items(), rows, strict=True)}
        found = [*candidates.values()]
        parents = _best(
            [*whole, *(child for child, _ in found)], np.vstack([measured, *(row[None] for _, row in found)])
        )
    chosen = _most_hypervolume(np.vstack([front, expected]), [row for _, row in candidates.values()], size)
    architectures = [architecture for architecture, _ in candidates.values()]
    return [architectures[i] for i in chosen]


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
        self._accuracies: dict[str, _Surrogate] = {}
        self._latencies: dict[str, _Surrogate] = {}
        names = [objective.metric.name for objective in objectives]
        if TOP1.name in names:
            points = [(o.architecture, o.top1, o.top1_error) for o in observations if o.top1 is not None]
            self._accuracies[TOP1.name] = self._fit(points, rng)
        if BALANCED.name in names:
            points = [(o.architecture, o.balanced_top1, 0.0) for o in observations if o.balanced_top1 is not None]
            self._accuracies[BALANCED.name] = self._fit(points, rng)
        bounds = space.constraints.max_latency
        for name in LATENCIES:
            points = [(o.architecture, math.log(o.latencies[name]), 0.0) for o in observations if name in o.latencies]
            if points and (name in names or name in bounds):
                self._latencies[name] = self._fit(points, rng)
        self._bounds = {name: bound for name, bound in bounds.items() if name in self._latencies}

    def _fit(self, points: Sequence[tuple[Architecture, float, float]], rng: np.random.Generator) -> "_Surrogate":
        chosen = [points[i] for i in sorted(rng.permutation(len(points))[:MOST_POINTS])]
        architectures, values, errors = zip(*chosen, strict=True)
        return _Surrogate(features(architectures, self._space), np.array(values), np.array(errors))

    def losses(
        self,
        architectures: Sequence[Architecture],
        *,
        optimism: float = 0.0,
        observed: dict[str, Observation] | None = None,
    ) -> Floats:
        """[n, objectives]; measured values where there are any, else predicted ones.

        Where a bound on latency is broken they are all beyond the reference, the more the further (Deb's rule).
        """
        known = [(observed or {}).get(architecture.digest) for architecture in architectures]
        rows = features(architectures, self._space)
        latencies = {
            name: np.array(
                [
                    v if o is None else o.latencies.get(name, v)
                    for o, v in zip(known, np.exp(surrogate.predict(rows, 0.0)), strict=True)
                ]
            )
            for name, surrogate in self._latencies.items()
        }
        backbone = self._space.backbone
        columns = []
        for objective in self._objectives:
            name = objective.metric.name
            if name in self._accuracies:
                measured = [None if o is None else getattr(o, name) for o in known]
                values = self._accuracies[name].predict(rows, optimism)
                values = np.array([v if m is None else m for m, v in zip(measured, values, strict=True)])
            elif name in latencies:
                values = latencies[name]
            else:
                count = {MACS.name: cost.macs, PARAMS.name: cost.params}[name]
                values = np.array([count(a, backbone) for a in architectures], dtype=float)
            columns.append((objective.ideal - values) / (objective.ideal - objective.reference))
        losses = np.maximum(np.stack(columns, axis=1), 0.0)
        for name, bound in self._bounds.items():
            excess = latencies[name][:, None] / bound - 1
            losses = np.where(excess > 0, np.maximum(losses, 1 + excess), losses)
        return losses


class _Surrogate:
    """A Gaussian process (scikit-learn's) over standardised features."""

    def __init__(self, rows: Floats, values: Floats, errors: Floats) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        self._varies = rows.std(axis=0) > 1e-9
        kept = rows[:, self._varies]
        self._center, self._scale = kept.mean(axis=0), kept.std(axis=0)
        self._mean, self._spread = float(values.mean()), float(values.std()) or 1.0
        length = math.sqrt(max(1, kept.shape[1]))
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(length, (0.1 * length, 100 * length), nu=2.5) + WhiteKernel(
            0.05, (1e-4, 1.0)
        )
        self._process = GaussianProcessRegressor(kernel, alpha=1e-6 + (errors / self._spread) ** 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a bound reached is an answer too
            self._process.fit((kept - self._center) / self._scale, (values - self._mean) / self._spread)

    def predict(self, rows: Floats, optimism: float) -> Floats:
        inputs = (rows[:, self._varies] - self._center) / self._scale
        if not optimism:
            return np.asarray(self._mean + self._spread * self._process.predict(inputs))
        mean, deviation = self._process.predict(inputs, return_std=True)
        return np.asarray(self._mean + self._spread * (mean + optimism * deviation))


def features(architectures: Sequence[Architecture], space: SearchSpace) -> Floats:
    """What a surrogate sees: each layer's choices, sizes as logarithms, and the totals: [n, features]."""
    return np.array([list(_features(architecture, space)) for architecture in architectures], dtype=float)


def _features(architecture: Architecture, space: SearchSpace) -> Iterator[float]:
    tokens = []
    for i in range(len(space.layers)):
        if i >= architecture.depth:
            yield from [0.0] * (6 + len(REDUCERS) + len(ATTENTION) + len(HALLUCINATION))
            continue
        layer = architecture.layers[i]
        tokens.append(layer.num_tokens)
        yield 1.0
        yield math.log(layer.num_tokens / space.backbone.num_patches)
        yield from (float(layer.reducer == name) for name in REDUCERS)
        yield from (float(layer.attention == name) for name in ATTENTION)
        yield float(layer.num_heads)
        yield layer.num_hallucinated / layer.num_heads
        yield from (float(layer.hallucination == name) for name in HALLUCINATION)
        yield layer.ffn_rank
        yield math.log(layer.mlp_ratio)
    yield math.log(architecture.embed_dim)
    yield float(architecture.depth)
    yield math.log(sum(tokens) / len(tokens))
    yield math.log(cost.macs(architecture, space.backbone))
    yield math.log(cost.params(architecture, space.backbone))


def _best(architectures: Sequence[Architecture], losses: Floats) -> list[Architecture]:
    """Parents: the least dominated, front after front."""
    order = np.argsort(moocore.pareto_rank(losses), kind="stable")
    return [architectures[i] for i in order[:PARENTS]]


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


def _most_hypervolume(front: Floats, candidates: Sequence[Floats], size: int) -> list[int]:
    """Choose candidates one by one, each by the hypervolume it adds to the front and to those before it.

    What a candidate adds only falls as others are chosen, so one that still leads after being looked at again is
    the best (lazy greedy). Of those that add nothing, what is least beyond the reference comes first.
    """

    def volume(rows: Floats) -> float:
        inside = rows[(rows < 1.0).all(axis=1)]
        return float(moocore.hypervolume(inside, ref=np.ones(rows.shape[1]))) if len(inside) else 0.0

    base = volume(front)
    beyond = [max(0.0, float(row.max()) - 1) for row in candidates]
    queue = [(base - volume(np.vstack([front, row])), beyond[i], i, 0) for i, row in enumerate(candidates)]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < size:
        gain, _, i, looked = heapq.heappop(queue)
        if looked < len(chosen):
            now = base - volume(np.vstack([front, candidates[i]]))
            heapq.heappush(queue, (now, beyond[i], i, len(chosen)))
            continue
        chosen.append(i)
        front = np.vstack([front, candidates[i]])
        base -= gain
    return chosen
