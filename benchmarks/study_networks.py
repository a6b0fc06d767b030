"""What `study.py` compares: levels of cost, plain and pooled shapes, what a search found, and how many get how far."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture, LayerChoice, cost
from nas.base import MACS, TOP1
from nas.evaluation import unpack
from nas.runs import FINALIST, FrontPoint, ParetoFront, RunDirectory, points_of
from nas.space import SearchSpace, sample_near

LEVELS = (8.0, 16.0)
"""MMACs. A network belongs to a level if its MACs are 75 to 100 % of it."""
LEAST = 0.75
SHAPES = 6  # plain ones a level that are trained
ARMS = ("found", "finalists", "plain", "hand", "elastic", "random")
DRAWS = 5_000  # before a random network of a level is made by bringing one near it
ETA = 3  # of successive halving: epochs grow by it, and so many times fewer networks go on


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """An arm's network at a level, and where it comes from."""

    level: float
    arm: str
    architecture: Architecture
    on_front: bool = True  # false: no member of the front is in the level, so it is the best measured one


def belongs(architecture: Architecture, space: SearchSpace, level: float) -> bool:
    """Whether its MACs are within the level."""
    return LEAST * level <= cost.macs(architecture, space.backbone) / 1e6 <= level


def plain_family(space: SearchSpace) -> list[Architecture]:
    """The plain ViTs of a space: every width, depth and MLP ratio, with heads as near to width / `head_dim` as it has.

    Sorted by width, then depth, then MLP ratio.
    """
    patches, first = space.backbone.num_patches, space.layers[0]
    found = []
    for width, depth, ratio in itertools.product(*map(sorted, (space.embed_dim, space.depth, first.mlp_ratio))):
        wanted = width / space.backbone.head_dim
        heads = min(first.num_heads, key=lambda count: (abs(count - wanted), -count))
        convolves = min(first.ffn_conv)
        layer = LayerChoice(num_tokens=patches, num_heads=heads, mlp_ratio=ratio, ffn_conv=convolves)
        found.append(Architecture(embed_dim=width, layers=(layer,) * depth))
    return [architecture for architecture in found if not space.why_not(architecture)]


def pooled(architecture: Architecture) -> Architecture:
    """A plain ViT with one pooling to a quarter of the tokens before its second half."""
    first = architecture.layers[0]
    late = replace(first, num_tokens=first.num_tokens // 4)
    middle = architecture.depth // 2
    layers = (
        *architecture.layers[:middle],
        replace(late, reducer="pool"),
        *(late,) * (architecture.depth - middle - 1),
    )
    return replace(architecture, layers=layers)


def spread(values: Sequence[Architecture], most: int) -> list[Architecture]:
    """At most so many of them, at even distances, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def plain_shapes(space: SearchSpace, level: float, most: int = SHAPES) -> list[Architecture]:
    """Plain ViTs of a level, spread evenly over its part of `plain_family`."""
    return spread([a for a in plain_family(space) if belongs(a, space, level)], most)


def by_hand(space: SearchSpace, level: float) -> Architecture | None:
    """The pooled plain ViT of the level with the most MACs, which fits it best; None where the space has none."""
    shapes = [a for a in plain_family_pooled(space) if belongs(a, space, level)]
    return max(shapes, key=lambda a: (cost.macs(a, space.backbone), a.digest), default=None)


def plain_family_pooled(space: SearchSpace) -> list[Architecture]:
    """`plain_family` with a pooling each; their plain ones may break the space's bounds."""
    free = replace(space, constraints=type(space.constraints)())
    return [a for a in map(pooled, plain_family(free)) if not space.why_not(a)]


def random_network(space: SearchSpace, level: float, seed: int) -> Architecture | None:
    """Drawn uniformly from the space until one belongs to the level; None where even one brought near it does not."""
    rng = np.random.default_rng([seed, round(1e3 * level)])
    for _ in range(DRAWS):
        if belongs(drawn := space.sample(rng), space, level):
            return drawn
    near = sample_near(space, (1 + LEAST) / 2 * 1e6 * level, rng)
    return near if belongs(near, space, level) else None


# --- what a search found -------------------------------------------------------------------------------------


def within(points: Sequence[FrontPoint], level: float) -> list[FrontPoint]:
    """Points of a level, the most accurate by the search split first."""
    inside = [p for p in points if LEAST * level <= p.value(MACS) / 1e6 <= level and np.isfinite(p.value(TOP1))]
    return sorted(inside, key=lambda p: (-p.value(TOP1), p.digest))


def found_pick(run: RunDirectory, level: float, arm: str) -> Pick | None:
    """The most accurate member of the search's front in the level, else the most accurate network measured there.

    The front is that before `finalists`. None where nothing was measured in the level.
    """
    search = run.manifest.search
    assert search is not None, "a run that was searched"
    front = ParetoFront.from_trials(run.trials(), search.objectives, run.manifest.constraints)
    for points, on_front in ((front.points, True), (points_of(run.trials()), False)):
        if inside := within(points, level):
            return Pick(level=level, arm=arm, architecture=inside[0].architecture, on_front=on_front)
    return None


def finalist_pick(run: RunDirectory, level: float) -> Pick | None:
    """The most accurate finalist on the front in the level, else the candidate there that was trained furthest.

    Of candidates trained as far, the most accurate one. None where no candidate is in the level.
    """
    final = run.front()
    assert final is not None, "a run with finalists"
    front = [p for p in ParetoFront.from_dict(final).points if FINALIST in p.details]
    if inside := within(front, level):
        return Pick(level=level, arm="finalists", architecture=inside[0].architecture)
    known = {trial.architecture.digest: trial.architecture for trial in run.trials()}
    rows: list[Mapping[str, Any]] = final["finalists"]["candidates"]
    reached = [
        (sum(top1 is not None for top1 in row["trained"]), max(t for t in row["trained"] if t is not None), row)
        for row in rows
        if LEAST * level <= row["macs"] / 1e6 <= level and any(top1 is not None for top1 in row["trained"])
    ]
    if not reached:
        return None
    _, _, best = max(reached, key=lambda each: (each[0], each[1], each[2]["digest"]))
    return Pick(level=level, arm="finalists", architecture=known[best["digest"]], on_front=False)


def halves_picks(run: RunDirectory, level: float) -> dict[str, tuple[FrontPoint, float]]:
    """What is chosen in a level by the whole search split and by each half of it, and its measured top-1, percent.

    `whole` is measured on the images that chose it; `even` was chosen by the even images of the split and is measured
    on the odd ones, and `odd` the other way round: cross-fitting, so these two carry no optimism of the choice. Empty
    where nothing was measured in the level.
    """
    points = within(points_of(run.trials()), level)
    if not points:
        return {}
    answers = np.array([unpack(p.measurement.correct, p.measurement.conditions.num_images) for p in points])
    halves = {"even": answers[:, ::2], "odd": answers[:, 1::2]}
    found = {"whole": (points[0], points[0].value(TOP1))}
    for name, other in (("even", "odd"), ("odd", "even")):
        chosen = int(np.argmax(halves[name].mean(axis=1)))
        found[name] = points[chosen], 100 * float(halves[other][chosen].mean())
    return found


# --- successive halving --------------------------------------------------------------------------------------


def rungs(count: int, epochs: int) -> list[tuple[int, int]]:
    """Networks and epochs of each rung: all at a ninth of the epochs, a third at a third, one at all of them."""
    counts = [count, max(1, count // ETA), 1]
    lengths = [max(1, epochs // ETA**2), max(1, epochs // ETA), epochs]
    return list(zip(counts, lengths, strict=True))


def affordable(counts: Mapping[float, int], epoch_seconds: Mapping[float, float], budget: float) -> int:
    """The most epochs of the last rung with which halving on all levels ends within the budget, at least 1.

    `counts` and `epoch_seconds` are, by level, how many networks begin and what an epoch of one takes.
    """

    def total(epochs: int) -> float:
        return sum(n * e * epoch_seconds[level] for level, count in counts.items() for n, e in rungs(count, epochs))

    epochs = 1
    while total(epochs + 1) <= budget:
        epochs += 1
    return epochs


def survivors(scores: Mapping[str, float], count: int) -> list[str]:
    """Digests of the so many best by the search split; ties go to the lower digest."""
    return sorted(scores, key=lambda digest: (-scores[digest], digest))[:count]


def packed(correct: NDArray[np.bool_]) -> str:
    """Answers as hexadecimal digits, for a line."""
    return np.packbits(correct).tobytes().hex()
