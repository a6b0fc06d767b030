"""What a run's folder should hold and does not: numbers never change without a word."""

import csv
from collections.abc import Iterable, Iterator, Sequence

from nas.base import plural
from nas.runs.directory import FRONT, FRONT_CSV, TRIALS, TRIALS_CSV, RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.supernets import all_trials, searched_runs
from nas.runs.trial import Measurement, Trial

LISTED = 8  # numbers of trials that a message names


def doubts_of(run: RunDirectory) -> list[str]:
    """Why what is said of a run may be of a part of it; empty where nothing is missing, or a search is going on."""
    if run.is_locked():
        return []
    return [doubt for one in searched_runs(run).values() or [run] for doubt in _of_trials(one)] + list(_of_front(run))


def _of_trials(run: RunDirectory) -> Iterator[str]:
    """Trials without a record: deleted ones, and where a search was killed also those that waited for another one."""
    trials, finished = run.trials(), run.manifest.stage == "finished"
    numbers = {trial.number for trial in trials}
    known = numbers | set(_in_table(run))
    missing = sorted(set(range(max(known, default=-1) + 1)) - numbers)
    if missing:
        path, listed = run.path / TRIALS, ", ".join(map(str, missing[:LISTED])) + ", ..." * (len(missing) > LISTED)
        again = "what is counted here is without them" if finished else "a search that goes on measures them again"
        yield f"{path} has no record of {plural(len(missing), 'trial')} ({listed}); {again}"
    yield from _of_weights(run, TRIALS, (trial.measurement for trial in trials))


def _of_weights(run: RunDirectory, name: str, found: Iterable[Measurement | None]) -> Iterator[str]:
    """Measurements with the weights of another run."""
    ours = run.manifest.supernet_digest
    # Those of finalists are named by what they began as.
    others = {one.conditions.supernet for one in found if one is not None and one.conditions.weights_digest != ours}
    if ours is not None and others:
        yield f"{run.path / name} is of the weights {', '.join(sorted(others))}, but those of this run are {ours}"


def _in_table(run: RunDirectory) -> Iterator[int]:
    """The numbers of trials in `trials.csv`, which a search writes when it ends."""
    try:
        with (run.path / TRIALS_CSV).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if (number := row.get("number") or "").isdecimal():
                    yield int(number)
    except (OSError, ValueError, csv.Error):
        return  # it is made of the trials, and nothing is read from it


def _of_front(run: RunDirectory) -> Iterator[str]:
    front = run.front()
    if front is None:
        if run.manifest.stage == "finished" or (run.path / FRONT_CSV).exists():
            yield f"{run.path / FRONT} is missing; shown is the front of the trials, measured as in the search"
        return
    trials: Sequence[Trial] = all_trials(run)
    digests, points = {trial.architecture.digest for trial in trials}, ParetoFront.from_dict(front).points
    strange = [point.digest for point in points if point.digest not in digests]
    if strange:
        listed = ", ".join(strange[:LISTED]) + ", ..." * (len(strange) > LISTED)
        yield f"{run.path / FRONT} has {plural(len(strange), 'architecture')} that no trial has ({listed})"
    yield from _of_weights(run, FRONT, (point.measurement for point in points))
