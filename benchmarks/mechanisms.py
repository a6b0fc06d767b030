"""What each mechanism gains or costs on real images: in a supernet, alone, and under other recipes.

    python benchmarks/mechanisms.py --label after --data parquet:cifar10-train.parquet --part supernet alone
    python benchmarks/mechanisms.py --label after --data SPEC --part recipes --device cuda --processes 14 --seconds 500
    python benchmarks/mechanisms.py --part latency table

- `supernet`: a supernet of every mechanism, default recipe. Measured with inherited weights: for every mechanism the
  mean of 20 drawn subnets that use it, and of the same 20 with the plain operator instead; and every arm of `alone`.
- `alone`: one network a training. Every arm has one mechanism wherever it may stand.
- `recipes`: the plain ViT and two networks such as a search finds, trained alone under one change of the recipe each.
- `throughput`: steps a second of the supernet's training in so many processes at once.
- `latency`: time of the arms over the plain ViT's on this CPU, interleaved; when nothing else runs.
- `table`: results/reference/mechanisms.csv and mechanisms_recipes.csv. Intervals are Student's over seeds, paired by
  seed; verdicts are those of benchmarks/mechanisms.txt, written by a person.

Trainings take turns: all of seed 0 first. What has ended is a line of OUT/runs.jsonl under its label, which names the
version of the code, and is not repeated. A job that cannot end within --seconds gives up, and one that fails says why;
both are tried again by the next call.
"""

import argparse
import csv
import json
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import psutil
import torch
from scipy.stats import t as student
from torch import Tensor

from nas.arch import Architecture, Backbone, LayerChoice, Rules, cost
from nas.base import ArchitectureError
from nas.data import ImageData, ImageSet, load_images
from nas.jobs import space_of_one
from nas.latency import LatencyMeter
from nas.model import Subnet, Supernet
from nas.runs import TRAINING_LOG
from nas.settings import DataConfig, TrainConfig
from nas.space import LayerDomain, SearchSpace
from nas.training import SupernetTrainer, TrainProgress

BACKBONE = Backbone(image_size=32, patch_size=4, num_classes=10, head_dim=24)
WIDTH, DEPTH, TOKENS = 96, 6, 64
PLAIN = LayerChoice(num_tokens=TOKENS, num_heads=4, mlp_ratio=4)
SUBNETS = 20
SURE_STEPS = 200  # after which it is known how long a training takes
SEARCH_IMAGES = 2_000  # for subnets; what is trained alone is measured on the whole search split
BEFORE = "before"  # label of the version that others are compared with; no verdict is of it
VERDICTS = Path(__file__).with_suffix(".txt")

MECHANISMS: dict[str, tuple[str, str, str, str]] = {
    "pooling": ("reducer", "pool", "all tokens", "plain"),
    "pooling, conv_pool": ("reducer", "conv_pool", "pool", "pooling"),
    "GLAD": ("reducer", "glad", "pool", "pooling"),
    "GLAD, all tokens": ("reducer", "glad", "all tokens", "plain"),
    "sharing": ("attention", "shared", "dynamic", "plain"),
    "hallucination, copy": ("hallucination", "copy", "real heads", "plain"),
    "hallucination, mix": ("hallucination", "mix", "real heads", "plain"),
    "hallucination, mix_conv": ("hallucination", "mix_conv", "real heads", "plain"),
    "static": ("attention", "static", "dynamic", "plain"),
    "linear": ("attention", "linear", "dynamic", "plain"),
    "compact ffn": ("ffn_rank", "0.5", "full rank", "plain"),
}
"""Of each row: gene and value that make the mechanism, what stands there instead, and the arm that has this."""

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "lr 4e-3": {"lr": 4e-3},
    "lr 1e-3": {"lr": 1e-3},
    "epochs x 2": {"epochs": 2.0},
    "CutMix": {"cutmix": 1.0},
    "drop path 0.1": {"drop_path": 0.1},
    "EMA 0.9995": {"ema_decay": 0.9995},
    "no EMA": {"ema_decay": 0.0},
    "weight decay 0.2": {"weight_decay": 0.2},
    "warm-up 5": {"warmup_epochs": 5.0},
    "crops from 0.35": {"crop_scale": (0.35, 1.0)},
    "epochs x 2, CutMix": {"epochs": 2.0, "cutmix": 1.0},
    "RandAugment m5": {"auto_augment": "rand-m5-n1"},
}
"""Changes of the default recipe; `epochs` is a factor."""
RECIPE_NETWORKS = ("plain", "joint", "pooled")


class OutOfTimeError(Exception):
    """The training would not end before the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training, and what makes it a training of its own."""

    part: str
    name: str  # arm; of `recipes`, recipe and network
    seed: int
    data: str  # spec, folders left out
    label: str
    images: int
    epochs: int
    precision: str

    def key(self) -> dict[str, Any]:
        """What is the same in the line that it leaves."""
        return {field: getattr(self, field) for field in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and until when a worker trains."""

    spec: str  # data
    device: str
    deadline: float  # time.time(); infinite: none
    subnets: int
    epochs: tuple[int, ...]  # of supernets: the first that ends in time


def arms() -> dict[str, Architecture]:
    """What is trained alone: the plain ViT with one mechanism each, and two networks of several."""
    every, pyramid = range(DEPTH), {**dict.fromkeys((2, 3), 36), **dict.fromkeys((4, 5), 16)}

    def of(**genes: dict[int, Any]) -> Architecture:
        layers = [
            replace(PLAIN, **{gene: values[i] for gene, values in genes.items() if i in values}) for i in range(DEPTH)
        ]
        return Architecture(embed_dim=WIDTH, layers=tuple(layers))

    def reduced(reducer: str, **genes: Any) -> Architecture:
        return of(num_tokens=pyramid, reducer={2: reducer, 4: reducer}, **genes)

    half = dict.fromkeys(every, 0.5)
    return {
        "plain": of(),
        "pooling": reduced("pool"),
        "GLAD": reduced("glad"),
        "sharing": of(attention=dict.fromkeys(range(1, DEPTH, 2), "shared")),
        "static": of(attention=dict.fromkeys(range(3), "static")),
        "linear": of(attention=dict.fromkeys(every, "linear")),
        "compact ffn": of(ffn_rank=half),
        "hallucination, copy": of(hallucination_ratio=half, hallucination=dict.fromkeys(every, "copy")),
        "hallucination, mix": of(hallucination_ratio=half, hallucination=dict.fromkeys(every, "mix")),
        "hallucination, mix_conv": of(hallucination_ratio=half, hallucination=dict.fromkeys(every, "mix_conv")),
        "pooling, conv_pool": reduced("conv_pool"),
        "pooled": reduced("pool", attention={1: "shared", 3: "shared"}, ffn_rank=half),
        "joint": reduced(
            "glad",
            attention={0: "static", 1: "linear", 3: "shared"},
            ffn_rank=half,
            hallucination_ratio={2: 0.5, 3: 0.5, 4: 0.5},
            hallucination=dict.fromkeys(range(2, DEPTH), "copy"),
        ),
    }


@cache
def whole_space() -> SearchSpace:
    """Every mechanism, and every arm."""
    genes: dict[str, Any] = {
        "num_tokens": (64, 36, 16),
        "reducer": ("pool", "conv_pool", "glad"),
        "attention": ("dynamic", "static", "shared", "linear"),
        "hallucination_ratio": (0.0, 0.5),
        "hallucination": ("copy", "mix", "mix_conv"),
        "num_heads": (2, 4),
        "ffn_rank": (0.5, 1.0),
        "mlp_ratio": (2.0, 4.0),
    }
    early = {**genes, "num_tokens": (TOKENS,)}
    layers = [
        LayerDomain(**{**early, "attention": ("dynamic", "static", "linear")}),
        LayerDomain(**early),
        *(LayerDomain(**genes) for _ in range(DEPTH - 3)),
        LayerDomain(**{**genes, "attention": ("dynamic", "shared", "linear")}),
    ]
    return SearchSpace(
        name="mechanisms",
        backbone=BACKBONE,
        embed_dim=(72, WIDTH),
        depth=(DEPTH,),
        layers=tuple(layers),
        rules=Rules(max_shared=2, max_reductions=2),
    )


def without(architecture: Architecture, mechanism: str) -> Architecture | None:
    """The same with the plain operator wherever the mechanism stands; None where it does not, or that is no network."""
    gene, value, plain, _ = MECHANISMS[mechanism]
    using = [str(getattr(layer, gene)) == value for layer in architecture.layers]
    if not any(using):
        return None
    changes: dict[str, Any] = {
        "reducer": {"reducer": "pool"},
        "attention": {"attention": "dynamic"},
        "hallucination": {"hallucination_ratio": 0.0, "hallucination": None},
        "ffn_rank": {"ffn_rank": 1.0},
    }[gene]
    if plain == "all tokens":
        if any(layer.reducer is not None and layer.reducer != value for layer in architecture.layers):
            return None
        using, changes = [True] * len(using), {"reducer": None, "num_tokens": TOKENS}
    try:
        layers = [
            replace(layer, **changes) if used else layer for layer, used in zip(architecture.layers, using, strict=True)
        ]
        return Architecture(embed_dim=architecture.embed_dim, layers=tuple(layers))
    except ArchitectureError:
        return None


@cache
def pairs(mechanism: str, count: int) -> tuple[tuple[Architecture, Architecture], ...]:
    """Subnets that use a mechanism, each beside the same without it."""
    space, rng = whole_space(), np.random.default_rng(1)
    found: list[tuple[Architecture, Architecture]] = []
    while len(found) < count:
        one = space.sample(rng)
        other = without(one, mechanism)
        if other is not None and not space.why_not(other):
            found.append((one, other))
    return tuple(found)


# --- trainings, each in a process of its own -----------------------------------------------------------------


@cache
def images_of(spec: str, count: int) -> ImageData:
    """Data that the worker keeps: so many training images, the search split."""
    data, _ = load_images(DataConfig(spec=spec), BACKBONE.image_size, 0)
    return ImageData(train=data.train.part(0, count), search=data.search)


class Epochs:
    """The batches of a training, augmented an epoch at a time: as many random crops and flips, only of other draws.

    On a card, a step of a small network takes as long as its kernels take to launch, and of these a third to a half are
    the augmentation's. Mixup and CutMix stay with the batch.
    """

    def __init__(self, trainer: SupernetTrainer, train: ImageSet) -> None:
        self.trainer, self.train, self.epoch = trainer, train, -1
        self.mixup, trainer.augment.mixup = trainer.augment.mixup, None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images and targets of a step."""
        size, count = self.trainer.config.batch_size, len(self.train)
        epoch, position = divmod(step, max(count // size, 1))
        if epoch != self.epoch:
            order = np.random.default_rng([self.trainer.seed, epoch, 1]).permutation(count)
            images, labels = torch.from_numpy(self.train.uncut(order)), torch.as_tensor(self.train.labels[order])
            self.epoch, (self.images, self.labels) = epoch, self.trainer.augment(images, labels)
        part = slice(position * size, (position + 1) * size)
        batch: tuple[Tensor, Tensor] = self.images[part], self.labels[part]
        return batch if self.mixup is None else self.mixup(*batch)


def trainer_of(job: Job, machine: Machine, space: SearchSpace, folder: str, **recipe: Any) -> SupernetTrainer:
    """A training from random weights."""
    train = images_of(machine.spec, job.images).train
    trainer = SupernetTrainer(
        Supernet(space, seed=job.seed),
        train,
        TrainConfig(epochs=job.epochs, checkpoint_minutes=1e6, **recipe),
        seed=job.seed,
        device=torch.device(machine.device),
        precision=job.precision,
        directory=Path(folder),
    )
    if machine.device != "cpu":
        vars(trainer)["_batch"] = Epochs(trainer, train)
    return trainer


def trained(job: Job, machine: Machine, space: SearchSpace, **recipe: Any) -> tuple[Supernet, dict[str, Any]]:
    """The trained supernet, and what is to be said of the training."""
    began = time.time()

    def watch(progress: TrainProgress) -> None:
        if progress.step >= SURE_STEPS and time.time() + progress.eta_s > machine.deadline:
            raise OutOfTimeError

    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(job, machine, space, folder, **recipe)
        supernet = trainer.run(watch)
        with (Path(folder) / TRAINING_LOG).open(newline="") as file:
            log = list(csv.DictReader(file))
    # the last measurement of each number of the log: some stand in few rows
    vitals = {key: value for row in log for key, value in row.items() if key and value}
    where = torch.cuda.get_device_name() if machine.device == "cuda" else machine.device
    return supernet, {"seconds": round(time.time() - began, 1), "trained_on": where, "log": vitals}


@cache
def search_batches(spec: str, count: int, images: int, device: str) -> list[tuple[Tensor, Tensor]]:
    """The first images of the search split, normalised, and their labels, on the device."""
    search = images_of(spec, count).search
    search = search.part(0, min(images, len(search)))
    parts = [slice(start, start + 500) for start in range(0, len(search), 500)]
    return [(search.normalized(part).to(device), torch.as_tensor(search.labels[part]).to(device)) for part in parts]


def top1_of(
    supernet: Supernet, architectures: Iterable[Architecture], job: Job, machine: Machine, images: int = 10**6
) -> list[float]:
    """Top-1 of each on so many images of the search split, percent."""
    batches = search_batches(machine.spec, job.images, images, machine.device)
    total, found = sum(len(labels) for _, labels in batches), []
    for architecture in architectures:
        subnet = supernet.extract(architecture)
        with torch.inference_mode(), torch.autocast(machine.device, torch.bfloat16, enabled=job.precision == "bf16"):
            right = sum((subnet(pixels).argmax(dim=1) == labels).sum() for pixels, labels in batches)
        found.append(round(100 * int(right) / total, 3))
    return found


def work(job: Job, machine: Machine) -> dict[str, Any]:
    """Do a job; its line, which says what was wrong where it failed."""
    torch.set_num_threads(1)
    try:
        return {**job.key(), **RUN[job.part](job, machine)}
    except OutOfTimeError:
        return {**job.key(), "error": "out of time"}
    except Exception:  # noqa: BLE001 - one job of a hundred: the others go on
        return {**job.key(), "error": traceback.format_exc()}


def run_supernet(job: Job, machine: Machine) -> dict[str, Any]:
    """Train the supernet; measure pairs and arms."""
    longest, *shorter = machine.epochs
    try:
        before_measuring = replace(machine, deadline=machine.deadline - 2.5 * machine.subnets)
        supernet, found = trained(replace(job, epochs=longest), before_measuring, whole_space())
    except OutOfTimeError:
        if not shorter:
            raise
        return run_supernet(job, replace(machine, epochs=tuple(shorter)))

    def means(architectures: Iterable[Architecture]) -> float:
        return mean(top1_of(supernet, architectures, job, machine, SEARCH_IMAGES))

    drawn = {name: list(zip(*pairs(name, machine.subnets), strict=True)) for name in MECHANISMS}
    found["pairs"] = {name: [means(one), means(other)] for name, (one, other) in drawn.items()}
    found["arms"] = dict(zip(arms(), top1_of(supernet, arms().values(), job, machine), strict=True))
    return found


def run_alone(job: Job, machine: Machine, **recipe: Any) -> dict[str, Any]:
    """Train an arm alone."""
    architecture = arms()[job.name.rpartition("/")[2]]
    supernet, found = trained(job, machine, space_of_one(whole_space(), architecture), **recipe)
    return {**found, "top1": top1_of(supernet, [architecture], job, machine)[0]}


def run_recipe(job: Job, machine: Machine) -> dict[str, Any]:
    """Train an arm alone by a recipe."""
    recipe = dict(RECIPES[job.name.rpartition("/")[0]])
    factor = recipe.pop("epochs", 1.0)
    return run_alone(replace(job, epochs=round(job.epochs * factor)), machine, **recipe)


RUN = {"supernet": run_supernet, "alone": run_alone, "recipes": run_recipe}


def run_all(jobs: Sequence[Job], machines: Sequence[Machine], processes: int, out: Path) -> None:
    """Do the jobs that have no line yet, in their order; stop at the deadline."""
    done = [{key: line.get(key) for key in Job.__slots__} for line in lines_of(out)]
    waiting: dict[Future[dict[str, Any]], Job] = {}
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    for job, machine in zip(jobs, machines, strict=True):
        if job.key() not in done:
            waiting[pool.submit(work, job, machine)] = job
    for machine in machines:  # the workers train meanwhile
        images_of(machine.spec, jobs[0].images)
    total, number = len(waiting), 0
    deadline = machines[0].deadline if machines else 0.0
    try:
        while waiting and time.time() < deadline:
            ended, _ = wait(waiting, timeout=1.0, return_when="FIRST_COMPLETED")
            for future in ended:
                job, number = waiting.pop(future), number + 1
                line = {**job.key(), "error": repr(future.exception())} if future.exception() else future.result()
                with (out / "runs.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                said = line.get("error") or f"{line.get('top1', '')} in {line['seconds']} s"
                print(f"{number}/{total} {job.part} {job.name} seed {job.seed} {job.data}: {said}", flush=True)
    finally:
        stop(pool)
    print(f"{len(waiting)} of {total} not done", flush=True)


def stop(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: they write nothing themselves, and one that hangs would be waited for."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)


def lines_of(out: Path) -> list[dict[str, Any]]:
    """Lines of the trainings that ended, the last of each key."""
    path = out / "runs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if "error" not in line]


# --- throughput ----------------------------------------------------------------------------------------------

_barrier: Barrier | None = None
_trainer: SupernetTrainer | None = None


def _set_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def warm_up(job: Job, machine: Machine) -> None:
    """Make a training and take its first steps; return when every worker has."""
    global _trainer
    torch.set_num_threads(1)
    _trainer = trainer_of(job, machine, whole_space(), tempfile.mkdtemp())
    for step in range(20):
        _trainer.train_step(step)
    assert _barrier is not None
    _barrier.wait(120)


def timed_steps(start: float, seconds: float) -> int:
    """Steps from a moment on, for so many seconds."""
    assert _trainer is not None
    time.sleep(max(0.0, start - time.time()))
    steps = 0
    while time.time() < start + seconds:
        _trainer.train_step(20 + steps)
        steps += 1
    return steps


def throughput(job: Job, machine: Machine, processes: int, seconds: float, out: Path) -> None:
    """Steps a second of so many processes together, from all down to one."""
    context = multiprocessing.get_context("spawn")
    counts = sorted({processes, *(n for n in (1, 4, 8) if n < processes)}, reverse=True)
    barrier = context.Barrier(processes)
    pool = ProcessPoolExecutor(processes, context, _set_barrier, (barrier,))
    try:
        for future in [pool.submit(warm_up, job, machine) for _ in range(processes)]:
            future.result()
        for count in counts:
            start = time.time() + 0.3
            steps = [future.result() for future in [pool.submit(timed_steps, start, seconds) for _ in range(count)]]
            line = {
                "part": "throughput", "label": job.label, "device": machine.device, "precision": job.precision,
                "processes": count, "steps_per_second": round(sum(steps) / seconds, 1),
            }  # fmt: skip
            print(line, flush=True)
            with (out / "throughput.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
    finally:
        stop(pool)


# --- latency and tables --------------------------------------------------------------------------------------


def latency(rounds: int, out: Path) -> None:
    """Time of every arm over the plain ViT's, fp32, one thread, by batch size."""
    torch.set_num_threads(1)
    subnets = {name: Subnet(BACKBONE, architecture) for name, architecture in arms().items()}
    for subnet in subnets.values():
        subnet.init_weights()
        subnet.eval()
    found: dict[str, dict[str, float]] = {name: {} for name in subnets}
    for batch in (1, 64):
        meter = LatencyMeter(subnets["plain"], (3, 32, 32), batch)
        timings, clock = meter.interleaved(list(subnets.values()), rounds)
        for name, timing in zip(subnets, timings, strict=True):
            found[name][f"b{batch}"] = round(timing.median_ms / clock.median_ms, 3)
    (out / "latency.json").write_text(json.dumps(found))


def interval(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds and its 95 % interval, as columns."""
    low: float | str = ""
    high: float | str = ""
    if len(values) > 1:
        half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
        low, high = round(mean(values) - half, 2), round(mean(values) + half, 2)
    return {name: round(mean(values), 2) if values else "", f"{name}_low": low, f"{name}_high": high}


def verdicts() -> dict[str, str]:
    """Sentences by mechanism, as a person wrote them: `name: sentence` a line."""
    text = VERDICTS.read_text() if VERDICTS.exists() else ""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def mechanism_rows(lines: list[dict[str, Any]], times: dict[str, dict[str, float]], label: str) -> list[dict[str, Any]]:
    """A row for each mechanism of one version."""
    networks, said = arms(), verdicts()
    supernets = [line for line in lines if line["part"] == "supernet"]
    alone = {(line["name"], line["seed"]): line["top1"] for line in lines if line["part"] == "alone"}
    rows = []
    for name, (_, _, plain, against) in MECHANISMS.items():
        arm = name if name in networks else name.partition(",")[0]
        one, other = networks[arm], networks[against]
        seeds = [seed for found, seed in alone if found == arm and (against, seed) in alone]
        row: dict[str, Any] = {"version": label, "mechanism": name, "instead": plain}
        columns = {
            "subnets": [line["pairs"][name] for line in supernets],
            "arm": [(line["arms"][arm], line["arms"][against]) for line in supernets],
            "alone": [(alone[arm, seed], alone[against, seed]) for seed in seeds],
        }
        for column, both in columns.items():
            row[f"{column}_top1"] = round(mean(used for used, _ in both), 2) if both else ""
            row |= interval(f"{column}_gain", [used - unused for used, unused in both])
            row[f"{column}_seeds"] = len(both)
        ratios = [cost.macs(a, BACKBONE) / cost.macs(b, BACKBONE) for a, b in pairs(name, SUBNETS)]
        row["subnets_macs"] = round(median(ratios), 3)
        row["arm_macs"] = round(cost.macs(one, BACKBONE) / cost.macs(other, BACKBONE), 3)
        for batch in ("b1", "b64"):
            row[f"arm_time_{batch}"] = round(times[arm][batch] / times[against][batch], 3) if times else ""
        rows.append({**row, "verdict": "" if label == BEFORE else said.get(name, "")})
    return rows


def recipe_rows(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each recipe, network and data."""
    found = {(x["data"], *x["name"].split("/"), x["seed"]): x["top1"] for x in lines if x["part"] == "recipes"}
    rows = []
    for data in dict.fromkeys(key[0] for key in found):
        for network in RECIPE_NETWORKS:
            for recipe in RECIPES:
                seeds = [s for d, r, n, s in found if (d, r, n) == (data, recipe, network)]
                both = [s for s in seeds if (data, "default", network, s) in found]
                if not seeds:
                    continue
                gains = [found[data, recipe, network, s] - found[data, "default", network, s] for s in both]
                row = {"data": data, "network": network, "recipe": recipe, "seeds": len(seeds)}
                row["top1"] = round(mean(found[data, recipe, network, s] for s in seeds), 2)
                rows.append(row | interval("gain", gains))
    return rows


def tables(out: Path) -> None:
    """Write what there is."""
    from tables import write_table

    lines = lines_of(out)
    path = out / "latency.json"
    times = json.loads(path.read_text()) if path.exists() else {}
    rows: list[dict[str, Any]] = []
    for label in dict.fromkeys(line["label"] for line in lines):
        rows += mechanism_rows([line for line in lines if line["label"] == label], times, label)

    def told(part: str, key: str) -> str:
        return ", ".join(
            str(value) for value in dict.fromkeys(x["log"].get(key) or x[key] for x in lines if x["part"] == part)
        )

    network = f"CIFAR-10 32 px, patch 4, width {WIDTH}, {DEPTH} layers, 4 heads of 24"
    write_table(
        "mechanisms",
        rows,
        f"{network}; {told('supernet', 'images')} training images, batch 64, {told('supernet', 'precision')}, on "
        f"{told('supernet', 'trained_on')}. subnets: "
        f"{SUBNETS} drawn ones with the mechanism in a supernet (epochs: {told('supernet', 'epoch')}) against the "
        f"same without, mean on {SEARCH_IMAGES} search images; arm: the plain ViT with the mechanism wherever it may "
        f"stand, in the same supernet; alone: that network trained alone (epochs: {told('alone', 'epochs')}). Gains in "
        "points with 95 % intervals over seeds, paired; macs and time (CPU, fp32, one thread, interleaved): with over "
        "without",
    )
    if recipes := recipe_rows([line for line in lines if line["label"] != BEFORE]):
        write_table(
            "mechanisms_recipes",
            recipes,
            f"{network} and two cheaper networks, {told('recipes', 'images')} training images, "
            f"{told('recipes', 'epochs')} epochs where none are named, each trained alone; top-1 on the search split, "
            "gain over the default recipe in points with 95 % intervals over seeds, paired",
        )


def jobs_of(asked: argparse.Namespace) -> list[tuple[Job, Machine]]:
    """All trainings in the order in which they begin: part by part, and in each all of a seed first."""
    deadline = psutil.Process().create_time() + asked.seconds
    found: list[tuple[Job, Machine]] = []
    for part in asked.part:
        specs = asked.data if part == "recipes" else asked.data[:1]
        names = {
            "supernet": ["all"],
            "alone": asked.arms or list(arms()),
            "recipes": [f"{recipe}/{network}" for network in RECIPE_NETWORKS for recipe in asked.recipes or RECIPES],
        }.get(part, [])
        epochs = {"supernet": asked.epochs[0], "alone": asked.alone_epochs, "recipes": asked.recipe_epochs}.get(part)
        seeds = asked.recipe_seeds if part == "recipes" else asked.seeds
        for seed in range(seeds):
            for spec in specs:
                data = Path(spec.partition(":")[2].partition(",")[0] or spec).stem
                machine = Machine(
                    spec=spec, device=asked.device, deadline=deadline, subnets=asked.subnets, epochs=tuple(asked.epochs)
                )  # fmt: skip
                for name in names:
                    job = Job(
                        part=part, name=name, seed=seed, data=data, label=asked.label, images=asked.images,
                        epochs=epochs, precision=asked.precision,
                    )  # fmt: skip
                    found.append((job, machine))
    return found


def main() -> None:
    """Train what is missing, measure, write tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=[*RUN, "throughput", "latency", "table"], default=["table"])
    parser.add_argument("--label", default="after", help="version of the code that trains")
    parser.add_argument("--data", nargs="+", default=[], help="data specs; all but `recipes` use the first alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe-seeds", type=int, default=2)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, nargs="+", default=[60], help="of supernets; of several, as time allows")
    parser.add_argument("--alone-epochs", type=int, default=30)
    parser.add_argument("--recipe-epochs", type=int, default=20)
    parser.add_argument("--arms", nargs="+", choices=list(arms()), help="of `alone`; not given: all")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), help="not given: all")
    parser.add_argument("--subnets", type=int, default=SUBNETS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end so many after the start")
    parser.add_argument("--rounds", type=int, default=15, help="of `latency`")
    parser.add_argument("--out", type=Path, default=Path("results/mechanisms"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found = jobs_of(asked)
    if (found or "throughput" in asked.part) and not asked.data:
        parser.error("--data is needed to train")
    for spec in asked.data[:1]:
        images_of(spec, asked.images)  # decoded once, before there are many processes
    if "throughput" in asked.part:
        job, machine = jobs_of(argparse.Namespace(**{**vars(asked), "part": ["supernet"]}))[0]
        throughput(job, machine, asked.processes, min(asked.seconds, 10.0), asked.out)
    if found:
        run_all([job for job, _ in found], [machine for _, machine in found], asked.processes, asked.out)
    if "latency" in asked.part:
        latency(asked.rounds, asked.out)
    if "table" in asked.part:
        tables(asked.out)


if __name__ == "__main__":
    main()
