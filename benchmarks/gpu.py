"""What the product does on a card, in at most ten minutes: one prepared script.

    python benchmarks/gpu.py --data parquet:cifar10-train.parquet,cifar10-test.parquet [--seconds 570] [--out DIR]
    python benchmarks/gpu.py --tiny --device cpu --seconds 120      # the same on digits: only the card is missing

- `tests`: those marked `gpu`.
- `training`: steps of the supernet's default recipe and of its largest subnet beside timm's own ViT of that shape, in
  fp32, with TF32 and in bf16; timm's also compiled, and with CUDA graphs (`reduce-overhead`), where there is a card.
- `latency`: milliseconds of the space's largest plain ViT and of half its layers, batch 1 and 256, interleaved.
- `study`: benchmarks/study.py, cut short.

Every part has its share of the time and is a line of OUT/gpu.jsonl, with its output beside it; a part that fails or
runs out of time does not stop the next one. Tables: OUT/gpu_training.csv, OUT/gpu_latency.csv.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional
from train_speed import synthetic

from nas.latency import LatencyMeter, random_subnet
from nas.model import Supernet
from nas.settings import Target, TrainConfig
from nas.space import SearchSpace, plain_shapes
from nas.training import SupernetTrainer, autocast

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"tests": 0.15, "training": 0.25, "latency": 0.1, "study": 0.5}
"""And their shares of the time."""
TINY_STUDY = ("--levels=0.1", "--epochs=1", "--trials=4", "--count=2", "--alone-epochs=1", "--shapes=1")
STUDY = ("--levels=10", "26", "--epochs=20", "--trials=60", "--count=12", "--alone-epochs=10", "--shapes=3")
MODES = {"fp32": ("fp32", "highest"), "TF32": ("fp32", "high"), "bf16": ("bf16", "high")}
"""Precision of the product, and of PyTorch's fp32 products."""


def row_of(kind: str, mode: str, seconds: Sequence[float], batch: int) -> dict[str, Any]:
    """A row of the table of speeds, from the seconds of single steps."""
    step_s = median(seconds)
    return {
        "step": kind, "mode": mode, "batch": batch, "steps": len(seconds), "step_ms": round(1e3 * step_s, 3),
        "images_per_second": round(batch / step_s, 1),
    }  # fmt: skip


def timed(step: Callable[[int], object], device: torch.device, seconds: float, warm_up: int) -> list[float]:
    """Seconds of steps, each awaited, until so many are over; at least three."""
    found: list[float] = []
    began = time.perf_counter()
    for number in range(10**6):
        started = time.perf_counter()
        step(number)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= warm_up:
            found.append(time.perf_counter() - started)
        if len(found) >= 3 and time.perf_counter() - began > seconds:
            break
    return found


def learner(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: str) -> Callable[[int], None]:
    """A forward and a backward pass and AdamW on a batch that is there already."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=images.is_cuda)

    def step(_: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(images.device, precision):
            logits = model(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


class Largest(nn.Module):
    """The largest subnet within the supernet."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.supernet, self.architecture = Supernet(space), space.largest()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.supernet(images, self.architecture)
        return logits


def training(space: SearchSpace, device: torch.device, seconds: float, batch: int) -> Iterator[dict[str, Any]]:
    """Speeds of single steps: rows, each as soon as it is known."""
    data = synthetic(space.backbone.image_size, space.backbone.num_classes)
    chosen = slice(0, batch)
    images = data.normalized(chosen).to(device)
    labels = torch.from_numpy(data.labels[chosen]).to(device)
    widest = plain_shapes(space)[-1]
    ways: dict[str, dict[str, Any] | None] = {"eager": None}
    if device.type == "cuda":
        ways |= {"compiled": {}, "CUDA graphs": {"mode": "reduce-overhead"}}
    each = seconds / (len(MODES) * (2 + len(ways)))
    for mode, (precision, products) in MODES.items():
        torch.set_float32_matmul_precision(products)
        for way, options in ways.items():
            layer = widest.layers[0]
            model: nn.Module = VisionTransformer(
                img_size=space.backbone.image_size,
                patch_size=space.backbone.patch_size,
                num_classes=space.backbone.num_classes,
                embed_dim=widest.embed_dim - widest.embed_dim % layer.num_heads,
                depth=widest.depth,
                num_heads=layer.num_heads,
                mlp_ratio=layer.mlp_ratio,
            ).to(device)
            compiled = model if options is None else torch.compile(model, **options)
            step = learner(compiled, images, labels, precision)
            yield row_of(f"timm ViT, {way}", mode, timed(step, device, each, 5), batch)
        step = learner(Largest(space).to(device).train(), images, labels, precision)
        yield row_of("largest in supernet", mode, timed(step, device, each, 5), batch)
        config = TrainConfig(batch_size=batch, epochs=1000, checkpoint_minutes=1e6)
        with tempfile.TemporaryDirectory() as folder:
            trainer = SupernetTrainer(
                Supernet(space), data, config, seed=0, device=device, precision=precision, directory=Path(folder)
            )
            seconds_of_steps = timed(trainer.train_step, device, each, 5)
        yield row_of("single path step, with augmentation", mode, seconds_of_steps, batch)


def latency(space: SearchSpace, device: torch.device, batches: Sequence[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Milliseconds per batch of the largest plain ViT and of the one with the fewest layers, interleaved."""
    shapes = plain_shapes(space)
    networks = {"largest plain ViT": shapes[-1], "shallowest plain ViT": min(shapes, key=lambda shape: shape.depth)}
    target = Target(runtime="torch-cuda" if device.type == "cuda" else "torch-cpu", threads=1)
    size = (3, space.backbone.image_size, space.backbone.image_size)
    subnets = [random_subnet(space.backbone, network) for network in networks.values()]
    for batch in batches:
        timings, _ = LatencyMeter(subnets[0], size, batch, target).interleaved(subnets, rounds)
        for name, timing in zip(networks, timings, strict=True):
            yield {"network": name, "target": target.runtime, "batch": batch, "ms": round(timing.median_ms, 4)}


def child(words: Sequence[str], seconds: float, log: Path) -> dict[str, Any]:
    """Run a program for at most so long; its exit code, its output in a file."""
    with log.open("w") as file:
        try:
            done = subprocess.run(
                [sys.executable, *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": "out of time"}
    return {"exit_code": done.returncode} | ({"error": f"see {log.name}"} if done.returncode not in (0, 5) else {})


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of what is known so far."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def part(name: str, seconds: float, asked: argparse.Namespace) -> dict[str, Any]:
    """Do a part; what is to be said of it."""
    device, out = torch.device(asked.device), asked.out
    if name == "tests":
        return child(["-m", "pytest", "-q", "-m", "gpu", "-n", "0", *asked.tests], seconds, out / "tests.log")
    if name == "study":
        sizes = TINY_STUDY if asked.tiny else STUDY
        words = [
            "benchmarks/study.py", "--part", "search", "alone", "table", "--seeds=1", "--data", asked.data,
            f"--device={asked.device}", f"--seconds={seconds - 5:.0f}", f"--out={out / 'study'}", *sizes,
        ]  # fmt: skip
        return child(words, seconds, out / "study.log")
    space = SearchSpace.from_yaml(ROOT / ("search_spaces/digits.yaml" if asked.tiny else "benchmarks/speed_space.yaml"))
    space, rows = space.with_num_classes(10), list[dict[str, Any]]()
    found = (
        training(space, device, seconds, 16 if asked.tiny else 128)
        if name == "training"
        else latency(space, device, (1, 8) if asked.tiny else (1, 256), 3 if asked.tiny else 30)
    )
    for row in found:
        rows.append(row)
        write(out / f"gpu_{name}.csv", rows)
    return {"rows": len(rows)}


def main(words: list[str] | None = None) -> None:
    """Do all parts within the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--data", default="digits", help="data spec of the study")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tests", nargs="+", default=["tests"], help="where to look for tests marked `gpu`")
    parser.add_argument("--seconds", type=float, default=570.0)
    parser.add_argument("--tiny", action="store_true", help="smallest settings, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    asked = parser.parse_args(words)
    asked.out = asked.out.absolute()
    asked.out.mkdir(parents=True, exist_ok=True)
    whole = sum(PARTS[name] for name in asked.part)
    for name in asked.part:
        began = time.time()
        try:
            found = part(name, asked.seconds * PARTS[name] / whole, asked)
        except Exception as error:  # noqa: BLE001 - the card is lent for minutes: the other parts go on
            found = {"error": repr(error)}
        line = {"part": name, "device": asked.device, "seconds": round(time.time() - began, 1), **found}
        with (asked.out / "gpu.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
