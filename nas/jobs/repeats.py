"""`search RUN --seeds N`: the search once more with other seeds, in the same supernet. Which points are found again?"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nas.base import LATENCIES, TOP1, Metric, Objective, RunError, plural
from nas.jobs.measures import search_identity
from nas.jobs.session import Budget, Session
from nas.jobs.stages import measure_points, search_into
from nas.runs import FOUND_BY, MANIFEST, FrontPoint, ParetoFront, RunDirectory, Trial, points_of, searched_runs
from nas.study import ReusedMeasurement
from nas.training import load_trained

KNOWN_WITHIN = 1.02  # of a latency: less is not known (docs/latency.md)
Z_ONE_SIDED_95 = 1.645


def repeat(session: Session, budget: Budget, seeds: int) -> ParetoFront:
    """Search a run's supernet with so many seeds in all, its own first, and write the front of all of them.

    Each search proposes as many architectures as the run's own did. What an earlier one measured under the same
    conditions is taken over, so a repetition costs only what it finds anew; its trials are in `searches/seed-<n>` of
    the run, its study beside them, and the same call goes on there. Searches that were made before stay, where fewer
    are asked for. The supernet is the run's, and so is the seed of the images. Beside the front, `front.json` has under
    `seeds` the hypervolume of every search, and each point how many searches found it (`found_by`).

    Raises:
        RunError: The search has not ended, or is over several supernets.
        NasError: As `stages.search`.
        KeyboardInterrupt: Ctrl-C; what is finished is kept.
    """
    run, say = session.run, session.reporter.line
    if searched_runs(run) or run.manifest.supernet_trial is not None:
        raise RunError(f"{run.path}: --seeds is for a run of one supernet", hint="leave it out")
    with run.lock():
        supernet = load_trained(run, session.space, session.device)
        identity = search_identity(session, supernet)
        objectives, bounds = identity.objectives, run.manifest.constraints
        found = {session.config.seed: run.trials()}
        proposed = len({trial.architecture.digest for trial in run.trials() if not trial.is_running})
        made = [int(path.name.removeprefix("seed-")) for path in run.searches_dir.glob("seed-*")]
        for seed in range(session.config.seed + 1, max([session.config.seed + seeds - 1, *made]) + 1):
            say("seeds", f"seed {seed}: {plural(proposed, 'architecture')}, what was measured before is taken over")
            again = _folder(run, seed)
            known = _known(found.values(), objectives, run.name)
            as_many = replace(budget, trials=proposed, minutes=None, storage=None)
            search_into(again, session, supernet, as_many, seed, known)
            found[seed] = again.trials()
        fronts = {seed: ParetoFront.from_trials(trials, objectives, bounds) for seed, trials in found.items()}
        points = [point for trials in found.values() for point in points_of(trials)]
        union = ParetoFront.from_points(points, objectives, bounds)
        counts = {
            point.digest: sum(_has(front.points, point, objectives) for front in fronts.values())
            for point in union.points
        }
        chosen = [replace(p, details={**p.details, FOUND_BY: counts[p.digest]}) for p in union.points]
        about = _described(fronts, found, union, counts)
        subnets = [supernet.extract(point.architecture) for point in chosen]
        front = measure_points(session, supernet, replace(union, points=tuple(chosen)), subnets, about={"seeds": about})
    stable = sum(point.details[FOUND_BY] == len(fronts) for point in front.points)
    say("seeds", f"{stable} of {len(front.points)} points were found by each of {len(fronts)} searches")
    return front


def _folder(run: RunDirectory, seed: int) -> RunDirectory:
    """Where a repetition's trials are; made where there is none."""
    path = run.searches_dir / f"seed-{seed}"
    if (path / MANIFEST).exists():
        return RunDirectory.open(path)
    manifest = run.manifest.model_copy(update={"stage": "searching"})
    return RunDirectory.create(path, manifest=manifest, space_text=run.space_text(), config=run.config())


def _known(
    searches: Iterable[Sequence[Trial]], objectives: Sequence[Objective], name: str
) -> dict[str, ReusedMeasurement]:
    """What earlier searches measured wholly, by digest; the first measurement of an architecture counts."""
    found: dict[str, ReusedMeasurement] = {}
    for trials in searches:
        for trial in trials:
            whole = trial.whole
            if whole is not None and all(objective.metric.name in whole.values for objective in objectives):
                source = trial.source or f"{name}#{trial.number}"
                found.setdefault(trial.architecture.digest, ReusedMeasurement(whole, source))
    return found


def _has(points: Sequence[FrontPoint], wanted: FrontPoint, objectives: Sequence[Objective]) -> bool:
    """Whether one of the points is as good: no dearer, and not surely less accurate on the images."""
    costs = [o.metric for o in objectives if o.metric.direction == "minimize"]
    accuracies = [o.metric for o in objectives if o.metric.direction == "maximize"]
    return any(
        all(point.value(metric) <= wanted.value(metric) * _within(metric) for metric in costs)
        and all(not _is_surely_below(point, wanted, metric) for metric in accuracies)
        for point in points
    )


def _within(metric: Metric) -> float:
    return KNOWN_WITHIN if metric.name in LATENCIES else 1.0


def _is_surely_below(point: FrontPoint, other: FrontPoint, metric: Metric) -> bool:
    """Whether a point is less accurate than another beyond the error of the images.

    Top-1 by those of the images that one network alone gets right (McNemar's test, one-sided, 95 %); another accuracy,
    or where answers were not kept, by the other's interval.
    """
    gap = other.value(metric) - point.value(metric)
    if gap <= 0:
        return False
    ours, theirs = point.measurement.correct, other.measurement.correct
    if metric is TOP1 and ours and theirs:
        right = [np.unpackbits(np.frombuffer(packed, np.uint8)).astype(bool) for packed in (ours, theirs)]
        differ = int((right[0] ^ right[1]).sum())
        images = other.measurement.conditions.num_images
        return gap > Z_ONE_SIDED_95 * 100 * math.sqrt(differ) / images
    interval = other.measurement.intervals.get(metric.name)
    return interval is None or point.value(metric) < interval[0]


def _described(
    fronts: Mapping[int, ParetoFront],
    found: Mapping[int, Sequence[Trial]],
    union: ParetoFront,
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """The key `seeds` of `front.json`, JSON values: hypervolumes are of the latencies of the searches."""
    volumes = [front.hypervolume() for front in fronts.values()]
    return {
        "searches": [
            {
                "seed": seed,
                "hypervolume": volume,
                "front_size": len(fronts[seed].points),
                "measured": sum(trial.is_paid for trial in found[seed]),
                "architectures": len({trial.architecture.digest for trial in found[seed]}),
            }
            for seed, volume in zip(fronts, volumes, strict=True)
        ],
        "hypervolume_low": min(volumes),
        "hypervolume_median": statistics.median(volumes),
        "hypervolume_high": max(volumes),
        "hypervolume_union": union.hypervolume(),
        "stable": sum(count == len(fronts) for count in counts.values()),
    }
