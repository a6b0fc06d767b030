"""Samplers and racing, compared exactly on tables of spaces that were measured whole (benchmarks/replay/README.md).

    python benchmarks/replay_search.py [--tables digits cifar10 fashion mixed] [--seeds 10] [--processes 2]

The whole search runs, journal and all, on a RAM disk where there is one; only the evaluator looks its values up.
Hypervolume is that of the architectures measured so far as a share of the whole space's, reference point fixed per
table: 10 % top-1, and 1.1 times the largest MACs. Writes results/reference/replay_search.csv (curves),
replay_bars.csv (evaluations to reach a bar), replay_racing.csv and replay_search.png. What has ended is kept in
results/replay_search and is not repeated: remove it when the search has changed. `--samplers qlognehvi` needs BoTorch
(`pip install botorch`).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from replay_evaluator import ReplayEvaluator, ReplayTable
from replay_opponents import OPPONENTS, search_by_opponent
from tables import REFERENCE, write_table

from nas.base import MACS, TOP1, Objective, atomic_write_text
from nas.evaluation import Evaluator
from nas.runs import RunDirectory, Trial, TrialState, hypervolume, non_dominated
from nas.space import SearchSpace
from nas.study import ArchitectureStudy, InlineWorkers, Search

TABLES = Path(__file__).resolve().parent / "replay"
KEPT = REFERENCE.parent / "replay_search"
RAM = Path("/dev/shm")
POPULATION = 24
CHANCE = 10.0  # percent; all tables have ten classes
LIMITS = {"random": 2000, "nsga2": 540, "nsga3": 540, "evolution": 540, "tpe": 300, "predictor": 300, "gp": 50}
LIMITS |= {"linas": 300, "qlognehvi": 160}
COUNTS = (25, 50, 75, 100, 150, 200, 250, 300, 400, 540, 750, 1000, 1500, 2000)
RACED = 540  # most trials of a search with racing
FEWER_SEEDS = {
    "gp": 1,
    "tpe": 3,
    "nsga3": 3,
    "qlognehvi": 3,
}  # their proposals take long; 'seeds' in the tables says how many


@dataclass(frozen=True, slots=True)
class Job:
    """One search."""

    table: str
    sampler: str
    seed: int
    racing: bool
    trials: int


def objectives_of(table: ReplayTable) -> tuple[Objective, ...]:
    """Top-1 and MACs, which are exact; the tables' latency is noise to a third (benchmarks/replay/README.md)."""
    return (Objective(TOP1, CHANCE), Objective(MACS, 1.1 * float(table.macs.max())))


def values_of(table: ReplayTable, rows: Sequence[int] | slice) -> NDArray[np.float64]:
    """[n, 2]; the objectives of some rows."""
    return np.stack([table.top1()[rows], table.macs[rows]], axis=1)


def searched(job: Job) -> dict[str, Any]:
    """`search`, kept in a file, so that a benchmark that was stopped goes on."""
    name = f"{job.table}-{job.sampler}-{'racing' if job.racing else 'whole'}-{job.trials}-{job.seed}.json"
    path = KEPT / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(search(job)))
    return {"job": job, **json.loads(path.read_text())}


def search(job: Job) -> dict[str, Any]:
    """Run one search: the rows of the table in the order in which they were paid for, and their states."""
    table = ReplayTable.load(TABLES / f"{job.table}.npz")
    started = time.process_time()
    if job.sampler in OPPONENTS:
        rows = search_by_opponent(table, job.sampler, job.seed, job.trials)
        images = len(rows) * table.conditions.num_images
        seconds = time.process_time() - started
        return {"rows": rows, "pruned": [False] * len(rows), "images": images, "seconds": seconds}
    trials = search_table(table, table.space, job.sampler, job.seed, job.trials, racing=job.racing)
    paid = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return {
        "rows": [table.row(trial.architecture) for trial in paid],
        "pruned": [trial.state is TrialState.PRUNED for trial in paid],
        "images": sum(trial.measurement.conditions.num_images for trial in paid),
        "seconds": time.process_time() - started,
    }


def search_table(
    table: ReplayTable,
    space: SearchSpace,
    sampler: str,
    seed: int,
    trials: int,
    *,
    racing: bool = False,
    objectives: Sequence[Objective] | None = None,
    by: Evaluator | None = None,
) -> Sequence[Trial]:
    """The search that ships, on a space whose architectures a table has; nothing of it stays on the disk.

    It is for top-1 and MACs, and the table answers, unless `objectives` and `by` say otherwise.
    """
    objectives = objectives or objectives_of(table)
    with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as folder:
        run = RunDirectory(Path(folder))
        study = ArchitectureStudy(space, objectives, sampler, POPULATION, seed, run.journal_path)  # type: ignore[arg-type]
        loop = Search(space, objectives, study, InlineWorkers(by or ReplayEvaluator(table)), run, racing=racing)
        found = loop.run(trials=trials)
        study.close()
    return found


def curve(table: ReplayTable, found: dict[str, Any]) -> dict[int, float]:
    """Share of the whole space's hypervolume after so many evaluations."""
    objectives = objectives_of(table)
    whole = hypervolume(values_of(table, slice(None)), objectives)
    kept = np.array([not pruned for pruned in found["pruned"]])
    values = values_of(table, found["rows"])
    counts = range(5, len(kept) + 1, 5)
    return {count: hypervolume(values[:count][kept[:count]], objectives) / whole for count in counts}


def racing_row(table: ReplayTable, found: dict[str, Any]) -> dict[str, float]:
    """How much was saved, and how much of the front of what was proposed survived."""
    values = values_of(table, found["rows"])
    on_front = non_dominated(values, [objective.metric.direction for objective in objectives_of(table)])
    kept = ~np.array(found["pruned"])
    return {
        "images_share": found["images"] / (len(values) * table.conditions.num_images),
        "front_recall": float((kept & on_front).sum() / on_front.sum()),
        "pruned_share": float((~kept).mean()),
    }


def reached(curve_: dict[int, float], bar: float) -> float:
    """Evaluations after which the bar is reached; infinite where it is not."""
    return next((count for count, share in curve_.items() if share >= bar), float("inf"))


def main() -> None:
    """Search, and write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["digits", "cifar10", "fashion", "mixed"])
    parser.add_argument("--samplers", nargs="+", default=[name for name in LIMITS if name != "qlognehvi"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    tables = {name: ReplayTable.load(TABLES / f"{name}.npz") for name in arguments.tables}
    jobs = [
        Job(table, sampler, seed, racing, min(LIMITS[sampler], RACED) if racing else LIMITS[sampler])
        for table in tables
        for sampler in arguments.samplers
        for racing in ((False, True) if sampler in ("random", "nsga2", "predictor") else (False,))
        for seed in range(
            arguments.first_seed, arguments.first_seed + min(arguments.seeds, FEWER_SEEDS.get(sampler, arguments.seeds))
        )
    ]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(searched, jobs))
    curves = {result["job"]: curve(tables[result["job"].table], result) for result in found}
    curve_rows, bar_rows, racing_rows = [], [], []
    for name, table in tables.items():
        of = {
            sampler: [c for job, c in curves.items() if (job.table, job.sampler, job.racing) == (name, sampler, False)]
            for sampler in arguments.samplers
        }
        bars = {
            "nsga2@540": np.median([c[540] for c in of.get("nsga2", [])]) if of.get("nsga2") else None,
            "random@2000": np.median([c[2000] for c in of.get("random", [])]) if of.get("random") else None,
        }
        for sampler, its in of.items():
            for count in COUNTS:
                if count <= LIMITS[sampler]:
                    low, middle, high = np.quantile([c[count] for c in its], (0.25, 0.5, 0.75))
                    curve_rows.append(
                        {"table": name, "architectures": len(table), "sampler": sampler, "evaluations": count}
                        | {"seeds": len(its), "hypervolume_q1": f"{low:.4f}", "hypervolume_median": f"{middle:.4f}"}
                        | {"hypervolume_q3": f"{high:.4f}"}
                    )
            for bar, level in bars.items():
                if level is None:
                    continue
                counts = [reached(c, level) for c in its]
                low, middle, high = np.quantile(counts, (0.25, 0.5, 0.75), method="closest_observation")
                bar_rows.append(
                    {"table": name, "sampler": sampler, "bar": bar, "hypervolume": f"{level:.4f}"}
                    | {"evaluations_q1": low, "evaluations_median": middle, "evaluations_q3": high}
                    | {"seeds_that_reach_it": f"{sum(np.isfinite(counts))}/{len(counts)}"}
                )
        for result in found:
            job = result["job"]
            if job.table == name and job.racing and job.seed == arguments.first_seed:
                same = [
                    r for r in found if (r["job"].table, r["job"].sampler, r["job"].racing) == (name, job.sampler, True)
                ]
                each = [racing_row(table, r) for r in same]
                last = job.trials
                with_racing = np.median([curves[r["job"]][last] for r in same])
                racing_rows.append(
                    {"table": name, "images": table.conditions.num_images, "sampler": job.sampler, "evaluations": last}
                    | {"fewer_images": f"{1 / np.mean([e['images_share'] for e in each]):.2f}x"}
                    | {"front_recall": f"{np.mean([e['front_recall'] for e in each]):.4f}"}
                    | {"worst_recall": f"{min(e['front_recall'] for e in each):.4f}"}
                    | {"pruned": f"{np.mean([e['pruned_share'] for e in each]):.3f}"}
                    | {"hypervolume_racing": f"{with_racing:.4f}"}
                    | {"hypervolume_without": f"{np.median([c[last] for c in of[job.sampler]]):.4f}"}
                )
    seconds = {
        s: np.mean([r["seconds"] / len(r["rows"]) for r in found if r["job"].sampler == s]) for s in arguments.samplers
    }
    print("CPU ms per trial:", {s: round(1e3 * value, 1) for s, value in seconds.items()})
    if arguments.no_write:
        for row in [*bar_rows, *racing_rows]:
            print(*row.values(), sep="  ")
        return
    note = f"window 8, population {POPULATION}, objectives top-1 and MACs"
    write_table("replay_search", curve_rows, f"Hypervolume as a share of the whole space's; {note}")
    write_table("replay_bars", bar_rows, f"Evaluations until the median hypervolume of a bar is reached; {note}")
    write_table("replay_racing", racing_rows, f"Racing: images shown, and share of the front that survives; {note}")
    draw(tables, curves, arguments.samplers)


def draw(tables: dict[str, ReplayTable], curves: dict[Job, dict[int, float]], samplers: Sequence[str]) -> None:
    """Hypervolume against evaluations: median and quartiles."""
    figure = Figure(figsize=(5 * len(tables), 4.5), dpi=130, layout="constrained")
    for axis, name in zip(np.atleast_1d(figure.subplots(1, len(tables))), tables, strict=True):
        for sampler in samplers:
            its = [c for job, c in curves.items() if (job.table, job.sampler, job.racing) == (name, sampler, False)]
            counts = list(its[0])
            low, middle, high = np.quantile([[c[n] for n in counts] for c in its], (0.25, 0.5, 0.75), axis=0)
            (line,) = axis.plot(counts, middle, label=sampler)
            axis.fill_between(counts, low, high, alpha=0.15, color=line.get_color())
        axis.set(xscale="log", xlabel="evaluations", title=f"{name}: {len(tables[name]):,} architectures")
        axis.set_ylabel("hypervolume, share of the whole space's")
        axis.set_ylim(0.9, 1.001)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(REFERENCE / "replay_search.png")


if __name__ == "__main__":
    main()
