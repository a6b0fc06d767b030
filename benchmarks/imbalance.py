"""What class weights do for long-tailed images: balanced accuracy of a plain ViT and of a supernet's subnets.

    python benchmarks/imbalance.py --train parquet:cifar10-train.parquet --test parquet:cifar10-test.parquet

The training images of CIFAR-10 are thinned so that the largest class has 20 times the images of the smallest, the
others evenly between on a logarithmic scale; the test split is balanced. Every arm trains by the default recipe but
for what its images count, over seeds, each with the same first weights and batches:

- `none`, `balanced`: `train.class_weights`.
- `logit`: the logarithm of the share of each class is added to the logits that labels are held against (logit
  adjustment, arXiv 2007.07314, tau 1), no option of the package.

Trainings take turns: all of seed 0 first; with --minutes (of CPU) it stops, and the next call goes on.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.stats import t as student
from tables import write_table
from torch import Tensor

from nas.arch import Architecture, Backbone, Rules
from nas.data import ImageSet, load_images
from nas.model import Supernet
from nas.settings import DataConfig, TrainConfig
from nas.space import LayerDomain, SearchSpace
from nas.training import SupernetTrainer
from nas.training.step import Step

LARGEST, FACTOR, TESTED, CLASSES = 1000, 20, 200, 10  # images of a class, but for the factor
WAYS, NETWORKS = ("none", "balanced", "logit"), ("plain ViT", "supernet")
BACKBONE = Backbone(image_size=16, patch_size=4, num_classes=CLASSES, head_dim=16)
WIDTH, DEPTH, TOKENS, SUBNETS = 64, 4, 16, 10
RARE = 3  # smallest classes
RUNS = Path("results/imbalance/runs.jsonl")
CPU = torch.device("cpu")


def counts() -> list[int]:
    """Training images of each class."""
    return [round(LARGEST * FACTOR ** (-label / (CLASSES - 1))) for label in range(CLASSES)]


def write_images(train: Path, test: Path, folder: Path) -> str:
    """Thin the files of CIFAR-10; returns the spec of what was written."""
    for source, name, wanted in ((train, "train", counts()), (test, "test", [TESTED] * CLASSES)):
        table = pq.read_table(source)
        labels = np.array(table.column("label"))
        rows = np.concatenate([np.flatnonzero(labels == label)[:number] for label, number in enumerate(wanted)])
        pq.write_table(table.take(pa.array(rows)), folder / f"{name}.parquet")
    return f"parquet:{folder / 'train.parquet'},{folder / 'test.parquet'}"


def space_of(network: str) -> SearchSpace:
    """One plain ViT, or some hundred networks around it."""
    is_one = network == "plain ViT"
    layer = LayerDomain(
        num_tokens=(TOKENS,),
        num_heads=(4,) if is_one else (2, 4),
        mlp_ratio=(4.0,) if is_one else (2.0, 4.0),
        attention=("dynamic",) if is_one else ("dynamic", "linear"),
    )
    return SearchSpace(
        name="one" if is_one else "some",
        backbone=BACKBONE,
        embed_dim=(WIDTH,),
        depth=(DEPTH,),
        layers=(layer,) * DEPTH,
        rules=Rules(),
    )


class AdjustedStep(Step):
    """A step whose loss against labels adds the logarithms of the shares of the classes to the logits."""

    shares = torch.empty(0)  # of the training images, [K]

    def _label_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super()._label_losses(logits + self.shares.log(), targets)


def trained(network: str, way: str, seed: int, train: ImageSet, epochs: int) -> Supernet:
    """Train one arm with one seed."""
    config = TrainConfig(epochs=epochs, ema_decay=0.99, class_weights="balanced" if way == "balanced" else "none")
    trainer = SupernetTrainer(
        Supernet(space_of(network), seed=seed),
        train,
        config,
        seed=seed,
        device=CPU,
        precision="fp32",
        directory=Path(tempfile.mkdtemp()),
    )
    images = torch.bincount(torch.from_numpy(train.labels.copy()), minlength=CLASSES).float()
    step = trainer.step
    if way == "logit":
        AdjustedStep.shares = images / images.sum()
        trainer.step = AdjustedStep(
            supernet=step.supernet, config=step.config, precision=step.precision, world=step.world
        )
    trainer.begin()
    for number in range(trainer.schedule.steps):
        trainer.train_step(number)
    return trainer.trained()


def recalls(supernet: Supernet, network: str, test: ImageSet) -> list[float]:
    """Percent right of each class of the test split, mean over drawn subnets of a supernet."""
    space = supernet.space
    chosen: list[Architecture] = [space.largest()]
    if network == "supernet":
        generator = np.random.default_rng(0)
        chosen = [space.sample(generator) for _ in range(SUBNETS)]
    images, found = test.normalized(slice(None)), []
    with torch.inference_mode():
        for architecture in chosen:
            subnet = supernet.extract(architecture).eval()
            answers = torch.cat(
                [subnet(images[at : at + 500]).argmax(dim=1) for at in range(0, len(images), 500)]
            ).numpy()
            found.append([100 * float((answers[test.labels == label] == label).mean()) for label in range(CLASSES)])
    return [statistics.fmean(values) for values in zip(*found, strict=True)]


def rows_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table: medians over seeds, and gains over none with their 95 % intervals, paired by seed."""

    def values(network: str, way: str) -> dict[int, tuple[float, float]]:
        return {
            line["seed"]: (statistics.fmean(line["recalls"]), statistics.fmean(line["recalls"][-RARE:]))
            for line in lines
            if (line["network"], line["way"]) == (network, way)
        }

    rows = []
    for network in NETWORKS:
        plain = values(network, "none")
        for way in WAYS:
            found = values(network, way)
            both = [found[seed][0] - plain[seed][0] for seed in found if seed in plain]
            if not both:
                continue
            row: dict[str, Any] = {"network": network, "class_weights": way, "seeds": len(found)}
            row["balanced_top1"] = round(statistics.median(value for value, _ in found.values()), 2)
            row["rarest_3"] = round(statistics.median(value for _, value in found.values()), 2)
            row["gain"] = row["gain_low"] = row["gain_high"] = ""
            if way != "none":
                mean = statistics.fmean(both)
                row["gain"] = round(mean, 2)
            if way != "none" and len(both) > 1:
                half = float(student.ppf(0.975, len(both) - 1)) * statistics.stdev(both) / len(both) ** 0.5
                row |= {"gain_low": round(mean - half, 2), "gain_high": round(mean + half, 2)}
            rows.append(row)
    return rows


def main() -> None:
    """Train what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--minutes", type=float, default=1e6)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    lines = [line for line in lines if line["epochs"] == asked.epochs]
    with tempfile.TemporaryDirectory() as folder:
        train, test_file = (Path(spec.removeprefix("parquet:")) for spec in (asked.train, asked.test))
        spec = write_images(train, test_file, Path(folder))
        data, test_split = load_images(DataConfig(spec=spec, search_fraction=0.05), BACKBONE.image_size, 0)
        assert test_split, "there is one"
        test = test_split.open()
        arms = [
            (seed, network, way) for seed in range(asked.seeds) for network in NETWORKS for way in WAYS
        ]  # fmt: skip
        for seed, network, way in arms:
            if any((line["seed"], line["network"], line["way"]) == (seed, network, way) for line in lines):
                continue
            if time.process_time() > 60 * asked.minutes:
                break
            began = time.process_time()
            found = recalls(trained(network, way, seed, data.train, asked.epochs), network, test)
            line = {"network": network, "way": way, "seed": seed, "epochs": asked.epochs, "recalls": found}
            lines.append({**line, "cpu_s": round(time.process_time() - began, 1)})
            with RUNS.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(network, way, seed, round(statistics.fmean(found), 2), lines[-1]["cpu_s"], flush=True)
        number = len(data.train)
    write_table(
        "imbalance",
        rows_of(lines),
        f"CIFAR-10, {number:,} training images, {FACTOR} times as many of the largest class as of the smallest; "
        f"{TESTED * CLASSES:,} test images, balanced; {asked.epochs} epochs; percent; medians over seeds, gains in "
        f"points with 95 % intervals, paired; supernet: mean of {SUBNETS} drawn subnets; "
        f"{sum(line['cpu_s'] for line in lines) / 60:.0f} CPU minutes in all",
    )


if __name__ == "__main__":
    main()
