"""A few steps of a training and a few trials of a search, done for real and timed: what a forecast is made from.

Everything runs as in the command itself, with the workers it was asked for, in a scratch run that the caller deletes.
"""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from nas.base import NoResultError, Reporter, command_line
from nas.jobs import stages
from nas.jobs.measures import search_identity
from nas.jobs.session import Budget, Session
from nas.latency import torch_threads
from nas.model import Supernet
from nas.report import front_csv, write_report
from nas.runs import ParetoFront, RunDirectory, TrialState
from nas.study import Progress
from nas.training import TrainProgress

STAGE_S = 6.0  # of measuring, for each stage
LEAST_SAMPLES = 3
WARM_UP_STEPS = 3  # the first ones take up to seven times as long (results/LOG.md)
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, are spread evenly however many there are
NO_LIMIT = 10**9
WATCH_S = 0.5  # between two looks at the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training as it was rehearsed.

    Attributes:
        steps: Still to be done.
        step_s: Median over those that were timed, whose number is `samples`.
        setup_s: For the supernet and its first weights.
        save_s: For a checkpoint.
    """

    steps: int
    step_s: float
    samples: int
    setup_s: float
    save_s: float
    checkpoint_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """A search as it was rehearsed.

    Attributes:
        fixed_s: To measure an architecture: what does not depend on its MACs,
        s_per_mac: and what does.
        samples: Architectures that were timed.
        parallelism: Measurements at a time; less than there are workers where proposals or cores hold them up.
        start_s: Until the first measurement began: Ray, its workers, calibration.
        close_s: To stop the workers; `files_s` for tables and figure.
        reference_s: Forward pass of the latency reference.
        trial_bytes: Of journal and tables, per trial; `point_bytes` of the front's tables, per architecture.
        fixed_bytes: Of the other files.
    """

    fixed_s: float
    s_per_mac: float
    samples: int
    parallelism: float
    start_s: float
    close_s: float
    files_s: float
    reference_s: float
    trial_bytes: float
    point_bytes: float
    fixed_bytes: int

    def evaluation_s(self, macs: float) -> float:
        """To measure an architecture of so many MACs."""
        return self.fixed_s + self.s_per_mac * macs

    def trial_s(self, macs: float) -> float:
        """From one such measurement to the next."""
        return self.evaluation_s(macs) / self.parallelism


def scratch_copy(run: RunDirectory, folder: Path) -> RunDirectory:
    """A run of its own in a folder, which looks as this one did before the search."""
    manifest = run.manifest.model_copy(update={"stage": "created", "created": time.time(), "budget": None})
    return RunDirectory.create(folder, manifest=manifest, space_text=run.space_text(), config=run.config())


def rehearse_training(session: Session, copy: RunDirectory) -> tuple[Training, Supernet]:
    """Do some of the steps that are left, spread over the training, and write a checkpoint into the run's copy.

    The supernet that is returned is as it is then.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: Checkpoints are damaged or belong to something else.
    """
    began = time.perf_counter()
    trainer = stages.supernet_trainer(session)
    resumed = trainer.resume()
    done = resumed or 0
    left = trainer.schedule.steps - done
    trainer.directory = copy.supernet_dir
    seconds: list[float] = []
    with torch_threads(session.threads):
        if resumed is None and trainer.start is not None:
            trainer.start(trainer.supernet)
        started = time.perf_counter()
        setup_s = started - began
        for i in range(left):
            if i >= WARM_UP_STEPS + LEAST_SAMPLES and time.perf_counter() - started >= STAGE_S:
                break
            before = time.perf_counter()
            # Training aids come and go, so steps differ by where they are in the training.
            trainer.train_step(done + int(left * (i * GOLDEN % 1)))
            seconds.append(time.perf_counter() - before)
        before = time.perf_counter()
        trainer.save(trainer.schedule.steps)
        save_s = time.perf_counter() - before
    copy.update_manifest(supernet_digest=trainer.digest())
    timed = seconds[WARM_UP_STEPS:] or seconds
    training = Training(
        steps=left,
        step_s=float(np.median(timed)) if timed else 0.0,
        samples=len(timed),
        setup_s=setup_s,
        save_s=save_s,
        checkpoint_bytes=size_of(copy.supernet_dir),
    )
    return training, trainer.trained()


def rehearse_search(copy: Session, supernet: Supernet, budget: Budget) -> Searching:
    """Begin the search, stop it after some seconds, and write its last files; a NoResultError: nothing was measured."""
    watch = _Watch(max(LEAST_SAMPLES, 2 * budget.workers))
    # Weights that are hardly trained do not say who would be stopped early.
    evaluate = copy.config.evaluate.model_copy(update={"racing": False})
    config = copy.config.model_copy(update={"evaluate": evaluate})
    rehearsed = replace(copy, reporter=Reporter(quiet=True), config=config, callbacks=(watch,))
    limited = replace(budget, trials=NO_LIMIT, minutes=None, storage=None)
    began = time.time()
    try:
        stages.search(rehearsed, supernet, limited)
        stopped = time.time()
    except _EnoughError:
        stopped = watch.stopped
    closed = time.time()
    run, begun = copy.run, copy.run.trials()
    ended = [trial for trial in begun if not trial.is_running]
    measured = [
        (trial.finished, trial.measurement)
        for trial in ended
        if trial.state is TrialState.COMPLETE and trial.measurement is not None and trial.finished is not None
    ]
    if not measured:
        raise NoResultError(f"nothing could be measured: {ended[0].error}", hint=f"see `{command_line('doctor')}`")
    spans = [(finished - measurement.seconds, finished) for finished, measurement in measured]
    fixed_s, s_per_mac = line_through(*zip(*((m.values["macs"], m.seconds) for _, m in measured), strict=True))
    before = time.perf_counter()
    front = ParetoFront.from_trials(ended, ParetoFront.from_run(run.path).objectives)
    run.write_trials_csv()
    run.write_front(front.to_dict(run.name))
    run.write_front_csv(front_csv(front, run.path))
    write_report(run)
    files_s = time.perf_counter() - before
    per_point = size_of(run.path / "front.json") + size_of(run.front_csv)
    per_trial = size_of(run.journal_path) + sum(size_of(path) for path in run.path.glob("trials.*"))
    return Searching(
        fixed_s=fixed_s,
        s_per_mac=s_per_mac,
        samples=len(measured),
        parallelism=parallelism(spans, max(1, budget.workers)),
        start_s=min(begin for begin, _ in spans) - began,
        close_s=closed - stopped,
        files_s=files_s,
        reference_s=search_identity(copy, supernet).reference_ms / 1e3,
        trial_bytes=per_trial / len(begun),  # of those in flight, the journal has most of what it will have
        point_bytes=per_point / max(1, len(front.points)),
        fixed_bytes=size_of(run.path) - size_of(run.supernet_dir) - per_trial - per_point,
    )


def line_through(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope, at least 0, of the Theil-Sen line, which a few disturbed samples do not move."""
    from scipy.stats import theilslopes  # type: ignore[import-untyped]  # over a second, and only a forecast needs it

    slope = max(0.0, float(theilslopes(y, x).slope)) if len(set(x)) > 1 else 0.0
    return float(np.median(np.array(y) - slope * np.array(x))), slope


def parallelism(spans: Sequence[tuple[float, float]], workers: int) -> float:
    """How many measurements ran at a time, on average, while no worker was idle for want of trials.

    Above 0, up to `workers`, from begin and end of every finished measurement, seconds. The beginning does not count,
    when not all workers are ready, nor does the end, when measurements may have run that did not finish.
    """
    most = min(workers, max(_running(spans, begin) for begin, _ in spans))
    first = min(begin for begin, _ in spans if _running(spans, begin) >= most)
    last = max(end for _, end in spans) - max(end - begin for begin, end in spans)
    if last <= first:
        return float(most)
    busy = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in spans)
    return min(float(workers), busy / (last - first))


def _running(spans: Sequence[tuple[float, float]], moment: float) -> int:
    return sum(begin <= moment < end for begin, end in spans)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


class _EnoughError(Exception):
    """Ends a rehearsed search."""


class _Watch:
    """Stops a search `STAGE_S` after its first result, and with so many results at least: a `Callback`."""

    def __init__(self, least: int) -> None:
        self._least, self._first, self.stopped = least, 0.0, 0.0

    def on_train(self, run: RunDirectory, progress: TrainProgress) -> None:
        """Nothing is trained."""

    def on_front(self, run: RunDirectory, front: ParetoFront) -> None:
        """No front is measured."""

    def on_trial(self, run: RunDirectory, progress: Progress) -> None:  # noqa: ARG002
        self.stopped = time.time()
        self._first = self._first or self.stopped
        ended = progress.complete + progress.failed
        if ended >= self._least and self.stopped - self._first >= STAGE_S:
            raise _EnoughError


class MemoryWatch:
    """The largest memory during a `with` block, bytes: of this process (`own`), of those that it started (`others`).

    Pages that they share count once in `total`.
    """

    def __init__(self) -> None:
        self.own = self.others = self.total = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while True:
            own, others = memory_of(process), sum(map(memory_of, process.children(recursive=True)))
            self.own, self.others = max(self.own, own), max(self.others, others)
            self.total = max(self.total, own + others)
            if self._ended.wait(WATCH_S):
                return


def memory_of(process: psutil.Process) -> int:
    """Bytes that a process has in memory, its share of what it shares; 0 once it has ended."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(memory, "pss", memory.rss))  # only Linux knows shares
