"""The candidates of a last choice timed in turn: a search timed each of them at another moment."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.base import Metric, atomic_write_bytes
from nas.jobs.measures import evaluator_setup, search_identity
from nas.jobs.session import Session
from nas.latency import measure_networks, torch_threads
from nas.model import Supernet
from nas.runs import FrontPoint
from nas.training import weights_digest

KEPT = Path("latency", "candidates.json")
"""Below a run's folder of finalists: milliseconds per batch by target and digest, so that a resumed job has them."""

ROUNDS = 15


def timed_in_turn(
    session: Session, supernet: Supernet, points: Sequence[FrontPoint], costs: Sequence[Metric]
) -> list[FrontPoint]:
    """The points with the latencies among some costs measured anew, interleaved; as they are where none is a latency.

    A search times a network once, when its turn comes, and on a busy machine two such times may be wrong by half, in
    different directions. What is on a front is timed again by every job that makes one; candidates beside it are here.
    The supernet's largest subnet is the reference; weights do not matter.
    """
    run = session.run
    setup = evaluator_setup(session, weights_digest(run), search_identity(session, supernet).reference_clocks)
    names = [metric.name for metric in costs if metric.name in setup.targets]
    if not names:
        return list(points)
    path = run.finalists_dir / KEPT
    found = _kept(path, [point.digest for point in points], names)
    if not found:
        subnets = [supernet.extract(point.architecture) for point in points]
        for name in names:
            meter = setup.meter(supernet, setup.targets[name])
            with torch_threads(1):
                timings = measure_networks(meter, subnets, ROUNDS, session.reporter).timings
            found[name] = {point.digest: t.median_ms for point, t in zip(points, timings, strict=True)}
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, json.dumps(found).encode())

    def timed(point: FrontPoint) -> FrontPoint:
        before = point.measurement
        latency = {name: replace(before.latency[name], ms=found[name][point.digest]) for name in names}
        return replace(point, measurement=replace(before, latency={**before.latency, **latency}))

    return [timed(point) for point in points]


def _kept(path: Path, digests: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What an earlier call measured of these; empty where it did not, or of others."""
    try:
        found = json.loads(path.read_bytes())
        whole = set(found) == set(names) and all(set(found[name]) == set(digests) for name in names)
    except (OSError, ValueError, TypeError):
        return {}
    return dict(found) if whole else {}
