"""What other runs measured already: the same supernet, images and conditions are not paid for twice."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nas.base import LATENCY, NasError
from nas.latency import PROFILE_NAME
from nas.runs import MANIFEST, Conditions, Manifest, RunDirectory, TrialState
from nas.study.loop import ReusedMeasurement


def known_measurements(
    run: RunDirectory, conditions: Conditions, needed: Collection[str]
) -> dict[str, ReusedMeasurement]:
    """Whole measurements with all needed metrics in the folders beside a run that hold under its conditions, by digest.

    The run's search has begun. Conditions name the supernet by a digest of its weights. Latency was measured as a ratio
    to a reference model and is put on this run's clock, unless a profile answered; measurements whose reference is
    another architecture are left out.
    """
    ours = run.manifest
    found: dict[str, ReusedMeasurement] = {}
    for path in sorted(run.path.resolve().parent.glob(f"[!.]*/{MANIFEST}")):
        if path.parent == run.path.resolve():
            continue
        try:
            found |= _of_run(path.parent, ours, conditions, needed)
        except NasError:
            continue  # a damaged run is no reason not to search in this one
    return found


def _of_run(
    path: Path, ours: Manifest, conditions: Conditions, needed: Collection[str]
) -> dict[str, ReusedMeasurement]:
    run = RunDirectory.open(path)
    theirs = run.manifest
    if ours.search is None or theirs.search is None:
        return {}
    basis = (theirs.supernet_digest, theirs.splits, theirs.search.reference_digest)
    if basis != (ours.supernet_digest, ours.splits, ours.search.reference_digest):
        return {}
    before, now = theirs.search.reference_clocks, ours.search.reference_clocks
    clocks = {name: now[name] / before[name] for name in now if name in before}
    found = {}
    for trial in run.trials():
        known = trial.measurement
        if known is None or trial.state is not TrialState.COMPLETE or known.conditions != conditions:
            continue
        if not known.values.keys() >= set(needed):
            continue
        names = dict.fromkeys([LATENCY.name, *known.latency])
        places = dict(zip(names, conditions.target.split("; "), strict=False))
        latency = {
            name: timed if places[name].startswith(PROFILE_NAME) else replace(timed, ms=timed.ms * clocks[name])
            for name, timed in known.latency.items()
        }
        found[trial.architecture.digest] = ReusedMeasurement(
            replace(known, latency=latency), f"{run.path.name}#{trial.number}"
        )
    return found
