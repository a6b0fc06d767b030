"""`finalists RUN`: candidates for the front, and plain rivals, trained on from inherited weights; the best stay."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from nas.arch import cost
from nas.base import MACS, SCHEMA_VERSION, ConfigError, NoResultError, Reporter, RunError, plural
from nas.jobs.alone import StandAloneSetup, trained_network
from nas.jobs.alone_records import inherited_setup, trained_alone
from nas.jobs.session import Session, reopen
from nas.jobs.stages import measure_points, search_identity, training_schedule
from nas.runs import FINALIST, FrontPoint, ParetoFront, points_of, searched_runs
from nas.space import is_plain
from nas.training import load_trained, weights_digest

A_LEVEL = 3  # candidates: the front's best there, the best plain one, and the next best
HALVING = 3  # epochs of the last rung over those of the first
DRAWS = 64  # for the mean MACs of a step of the supernet

Levels = list[list[FrontPoint]]
"""Candidates by level of cost, the cheapest level first; in each the most promising first."""


def finalists(
    path: Path, reporter: Reporter, *, count: int, epochs: int | None, workers: int, data: str | None = None
) -> dict[str, Any]:
    """Train so many candidates on, each alone from its slice of the supernet, and make the front of the best.

    The range of costs of the front is cut into levels. Of each, a few networks that the search measured are trained for
    a third of `epochs` (`candidates`), and the best of them, on the search split, once more from the supernet's weights
    for all: successive halving (Hyperband, arXiv 1603.06560), by level, so that a front is left. These are measured
    again, latency included, and those that no other dominates are the run's front from then on; whatever wins is
    exported with its own weights, even where it is plain. Where `epochs` is None, all trainings together cost about
    half of the supernet's, in MACs. Finished trainings are kept, and the same command goes on. With 0 workers all is
    done in this process. `data` says where the images are now (`nas.jobs.session.reopen`).

    Returns:
        The key `finalists` of `front.json`: JSON values, explained in results/README.md.

    Raises:
        ConfigError: Fewer than 2 candidates, or no epochs are said of a supernet that was not trained here.
        RunError: The search has not ended, is over several supernets, or another process writes into the run.
        NoResultError: All trainings failed.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    if count < 2:
        raise ConfigError(f"--count {count}: nothing to choose from", hint="12 are four levels of cost, three each")
    session = reopen(path, reporter, data)
    run = session.run
    if searched_runs(run) or run.manifest.supernet_trial is not None:
        text = f"{path}: finalists are of one supernet, and this run is over several or one of these"
        raise RunError(text, hint="`run` with the best supernet's parameters makes a run of its own")
    with run.lock():
        supernet = load_trained(run, session.space, session.device)
        if run.front() is None:
            raise RunError(f"{path}: the search has not ended, so there is no front", hint="run it to the end first")
        identity = search_identity(session, supernet)
        inherited = ParetoFront.from_trials(run.trials(), identity.objectives, run.manifest.constraints)
        levels = candidates(inherited, points_of(run.trials()), count)
        epochs = _affordable(session, levels) if epochs is None else epochs
        rungs = sorted({max(1, epochs // HALVING), epochs})
        top1s: dict[str, dict[int, float]] = {point.digest: {} for level in levels for point in level}
        records: dict[str, dict[str, Any]] = {}
        for epoch in rungs:
            setup = inherited_setup(session, epoch, run.finalists_dir)
            setup = replace(setup, keeps_weights=epoch == rungs[-1])
            architectures = [point.architecture for level in levels for point in level]
            for record in trained_alone(setup, 1, architectures, session.data, workers, reporter):
                if record["error"] is None:
                    top1s[record["digest"]][epoch] = record[inherited.accuracy.name]
                    records[record["digest"]] = record
                else:
                    reporter.line("failed", f"{record['digest']}: {record['error']}")
            keep = 1 if epoch == rungs[-1] else 1 / HALVING
            levels = [
                best_of(level, {p: by[epoch] for p, by in top1s.items() if epoch in by}, keep) for level in levels
            ]
        trained = [_trained(session, setup, point, records[point.digest]) for level in levels for point in level[:1]]
        if not trained:
            raise NoResultError(
                f"{path}: every training failed", hint=f"see above; delete {run.finalists_dir} to retry"
            )
        subnets = [trained_network(setup, point.architecture) for point in trained]
        found = ParetoFront(inherited.objectives, tuple(trained), clocks=identity.reference_clocks)
        about = _described(session, inherited, top1s, [point.digest for point in trained], rungs)
        front = measure_points(session, supernet, found, subnets, about={"finalists": about})
    plain = sum(is_plain(point.architecture) for point in front.points)
    reporter.line("finalists", f"front of {len(front.points)} trained on for {plural(epochs, 'epoch')}, {plain} plain")
    return {"schema_version": SCHEMA_VERSION, **about}


def best_of(level: Sequence[FrontPoint], accuracies: Mapping[str, float], keep: float) -> list[FrontPoint]:
    """This share of a level's candidates, at least one, best first; those without an accuracy failed."""
    ranked = sorted((p for p in level if p.digest in accuracies), key=lambda p: -accuracies[p.digest])
    return ranked[: max(1, int(len(level) * keep))]


def candidates(front: ParetoFront, measured: Sequence[FrontPoint], count: int) -> Levels:
    """So many networks for a front's last choice, by level of cost.

    The levels are equal parts of the front's range of the first objective that is a cost (log scale; MACs where none
    is), as many as can have `A_LEVEL` candidates. A level's are, in this order: its most accurate member of the front,
    its most accurate plain network, and then by accuracy whatever was `measured` there.
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
        first = [point for point in level if point.digest in on_front][:1]
        plain = [point for point in level if is_plain(point.architecture) and point not in first][:1]
        ranked.append([*first, *plain, *(point for point in level if point not in (*first, *plain))])
    rounds = zip_longest(*([(i, point) for point in level] for i, level in enumerate(ranked)))
    chosen = [place for each in rounds for place in each if place is not None][:count]
    return [[point for i, point in chosen if i == level] for level in range(num_levels)]


def _affordable(session: Session, levels: Levels) -> int:
    """Epochs of the last rung with which all trainings cost half of what the supernet's did, in MACs; at least one."""
    space, rng = session.space, np.random.default_rng(0)
    supernet_epochs = training_schedule(session.config, session.data.train).epochs
    if not supernet_epochs:
        raise ConfigError(f"{session.run.path}: its supernet had no epoch of training", hint="give --epochs N")
    step = fmean(cost.macs(space.sample_by_gene(rng), space.backbone) for _ in range(DRAWS))
    return epochs_within(supernet_epochs * step / 2, [[point.value(MACS) for point in level] for level in levels])


def epochs_within(budget: float, macs: Sequence[Sequence[float]]) -> int:
    """The most epochs of the last rung, at least one, for candidates of so many MACs by level.

    The budget is in MACs of a forward pass times epochs. Which candidate of a level goes on is not known: their mean.
    """
    levels = [level for level in macs if level]
    return max(1, int(budget / (sum(map(sum, levels)) / HALVING + sum(map(fmean, levels)))))


def _trained(session: Session, setup: StandAloneSetup, point: FrontPoint, record: Mapping[str, Any]) -> FrontPoint:
    """A point with the accuracy of its own training, and what it had before among its details."""
    before = point.measurement
    weights = f"{weights_digest(session.run)}, each trained on for {plural(record['epochs'], 'epoch')}"
    measurement = replace(
        before,
        top1=record["top1"],
        top1_interval=tuple(record["top1_ci"]),
        conditions=replace(before.conditions, supernet=weights),
        correct=b"",
    )
    if before.balanced_top1 is not None:
        interval = record["balanced_top1_ci"]
        measurement = replace(
            measurement, balanced_top1=record["balanced_top1"], balanced_top1_interval=interval and tuple(interval)
        )
    about = {
        "inherited_top1": before.top1,
        "epochs": record["epochs"],
        "weights": setup.path(point.architecture, ".safetensors").name,
        "plain": is_plain(point.architecture),
    }
    return replace(point, measurement=measurement, details={**point.details, FINALIST: about})


def _described(
    session: Session,
    inherited: ParetoFront,
    top1s: Mapping[str, Mapping[int, float]],
    chosen: Sequence[str],
    rungs: Sequence[int],
) -> dict[str, Any]:
    """What `front.json` says of the trainings, and the front that there was before."""
    known = {point.digest: point for point in points_of(session.run.trials())}
    metric = inherited.accuracy
    on_front = {point.digest for point in inherited.points}
    return {
        "accuracy": metric.name,
        "epochs": list(rungs),
        "candidates": [
            {
                "digest": digest,
                "macs": known[digest].value(MACS),
                "inherited": known[digest].value(metric),
                "trained": [by_epoch.get(epoch) for epoch in rungs],
                "chosen": digest in chosen,
                "plain": is_plain(known[digest].architecture),
                "on_inherited_front": digest in on_front,
            }
            for digest, by_epoch in top1s.items()
        ],
        "inherited_front": [
            {"digest": point.digest, "accuracy": point.value(metric), "macs": point.value(MACS)}
            for point in inherited.points
        ],
    }
