"""What other runs measured already: the same supernet, images and conditions are not paid for twice."""

from dataclasses import replace
from pathlib import Path

from nas.errors import NasError
from nas.evaluation.profile import PROFILE_NAME
from nas.metrics import LATENCY
from nas.run_directory import MANIFEST, RunDirectory
from nas.search.loop import Known
from nas.trial import Conditions, TrialState


def known_measurements(run: RunDirectory, conditions: Conditions) -> dict[str, Known]:
    """Whole measurements in the folders beside a run that hold under its conditions, by digest.

    Conditions name the supernet by a digest of its weights. Latency was measured as a ratio to a reference model
    and is put on this run's clock, unless a profile answered; measurements whose reference is another architecture
    are left out.

    Args:
        run: Its manifest has `splits`, `reference_ms` and `reference_digest`.
        conditions: Under which it measures.
    """
    ours = run.manifest
    found: dict[str, Known] = {}
    for path in sorted(run.path.resolve().parent.glob(f"[!.]*/{MANIFEST}")):
        if path.parent == run.path.resolve():
            continue
        try:
            found |= _of_run(path.parent, ours, conditions)
        except NasError:
            continue  # a damaged run is no reason not to search in this one
    return found


def _of_run(path: Path, ours: dict[str, object], conditions: Conditions) -> dict[str, Known]:
    run = RunDirectory.open(path)
    theirs = run.manifest
    same = ("supernet_digest", "splits", "reference_digest")
    if any(theirs.get(key) != ours[key] for key in same) or "reference_ms" not in theirs:
        return {}
    clock = float(str(ours["reference_ms"])) / float(theirs["reference_ms"])
    found = {}
    for trial in run.trials():
        measured = trial.measurement
        if measured is None or trial.state is not TrialState.COMPLETE or measured.conditions != conditions:
            continue
        values = dict(measured.values)
        if LATENCY.name in values and not conditions.target.startswith(PROFILE_NAME):
            values[LATENCY.name] *= clock
        found[trial.architecture.digest] = Known(
            replace(measured, values=values), f"{run.path.name}#{trial.number}"
        )
    return found
