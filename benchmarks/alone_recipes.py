r"""Recipes for networks trained alone: plain ViTs of several sizes, one change of the default each, on real images.

    python benchmarks/alone_recipes.py --data parquet:cifar10-train.parquet --networks 48x4p8c 96x6p8 \
        --recipes default cutmix=1 ema_decay=0,warmup_epochs=0 --epochs 60 --seeds 2
    python benchmarks/alone_recipes.py --table

A network is WIDTHxLAYERSpPATCH: heads of 24 channels, MLP ratio 4, 32 px; with a `c` behind, as the shipped spaces for
small images have it: convolutions in the feed-forwards, the mean of the tokens. A recipe is `default`, or keys of the
section `train` as KEY=VALUE with `,` between. Trained by the product's own trainer on so many images of the train
split, top-1 on the whole search split. What has ended is a line of OUT/runs.jsonl, which is committed, and not
repeated; all of a seed comes first. `--table` writes results/reference/alone_recipes.csv: a row for each network, data
set, length and recipe, with every seed, and the gain over the default as mean over the seeds that both have.
"""

import argparse
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tables import REFERENCE, write_table

from nas.arch import Backbone
from nas.data import ImageData, load_images
from nas.model import Supernet
from nas.settings import DataConfig, TrainConfig
from nas.space import LayerDomain, SearchSpace
from nas.training import SupernetTrainer

IMAGE_SIZE, HEAD_DIM = 32, 24
BASE = "default"
KEYS = ("data", "network", "epochs", "images", "recipe", "seed")
NETWORK = re.compile(r"(\d+)x(\d+)p(\d+)(c?)")


def space_of(network: str, classes: int) -> SearchSpace:
    """The space that holds one plain ViT."""
    found = NETWORK.fullmatch(network)
    assert found, f"{network}: not WIDTHxLAYERSpPATCH"
    width, depth, patch = map(int, found.groups()[:3])
    convolves = found[4] == "c"
    layer = LayerDomain(num_tokens=((IMAGE_SIZE // patch) ** 2,), num_heads=(width // HEAD_DIM,), ffn_conv=(convolves,))
    backbone = Backbone(
        image_size=IMAGE_SIZE, patch_size=patch, num_classes=classes, head_dim=HEAD_DIM, class_token=not convolves
    )
    return SearchSpace(name=network, backbone=backbone, embed_dim=(width,), depth=(depth,), layers=(layer,) * depth)


def changes_of(recipe: str) -> dict[str, Any]:
    """Keys of the section `train` that a recipe changes."""
    if recipe == BASE:
        return {}
    pairs = [pair.partition("=") for pair in recipe.split(",")]
    return {key: json.loads(value) if value[:1] in "[0123456789" else value for key, _, value in pairs}


@cache
def images_of(spec: str, count: int) -> ImageData:
    """Data that a worker keeps: so many training images, the whole search split."""
    data, _ = load_images(DataConfig(spec=spec), IMAGE_SIZE, 0)
    return ImageData(train=data.train.part(0, min(count, len(data.train))), search=data.search)


def train(job: dict[str, Any], spec: str, precision: str) -> dict[str, Any]:
    """Train a network; its line."""
    torch.set_num_threads(1)
    data = images_of(spec, job["images"])
    space = space_of(job["network"], data.info.num_classes)
    config = TrainConfig(**{"epochs": job["epochs"], "checkpoint_minutes": 1e6, **changes_of(job["recipe"])})
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trainer = SupernetTrainer(
            Supernet(space, seed=job["seed"]), data.train, config,
            seed=job["seed"], device=torch.device("cpu"), precision=precision, directory=Path(folder),
        )  # fmt: skip
        network = trainer.run().extract(space.largest())
    seconds, right = time.process_time() - began, 0
    for start in range(0, len(data.search), 500):
        part = slice(start, start + 500)
        with torch.inference_mode():
            answers = network(data.search.normalized(part)).argmax(dim=1)
        right += int((answers == torch.as_tensor(data.search.labels[part])).sum())
    return {**job, "precision": precision, "cpu_s": round(seconds), "top1": round(100 * right / len(data.search), 2)}


def run(jobs: Sequence[dict[str, Any]], specs: dict[str, str], asked: argparse.Namespace) -> None:
    """Do the jobs that have no line yet."""
    done = [{key: line[key] for key in KEYS} for line in lines_of(asked.out)]
    jobs = [job for job in jobs if job not in done]
    for data, spec in specs.items():
        images_of(spec, asked.images)  # decoded once, before there are many processes
        print(data, "read", flush=True)
    with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(train, job, specs[job["data"]], asked.precision) for job in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            line = future.result()
            with (asked.out / "runs.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{number}/{len(jobs)}", *(line[key] for key in (*KEYS, "top1", "cpu_s")), flush=True)


def lines_of(out: Path) -> list[dict[str, Any]]:
    """Lines of the trainings that ended."""
    path = out / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows_of(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each network, data set, length and recipe."""
    found = {tuple(line[key] for key in KEYS): line["top1"] for line in lines}
    rows = []
    for group in sorted({key[:-1] for key in found}, key=lambda g: (g[:-1], g[-1] != BASE, g[-1])):
        top1s = {key[-1]: top1 for key, top1 in sorted(found.items()) if key[:-1] == group}
        plain = {seed: found.get((*group[:-1], BASE, seed)) for seed in top1s}
        gains = [top1s[seed] - top1 for seed, top1 in plain.items() if top1 is not None]
        space = space_of(group[1], 10)
        row = dict(zip(KEYS[:-1], group, strict=True)) | {"mmacs": round(space.macs_range()[1] / 1e6, 2)}
        row |= {"top1": round(mean(top1s.values()), 2), "gain": round(mean(gains), 2) if gains else ""}
        rows.append(row | {"seeds": " ".join(f"{seed}:{top1}" for seed, top1 in top1s.items())})
    return rows


def main() -> None:
    """Train what is missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[], help="data specs")
    parser.add_argument("--networks", nargs="+", default=["96x6p8"], help="WIDTHxLAYERSpPATCH or ...c")
    parser.add_argument("--recipes", nargs="+", default=[BASE])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REFERENCE / "alone_recipes")
    parser.add_argument("--table", action="store_true", help="write the table, train nothing")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.table:
        write_table(
            "alone_recipes",
            rows_of(lines_of(asked.out)),
            "plain ViTs WIDTHxLAYERSpPATCH (32 px, heads of 24, MLP ratio 4; c: convolutions in feed-forwards, mean of "
            "tokens) trained alone, batch 64; top-1 %, mean over seeds, of the search split; gain: over the default, "
            "points, mean over the seeds that both have",
        )
        return
    specs = {Path(spec.partition(":")[2].partition(",")[0] or spec).stem: spec for spec in asked.data}
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    jobs = [
        dict(zip(KEYS, (data, network, asked.epochs, asked.images, recipe, seed), strict=True))
        for seed, network, data, recipe in product(seeds, asked.networks, specs, asked.recipes)
    ]
    run(jobs, specs, asked)


if __name__ == "__main__":
    main()
