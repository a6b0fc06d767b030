"""How many trials per second one driver sustains, and what a trial costs it as the study grows.

python benchmarks/driver_limit.py [--trials 1000] [--in-flight 16 64 256 1000] [--samplers random nsga2]

The driver (propose, store, record, tell) is real. Its workers are simulated: one queue in front of equal workers,
on a clock of its own that advances by evaluations and by the CPU time the driver takes. So the rates are those of
a driver with a core to itself, whatever else this machine does. Not in them: waiting for the disk (three times a
trial, `fsync` in the table's first line) and Ray's own calls (benchmarks/worker_scaling.py).
"""

import argparse
import heapq
import math
import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Set
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from search_overhead import CONDITIONS
from tables import write_table

from nas.arch import cost
from nas.base import MACS, TOP1, Objective
from nas.runs import Measurement, RunDirectory
from nas.space import SearchSpace
from nas.study import AHEAD, WINDOW, ArchitectureStudy, Progress, Result, Search, Task

SPACE = "search_spaces/joint_tiny.yaml"
POPULATION_SIZE = 50
SPREAD = 0.3  # standard deviation of the logarithm of an evaluation's seconds
CHECKPOINTS = (1_000, 2_000, 5_000, 10_000, 20_000)
SPAN = 250  # trials before a checkpoint over which a rate is taken


class SimulatedWorkers:
    """Workers that take the next task of one queue when they are free; values from arithmetic and the digest.

    Attributes:
        now: Simulated seconds.
        driver_s: CPU seconds of this process outside of this class.
        busy_s: Simulated seconds that workers measured.
    """

    def __init__(self, space: SearchSpace, num_workers: int, evaluation_s: float, spread: float) -> None:
        self.slots = AHEAD * num_workers
        self.now = self.driver_s = self.busy_s = 0.0
        self._space = space
        self._median_s = evaluation_s
        self._spread = spread
        self._rng = np.random.default_rng(0)
        self._free = [0.0] * num_workers
        self._due: list[tuple[float, int, Task]] = []
        self._left = time.process_time()

    def submit(self, task: Task) -> None:
        """Queue a trial."""
        self._enter()
        seconds = self._median_s * math.exp(self._spread * self._rng.standard_normal())
        end = max(self.now, heapq.heappop(self._free)) + seconds
        heapq.heappush(self._free, end)
        heapq.heappush(self._due, (end, task.number, task))
        self.busy_s += seconds
        self._left = time.process_time()

    def next_result(self) -> Result:
        """Let time pass until the next trial ends."""
        self._enter()
        end, number, task = heapq.heappop(self._due)
        self.now = max(self.now, end)
        macs = cost.macs(task.architecture, self._space.backbone)
        luck = int(task.architecture.digest, 16) % 10_000 / 10_000
        found = Measurement(
            top1=90 * (1 - math.exp(-macs / 3e8)) + 5 * luck,
            macs=float(macs),
            params=float(cost.params(task.architecture, self._space.backbone)),
            conditions=CONDITIONS,
            seconds=self._median_s,
        )
        self._left = time.process_time()
        return Result(number, found, None)

    def _enter(self) -> None:
        seconds = time.process_time() - self._left
        self.driver_s += seconds
        self.now += seconds

    def finished(self) -> list[Result]:
        """Return none: it is asked for after Ctrl-C only."""
        return []

    def close(self) -> None:
        """Nothing to stop."""


class Bench:
    """One search in a folder of its own.

    Args:
        sampler: Its name.
        in_flight: Trials that are submitted and have not ended.
        evaluation_s: Median of an evaluation's seconds.
        checkpoints: Numbers of paid trials at which a row is noted.
    """

    def __init__(self, folder: Path, sampler: str, in_flight: int, evaluation_s: float, checkpoints: Set[int]) -> None:
        self.sampler, self.in_flight, self.evaluation_s = sampler, in_flight, evaluation_s
        self.num_workers = in_flight // AHEAD
        self.space = SearchSpace.from_yaml(SPACE)
        self.run = RunDirectory(folder / "run")
        self.run.path.mkdir()
        self.rows: list[dict[str, Any]] = []
        self._checkpoints = checkpoints
        self._workers = SimulatedWorkers(self.space, self.num_workers, evaluation_s, SPREAD)
        self._marks: dict[int, tuple[float, float, float]] = {}

    def search(self, trials: int) -> int:
        """Search, or resume, up to a number of paid trials; notes a row at every checkpoint.

        Returns the bytes of Python's objects at the end, where tracemalloc traces them.
        """
        objectives = [Objective(TOP1, 0.0), Objective(MACS, 1.1 * self.space.macs_range()[1])]
        study = ArchitectureStudy(
            self.space,
            objectives,
            self.sampler,
            POPULATION_SIZE,
            0,
            self.run.journal_path,
            window=max(WINDOW, self.in_flight),
        )
        search = Search(self.space, objectives, study, self._workers, self.run)
        search.run(trials=trials, on_progress=self._note)
        in_use, _ = tracemalloc.get_traced_memory()
        study.close()
        return in_use

    def _note(self, progress: Progress) -> None:
        n = progress.complete
        self._marks[n] = (self._workers.driver_s, self._workers.now, self._workers.busy_s)
        if n in self._checkpoints:
            before = self._marks.get(n - SPAN, (0.0, 0.0, 0.0))
            driver_s, now, busy_s = (a - b for a, b in zip(self._marks[n], before, strict=True))
            trials = n + progress.repeated
            self.rows.append(
                {
                    "sampler": self.sampler,
                    "in_flight": self.in_flight,
                    "paid": n,
                    "repeats": progress.repeated,
                    "driver_ms_per_paid": round(1e3 * driver_s / SPAN, 2),
                    "driver_limit_per_s": round(SPAN / driver_s),
                    "workers_alone_per_s": round(self.num_workers / mean_seconds(self.evaluation_s)),
                    "achieved_per_s": round(SPAN / now),
                    "workers_busy": round(busy_s / (now * self.num_workers), 2),
                    "journal_bytes_per_trial": self.run.journal_path.stat().st_size // trials,
                    "record_bytes_per_trial": (self.run.path / "trials.jsonl").stat().st_size // trials,
                    "memory_bytes_per_trial": "",
                    "resume_ms_per_trial": "",
                }
            )


def measure(sampler: str, in_flight: int, trials: int, evaluation_s: float, with_memory: bool) -> list[dict[str, Any]]:
    """One search; a row per checkpoint that it passes, with what resuming takes in the last one."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder), sampler, in_flight, evaluation_s, {n for n in (*CHECKPOINTS, trials) if n <= trials}
        )
        total = trials + in_flight  # so that the workers are fed up to the last checkpoint
        bench.search(total)
        row = bench.rows[-1]
        recorded = len(bench.run.trials())
        started = time.process_time()
        bench.search(total)
        row["resume_ms_per_trial"] = round(1e3 * (time.process_time() - started) / recorded, 2)
        if with_memory:  # tracing takes some five times as long
            tracemalloc.start()
            row["memory_bytes_per_trial"] = bench.search(total) // recorded
            tracemalloc.stop()
    return bench.rows


def share_busy(num_workers: int, window: int, spread: float, stragglers: float) -> float:
    """How busy workers are when trial n waits for trial n - window, with a driver that takes no time.

    Args:
        num_workers: Each is given `AHEAD` trials.
        window: Of the study.
        spread: Standard deviation of the logarithm of an evaluation's seconds.
        stragglers: Share of the evaluations that take ten times as long.
    """
    rng = np.random.default_rng(0)
    free, due, flying = [0.0] * num_workers, list[tuple[float, int]](), set[int]()
    now = busy_s = 0.0
    started = oldest = ended = 0
    warm, total = 5 * num_workers + window, 30 * num_workers + 3 * window
    start_s = start_busy_s = 0.0
    while ended < total:
        while len(flying) < AHEAD * num_workers and oldest > started - window:
            slowness = 10 if rng.random() < stragglers else 1
            seconds = slowness * math.exp(spread * rng.standard_normal())
            end = max(now, heapq.heappop(free)) + seconds
            heapq.heappush(free, end)
            heapq.heappush(due, (end, started))
            flying.add(started)
            busy_s += seconds
            started += 1
        now, number = heapq.heappop(due)
        flying.remove(number)
        while oldest < started and oldest not in flying:
            oldest += 1
        ended += 1
        if ended == warm:
            start_s, start_busy_s = now, busy_s
    return (busy_s - start_busy_s) / ((now - start_s) * num_workers)


def window_rows() -> list[dict[str, Any]]:
    """`share_busy` over workers, windows and how unequal evaluations are."""
    return [
        {
            "workers": num_workers,
            "spread": spread,
            "stragglers": stragglers,
            **{
                f"window_{factor}_per_worker": round(
                    share_busy(num_workers, max(WINDOW, factor * num_workers), spread, stragglers), 2
                )
                for factor in (2, 4, 8, 16, 32)
            },
        }
        for num_workers in (4, 16, 128, 1_000)
        for spread, stragglers in ((0.1, 0.0), (0.3, 0.0), (0.6, 0.0), (0.3, 0.01))
    ]


def mean_seconds(median_s: float) -> float:
    """Mean of an evaluation's seconds."""
    return median_s * math.exp(SPREAD**2 / 2)


def fsync_ms(repeats: int = 100) -> float:
    """Median wall time of writing 1 kB to the end of a file and waiting for the disk."""
    times = []
    with tempfile.NamedTemporaryFile(buffering=0) as file:
        for _ in range(repeats):
            started = time.perf_counter()
            file.write(b"x" * 1_000)
            os.fsync(file.fileno())
            times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000, help="at least 250")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[16, 64, 256, 1_000])
    parser.add_argument("--samplers", nargs="+", default=["random", "nsga2"])
    parser.add_argument("--evaluation-s", type=float, default=1.0)
    arguments = parser.parse_args()
    genes = sum(len(values) > 1 for values in SearchSpace.from_yaml(SPACE).choices().values())
    rows: list[dict[str, Any]] = []
    # A process each: memory that an earlier search freed would hide what a trial takes.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for sampler in arguments.samplers:
            for in_flight in arguments.in_flight:
                search = processes.submit(
                    measure,
                    sampler,
                    in_flight,
                    arguments.trials,
                    arguments.evaluation_s,
                    in_flight == arguments.in_flight[0],
                )
                rows += search.result()
                print(rows[-1], flush=True)
    write_table("driver_window", window_rows(), "simulated: share of their time that workers measure")
    write_table("driver_limit", rows, notes(genes, arguments.evaluation_s))


def notes(genes: int, evaluation_s: float) -> str:
    """What the table says under which conditions."""
    return (
        f"joint_tiny, {genes} genes, journal; simulated workers of {evaluation_s:g} s an evaluation "
        f"(log-normal, {SPREAD:g}), rates over the last {SPAN} trials; driver in CPU time, "
        f"fsync {fsync_ms():.2f} ms"
    )


if __name__ == "__main__":
    main()
