"""Which networks are candidates for a front's last choice, which go on after a rung, and for how long they train."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import inf

import numpy as np

from nas.base import MACS, Metric
from nas.runs import FrontPoint, ParetoFront
from nas.space import is_plain

A_LEVEL = 2  # candidates: the front's best there, and the best plain one or the next best
KEEP = 0.5  # of the candidates are in the last rung
HALVING = 3  # epochs of the last rung over those of the first
MOST_EPOCHS = 1_000_000

Levels = list[list[FrontPoint]]
"""Candidates by level of cost, the cheapest level first; in each the most promising first."""


def candidates(front: ParetoFront, measured: Sequence[FrontPoint], count: int) -> Levels:
    """So many networks for a front's last choice, by level of cost.

    The levels are equal parts of the front's range of the first objective that is a cost (log scale; MACs where none
    is), as many as can have `A_LEVEL` candidates. A level's are, in this order: its most accurate member of the front,
    its most accurate plain network, and then by accuracy its other members of the front and whatever was `measured`
    there. What one level lacks, others have.
    """
    metric = next((o.metric for o in front.objectives if o.metric.direction == "minimize"), MACS)
    costs = [point.value(metric) for point in front.points]
    num_levels = max(1, min(len(set(costs)), count // A_LEVEL))
    edges = np.geomspace(min(costs), max(costs), num_levels + 1)[1:-1]
    on_front = {point.digest for point in front.points}
    by_level: list[dict[str, FrontPoint]] = [{} for _ in range(num_levels)]
    for point in sorted((*front.points, *measured), key=lambda p: (-p.value(front.accuracy), p.digest)):
        if np.isfinite(point.value(metric)) and np.isfinite(point.value(front.accuracy)):
            by_level[int(np.searchsorted(edges, point.value(metric)))].setdefault(point.digest, point)
    ranked: Levels = []
    for level in map(list, map(dict.values, by_level)):
        members = [point for point in level if point.digest in on_front]
        plain = [point for point in level if is_plain(point.architecture) and point not in members[:1]][:1]
        in_order = [*members[:1], *plain, *members[1:], *level]
        ranked.append(list({point.digest: point for point in in_order}.values()))
    rounds = zip_longest(*([(i, point) for point in level] for i, level in enumerate(ranked)))
    chosen = [place for each in rounds for place in each if place is not None][:count]
    return [[point for i, point in chosen if i == level] for level in range(num_levels)]


def least_beaten(
    points: Sequence[FrontPoint], accuracies: Mapping[str, float], costs: Sequence[Metric], count: int
) -> list[FrontPoint]:
    """So many of the points, at least one: those least below the most accurate one that costs no more in anything.

    Accuracies go by digest. So all that is on the front of the points stays, what no error could put there goes first,
    and of what is hardly beaten there may be several at a cost: another training may turn them round.
    """

    def beaten(point: FrontPoint) -> float:
        no_dearer = [o for o in points if o is not point and all(o.value(m) <= point.value(m) for m in costs)]
        return max((accuracies[o.digest] for o in no_dearer), default=-inf) - accuracies[point.digest]

    return sorted(points, key=lambda point: (beaten(point), point.digest))[: max(1, count)]


def rungs_of(epochs: int) -> list[int]:
    """Epochs of each rung: a third of those of the last, and these; one rung where there is no third."""
    return sorted({epochs // HALVING, epochs} - {0})


def trained_cost(epochs: int, macs: Sequence[float], seeds: int = 1) -> float:
    """MACs of a forward pass times epochs, over all trainings of candidates of so many MACs.

    Which candidates go on is not known beforehand: the last rung has their mean.
    """
    *first, last = rungs_of(epochs)
    return sum(macs) * (sum(first) + (KEEP if first else 1) * last * seeds)


def epochs_within(budget: float, macs: Sequence[float], seeds: int = 1) -> int:
    """The most epochs of the last rung for candidates of so many MACs; 0: not even one can be had."""
    return bisect_right(range(1, MOST_EPOCHS + 1), budget, key=lambda epochs: trained_cost(epochs, macs, seeds))
