"""Does the search find more than chance? A run's trials against as many random architectures, same supernet.

    python benchmarks/random_baseline.py results/cifar_small-1 [--draws 1]

Compared by top-1 on the search split and MACs (both exact for given weights), hypervolume of what each found.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tables import write_table

from nas.base import MACS, TOP1, Objective, Reporter
from nas.evaluation import SubnetEvaluator
from nas.jobs import evaluator_setup, reopen
from nas.runs import RunDirectory, TrialState, hypervolume, space_of_run
from nas.training import load_trained

Values = list[tuple[float, float]]


def random_values(run: Path, kind: str, draw: int, count: int) -> Values:
    """(top-1, MACs) of `count` random architectures, in a process of its own with one thread."""
    torch.set_num_threads(1)
    session = reopen(run, Reporter(quiet=True))
    supernet = load_trained(session.run, session.space, session.device)
    rng = np.random.default_rng([draw, 99])
    sample = session.space.sample if kind == "uniform" else session.space.sample_stratified
    setup = evaluator_setup(session)
    evaluator = SubnetEvaluator(setup, supernet.requires_grad_(False).eval(), session.data.search)
    drawn = [sample(rng) for _ in range(count)]
    values = []
    for outcome in evaluator.evaluate_many([(architecture, None) for architecture in drawn]):
        assert not isinstance(outcome, Exception), outcome
        values.append((outcome.values["top1"], outcome.values["macs"]))
    return values


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=1, help="independent random samples of each kind")
    arguments = parser.parse_args()
    run = RunDirectory.open(arguments.run)
    space = space_of_run(run)
    objectives = [Objective(TOP1, 0.0), Objective(MACS, 1.1 * space.macs_range()[1])]
    trials = [t.measurement for t in run.trials() if t.state is TrialState.COMPLETE and t.measurement is not None]
    found = [(m.values["top1"], m.values["macs"]) for m in trials]
    rows = [row("search", found, objectives)]
    jobs = [(kind, draw) for draw in range(arguments.draws) for kind in ("uniform", "stratified")]
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(random_values, arguments.run, *job, len(found)) for job in jobs]
        for (kind, draw), future in zip(jobs, futures, strict=True):
            rows.append(row(f"random, {kind}, draw {draw}", future.result(), objectives))
    write_table(
        f"random_baseline_{space.name}",
        rows,
        f"{run.name}: top-1 on the search split ({trials[0].conditions.num_images} images) and MACs; hypervolume is "
        f"the share of the box from (0 %, {objectives[1].reference:.4g} MACs) to (100 %, 0)",
    )


def row(name: str, values: Values, objectives: list[Objective]) -> dict[str, object]:
    """One line of the table; with the best top-1 up to shares of the most MACs."""
    cells: dict[str, object] = {
        "architectures": name,
        "measured": len(values),
        "hypervolume": round(hypervolume(np.array(values), objectives), 4),
        "best_top1": round(max(top1 for top1, _ in values), 2),
    }
    highest = objectives[1].reference / 1.1
    for share in (0.2, 0.4, 0.7):
        within = [top1 for top1, macs in values if macs <= share * highest]
        cells[f"best_top1_at_{share:.0%}_of_the_macs"] = round(max(within), 2) if within else ""
    return cells


if __name__ == "__main__":
    main()
