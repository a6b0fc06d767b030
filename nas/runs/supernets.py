"""The supernets of a run: one folder each, how their trials stand, and the union of their fronts.

A supernet trial is an ordinary run in `supernets/<key>` below its parent, where the key is the digest of its
parameters; its manifest says what was tried and how it went. So parameters that are proposed again, or whose
proposal a killed process forgot, find what is finished.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.arch import Architecture
from nas.base import ConfigError, InputFileError, RunError, plural
from nas.runs.directory import MANIFEST, RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.manifest import SupernetTrial, clock_factors
from nas.runs.point import FrontPoint
from nas.runs.trial import Trial
from nas.settings import SPACE, RunConfig, read_space_text
from nas.space import SearchSpace, parse_space

OWNER = "supernet_run"
"""Detail of a point of the union: the folder of its supernet, below the run's."""


def supernet_trial(run: RunDirectory) -> SupernetTrial:
    """The trial of a supernet's folder; raises a RunError where it is none."""
    trial = run.manifest.supernet_trial
    if trial is None:
        raise RunError(f"{run.path}: not the folder of a supernet trial")
    return trial


def supernet_trials(run: RunDirectory) -> list[SupernetTrial]:
    """The supernet trials of a run by number; empty for a run of one supernet."""
    folders = sorted(path.parent for path in run.supernets_dir.glob(f"[!.]*/{MANIFEST}"))
    return sorted((supernet_trial(RunDirectory.open(folder)) for folder in folders), key=lambda t: t.number)


def ranked(trials: Sequence[SupernetTrial]) -> list[SupernetTrial]:
    """The trials whose supernets were trained to the end, best score first."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return sorted(complete, key=lambda trial: (-(trial.score or 0.0), trial.number))


def joint_digest(supernets: Iterable[str]) -> str:
    """What stands for several supernets where conditions name one: a digest of theirs."""
    return hashlib.sha256(" ".join(sorted(set(supernets))).encode()).hexdigest()[:12]


def union_points(fronts: Mapping[str, Sequence[FrontPoint]]) -> list[FrontPoint]:
    """The points of several supernets as those of one run.

    All was measured alike, on other weights: what the conditions name as the supernet is a digest of all of them,
    and each point's details name its own, a folder below the run's, which `fronts` has as its key. Of an
    architecture in several supernets the best top-1 counts.
    """
    joint = joint_digest(p.measurement.conditions.supernet for points in fronts.values() for p in points)
    found: dict[str, FrontPoint] = {}
    for folder, members in sorted(fronts.items()):
        for point in members:
            measured = point.measurement
            details = {**point.details, OWNER: folder, "supernet": measured.conditions.supernet}
            measured = replace(measured, conditions=replace(measured.conditions, supernet=joint))
            known = found.get(point.digest)
            if known is None or point.accuracy > known.accuracy:
                found[point.digest] = replace(point, measurement=measured, details=details)
    return list(found.values())


def searched_runs(run: RunDirectory) -> dict[str, RunDirectory]:
    """The supernets of a run in which architectures were measured, by their folder below the run's."""
    folders = (run.supernets_dir / trial.key for trial in ranked(supernet_trials(run)))
    found = {str(folder.relative_to(run.path)): RunDirectory.open(folder) for folder in folders}
    return {name: searched for name, searched in found.items() if searched.manifest.search is not None}


def front_of(path: str | Path) -> ParetoFront:
    """`ParetoFront.from_run`; while there is no final front that of the trials so far, over all supernets."""
    front, run = ParetoFront.from_run(path), RunDirectory.open(path)
    searched = searched_runs(run)
    if run.front() is not None or not searched:
        return front
    trials = trials_by_supernet(run)
    fronts = {name: ParetoFront.from_trials(of_one, front.objectives).points for name, of_one in trials.items()}
    union = ParetoFront.from_points(union_points(fronts), front.objectives, run.manifest.constraints)
    return replace(union, clocks=front.clocks)


def trials_by_supernet(run: RunDirectory) -> dict[str, list[Trial]]:
    """The trials of architectures by the folder of their supernet below the run's; those of a run of one under "".

    What such a run measured in searches that were repeated with other seeds follows those of its own.
    Latencies are by the clock of the run's search. Those of a supernet whose reference model is another, as the first
    versions had it where a part of the space was searched, cannot be converted and stay as they are.
    """
    ours, found = run.manifest.search, {}
    for name, searched in searched_runs(run).items():
        theirs, factors = searched.manifest.search, {}
        if ours and theirs and ours.reference_digest == theirs.reference_digest:
            factors = clock_factors(theirs.reference_clocks, ours.reference_clocks)
        found[name] = [trial.scaled(factors) for trial in searched.trials()]
    return found or {"": _over_searches(run)}


def _over_searches(run: RunDirectory) -> list[Trial]:
    """The trials of a run of one supernet and, numbered on, what its repeated searches (`search --seeds`) measured."""
    trials = run.trials()
    for folder in sorted(run.searches_dir.glob(f"[!.]*/{MANIFEST}")):
        again = [t for t in RunDirectory.open(folder.parent).trials() if t.is_paid]
        first = 1 + max((trial.number for trial in trials), default=-1)
        trials += [replace(trial, number=first + i) for i, trial in enumerate(again)]
    return trials


def all_trials(run: RunDirectory) -> list[Trial]:
    """The trials of architectures of a run, over all its supernets; see `trials_by_supernet`."""
    return [trial for trials in trials_by_supernet(run).values() for trial in trials]


def owner(run: RunDirectory, point: FrontPoint) -> RunDirectory:
    """The run that trained and searched the supernet of a point of `run`'s front: itself, or one below it."""
    folder = point.details.get(OWNER)
    return run if folder is None else RunDirectory.open(run.path / Path(folder))


def reference_elsewhere(run: RunDirectory, space: SearchSpace) -> Architecture | None:
    """The reference model of latencies where it is not the largest of the run's own space, but of the whole of it.

    So of a supernet trial in a part of a space: what several supernets measured is comparable. None: it is the largest.
    """
    manifest = run.manifest
    if manifest.supernet_trial is None:
        return None
    own = len(group_settings(manifest.supernet_trial.parameters, SPACE))
    settings = manifest.space_settings[: len(manifest.space_settings) - own]
    whole = parse_space(run.space_text(), str(run.path), settings).with_num_classes(len(manifest.class_names))
    fixed = manifest.search.reference_digest if manifest.search else whole.largest().digest
    return None if fixed == space.largest().digest else whole.largest()


def group_settings(parameters: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The keys of a group, `TRAIN` or `SPACE`, in a trial's parameters."""
    return {key.removeprefix(f"{group}."): value for key, value in parameters.items() if key.startswith(f"{group}.")}


def space_settings(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of the search space in a trial's parameters, as `--set` takes them."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in group_settings(parameters, SPACE).items())


def check_ray_is_used(workers: int | None) -> None:
    """Raise a ConfigError where supernet trials are asked for with `--workers 0`."""
    if workers == 0:
        text = "supernet trials run on Ray, which --workers 0 does without"
        raise ConfigError(text, hint="--workers 1 for one at a time")


def check_supernet_trials(
    config: RunConfig, asked: Path | SearchSpace, settings: Sequence[str], workers: int | None
) -> None:
    """Find out what stands against supernet trials of a space, or of the file or name of one, before anything is made.

    Raises:
        SearchSpaceError: The space itself is wrong.
        ConfigError: Nothing is to be trained, or without Ray; or lists every value that makes no sub-space.
    """
    if config.train.epochs == 0:
        raise ConfigError("train.epochs 0 leaves supernet trials nothing to train", hint="--epochs N")
    check_ray_is_used(workers)
    source = asked.name if isinstance(asked, SearchSpace) else str(asked)
    text = asked.to_yaml() if isinstance(asked, SearchSpace) else read_space_text(asked)
    space = parse_space(text, source, settings)
    problems = []
    for key, domain in config.tune.parameters.items():
        for value in domain if isinstance(domain, tuple) and key.startswith(f"{SPACE}.") else ():
            try:
                sub = parse_space(text, source, (*settings, *space_settings({key: value})))
                reasons: Iterable[str] = _outside(space, sub, value)
            except InputFileError as error:
                reasons = error.problems
            problems += [f"  tune.parameters.{key}: {reason}" for reason in reasons]
    if problems:
        lines = [f"{source}: {plural(len(problems), 'problem')} with sub-spaces", *problems]
        hint = "each choice of tune.parameters.space.KEY is a part of what KEY is in the search space"
        raise ConfigError("\n".join(lines), hint=hint)


def _outside(space: SearchSpace, sub: SearchSpace, value: Any) -> Iterator[str]:
    """Why `sub` is no part of `space`: all scores and the front are reckoned in the whole space."""
    whole = space.choices()
    if sub.backbone != space.backbone or sub.name != space.name:
        yield f"{json.dumps(value)} changes what is not searched"
    elif any(set(values) - set(whole.get(name, ())) for name, values in sub.choices().items()):
        yield f"{json.dumps(value)} has choices that the search space has not"
    elif reasons := space.why_not(sub.largest()):
        yield f"{json.dumps(value)} leaves the search space: {reasons[0]}"
