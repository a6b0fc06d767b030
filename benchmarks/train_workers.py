"""Supernet training in one process and in several of one thread each: images per second, as a user would see them.

    python benchmarks/train_workers.py [--workers 2] [--steps 6] [--rounds 5]

Whole training steps of cifar_small. Every crew stays ready and waits while another one has its turn; processes are
torch's own with gloo, as Ray Train starts them, without the half minute that it needs for that.
"""

import argparse
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from tables import write_table
from train_speed import BATCH, synthetic

from nas.settings import RunConfig
from nas.space import SearchSpace
from nas.training import TrainerSetup, World

WARM_UP = 2  # steps


def work(rank: int, size: int, threads: int, folder: Path, orders: list[Connection]) -> None:
    """One process of a crew: waits for a number of steps to do, does them, and answers with the seconds."""
    torch.set_num_threads(threads)
    if size > 1:
        store = f"file://{folder / 'store'}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    space = SearchSpace.from_yaml("search_spaces/cifar_small.yaml").with_num_classes(10)
    config = RunConfig.model_validate({"train": {"batch_size": BATCH}})
    setup = TrainerSetup(space=space, config=config, precision="fp32", directory=folder)
    images = synthetic(space.backbone.image_size, 10)
    trainer = setup.trainer(images, torch.device("cpu"), world=World(rank, size))
    step = 0
    while steps := orders[rank].recv():
        started = time.perf_counter()
        for _ in range(steps):
            trainer.train_step(step)
            step += 1
        orders[rank].send(time.perf_counter() - started)


class Crew:
    """Processes that train together.

    Args:
        size: How many.
        threads: Of each.
    """

    def __init__(self, size: int, threads: int) -> None:
        self.name = f"{size} process{'es' if size > 1 else ''} of {threads} thread{'s' if threads > 1 else ''}"
        context = torch.multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(size)]
        self._orders = [mine for mine, _ in pipes]
        theirs = [other for _, other in pipes]
        folder = Path(tempfile.mkdtemp())
        arguments = (size, threads, folder, theirs)
        self._processes = torch.multiprocessing.spawn(work, arguments, nprocs=size, join=False)
        self.images_per_second(WARM_UP)

    def images_per_second(self, steps: int) -> float:
        """Train for some steps; the slowest process counts."""
        for order in self._orders:
            order.send(steps)
        try:
            return steps * BATCH / max(order.recv() for order in self._orders)
        except EOFError:
            self._processes.join()  # says why one has died
            raise

    def close(self) -> None:
        """Send everybody home."""
        for order in self._orders:
            order.send(0)
        self._processes.join()


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the command line does; read by the processes when they start
    crews = [Crew(1, 1), Crew(1, options.workers), Crew(options.workers, 1)]
    speeds: dict[str, list[float]] = {crew.name: [] for crew in crews}
    for _ in range(options.rounds):
        for crew in crews:
            speeds[crew.name].append(crew.images_per_second(options.steps))
    for crew in crews:
        crew.close()
    one = speeds[crews[0].name]
    rows = []
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(found, one, strict=True)]
        rows.append(
            {
                "training": name,
                "images_per_second": round(median(found), 1),
                "over_one_thread": round(median(ratios), 3),
                "least": round(min(ratios), 3),
                "most": round(max(ratios), 3),
            }
        )
    write_table(
        "train_workers",
        rows,
        f"cifar_small, default recipe, fp32, batch {BATCH} in all, {options.rounds} rounds in turns of {options.steps} "
        "steps, medians; ratios within a round",
    )


if __name__ == "__main__":
    main()
