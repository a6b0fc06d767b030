"""Whether a hard bound helps a search: bounded against unbounded, both judged by what lies inside the bound.

    python benchmarks/replay_bounds.py [--tables digits cifar10 fashion] [--seeds 5] [--trials 150] [--processes 1]

On tables that were measured whole (benchmarks/replay/README.md). The gap is 1e4 times what is missing of the
hypervolume of all architectures inside the bound; objectives top-1 and MACs. What has ended is kept in
results/replay_bounds and is not repeated: remove it when the search has changed. Writes
results/reference/replay_bounds.csv.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
from replay_evaluator import ReplayTable
from replay_search import TABLES, objectives_of, search_table, values_of
from tables import REFERENCE, write_table

from nas.base import atomic_write_text
from nas.runs import hypervolume
from nas.space import Constraints

KEPT = REFERENCE.parent / "replay_bounds"
SHARES = (0.6, 0.2, 0.03)  # of the architectures that stay
SAMPLERS = ("predictor", "nsga2", "random")
COUNTS = (50, 100, 150)


@dataclass(frozen=True, slots=True)
class Job:
    """One search; no bound where `metric` is empty."""

    table: str
    sampler: str
    seed: int
    trials: int
    metric: str = ""
    share: float = 1.0


def bound_of(table: ReplayTable, metric: str, share: float) -> float:
    """The value that this share of the architectures keeps."""
    return float(np.quantile(getattr(table, metric), share, method="higher"))


def searched(job: Job) -> list[int]:
    """Rows of the table in the order in which they were measured."""
    path = KEPT / f"{job.table}-{job.sampler}-{job.metric}{job.share}-{job.trials}-{job.seed}.json"
    if not path.exists():
        table = ReplayTable.load(TABLES / f"{job.table}.npz")
        space = table.space
        if job.metric:
            bounds = Constraints.from_keys({f"max_{job.metric}": bound_of(table, job.metric, job.share)})
            space = replace(space, constraints=bounds)
        trials = search_table(table, space, job.sampler, job.seed, job.trials)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps([table.row(trial.architecture) for trial in trials]))
    found: list[int] = json.loads(path.read_text())
    return found


def gaps(table: ReplayTable, rows: Sequence[int], metric: str, share: float) -> list[float]:
    """1e4 times what is missing inside the bound after each of COUNTS."""
    objectives, inside = objectives_of(table), getattr(table, metric) <= bound_of(table, metric, share)
    whole = hypervolume(values_of(table, np.flatnonzero(inside)), objectives)
    kept = [[row for row in rows[:count] if inside[row]] for count in COUNTS]
    return [1e4 * (1 - hypervolume(values_of(table, its), objectives) / whole) for its in kept]


def main() -> None:
    """Search with and without bounds, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["digits", "cifar10", "fashion"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=30)
    parser.add_argument("--trials", type=int, default=max(COUNTS))
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    kinds = [("", 1.0), *((metric, share) for metric in ("macs", "params") for share in SHARES)]
    jobs = [
        Job(table, sampler, seed, arguments.trials, *kind)
        for seed in seeds
        for table in arguments.tables
        for sampler in SAMPLERS
        for kind in kinds
    ]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(searched, jobs), strict=True))
    rows: list[dict[str, Any]] = []
    for name in arguments.tables:
        table = ReplayTable.load(TABLES / f"{name}.npz")
        for sampler in SAMPLERS:
            for metric, share in kinds[1:]:
                row: dict[str, Any] = {"table": name, "sampler": sampler, "bound": f"max_{metric}", "kept": share}
                for word, kind in (("bounded", (metric, share)), ("unbounded", ("", 1.0))):
                    each = [
                        gaps(table, found[Job(name, sampler, seed, arguments.trials, *kind)], metric, share)
                        for seed in seeds
                    ]
                    for count, values in zip(COUNTS, zip(*each, strict=True), strict=True):
                        row[f"{word}_gap_{count}"] = f"{median(values):.1f}"
                        row[f"{word}_worst_{count}"] = f"{max(values):.1f}"
                rows.append(row)
    notes = f"1e4 x what is missing of the hypervolume inside a bound that keeps this share; {len(seeds)} seeds from "
    write_table("replay_bounds", rows, notes + f"{seeds[0]}, median and worst, after 50, 100 and 150 trials")


if __name__ == "__main__":
    main()
