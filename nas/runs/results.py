"""All that a run has measured, over its supernets, as the report shows it."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch import Architecture
from nas.base import BALANCED, LATENCIES, LATENCY, MACS, METRICS, TOP1, ArchitectureError, RunError, command_line
from nas.runs.curve import hypervolume_curve
from nas.runs.directory import TRUST, RunDirectory, space_of_run
from nas.runs.dominance import non_dominated
from nas.runs.front import MIN_PREFIX, ParetoFront, read_architecture
from nas.runs.manifest import clock_factors
from nas.runs.point import FINALIST, FrontPoint, points_of
from nas.runs.supernets import front_of, trials_by_supernet, union_points
from nas.runs.trial import Trial
from nas.space import SearchSpace, is_plain, known_designs


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults:
    """All that a run has measured.

    Attributes:
        front: The final one, or that of the trials so far.
        trials: By the folder of their supernet below the run's; of a run of one supernet under "". Their latencies are
            by the clock of the search.
        others: What was wholly measured and is not on the front, by the clocks of the front. Of an architecture in
            several supernets the best top-1 counts, and the conditions name all of them, as on the front.
    """

    run: RunDirectory
    space: SearchSpace
    front: ParetoFront
    trials: dict[str, list[Trial]]
    others: list[FrontPoint]

    @property
    def has_supernets(self) -> bool:
        """Whether the run is over several supernets."""
        return "" not in self.trials

    @property
    def all_trials(self) -> list[Trial]:
        """Over all supernets."""
        return [trial for trials in self.trials.values() for trial in trials]

    @property
    def points(self) -> dict[str, FrontPoint]:
        """Everything by digest, the front first."""
        return {point.digest: point for point in (*self.front.points, *self.others)}

    @property
    def curve(self) -> list[tuple[int, float]]:
        """How the hypervolume grew (`hypervolume_curve`)."""
        manifest = self.run.manifest
        objectives = manifest.search.objectives if manifest.search else self.front.objectives
        return hypervolume_curve(self.all_trials, objectives, manifest.constraints)

    def values(self, point: FrontPoint) -> dict[str, Any]:
        """Values and intervals of a point; null where something was not measured."""
        found = point.measurement
        values: dict[str, Any] = dict.fromkeys(METRICS)
        values |= {name: value for name, value in found.values.items() if math.isfinite(value)}
        balanced = [BALANCED.name] * (found.balanced_top1 is not None)
        for name in (TOP1.name, *balanced, LATENCY.name, *found.latency):
            interval = found.intervals.get(name)
            values[f"{name}_ci"] = interval and list(interval)
        return values


def results_of(run: RunDirectory, front: ParetoFront | None = None) -> RunResults:
    """Read what a run has measured; `front` is its whole front where the caller has it.

    Raises:
        RunError: Nothing was measured yet, or the run is damaged.
    """
    front = front or front_of(run.path)
    if not front.points:
        raise RunError(f"{run.path}: nothing was measured yet", hint=f"see `{command_line('status', run.path)}`")
    trials, search = trials_by_supernet(run), run.manifest.search
    factors = clock_factors(search.reference_clocks, front.clocks) if search else {}
    whole = {name: points_of(of_one) for name, of_one in trials.items()}
    points = whole[""] if "" in whole else union_points(whole)
    on_front = {point.digest for point in front.points}
    others = {point.digest: point.scaled(factors) for point in reversed(points) if point.digest not in on_front}
    in_order = list(reversed(others.values()))
    return RunResults(run=run, space=space_of_run(run), front=front, trials=trials, others=in_order)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainViTs:
    """The plain ViTs that a run measured, beside its front; all by inherited weights.

    Attributes:
        num_measured: How many there are.
        points: Those that no other one dominates, cheapest first; they may be on the front as well.
        gains: By the name of a cost: for each point of the front that is no plain ViT itself by how many points its
            accuracy is above the best plain ViT of at most that cost; those cheaper than any plain ViT are left out.
            Empty where the front is ranked by a metric of one's own.
        num_front: Points of the front that are no plain ViTs.
    """

    num_measured: int
    points: tuple[FrontPoint, ...]
    gains: Mapping[str, tuple[float, ...]]
    num_front: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values under `plain` of `front.json`, which results/README.md explains."""
        above = {
            name: {
                "low": min(gains),
                "median": statistics.median(gains),
                "high": max(gains),
                "num_compared": len(gains),
            }
            for name, gains in self.gains.items()
        }
        return {"num_measured": self.num_measured, "above": above, "points": [point.to_dict() for point in self.points]}


def plain_vits(found: RunResults) -> PlainViTs:
    """The plain ViTs among all that was measured. MACs are compared, and latencies that are objectives.

    Beside a front of finalists there is no line: its networks were trained alone, plain ones among them.
    """
    front, accuracy = found.front, found.front.accuracy
    others = [point for point in front.points if not is_plain(point.architecture)]
    plain = [point for point in found.points.values() if is_plain(point.architecture)]
    if any(FINALIST in point.details for point in front.points):
        return PlainViTs(num_measured=len(plain), points=(), gains={}, num_front=len(others))
    objectives = [objective.metric for objective in front.objectives]
    values = [[point.value(metric) for metric in objectives] for point in plain]
    mask = non_dominated(np.reshape(values, (-1, len(objectives))), [metric.direction for metric in objectives])
    points = sorted((p for p, keep in zip(plain, mask, strict=True) if keep), key=lambda p: (p.value(MACS), p.digest))
    gains: dict[str, tuple[float, ...]] = {}
    if front.ranked_by != accuracy:
        return PlainViTs(num_measured=len(plain), points=tuple(points), gains=gains, num_front=len(front.points))
    for metric in (MACS, *(metric for metric in objectives if metric in LATENCIES.values())):
        known = [(p.value(metric), p.value(accuracy)) for p in plain if math.isfinite(p.value(accuracy))]
        rivals = [(p.value(accuracy), [best for spent, best in known if spent <= p.value(metric)]) for p in others]
        if above := tuple(own - max(tops) for own, tops in rivals if tops and math.isfinite(own)):
            gains[metric.name] = above
    return PlainViTs(num_measured=len(plain), points=tuple(points), gains=gains, num_front=len(others))


def design_points(found: RunResults) -> dict[str, FrontPoint]:
    """The known designs that the search measured, and the largest architecture, by name."""
    names = {a.digest: name for name, a in known_designs(found.space, found.space.seeds).items()}
    words = {digest: "plain ViT" if name == "deit" else name for digest, name in names.items()}
    if (search := found.run.manifest.search) is not None:
        largest = search.reference_digest
        words[largest] = f"{words[largest]}, largest" if largest in words else "largest"
    points = found.points
    return {name: points[digest] for digest, name in words.items() if digest in points}


def shared_beginning(runs: Sequence[RunDirectory]) -> int:
    """How many of the first trials propose the same in all runs, each of one supernet; else 0."""
    trials = [sorted(run.trials(), key=lambda trial: trial.number) for run in runs]
    proposed = [[trial.architecture.digest for trial in of_one] for of_one in trials]
    return sum(1 for _ in takewhile(lambda digests: len(set(digests)) == 1, zip(*proposed, strict=False)))


def picked(run: RunDirectory, text: str) -> FrontPoint | Architecture:
    """What a user asks for (`ParetoFront.pick`), on the front or not: all that was measured answers to its digest.

    What was not measured wholly, or is in an architecture file alone, comes back as an architecture.

    Raises:
        RunError: Nothing or more than one answers, or nothing was measured yet.
        ArchitectureError: The file holds no architecture, or one that is not in the run's space.
    """
    found = results_of(run)
    if Path(text).is_file():
        architecture = read_architecture(Path(text))
        if reasons := [] if architecture.digest in found.points else found.space.why_not(architecture):
            raise ArchitectureError(f"{text}: not in the space of {run.path}: " + "; ".join(reasons))
        return found.points.get(architecture.digest, architecture)
    try:
        return found.front.pick(text)
    except RunError:
        wanted = text.strip().lower()
        tried: dict[str, FrontPoint | Architecture] = {t.architecture.digest: t.architecture for t in found.all_trials}
        tried |= found.points  # wholly measured; the others were beaten early, or failed
        answers = [tried[digest] for digest in tried if digest.startswith(wanted)]
        if len(wanted) < MIN_PREFIX or len(answers) != 1:
            raise
        return answers[0]


SPLITS = {"top1": "search", "test_top1": "test"}
"""Splits on which what was trained alone is measured, by the key of the top-1."""

BALANCED_SPLITS = {"balanced_top1": "search", "test_balanced_top1": "test"}
"""The same by the key of the balanced accuracy, of runs that are after it."""


def network_row(
    name: str, about: Mapping[str, Any], inherited: Mapping[str, float], trainings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What was found of one network, JSON values.

    `about` has `digest`, `macs`, `params` and `from`. `trainings` have by key of `SPLITS`, and of `BALANCED_SPLITS`
    where it was measured, the accuracy in percent, and the `seed`, of each that ended well; there is at least one.
    `inherited` has the accuracies with the supernet's weights; nothing of a network that is not in it.
    """
    row: dict[str, Any] = {"name": name, **about, "seeds": [training["seed"] for training in trainings]}
    for key in [*SPLITS, *(key for key in BALANCED_SPLITS if key in trainings[0])]:
        values = [training[key] for training in trainings]
        row |= {
            f"inherited_{key}": inherited.get(key),
            key: statistics.fmean(values),
            f"{key}_sd": statistics.stdev(values) if len(values) > 1 else None,
            f"{key}_by_seed": values,
        }
    return row


def retrained_rows(finding: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of what `retrain` found: the picked network, then the baselines, as earlier versions had them, too."""
    former = [finding[key] for key in ("baseline", "whole") if finding.get(key) is not None]
    return [finding["picked"], *finding.get("baselines", former)]


def retrained_networks(found: RunResults) -> list[dict[str, Any]]:
    """What `retrain` found, a row a network: inherited and own top-1 on both splits, beside its costs."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    points = found.points
    on_front = {point.digest for point in found.front.points}
    for name, finding in found.run.findings().items():
        if name == TRUST:
            continue
        shared = {key: finding[key] for key in ("epochs", "search_images", "test_images", "supernet")}
        for i, row in enumerate(retrained_rows(finding)):
            digest = row["digest"]
            costs = found.values(points[digest]) if digest in points else {}
            about = {"file": name, "is_baseline": i > 0, "is_on_front": digest in on_front}
            row = {"from": finding["from"], **row}
            if LATENCY.name in row:  # it has other conditions than those of the front
                row["latency_alone_ms"] = row.pop(LATENCY.name)
            same = digest, row["from"], finding["epochs"], *row["seeds"], row["top1"]
            rows.setdefault(same, {**costs, **shared, **row, **about})
    return list(rows.values())
