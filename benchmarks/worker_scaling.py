"""Evaluations per minute in this process, by one Ray actor and by several, one thread each, actors ready.

    python benchmarks/worker_scaling.py [--workers 2] [--evaluations 24] [--rounds 5]

An evaluation is top-1 and costs of a subnet of middle size over random images; the same one again and again, so
that rounds differ in nothing but the machine. The crews take turns round by round; ratios are of one round.
"""

import argparse
import time
from functools import partial
from statistics import median

import numpy as np
import torch
from tables import write_table
from train_speed import synthetic

from nas.arch import Architecture, cost
from nas.cluster import RayConnection
from nas.evaluation import EvaluatorSetup, build_evaluator, evaluator_arrays
from nas.model import Supernet
from nas.settings import EvaluateConfig
from nas.space import SearchSpace
from nas.study import InlineWorkers, RayWorkers, Task, Workers

SPACES = ("digits", "cifar_small")
DRAWN = 21  # of which the one of median MACs is evaluated


def middle(space: SearchSpace) -> Architecture:
    """An architecture of median cost."""
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(DRAWN)]
    return sorted(drawn, key=lambda architecture: cost.macs(architecture, space.backbone))[DRAWN // 2]


def per_minute(workers: Workers, architecture: Architecture, evaluations: int) -> float:
    """Speed with all workers busy: of the evaluations but the first and the last of every worker."""
    for number in range(evaluations):
        workers.submit(Task(number, architecture))
    times = []
    for _ in range(evaluations):
        result = workers.next_result()
        assert result.error is None, result.error
        times.append(time.perf_counter())
    edge = workers.slots
    return 60 * (evaluations - 2 * edge) / (times[-1 - edge] - times[edge - 1])


def measure(name: str, most: int, evaluations: int, rounds: int) -> list[dict[str, object]]:
    """Rows of one space."""
    space = SearchSpace.from_yaml(f"search_spaces/{name}.yaml").with_num_classes(10)
    images = synthetic(space.backbone.image_size, 10)
    setup = EvaluatorSetup(
        space=space, config=EvaluateConfig(), info=images.info, device="cpu", precision="fp32",
        supernet_digest="random", latencies=(), reference_ms={},
    )  # fmt: skip
    arrays = evaluator_arrays(Supernet(space), images)
    build = partial(build_evaluator, setup)
    counts = sorted({1, most})
    connection = RayConnection(None, sum(counts), arrays)  # one Ray for all, so that they can take turns
    crews: dict[int, Workers] = {0: InlineWorkers(build(arrays))}
    speeds: dict[int, list[float]] = {count: [] for count in (0, *counts)}
    architecture = middle(space)
    try:
        for count in counts:
            crews[count] = RayWorkers(build, arrays, count, None, 600.0)
            per_minute(crews[count], architecture, 8 * count)  # actors are started, weights are read
        for _ in range(rounds):
            for count, workers in crews.items():
                speeds[count].append(per_minute(workers, architecture, evaluations))
    finally:
        for workers in crews.values():
            workers.close()
        connection.close()
    ratios = {count: [a / b for a, b in zip(speeds[count], speeds[1], strict=True)] for count in speeds}
    return [
        {
            "space": name,
            "workers": count or "0 (no Ray)",
            "evaluations_per_minute": round(median(speeds[count]), 1),
            "over_one_worker": round(median(ratios[count]), 3),
            "least": round(min(ratios[count]), 3),
            "most": round(max(ratios[count]), 3),
        }
        for count in speeds
    ]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in SPACES for row in measure(name, options.workers, options.evaluations, options.rounds)]
    write_table(
        "worker_scaling",
        rows,
        f"top-1 of one subnet of median MACs on 512 random images, {options.evaluations} evaluations a round, "
        f"{options.rounds} rounds in turns, one thread per worker",
    )


if __name__ == "__main__":
    main()
