"""Measure every architecture of a small space once, with the supernet of a run: a table for `replay_search.py`.

    python search.py train benchmarks/replay/digits.yaml --run results/replay_digits --epochs 60
    python benchmarks/replay_table.py results/replay_digits benchmarks/replay/digits.yaml [--processes 2]

The second argument is the run's space or a part of it; the table is written beside it.

Goes on where it was stopped: what is measured is kept beside the table until it is whole.
"""

import argparse
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from replay_evaluator import ReplayTable, all_architectures

from nas.base import LATENCY, Reporter, duration
from nas.evaluation import SubnetEvaluator
from nas.jobs import CALIBRATION_ROUNDS, evaluator_setup, reopen
from nas.model import subtrees
from nas.runs import Measurement, RunDirectory
from nas.space import SearchSpace
from nas.training import load_trained, weights_digest

PART = 256  # architectures that are measured and kept together: neighbours, which begin alike
LATENCY_PAIRS = 2  # a table holds one noisy value for good; more pairs would be most of the time


def measure_parts(run: Path, space: Path, settings: dict[str, Any], reference_ms: float, first: int, step: int) -> None:
    """Measure every `step`-th part from `first` on, in a process of its own with one thread."""
    torch.set_num_threads(1)
    session = reopen(run, Reporter(quiet=True))
    supernet = load_trained(session.run, session.space, session.device)
    setup = evaluator_setup(session, weights_digest(session.run), {LATENCY.name: reference_ms})
    setup = replace(setup, config=setup.config.model_copy(update=settings))
    evaluator = SubnetEvaluator(setup, supernet.requires_grad_(False).eval(), session.data.search)
    architectures = list(all_architectures(SearchSpace.from_yaml(space)))
    neighbours = [architectures[i] for part in subtrees(architectures, session.space.backbone) for i in part]
    folder = run / "replay"
    starts = range(first * PART, len(neighbours), step * PART)
    started, done = time.monotonic(), 0
    for start in starts:
        path = folder / f"{start:06d}.npz"
        if path.exists():
            continue
        found = neighbours[start : start + PART]
        measured = [answered(outcome) for outcome in evaluator.evaluate_many([(one, None) for one in found])]
        scratch = path.with_suffix(".tmp.npz")
        np.savez(
            scratch,
            digests=np.array([int(a.digest, 16) for a in found], dtype=np.uint64),
            correct=np.array([np.frombuffer(m.correct, dtype=np.uint8) for m in measured]),
            macs=np.array([m.values["macs"] for m in measured], dtype=np.int64),
            params=np.array([m.values["params"] for m in measured], dtype=np.int64),
            latency_ms=np.array([m.values["latency_ms"] for m in measured], dtype=np.float32),
        )
        scratch.rename(path)
        done += 1
        left = sum(not (folder / f"{s:06d}.npz").exists() for s in starts)
        seconds = (time.monotonic() - started) / done * left
        print(f"process {first}: {len(starts) - left}/{len(starts)} parts, left {duration(seconds)}", flush=True)


def answered(outcome: Measurement | Exception) -> Measurement:
    """What was measured: of a table nothing may be missing."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def main() -> None:
    """Measure what is missing and put the table together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run with a trained supernet")
    parser.add_argument("space", type=Path)
    parser.add_argument("--images", type=int, help="of the search split that are used; default: all")
    parser.add_argument("--latency-batch-size", type=int, default=64)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    run = RunDirectory.open(arguments.run)
    folder = arguments.run / "replay"
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    session = reopen(arguments.run, Reporter(quiet=True))
    settings = {
        "latency_pairs": LATENCY_PAIRS,
        "latency_batch_size": arguments.latency_batch_size,
        "max_images": arguments.images,
    }
    setup = evaluator_setup(session, weights_digest(run))
    setup = replace(setup, config=setup.config.model_copy(update=settings))
    reference = folder / "reference_ms.txt"
    if not reference.exists():
        supernet = load_trained(run, session.space, session.device)
        reference.write_text(str(setup.meter(supernet, setup.target).calibrate(CALIBRATION_ROUNDS)))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=measure_parts,
            args=(arguments.run, arguments.space, settings, float(reference.read_text()), i, arguments.processes),
        )
        for i in range(arguments.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process failed; the same command goes on")
    parts = [np.load(path) for path in sorted(folder.glob("[0-9]*.npz"))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}
    order = np.argsort(columns["digests"])
    conditions = setup.conditions(len(session.data.search), stage="search")
    table = ReplayTable(
        space=SearchSpace.from_yaml(arguments.space),
        conditions=conditions,
        text=arguments.space.read_text(),
        **{name: column[order] for name, column in columns.items()},
    )
    assert len(table) == table.space.size(), "parts are missing"
    path = arguments.space.with_suffix(".npz")
    table.save(path)
    size = path.stat().st_size / 1e6
    print(f"{path}: {len(table)} architectures, {conditions.num_images} images, {size:.1f} MB")


if __name__ == "__main__":
    main()
