"""How `study.py` works: the product's commands with their time, trainings alone in processes, what has ended."""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet
from study_networks import packed

from nas.arch import Architecture
from nas.base import Reporter
from nas.data import ImageSet, TestSplit
from nas.evaluation import count_correct
from nas.jobs import (
    Session,
    StandAloneSetup,
    inherited_setup,
    network_at,
    reopen,
    stand_alone_setup,
    trained_alone,
    trained_network,
)
from nas.jobs.session import reopen_with_test  # no face lends what opens the test split
from nas.model import Subnet, Supernet
from nas.runs import FINALIST, ParetoFront
from nas.space import SearchSpace
from nas.training import SupernetTrainer, load_trained

ROOT = Path(__file__).resolve().parent.parent
TIMED_STEPS = 40
KEY = ("part", "data", "seed", "name", "digest", "start", "epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training, or one network on the test split, and what makes it one of its own."""

    part: str  # alone, halving or test
    data: str
    seed: int
    name: str  # whose it is: alone, elastic, halving, supernet or finalists
    start: str  # scratch or inherited; of `test` also supernet, as inherited, and finalist, as the product trained it
    epochs: int
    architecture: Architecture
    run: Path  # whose images, recipe and weights
    folder: Path  # of the trainings

    def key(self) -> dict[str, Any]:
        """What is the same in the line that it leaves."""
        return {key: self.architecture.digest if key == "digest" else getattr(self, key) for key in KEY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One data set and seed, and where its runs are."""

    spec: str
    data: str
    seed: int
    folder: Path

    @property
    def joint(self) -> Path:
        """The run of the joint space."""
        return self.folder / "joint"

    @property
    def elastic(self) -> Path:
        """The run of the sizes alone."""
        return self.folder / "elastic"


class Lines:
    """What has ended: a file of OUT."""

    def __init__(self, out: Path, name: str = "runs.jsonl") -> None:
        self.path, self._size = out / name, 0
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            # a kill tears at most the last line, which ends without a newline
            whole = self.path.read_text().rpartition("\n")[0].splitlines()
            self._lines = [line for line in map(json.loads, whole) if "error" not in line]
            self._size = size
        return iter(self._lines)

    def add(self, *lines: dict[str, Any]) -> None:
        """Append these, whole, over what a kill left of another."""
        with self._lock, self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def of(self, **wanted: Any) -> list[dict[str, Any]]:
        """Those with these values."""
        return [line for line in self if all(line.get(key) == value for key, value in wanted.items())]

    def has(self, job: Job) -> bool:
        """Whether a job has ended."""
        return bool(self.of(**job.key()))


def first_images(spec: str, count: int, out: Path) -> str:
    """The spec of the first so many images of a training split, which OUT keeps as a file of its own."""
    kind, _, files = spec.partition(":")
    first, *rest = files.split(",")
    if kind != "parquet":
        raise SystemExit(f"--images {count}: {spec} is no parquet file")
    kept = out / Path(first).name
    if not kept.exists():
        whole = parquet.read_table(first)
        parquet.write_table(whole.slice(0, count), kept)
    return f"{kind}:{','.join([str(kept), *rest])}"


# --- the product's commands, their time measured -------------------------------------------------------------


def command(words: Sequence[str], name: str, place: Place, lines: Lines, asked: argparse.Namespace) -> bool:
    """Do one command of the product unless it has ended before; whether it has. Its time is a line either way."""
    about = {"part": "search", "data": place.data, "seed": place.seed, "name": name}
    if lines.of(**about, ended=True):
        return True
    if time.time() > asked.deadline:
        return False
    place.folder.mkdir(parents=True, exist_ok=True)
    with (place.folder / "commands.log").open("a") as log:
        began = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "search.py"), *words], stdout=log, stderr=log, env=environment
        )
        stopped = 0.0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            time.sleep(0.2)
            if not stopped and time.time() > asked.deadline:
                process.send_signal(signal.SIGINT)
                stopped = time.time()
            elif stopped and time.time() > stopped + 120:
                process.kill()
    process.returncode = code = os.waitstatus_to_exitcode(ended[1])
    cpu = ended[2].ru_utime + ended[2].ru_stime
    seconds = cpu if asked.device == "cpu" else time.monotonic() - began
    lines.add({**about, "seconds": round(seconds, 2), "ended": code == 0})
    print(f"{place.data} seed {place.seed} {name}: {seconds:.0f} s, exit {code}", flush=True)
    if code and not stopped:
        raise SystemExit(f"search.py {' '.join(words)} failed: see {place.folder / 'commands.log'}")
    return code == 0


def seconds_of(lines: Lines, place: Place, *names: str) -> float:
    """What commands took in all sessions."""
    found = [line for name in names for line in lines.of(part="search", data=place.data, seed=place.seed, name=name)]
    return float(sum(line["seconds"] for line in found))


def step_seconds(run: Path, spaces: Sequence[SearchSpace], folder: Path, device: str) -> list[float]:
    """Seconds of a supernet's training step in each space, interleaved, on the images and by the recipe of a run."""
    session = reopen(run, Reporter(quiet=True))
    torch.set_num_threads(1)
    trainers = [
        SupernetTrainer(
            Supernet(space, seed=0).to(session.device), session.data.train, session.config.train, seed=0,
            device=session.device, precision=session.precision, directory=folder / space.name,
        )
        for space in spaces
    ]  # fmt: skip
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = [0.0] * len(spaces)
    for number in range(TIMED_STEPS + 2):
        for i, trainer in enumerate(trainers):
            step = int(number / (TIMED_STEPS + 2) * trainer.schedule.steps)  # training aids come and go
            began = clock()
            trainer.train_step(step)
            if session.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[i] += (clock() - began) * (number > 1) / TIMED_STEPS
    return seconds


# --- trainings alone, each in a worker -----------------------------------------------------------------------


@cache
def opened(run: Path) -> tuple[Session, TestSplit | None]:
    """A run as the worker keeps it, and what opens its test split."""
    return reopen_with_test(run, Reporter(quiet=True))


def work(job: Job, device: str) -> dict[str, Any]:
    """Do a job; its line, which says what was wrong where it failed."""
    torch.set_num_threads(1)
    try:
        return {**job.key(), **(tested(job) if job.part == "test" else trained(job, device))}
    except Exception:  # noqa: BLE001 - one job of a hundred: the others go on
        return {**job.key(), "error": traceback.format_exc()}


def setup_of(job: Job) -> StandAloneSetup:
    """How the product trains it."""
    make = inherited_setup if job.start == "inherited" else stand_alone_setup
    return replace(make(opened(job.run)[0], job.epochs, job.folder), keeps_weights=True)


def answers(session: Session, network: Subnet, images: ImageSet) -> tuple[float, str]:
    """Top-1, percent, and which images are right."""
    size = session.config.evaluate.batch_size
    correct = count_correct(
        network.to(session.device).eval(), images, batch_size=size, device=session.device, precision=session.precision
    )
    return round(100 * float(correct.mean()), 3), packed(correct)


def trained(job: Job, device: str) -> dict[str, Any]:
    """Train a network alone, as `finalists` and `retrain` do, and measure it on the search split."""
    session, setup = opened(job.run)[0], setup_of(job)
    is_whole = not setup.path(job.architecture).exists() and not setup.path(job.architecture, ".json").exists()
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    (record,) = trained_alone(setup, 1, [job.architecture], session.data, 0, Reporter(quiet=True))
    seconds = clock() - began
    if record["error"] is not None:
        raise RuntimeError(record["error"])
    top1, correct = answers(session, trained_network(setup, job.architecture), session.data.search)
    return {
        "seconds": round(seconds, 2),
        "whole": is_whole,
        "top1": top1,
        "correct": correct,
        "recipe": record["recipe"],
    }


def tested(job: Job) -> dict[str, Any]:
    """Top-1 of a network on the test split, which is opened for it."""
    session, test = opened(job.run)
    if test is None:
        raise RuntimeError(f"{session.config.data.spec} has no test split")
    if job.start == "supernet":
        network = load_trained(session.run, session.space, session.device).extract(job.architecture)
    elif job.start == "finalist":
        points = ParetoFront.from_run(session.run.path).points
        (point,) = (point for point in points if point.digest == job.architecture.digest)
        weights = session.run.finalists_dir / point.details[FINALIST]["weights"]
        network = network_at(weights, session.space.backbone, job.architecture)
    else:
        network = trained_network(setup_of(job), job.architecture)
    top1, correct = answers(session, network, test.open())
    return {"test_top1": top1, "correct": correct}


class Workers:
    """Processes that do jobs until the deadline."""

    def __init__(self, asked: argparse.Namespace, lines: Lines) -> None:
        self.asked, self.lines, self.tried = asked, lines, set[str]()
        self.pool = ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn"))

    def do(self, jobs: Sequence[Job]) -> bool:
        """Do those that have no line yet, each once a call of the program; whether there was anything to do."""
        ended = {tuple(line.get(key) for key in KEY) for line in self.lines}
        waiting: dict[Future[dict[str, Any]], Job] = {}
        for job in jobs:
            name = json.dumps(job.key())
            if tuple(job.key().values()) not in ended and name not in self.tried and time.time() < self.asked.deadline:
                self.tried.add(name)
                waiting[self.pool.submit(work, job, self.asked.device)] = job
        total = len(waiting)
        while waiting and time.time() < self.asked.deadline:
            for future in wait(waiting, timeout=1.0, return_when="FIRST_COMPLETED")[0]:
                job = waiting.pop(future)
                line = {**job.key(), "error": repr(future.exception())} if future.exception() else future.result()
                self.lines.add(line)
                said = line.get("error") or f"{line.get('top1', line.get('test_top1'))} %"
                print(f"{job.data} seed {job.seed} {job.part} {job.name} {job.start}: {said}", flush=True)
        return total > 0 and not waiting
