"""Runs that take seconds: a tiny space on the digits, its trainer, and the command line on it."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_spaces import TINY, tiny_space
from typer.main import get_command

import nas
from nas.base.progress import Reporter
from nas.cli.app import app, main
from nas.data.images import ImageData, ImageSet
from nas.data.loader import load_images
from nas.jobs.session import Session, start
from nas.model.supernet import Supernet
from nas.settings.config import DataConfig, TrainConfig, resolve_config
from nas.training.trainer import SupernetTrainer

ROOT = Path(nas.__file__).parents[1]

QUICK = (
    "--epochs=2",
    "--device=cpu",
    "--set=train.batch_size=256",
    "--set=train.warmup_epochs=0",
    "--set=train.lr=0.01",
    "--set=train.checkpoint_minutes=0.0001",
    "--set=evaluate.final_rounds=6",
    "--set=search.objectives=[top1, macs]",
)
TRIALS = 24


@cache
def digits() -> ImageData:
    return load_images(DataConfig(), 8, 0)[0]


@cache
def few_digits() -> ImageData:
    """The first 128 training images; the search split is whole, and there is no test split."""
    whole = digits()
    return image_data(whole.train.images[:128], whole.train.labels[:128], whole.search)


@cache
def greys() -> ImageData:
    """128 grey images; the class is the brightness, one of four. A few steps teach it."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(128) % 4
    noise = torch.randint(-20, 21, (128, 3, 8, 8), generator=generator)
    images = (40 + 60 * labels.view(-1, 1, 1, 1) + noise).clamp(0, 255).to(torch.uint8)
    return image_data(images.numpy(), labels.numpy())


def image_data(images: np.ndarray, labels: np.ndarray, search: ImageSet | None = None) -> ImageData:
    """Images to train on, normalised as the digits are; without others, they are also the search split."""
    whole = digits()
    train = ImageSet(images, labels, whole.info)
    info = replace(whole.info, hashes={**whole.info.hashes, "train": train.digest})
    train = replace(train, info=info)
    return ImageData(train=train, search=search or train, summary=whole.summary)


def trainer(directory: Path, *, seed: int = 0, split: ImageSet | None = None, **recipe: Any) -> SupernetTrainer:
    """Eight steps of 32 images, and a checkpoint after each."""
    changes: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 32,
        "num_random": 2,
        "lr": 1e-3,
        "warmup_epochs": 0,
        "checkpoint_minutes": 1e-9,
    }
    return SupernetTrainer(
        Supernet(tiny_space(), seed=seed),
        split or few_digits().train,
        TrainConfig(**{**changes, **recipe}),
        seed=seed,
        device=torch.device("cpu"),
        precision="fp32",
        directory=directory,
    )


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def as_json(arguments: Sequence[str | Path]) -> list[str]:
    """A command line that prints values, where it asks for no other format and its command has one."""
    words = [str(argument) for argument in arguments]
    if {"-h", "--help"} & set(words):
        return words
    found, path = get_command(app), [word for word in words if not word.startswith("-")]
    while hasattr(found, "commands"):
        name = path.pop(0) if path and path[0] in found.commands else "measure"  # `latency RUN`
        if name not in found.commands:
            return words
        found = found.commands[name]
    has_format = any("--format" in parameter.opts for parameter in found.params)
    asks = any(word in ("-f", "--format") or word.startswith("--format=") for word in words)
    return [*words, "--format=json"] if has_format and not asks else words


def command(*arguments: str | Path) -> Outcome:
    """A command line in this process; one thread, so that the numbers are those of any other process."""
    out, err = io.StringIO(), io.StringIO()
    with one_thread(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(as_json(arguments))
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_arguments(folder: Path, *more: str, workers: int = 0) -> list[str]:
    """`run` on the tiny space, whose file lies beside the run's folder."""
    space = folder.parent / "tiny.yaml"
    space.write_text(TINY)
    return ["run", str(space), "--run", str(folder), f"--workers={workers}", *QUICK, *more]


@contextlib.contextmanager
def search_process(arguments: Sequence[str], cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    """`python search.py ...` in a process group of its own, which is killed (-9) at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "search.py", *as_json(arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def python(code: str, cwd: Path) -> Outcome:
    """Run a program that can import this package."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


SETTINGS = (
    "device=cpu",
    "train.epochs=1",
    "train.batch_size=400",
    "train.warmup_epochs=0",
    "evaluate.final_rounds=3",
    "evaluate.latency_pairs=2",
    "evaluate.latency_batch_size=4",
    "evaluate.max_images=40",
)


def begin(
    tmp_path: Path, *settings: str, reporter: Reporter | None = None, space_settings: Sequence[str] = ()
) -> Session:
    """A new run of the tiny space in `tmp_path / "r"`."""
    space_file = tmp_path / "tiny.yaml"
    space_file.write_text(TINY)
    config = resolve_config(settings=[*SETTINGS, *settings])
    return start(space_file, tuple(space_settings), config, tmp_path / "r", reporter or Reporter(quiet=True))
