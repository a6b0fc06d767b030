"""The default sampler where it is hard: few images, many objectives, evaluations that fail; beside uniform draws.

    python benchmarks/replay_conditions.py [--tables digits fashion mixed] [--seeds 3] [--processes 1]

On tables that were measured whole (benchmarks/replay/README.md). The gap is 1e4 times what is missing of the whole
space's hypervolume over the objectives of the row, of the front that the search itself would show, measured on all
images. `images 100` measures on 100 images alone; `failures 10 %` are architectures that always fail. Writes
results/reference/replay_conditions.csv.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replay_evaluator import ReplayEvaluator, ReplayTable
from replay_search import CHANCE, TABLES, search_table
from tables import write_table

from nas.arch import Architecture
from nas.base import LATENCY, MACS, PARAMS, TOP1, EvaluationError, Objective
from nas.runs import Measurement, TrialState, hypervolume, non_dominated

FEW_IMAGES = 100
COUNTS = (20, 50, 100, 150)
CASES = ("two objectives", "three objectives", "four objectives", "images 100", "failures 10 %")


class Failing(ReplayEvaluator):
    """A tenth of the architectures cannot be measured."""

    def evaluate(self, architecture: Architecture, *arguments: Any, **keywords: Any) -> Measurement:
        """As the table says.

        Raises:
            EvaluationError: It is of the tenth.
        """
        if int(architecture.digest, 16) % 10 == 0:
            raise EvaluationError("fails, as a tenth of them do")
        return super().evaluate(architecture, *arguments, **keywords)


@dataclass(frozen=True, slots=True)
class Job:
    """One search."""

    table: str
    case: str
    sampler: str
    seed: int


def objectives_of(table: ReplayTable, case: str) -> tuple[Objective, ...]:
    """What is searched for; references are 1.1 times the largest, and chance."""
    costs = {"three objectives": (MACS, PARAMS), "four objectives": (MACS, PARAMS, LATENCY)}.get(case, (MACS,))
    most = {MACS: table.macs, PARAMS: table.params, LATENCY: table.latency_ms}
    return (Objective(TOP1, CHANCE), *(Objective(cost, 1.1 * float(most[cost].max())) for cost in costs))


def values_of(table: ReplayTable, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """[n, objectives]; of all architectures."""
    columns = {TOP1: table.top1(), MACS: table.macs, PARAMS: table.params, LATENCY: table.latency_ms}
    return np.stack([columns[objective.metric] for objective in objectives], axis=1).astype(float)


def with_few_images(table: ReplayTable, seed: int) -> ReplayTable:
    """The same architectures, measured on some of the images."""
    bits = np.unpackbits(np.ascontiguousarray(table.correct).view(np.uint8), axis=1)
    count = table.conditions.num_images
    drawn = np.sort(np.random.default_rng(seed).permutation(count)[:FEW_IMAGES])
    few = np.packbits(bits[:, drawn], axis=1)
    return replace(table, correct=few, conditions=replace(table.conditions, num_images=FEW_IMAGES))


def gaps(job: Job) -> list[float]:
    """After each of COUNTS trials."""
    table = ReplayTable.load(TABLES / f"{job.table}.npz")
    seen = with_few_images(table, job.seed) if job.case == "images 100" else table
    objectives, truth = objectives_of(table, job.case), values_of(table, objectives_of(table, job.case))
    shown = values_of(seen, objectives)
    evaluator = Failing(seen) if job.case == "failures 10 %" else ReplayEvaluator(seen)
    trials = search_table(seen, seen.space, job.sampler, job.seed, max(COUNTS), objectives=objectives, by=evaluator)
    can = np.ones(len(table), dtype=bool)
    if job.case == "failures 10 %":
        can = table.digests % np.uint64(10) != 0
    whole = hypervolume(truth[can], objectives)
    found = []
    for count in COUNTS:
        rows = [table.row(t.architecture) for t in trials[:count] if t.state is TrialState.COMPLETE]
        front = np.array(rows)[non_dominated(shown[rows], [o.metric.direction for o in objectives])]
        found.append(1e4 * (1 - hypervolume(truth[front], objectives) / whole))
    return found


def main() -> None:
    """Search and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["digits", "fashion", "mixed"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    kinds = [
        (table, case, sampler)
        for table in arguments.tables
        for case in CASES
        for sampler in ("predictor", "random")
        if (table, case) != ("mixed", "four objectives")  # its latency was not measured
    ]
    jobs = [Job(*kind, seed) for kind in kinds for seed in seeds]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(gaps, jobs), strict=True))
    rows: list[dict[str, Any]] = []
    for table, case, sampler in kinds:
        row: dict[str, Any] = {"table": table, "case": case, "sampler": sampler, "seeds": len(seeds)}
        for i, count in enumerate(COUNTS):
            each = [found[Job(table, case, sampler, seed)][i] for seed in seeds]
            row |= {f"gap_{count}": f"{median(each):.0f}", f"worst_{count}": f"{max(each):.0f}"}
        rows.append(row)
    write_table("replay_conditions", rows, "1e4 x what is missing of the whole space's hypervolume, on all images")


if __name__ == "__main__":
    main()
