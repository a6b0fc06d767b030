"""Time per trial of everything but the evaluation: propose, decode, store, record, tell.

python benchmarks/search_overhead.py [--trials 300]
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from tables import write_table

from nas import cost
from nas.architecture import Architecture
from nas.metrics import MACS, TOP1, Objective
from nas.run_directory import RunDirectory
from nas.search.loop import Search
from nas.search.study import ArchitectureStudy
from nas.search.workers import InlineWorkers
from nas.space import SearchSpace
from nas.trial import Conditions, Measurement

CONDITIONS = Conditions(
    device="none", precision="fp32", split="search", num_images=0, target="none", latency_batch_size=0,
    latency_threads=0, latency_stage="search", supernet="none", torch=torch.__version__,
)  # fmt: skip


class FreeEvaluator:
    """Costs nothing: values follow from the digest and from arithmetic."""

    conditions = CONDITIONS

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def evaluate(self, architecture: Architecture, *_: object, **__: object) -> Measurement:
        """A value between 0 and 100 per architecture, and its MACs."""
        top1 = int(architecture.digest, 16) % 10_000 / 100
        values = {"top1": top1, "macs": float(cost.macs(architecture, self.space.backbone))}
        return Measurement(values=values, conditions=CONDITIONS, seconds=0.0)


def milliseconds_per_trial(space: SearchSpace, sampler: str, trials: int) -> float:
    """Wall time of a search over free evaluations, over its number of paid trials."""
    objectives = [Objective(TOP1, 0.0), Objective(MACS, 1.1 * space.macs_range()[1])]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", manifest={}, space_text="", config={})
        study = ArchitectureStudy(space, objectives, sampler, 50, 0, run.journal_path)  # type: ignore[arg-type]
        search = Search(space, objectives, study, InlineWorkers(FreeEvaluator(space)), run)
        started = time.perf_counter()
        with run.lock():
            search.run(trials=trials)
        seconds = time.perf_counter() - started
        study.close()
    return 1e3 * seconds / trials


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    rows = []
    for name in ("digits", "deit_tiny"):
        space = SearchSpace.from_yaml(f"search_spaces/{name}.yaml")
        genes = sum(len(values) > 1 for values in space.choices().values())
        for sampler in ("random", "nsga2", "tpe"):
            rows.append(
                {
                    "space": name,
                    "genes": genes,
                    "sampler": sampler,
                    "ms_per_trial": round(milliseconds_per_trial(space, sampler, trials), 2),
                }
            )
    write_table(
        "search_overhead", rows, f"{trials} trials, two objectives, journal and trials.jsonl synced to disk"
    )


if __name__ == "__main__":
    main()
