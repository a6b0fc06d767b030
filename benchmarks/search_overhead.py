"""What proposing and book-keeping cost: CPU time per trial of a whole search whose evaluations are free.

    python benchmarks/search_overhead.py [--longest 5000]

Ask, repair, journal, tell, trials.jsonl and the front, as the study grows; beside it the time that measuring one
architecture of median MACs takes (top-1 on 1,000 images, fp32, one thread, from a forward pass of 64).
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tables import write_table

from nas.arch import Architecture, cost
from nas.base import LATENCY, MACS, TOP1, Objective
from nas.model import Supernet
from nas.runs import Conditions, Measurement, RunDirectory, Timed
from nas.space import SearchSpace
from nas.study import ArchitectureStudy, InlineWorkers, Search

CONDITIONS = Conditions(
    device="none", precision="fp32", split="search", num_images=0, target="none", latency_batch_size=0,
    latency_threads=0, latency_stage="search", supernet="none", torch=torch.__version__,
)  # fmt: skip
LIMITS = {"random": 5000, "nsga2": 2000, "nsga3": 500, "evolution": 500, "tpe": 500, "predictor": 5000}
COUNTS = (100, 500, 1000, 2000, 5000)
SPACES = ("digits", "joint_tiny")
RAM = Path("/dev/shm")


class FreeEvaluator:
    """Costs nothing: values follow from arithmetic and, a little, from the digest."""

    conditions = CONDITIONS

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def evaluate(self, architecture: Architecture, *_: object, **__: object) -> Measurement:
        """Larger networks are better and slower."""
        macs = cost.macs(architecture, self.space.backbone)
        luck = int(architecture.digest, 16) % 1000 / 1000
        return Measurement(
            top1=20 + 4 * math.log(macs) * (0.9 + 0.1 * luck),
            macs=float(macs),
            latency={"latency_ms": Timed(ms=macs / 1e6 * (1 + 0.1 * luck))},
            conditions=CONDITIONS,
            seconds=0.0,
        )


def overheads(space: SearchSpace, sampler: str, longest: int) -> dict[int, float]:
    """CPU milliseconds per paid trial up to each count, since the count before."""
    most = float(space.macs_range()[1])
    objectives = [Objective(TOP1, 0.0), Objective(MACS, 1.1 * most), Objective(LATENCY, 1.3e-6 * most)]
    found, before = {}, 0
    with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as folder:
        run = RunDirectory(Path(folder))
        study = ArchitectureStudy(space, objectives, sampler, 24, 0, run.journal_path)  # type: ignore[arg-type]
        search = Search(space, objectives, study, InlineWorkers(FreeEvaluator(space)), run)
        for count in COUNTS:
            if count <= min(longest, LIMITS[sampler]):
                started = time.process_time()
                search.run(trials=count)
                found[count] = 1e3 * (time.process_time() - started) / (count - before)
                before = count
        study.close()
    return found


def evaluation_ms(space: SearchSpace) -> float:
    """CPU milliseconds of top-1 on 1,000 images."""
    rng = np.random.default_rng(0)
    drawn = sorted((space.sample(rng) for _ in range(21)), key=lambda a: cost.macs(a, space.backbone))
    subnet = Supernet(space).eval().extract(drawn[10])
    images = torch.randn(64, 3, space.backbone.image_size, space.backbone.image_size)
    times = []
    with torch.inference_mode():
        for _ in range(5):
            started = time.process_time()
            subnet(images)
            times.append(time.process_time() - started)
    return 1e3 * float(np.median(times)) * 1000 / 64


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--longest", type=int, default=5000)
    longest = parser.parse_args().longest
    torch.set_num_threads(1)
    rows = []
    for name in SPACES:
        space = SearchSpace.from_yaml(f"search_spaces/{name}.yaml")
        genes = sum(len(values) > 1 for values in space.choices().values())
        evaluation = evaluation_ms(space)
        for sampler in LIMITS:
            for count, each in overheads(space, sampler, longest).items():
                rows.append(
                    {"space": name, "genes": genes, "sampler": sampler, "up_to_trial": count}
                    | {"cpu_ms_per_trial": f"{each:.1f}", "evaluation_cpu_ms": f"{evaluation:.0f}"}
                    | {"share_percent": f"{100 * each / evaluation:.2f}"}
                )
                print(rows[-1], flush=True)
    write_table("search_overhead", rows, "three objectives, journal on a RAM disk; evaluation: 1,000 images, fp32")


if __name__ == "__main__":
    main()
