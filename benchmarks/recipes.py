"""Which training recipe makes the best supernet in the same CPU time, and which ranks as training alone does.

    python benchmarks/recipes.py DATA [--space benchmarks/recipes.yaml] [--seconds 120] [--seeds 3] [--processes 2]
    python benchmarks/recipes.py DATA --seconds 300 --recipes "sandwich; single path (SPOS)" --table recipes_longer

DATA is a data spec, such as parquet:TRAIN,TEST. How long a step of a recipe takes is measured first, interleaved with
the others; then every recipe gets as many epochs as fit the CPU seconds, one thread, and each seed anew. Measured on
the search split with inherited weights: the smallest, the largest and fixed MACs-stratified architectures, and the
hypervolume (top-1, MACs) of them all. The same fixed architectures are trained alone too, for as many epochs as the
sandwich: Kendall's tau compares their order with the inherited one. What is finished is kept in results/recipes/.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from tables import write_table

from nas.arch import Architecture, cost
from nas.base import MACS, TOP1, Objective
from nas.data import ImageData, load_images
from nas.evaluation import count_correct, top1_percent
from nas.jobs import space_of_one
from nas.model import Supernet
from nas.runs import hypervolume
from nas.settings import DataConfig, TrainConfig
from nas.space import SearchSpace, sample_near
from nas.training import Schedule, SupernetTrainer

SANDWICH: dict[str, Any] = {"rule": "sandwich", "draw": "stratified"}
SPOS: dict[str, Any] = {"rule": "single_path", "draw": "uniform", "ends": 0.0}
STRATIFIED: dict[str, Any] = {**SPOS, "draw": "stratified"}
ENDS: dict[str, Any] = {"ends": 0.15}
RECIPES: dict[str, dict[str, Any]] = {
    "sandwich": SANDWICH,
    "sandwich, 2 random": {**SANDWICH, "num_random": 2},
    "sandwich, uniform draw": {**SANDWICH, "draw": "uniform"},
    "sandwich, labels only": {**SANDWICH, "distill": "none"},
    "sandwich, no training aids": {**SANDWICH, "static_guidance": 0.0},
    "single path (SPOS)": SPOS,
    "single path, ends": {**SPOS, **ENDS},
    "single path stratified": STRATIFIED,
    "single path stratified, ends": {**STRATIFIED, **ENDS},
    "2 single paths": {**SPOS, "num_random": 2},
    "2 single paths, ends": {**SPOS, **ENDS, "num_random": 2},
}
BASE = "sandwich"  # steps are shown over its steps; training alone has as many epochs
CACHE = Path("results/recipes")
FIXED = 20  # architectures, beside the smallest and the largest
IMAGES = (8000, 2000)  # training, search
TIMED_STEPS = 40
CPU = torch.device("cpu")


def config_of(recipe: dict[str, Any], epochs: int) -> TrainConfig:
    """The default configuration with these changes."""
    return TrainConfig(**{"epochs": epochs, "warmup_epochs": 1.0, "checkpoint_minutes": 1e6, **recipe})


def opened(space_file: str, spec: str) -> tuple[SearchSpace, ImageData]:
    """The space, and the first images of the data."""
    space = SearchSpace.from_yaml(space_file)
    data, _ = load_images(DataConfig(spec=spec), space.backbone.image_size, 0)
    if space.num_classes_from_data:
        space = space.with_num_classes(data.info.num_classes)
    return space, ImageData(train=data.train.part(0, IMAGES[0]), search=data.search.part(0, IMAGES[1]))


def fixed_architectures(space: SearchSpace) -> list[Architecture]:
    """Smallest, largest, and some spread over the MACs range."""
    rng = np.random.default_rng(1)
    low, high = space.macs_range()
    drawn = [sample_near(space, low + (i + 0.5) / FIXED * (high - low), rng) for i in range(FIXED)]
    return [space.smallest(), space.largest(), *drawn]


def trainer_of(
    space: SearchSpace, data: ImageData, recipe: dict[str, Any], epochs: int, seed: int, folder: str
) -> SupernetTrainer:
    """A training from random weights."""
    return SupernetTrainer(
        Supernet(space, seed=seed), data.train, config_of(recipe, epochs),
        seed=seed, device=CPU, precision="fp32", directory=Path(folder),
    )  # fmt: skip


def step_seconds(space: SearchSpace, data: ImageData) -> dict[str, float]:
    """CPU seconds of a step of every recipe, means of interleaved steps: each has other architectures."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            name: trainer_of(space, data, recipe, 100, 0, f"{folder}/{name}") for name, recipe in RECIPES.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        for number in range(TIMED_STEPS + 2):
            for name, trainer in trainers.items():
                step = int(number / (TIMED_STEPS + 2) * trainer.schedule.steps)  # training aids come and go
                started = time.process_time()
                trainer.train_step(step)
                if number > 1:
                    seconds[name].append(time.process_time() - started)
    return {name: mean(times) for name, times in seconds.items()}


def measured(supernet: Supernet, architectures: Iterable[Architecture], data: ImageData) -> list[float]:
    """Top-1 on the search split of each, percent."""
    return [
        top1_percent(count_correct(supernet.extract(a), data.search, batch_size=64, device=CPU, precision="fp32"))
        for a in architectures
    ]


def train_recipe(space_file: str, spec: str, name: str, epochs: int, seed: int) -> dict[str, Any]:
    """Train a supernet, measure the fixed architectures."""
    torch.set_num_threads(1)
    space, data = opened(space_file, spec)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        supernet = trainer_of(space, data, RECIPES[name], epochs, seed, folder).run()
        seconds = time.process_time() - started
    return {"top1": measured(supernet, fixed_architectures(space), data), "cpu_s": seconds, "epochs": epochs}


def train_alone(space_file: str, spec: str, number: int, epochs: int, seed: int) -> dict[str, Any]:
    """Train one of the fixed architectures alone."""
    torch.set_num_threads(1)
    space, data = opened(space_file, spec)
    architecture = fixed_architectures(space)[number]
    alone = space_of_one(space, architecture)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        supernet = trainer_of(alone, data, SPOS, epochs, seed, folder).run()
        seconds = time.process_time() - started
    return {"top1": measured(supernet, [architecture], data)[0], "cpu_s": seconds, "epochs": epochs}


def recipe_key(name: str, epochs: dict[str, int], seed: int) -> str:
    """Of a supernet's results."""
    return f"{name}-{epochs[name]}-{seed}"


def alone_key(number: int, epochs: dict[str, int], seed: int) -> str:
    """Of an architecture's that was trained alone."""
    return f"alone{number}-{epochs[BASE]}-{seed}"


def finished(jobs: list[tuple[Any, tuple[Any, ...], str]], digest: str, processes: int) -> dict[str, dict[str, Any]]:
    """Results by key; Ctrl-C ends it with those that are there."""
    results: dict[str, dict[str, Any]] = {}
    waiting = {}
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        for function, arguments, key in jobs:
            path = CACHE / f"{digest}-{key}.json"
            if path.exists():
                results[key] = json.loads(path.read_text())
            else:
                waiting[pool.submit(function, *arguments)] = (key, path)
        for done in as_completed(waiting):
            key, path = waiting[done]
            results[key] = done.result()
            path.write_text(json.dumps(results[key]))
            print(f"{len(results)}/{len(jobs)} {key}: {results[key]['cpu_s']:.0f} s CPU", flush=True)
        pool.shutdown()
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(pool._processes.values()):
            process.kill()
    return results


def tau_of(one: list[float], other: list[float]) -> float:
    """Kendall's tau-b."""
    return float(kendalltau(one, other).statistic)


def row(
    name: str, results: list[dict[str, Any]], alone: np.ndarray, step_ratio: float, macs: list[int]
) -> dict[str, Any]:
    """One recipe: means over seeds, with the deviation."""
    objectives = [Objective(TOP1, 0.0), Objective(MACS, 1.1 * max(macs))]
    volumes = [hypervolume(np.array(list(zip(result["top1"], macs, strict=True))), objectives) for result in results]

    def spread(values: list[float]) -> float | str:
        return round(stdev(values), 4) if len(values) > 1 else ""

    cells: dict[str, Any] = {
        "recipe": name,
        "seeds": len(results),
        "epochs": results[0]["epochs"],
        "cpu_s": round(mean(result["cpu_s"] for result in results), 1),
        "step_over_sandwich": round(step_ratio, 3),
        "smallest_top1": round(mean(result["top1"][0] for result in results), 2),
        "fixed_top1": round(mean(mean(result["top1"][2:]) for result in results), 2),
        "fixed_top1_sd": spread([mean(result["top1"][2:]) for result in results]),
        "largest_top1": round(mean(result["top1"][1] for result in results), 2),
        "hypervolume": round(mean(volumes), 4),
        "hypervolume_sd": spread(volumes),
    }
    if len(alone):
        taus = [tau_of(result["top1"][2:], list(alone.mean(axis=1))) for result in results]
        cells |= {"tau_alone": round(mean(taus), 3), "tau_sd": spread(taus)}
    return cells


def main() -> None:
    """Train, measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--space", default="benchmarks/recipes.yaml")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alone-seeds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--recipes", default="; ".join(RECIPES), help="those to train, by name, with ; between")
    parser.add_argument("--table", default="recipes")
    options = parser.parse_args()
    names = [name.strip() for name in options.recipes.split(";")]
    if unknown := [name for name in names if name not in RECIPES]:
        parser.error(f"no such recipe: {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    space, data = opened(options.space, options.data)
    digest = f"{space.digest}-{data.info.hashes['train'][:6]}"
    timing = CACHE / f"{digest}-steps.json"
    if not timing.exists():
        timing.write_text(json.dumps(step_seconds(space, data)))
    step_s: dict[str, float] = json.loads(timing.read_text())
    steps_per_epoch = Schedule(TrainConfig(), len(data.train)).steps_per_epoch
    epochs = {name: max(1, round(options.seconds / (step_s[name] * steps_per_epoch))) for name in {BASE, *names}}
    jobs: list[tuple[Any, tuple[Any, ...], str]] = []
    for seed in range(max(options.seeds, options.alone_seeds)):
        if seed < options.seeds:
            jobs += [
                (train_recipe, (options.space, options.data, name, epochs[name], seed), recipe_key(name, epochs, seed))
                for name in names
            ]
        if seed < options.alone_seeds:
            jobs += [
                (train_alone, (options.space, options.data, 2 + i, epochs[BASE], seed), alone_key(i, epochs, seed))
                for i in range(FIXED)
            ]
    results = finished(jobs, digest, options.processes)
    macs = [cost.macs(a, space.backbone) for a in fixed_architectures(space)]
    alone = np.array(
        [
            [results[alone_key(i, epochs, seed)]["top1"] for i in range(FIXED)]
            for seed in range(options.alone_seeds)
            if all(alone_key(i, epochs, seed) in results for i in range(FIXED))
        ]
    ).T
    rows = []
    for name in names:
        keys = [recipe_key(name, epochs, seed) for seed in range(options.seeds)]
        found = [results[key] for key in keys if key in results]
        if found:
            rows.append(row(name, found, alone, step_s[name] / step_s[BASE], macs))
    trained = ""
    if len(alone):
        trained = f"; {FIXED} of them trained alone, {alone.shape[1]} seeds: "
        tokens = [mean(layer.num_tokens for layer in a.layers) for a in fixed_architectures(space)[2:]]
        truth = list(alone.mean(axis=1))
        trained += f"tau of MACs {tau_of([float(m) for m in macs[2:]], truth):.3f}, "
        trained += f"of mean tokens {tau_of(tokens, truth):.3f}"
        if alone.shape[1] > 1:
            trained += f", of one seed and another {tau_of(list(alone[:, 0]), list(alone[:, 1])):.3f}"
    write_table(
        options.table,
        rows,
        f"{space.name}: {len(data.train)} training, {len(data.search)} search images, "
        f"batch {TrainConfig().batch_size}, fp32, one thread, about {options.seconds:g} CPU s a training; "
        f"smallest, largest and {FIXED} fixed architectures{trained}",
    )


if __name__ == "__main__":
    main()
