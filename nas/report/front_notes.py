"""What a front says of its search: whether it sits at an edge of the space, whether its images can tell it apart."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from nas.arch import Architecture
from nas.base import MACS, plural
from nas.runs import ParetoFront
from nas.space import SearchSpace

LEAST_MEMBERS = 3  # at an edge, for a word on it
SHARE = 0.5  # of the inner members, likewise
MOST_BY_CHANCE = 5e-5  # probability of as many by chance; there are up to 15 edges, and cheap values are chosen often
OF_LAYERS = 0.75  # of a network's layers, for a gene of layers to be at an edge
DRAWS = {"sample_by_gene": 100, "sample": 100, "sample_stratified": 50}  # the last is a tenth as fast
Z_95 = 1.959964  # standard errors in half of a 95 % interval


class _Edge(NamedTuple):
    """A lowest or highest value that a space allows for a gene, where it allows others."""

    gene: str
    end: str  # `lowest` or `highest`
    value: float | None  # None where it is another one in every layer
    holds: Callable[[Architecture], bool]  # whether a network is there
    words: str  # what such networks do, and what to allow; empty where nothing lies beyond


def front_notes(front: ParetoFront, space: SearchSpace) -> dict[str, Any]:
    """What a front says of its search, JSON values: `edges`, `resolution`, and `notes`, sentences for people."""
    edges, resolution = edge_rows(front, space), resolution_of(front)
    rows = [*edges, *([] if resolution is None else [resolution])]
    return {"edges": edges, "resolution": resolution, "notes": [row["note"] for row in rows if row["note"]]}


def edge_rows(front: ParetoFront, space: SearchSpace) -> list[dict[str, Any]]:
    """How many members of a front are at each edge of its space, JSON values.

    The cheapest and the dearest member do not count: ends of a range of costs are at edges in any case. There is a
    `note` where at least half of the others and three are at an edge, which chance hardly does. By chance is what draws
    of the space do, gene by gene, uniformly or spread evenly over its MACs as a front is: whichever is there most
    often. `share_by_chance` is null where there is nothing to ask it for.
    """
    by_cost = sorted(front.points, key=lambda point: (point.value(MACS), point.digest))
    inner = [point.architecture for point in by_cost[1:-1]]
    if not inner:
        return []
    draws: dict[str, list[Architecture]] = {}
    rows = []
    for edge in _edges(space):
        at = sum(map(edge.holds, inner))
        by_chance, note = None, None
        if edge.words and at >= max(LEAST_MEMBERS, SHARE * len(inner)):
            by_chance, is_meant = _compare(edge, at, len(inner), space, draws)
            note = f"{at} of {len(inner)} inner front members {edge.words}" if is_meant else None
        row = {"gene": edge.gene, "end": edge.end, "value": edge.value, "members": len(inner)}
        rows.append({**row, "share": at / len(inner), "share_by_chance": by_chance, "note": note})
    return rows


def _compare(
    edge: _Edge, at: int, count: int, space: SearchSpace, draws: dict[str, list[Architecture]]
) -> tuple[float, bool]:
    """The share at an edge by chance, and whether `at` of `count` are more; `draws` are kept for the next edge."""
    by_chance = 0.0
    for name, number in DRAWS.items():
        if name not in draws:
            rng = np.random.default_rng(0)
            draws[name] = [getattr(space, name)(rng) for _ in range(number)]
        there = sum(map(edge.holds, draws[name]))
        by_chance = max(by_chance, (there + 1) / (number + 2))
        if _tail(at, count, by_chance) > MOST_BY_CHANCE:
            return by_chance, False
    return by_chance, True


def _tail(at: int, count: int, probability: float) -> float:
    """Probability that at least so many of `count` are somewhere, each with the same probability."""
    return sum(math.comb(count, k) * probability**k * (1 - probability) ** (count - k) for k in range(at, count + 1))


def _edges(space: SearchSpace) -> Iterator[_Edge]:
    for gene in ("embed_dim", "depth"):
        values = getattr(space, gene)
        for end, value, word, beyond in _ends(values):
            words = f"have the {word} {gene}, {value}: allow {beyond} ones" if value > 1 or end == "highest" else ""
            yield _Edge(gene, end, value, lambda a, gene=gene, value=value: getattr(a, gene) == value, words)  # type: ignore[misc]
    for gene, least, most in (("num_heads", 1, math.inf), ("mlp_ratio", 0, math.inf), ("ffn_rank", 0, 1)):
        yield from _edges_of_layers(space, gene, least, most)
    yield from _edges_of_tokens(space)


def _ends(values: Sequence[float]) -> Iterator[tuple[str, Any, str, str]]:
    if len(values) > 1:
        yield "lowest", min(values), "least", "lower"
        yield "highest", max(values), "greatest", "higher"


def _edges_of_layers(space: SearchSpace, gene: str, least: float, most: float) -> Iterator[_Edge]:
    """Of a gene that each layer has: at an edge is a network most of whose layers with a choice are."""
    chosen = {i: values for i, domain in enumerate(space.layers) if len(values := getattr(domain, gene)) > 1}
    for end, word, beyond, take in (("lowest", "least", "lower", min), ("highest", "greatest", "higher", max)):
        ends = {i: take(values) for i, values in chosen.items()}
        if not ends or set(ends.values()) <= {least, most}:
            words = ""
        else:
            said = ", ".join(f"{value:g}" for value in sorted(set(ends.values())))
            words = f"have the {word} {gene}, {said}, in most layers: allow {beyond} ones"

        def holds(architecture: Architecture, ends: dict[int, float] = ends) -> bool:
            own = [
                getattr(architecture.layers[i], gene) == value for i, value in ends.items() if i < architecture.depth
            ]
            return bool(own) and sum(own) >= OF_LAYERS * len(own)

        if ends:
            values = set(ends.values())
            yield _Edge(gene, end, values.pop() if len(values) == 1 else None, holds, words)


def _edges_of_tokens(space: SearchSpace) -> Iterator[_Edge]:
    patches, often = space.backbone.num_patches, space.walk.start.reductions_left
    if not often:
        return
    fewest = min(n for domain in space.layers for n in domain.num_tokens)
    words = f"come down to the fewest num_tokens, {fewest}: allow fewer" if fewest > 1 else ""
    yield _Edge("num_tokens", "lowest", fewest, lambda a: a.layers[-1].num_tokens == fewest, words)
    yield _Edge("num_tokens", "highest", patches, lambda a: a.layers[-1].num_tokens == patches, "")
    words = (
        f"reduce their tokens as often as may be, {plural(often, 'time')}: allow more reductions, or more num_tokens"
    )
    yield _Edge("reductions", "lowest", 0, lambda a: not _reductions(a), "")
    yield _Edge("reductions", "highest", often, lambda a: len(_reductions(a)) == often, words)
    first = next(i for i, domain in enumerate(space.layers) if min(domain.num_tokens) < patches)
    words = f"reduce their tokens in the first layer that may (layer {first}): allow it earlier" if first else ""
    yield _Edge("first_reduction", "lowest", first, lambda a: _reductions(a)[:1] == [first], words)


def _reductions(architecture: Architecture) -> list[int]:
    """The layers that reduce their tokens."""
    return [i for i, layer in enumerate(architecture.layers) if layer.reducer is not None]


def resolution_of(front: ParetoFront) -> dict[str, Any] | None:
    """Whether the images that a front was measured on can tell its members apart; None where no error is known.

    Gaps are those between one accuracy and the next on the front, in percentage points, the standard error is that of
    one accuracy, and `images_needed` so many that it would be as small as the median gap: it goes with the root of
    their number. A `note` where the gap is the smaller one.
    """
    name, label = front.accuracy.name, front.accuracy.label
    values = sorted({point.value(front.accuracy) for point in front.points})
    intervals = [pair for point in front.points if (pair := point.measurement.intervals.get(name)) is not None]
    if len(values) < LEAST_MEMBERS or not intervals:
        return None
    error = statistics.median((high - low) / (2 * Z_95) for low, high in intervals)
    gap = statistics.median(high - low for low, high in pairwise(values))
    conditions = front.points[0].measurement.conditions
    needed = math.ceil(conditions.num_images * (error / gap) ** 2)
    note = (
        f"neighbours on this front differ by {gap:.2g} points of {label} (median), less than the standard error of "
        f"one, {error:.2g} on {conditions.num_images:,} images of the {conditions.split} split: to bring that down to "
        f"the gap would take some {float(f'{needed:.2g}'):,.0f} images, at these accuracies"
    )
    return {
        "images": conditions.num_images,
        "split": conditions.split,
        "lowest": values[0],
        "highest": values[-1],
        "median_gap": gap,
        "standard_error": error,
        "images_needed": needed,
        "note": note if gap < error else None,
    }
