"""What each mechanism gains or costs on real images, in a supernet and alone.

    python benchmarks/mechanisms.py --label after --data parquet:cifar10-train.parquet --part supernet alone
    python benchmarks/mechanisms.py --part latency table

- `supernet`: a supernet of every mechanism, default recipe. Measured with inherited weights: for every mechanism the
  mean of 20 drawn subnets that use it, and of the same 20 with the plain operator instead; and every arm of `alone`.
- `alone`: one network a training. Every arm has one mechanism wherever it may stand.
- `throughput`: steps a second of the supernet's training in so many processes at once.
- `latency`: time of the arms over the plain ViT's on this CPU, interleaved; when nothing else runs.
- `table`: results/reference/mechanisms.csv. Intervals are Student's over seeds, paired by seed; verdicts are those of
  benchmarks/mechanisms.txt, written by a person.

Trainings take turns: all of seed 0 first. What has ended is a line of OUT/runs.jsonl under its label, which names the
version of the code, and is not repeated. OUT is committed, so that another machine goes on. A job that cannot end
within --seconds gives up, and one that fails says why; both are tried again by the next call.
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
from statistics import mean
from typing import Any

import numpy as np
import psutil
import torch
from mechanism_networks import BACKBONE, MECHANISMS, SEARCH_IMAGES, SUBNETS, arms, pairs, space_with, whole_space
from mechanism_tables import latency, lines_of, tables
from tables import REFERENCE
from torch import Tensor

from nas.arch import Architecture
from nas.data import ImageData, ImageSet, load_images
from nas.jobs import space_of_one
from nas.model import Supernet
from nas.runs import TRAINING_LOG
from nas.settings import DataConfig, TrainConfig
from nas.space import SearchSpace
from nas.training import SupernetTrainer, TrainProgress

SURE_STEPS = 200  # after which it is known how long a training takes


class OutOfTimeError(Exception):
    """The training would not end before the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training, and what makes it a training of its own."""

    part: str
    name: str  # arm
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


def trainer_of(job: Job, machine: Machine, space: SearchSpace, folder: str) -> SupernetTrainer:
    """A training from random weights."""
    train = images_of(machine.spec, job.images).train
    trainer = SupernetTrainer(
        Supernet(space, seed=job.seed),
        train,
        TrainConfig(epochs=job.epochs, checkpoint_minutes=1e6),
        seed=job.seed,
        device=torch.device(machine.device),
        precision=job.precision,
        directory=Path(folder),
    )
    if machine.device != "cpu":
        vars(trainer)["_batch"] = Epochs(trainer, train)
    return trainer


def trained(job: Job, machine: Machine, space: SearchSpace) -> tuple[Supernet, dict[str, Any]]:
    """The trained supernet, and what is to be said of the training."""
    began = time.time()

    def watch(progress: TrainProgress) -> None:
        if progress.step >= SURE_STEPS and time.time() + progress.eta_s > machine.deadline:
            raise OutOfTimeError

    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(job, machine, space, folder)
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
    inside = {name: architecture for name, architecture in arms().items() if architecture in whole_space()}
    found["arms"] = dict(zip(inside, top1_of(supernet, inside.values(), job, machine), strict=True))
    return found


def run_alone(job: Job, machine: Machine) -> dict[str, Any]:
    """Train an arm alone."""
    architecture = arms()[job.name]
    supernet, found = trained(job, machine, space_of_one(space_with(job.name), architecture))
    return {**found, "top1": top1_of(supernet, [architecture], job, machine)[0]}


RUN = {"supernet": run_supernet, "alone": run_alone}


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


def jobs_of(asked: argparse.Namespace) -> list[tuple[Job, Machine]]:
    """All trainings in the order in which they begin: part by part, and in each all of a seed first."""
    deadline = psutil.Process().create_time() + asked.seconds
    found: list[tuple[Job, Machine]] = []
    for part in asked.part:
        names = {"supernet": ["all"], "alone": asked.arms or list(arms())}.get(part, [])
        epochs = {"supernet": asked.epochs[0], "alone": asked.alone_epochs}.get(part)
        for seed in range(asked.seeds):
            for spec in asked.data:
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
    parser.add_argument("--data", nargs=1, default=[], help="data spec")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, nargs="+", default=[60], help="of supernets; of several, as time allows")
    parser.add_argument("--alone-epochs", type=int, default=30)
    parser.add_argument("--arms", nargs="+", choices=list(arms()), help="of `alone`; not given: all")
    parser.add_argument("--subnets", type=int, default=SUBNETS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end so many after the start")
    parser.add_argument("--rounds", type=int, default=15, help="of `latency`")
    parser.add_argument("--out", type=Path, default=REFERENCE / "mechanisms")
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
