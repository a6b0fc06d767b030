"""What each operator costs and pays on real images: every one alone, and all together, each trained from scratch.

    python benchmarks/ablation.py --data parquet:cifar10-train.parquet [--seeds 3] [--epochs 5] [--processes 2]

One small ViT at 32 px; every arm changes one thing of it, trains as a space of one architecture (the recipe of
the package, no distillation) and is scored on the search split. A run that was finished is not repeated: its
line is in results/ablation/runs.jsonl. Latency is measured at the end, interleaved, when nothing else runs.
"""

import argparse
import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import write_table

from nas.arch import Architecture, Backbone, LayerChoice, Rules, cost
from nas.data import load_images
from nas.evaluation import count_correct, top1_percent
from nas.latency import LatencyMeter
from nas.model import Subnet, Supernet
from nas.settings import DataConfig, TrainConfig
from nas.space import GENES, LayerDomain, SearchSpace
from nas.training import SupernetTrainer

BACKBONE = Backbone(image_size=32, patch_size=4, num_classes=10, head_dim=24)
WIDTH, DEPTH = 96, 6
PLAIN = LayerChoice(num_tokens=64, num_heads=4, mlp_ratio=4)
RUNS = Path("results/ablation/runs.jsonl")
CPU = torch.device("cpu")
RULES = Rules(max_shared=DEPTH, static_after_reduction=True)


def arms() -> dict[str, Architecture]:
    """The architectures that are compared, by the name of what they change."""
    every, late = range(DEPTH), range(2, DEPTH)
    pyramid = {**dict.fromkeys((2, 3), 36), **dict.fromkeys((4, 5), 16)}

    def of(**genes: dict[int, Any]) -> Architecture:
        layers = [
            replace(PLAIN, **{gene: values[i] for gene, values in genes.items() if i in values}) for i in range(DEPTH)
        ]
        return Architecture(embed_dim=WIDTH, layers=tuple(layers))

    def everywhere(layers: Any, value: Any) -> dict[int, Any]:
        return dict.fromkeys(layers, value)

    def reduced(reducer: str, **genes: Any) -> Architecture:
        return of(num_tokens=pyramid, reducer={2: reducer, 4: reducer}, **genes)

    half = everywhere(every, 0.5)
    return {
        "plain": of(),
        "hmhsa copy": of(hallucination_ratio=half, hallucination=everywhere(every, "copy")),
        "hmhsa mix": of(hallucination_ratio=half, hallucination=everywhere(every, "mix")),
        "hmhsa mix_conv": of(hallucination_ratio=half, hallucination=everywhere(every, "mix_conv")),
        "cffn": of(ffn_rank=half),
        "static first 2": of(attention=everywhere(range(2), "static")),
        "shared every 2nd": of(attention=everywhere(range(1, DEPTH, 2), "shared")),
        "linear": of(attention=everywhere(every, "linear")),
        "pool": reduced("pool"),
        "glad": reduced("glad"),
        "mlp ratio 2": of(mlp_ratio=everywhere(every, 2.0)),
        "joint": reduced(
            "glad",
            attention={0: "static", 1: "linear", 3: "shared"},
            ffn_rank=half,
            hallucination_ratio=everywhere(late[::2], 0.5) | {3: 0.5},
            hallucination=everywhere(late, "copy"),
        ),
    }


def space_of(architecture: Architecture) -> SearchSpace:
    """The space that holds one architecture."""
    layers = []
    for layer in architecture.layers:
        genes = {gene: (value,) for gene in GENES if (value := getattr(layer, gene)) is not None}
        layers.append(LayerDomain(**genes))
    return SearchSpace(
        name="one",
        backbone=BACKBONE,
        embed_dim=(architecture.embed_dim,),
        depth=(architecture.depth,),
        layers=tuple(layers),
        rules=RULES,
    )


def train_one(arm: str, seed: int, spec: str, images: int, epochs: int) -> dict[str, Any]:
    """Train one arm with one seed; returns its line."""
    torch.set_num_threads(1)
    data, _ = load_images(DataConfig(spec=spec), BACKBONE.image_size, seed=0)
    architecture = arms()[arm]
    trainer = SupernetTrainer(
        Supernet(space_of(architecture), seed=seed),
        data.train.part(0, images),  # they are in an order of their own hash
        TrainConfig(epochs=epochs, batch_size=64, ema_decay=0.99),
        seed=seed,
        device=CPU,
        precision="bf16",
        directory=Path(tempfile.mkdtemp()),
    )
    for step in range(trainer.schedule.steps):
        trainer.train_step(step)
    trained = trainer.trained().extract(architecture)
    correct = count_correct(trained, data.search, batch_size=64, device=CPU, precision="fp32")
    return {"arm": arm, "seed": seed, "images": images, "epochs": epochs, "top1": top1_percent(correct)}


def latencies(names: list[str], rounds: int) -> dict[tuple[str, int], float]:
    """Median time of every arm over the plain ViT's, fp32, by name and batch size."""
    torch.set_num_threads(1)
    subnets = []
    for name in names:
        subnet = Subnet(BACKBONE, arms()[name])
        subnet.init_weights()
        subnets.append(subnet.eval())
    found = {}
    for batch in (1, 64):
        meter = LatencyMeter(subnets[0], (3, 32, 32), batch)
        timings, clock = meter.interleaved(subnets, rounds)
        ratios = [timing.median_ms / clock.median_ms for timing in timings]
        found |= {(name, batch): ratio for name, ratio in zip(names, ratios, strict=True)}
    return found


def main() -> None:
    """Train what is missing, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    names = list(arms())
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    lines = [line for line in lines if (line["images"], line["epochs"]) == (asked.images, asked.epochs)]
    done = {(line["arm"], line["seed"]) for line in lines}
    missing = [(arm, seed) for seed in range(asked.seeds) for arm in names if (arm, seed) not in done]
    with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(train_one, *job, asked.data, asked.images, asked.epochs) for job in missing]
        for job in as_completed(jobs):
            lines.append(job.result())
            with RUNS.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(len(lines), "of", len(names) * asked.seeds, lines[-1], flush=True)
    times = latencies(names, asked.rounds)
    rows = []
    for arm in names:
        top1 = np.array([line["top1"] for line in lines if line["arm"] == arm])
        rows.append(
            {
                "arm": arm,
                "top1_percent": round(float(top1.mean()), 2),
                "top1_sd": round(float(top1.std(ddof=1)), 2) if len(top1) > 1 else "",
                "seeds": len(top1),
                "macs_m": round(cost.macs(arms()[arm], BACKBONE) / 1e6, 2),
                "params_m": round(cost.params(arms()[arm], BACKBONE) / 1e6, 3),
                "time_over_plain_b1": round(times[arm, 1], 3),
                "time_over_plain_b64": round(times[arm, 64], 3),
            }
        )
    write_table(
        "ablation",
        rows,
        f"CIFAR-10 32 px, patch 4, width {WIDTH}, {DEPTH} layers, 4 heads of 24; {asked.images} training images, "
        f"{asked.epochs} epochs of batch 64 in bf16, top-1 of the averaged weights on the 3,200 images of the search "
        f"split (sd over seeds); time fp32, 1 thread, {asked.rounds} interleaved rounds",
    )


if __name__ == "__main__":
    main()
