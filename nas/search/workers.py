"""Where architectures are measured: in this process, or by long-lived Ray actors. Ray is imported here only.

Whatever happens to one architecture ends as its `Result`, an error with a reason; the search goes on.
"""

import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.errors import ConfigError, NasError, RunError
from nas.trial import Measurement

if TYPE_CHECKING:  # keeps torch out of this import
    from nas.evaluation.evaluator import Evaluator

Arrays = Mapping[str, NDArray[Any]]
Build = Callable[[Arrays], "Evaluator"]

AHEAD = 2  # trials per actor: one runs, one waits, which hides the 1 to 5 ms of a proposal
ATTEMPTS = 2  # of an architecture whose worker dies: a killed worker is bad luck once
START_ATTEMPTS = 3  # consecutive workers that die before they are ready
START_TIMEOUT_S = 600.0
MIN_OBJECT_STORE_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Result:
    """How a measurement ended.

    Attributes:
        number: The trial's.
        measurement: Present when it succeeded.
        error: One line why it failed; present when it failed.
    """

    number: int
    measurement: Measurement | None
    error: str | None


class Workers(Protocol):
    """Measures architectures.

    Attributes:
        slots: Trials to keep submitted so that no worker is idle. More may be submitted; they wait.
    """

    slots: int

    def submit(self, number: int, architecture: Architecture) -> None:
        """Queue a trial."""

    def next_result(self) -> Result:
        """Wait for a submitted trial to end, whichever is first."""

    def finished(self) -> list[Result]:
        """Results that are there already, without waiting."""

    def close(self) -> None:
        """Stop; what is in flight is abandoned. May be called twice."""


class InlineWorkers:
    """Measures in this process, one at a time, without Ray and without a time limit."""

    slots = 1

    def __init__(self, evaluator: "Evaluator") -> None:
        self._evaluator = evaluator
        self._queue: deque[tuple[int, Architecture]] = deque()

    def submit(self, number: int, architecture: Architecture) -> None:
        """Queue a trial."""
        self._queue.append((number, architecture))

    def next_result(self) -> Result:
        """Measure the trial that has waited longest."""
        number, architecture = self._queue.popleft()
        return Result(number, *measure(self._evaluator, architecture))

    def finished(self) -> list[Result]:
        """Return none: a trial is measured when its result is asked for."""
        return []

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()


def measure(evaluator: "Evaluator", architecture: Architecture) -> tuple[Measurement | None, str | None]:
    """Measure, or say in one line why it was not possible: an exception, or a value that is not finite."""
    try:
        measurement = evaluator.evaluate(architecture)
        bad = [f"{name} is {value}" for name, value in measurement.values.items() if not math.isfinite(value)]
    except Exception as error:  # noqa: BLE001 - whatever a candidate does, the search goes on (law 6)
        return None, _reason(error)
    return (None, ", ".join(bad)) if bad else (measurement, None)


def _reason(error: BaseException) -> str:
    return _one_line(error.message if isinstance(error, NasError) else f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


@dataclass(eq=False, slots=True)
class _Job:
    number: int
    architecture: Architecture
    attempts: int = 0


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor and what it was given, oldest first.

    `since` is when the oldest job began, or when the actor was started while `ready` is not None.
    """

    actor: Any
    ready: Any
    since: float
    jobs: deque[tuple[Any, _Job]] = field(default_factory=deque)


class RayWorkers:
    """Measures in `num_workers` Ray actors of one CPU each; each holds an evaluator of its own.

    An actor that dies (killed, out of memory) is replaced, and what it was measuring gets one more try; an
    architecture that exceeds the time limit fails, and its actor is replaced.

    Args:
        build: Makes the evaluator inside an actor; a top-level function or a partial of one.
        arrays: What it is given: put into Ray's object store once and seen by all actors without a copy.
            They are read-only: a tensor made of one must not be written, or all actors see the change.
        num_workers: Actors.
        address: Of a running Ray cluster; None: RAY_ADDRESS where set, else a Ray of our own on this machine.
        timeout_s: Longest time for one architecture, seconds.
        num_gpus: GPUs that Ray sets aside for each actor.

    Raises:
        RunError: Ray cannot be started or reached.
    """

    def __init__(
        self,
        build: Build,
        arrays: Arrays,
        num_workers: int,
        address: str | None,
        timeout_s: float,
        *,
        num_gpus: float = 0,
    ) -> None:
        if num_workers < 1:
            raise ConfigError(f"Ray needs at least 1 worker, got {num_workers}", hint="--workers 0: no Ray")
        self.slots = AHEAD * num_workers
        self._build = build
        self._timeout_s = timeout_s
        self._queue: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._results: deque[Result] = deque()
        self._failed_starts = 0
        self._ray, self._cleanup = _connect(address, num_workers, arrays)
        try:
            # In a list, so that the actor gets the reference and our own keeps the arrays alive.
            self._arrays = [self._ray.put(dict(arrays))]
            self._remote = self._ray.remote(num_cpus=1, num_gpus=num_gpus, max_restarts=0)(_Actor)
            self._workers = [self._start() for _ in range(num_workers)]
        except BaseException:
            self.close()
            raise

    def submit(self, number: int, architecture: Architecture) -> None:
        """Queue a trial."""
        self._queue.append(_Job(number, architecture))
        self._dispatch()

    def next_result(self) -> Result:
        """Wait for a submitted trial to end, whichever is first. RunError where workers cannot be started."""
        while not self._results:
            if not self._queue and not any(worker.jobs for worker in self._workers):
                raise RunError("no trial was submitted")
            self._collect(patiently=True)
        return self._results.popleft()

    def finished(self) -> list[Result]:
        """Results that are there already, without waiting."""
        known = -1
        while len(self._results) > known:
            known = len(self._results)
            self._collect(patiently=False)
        results = list(self._results)
        self._results.clear()
        return results

    def close(self) -> None:
        """Stop; what is in flight is abandoned. May be called twice."""
        for worker in self._workers:
            with suppress(Exception):
                self._ray.kill(worker.actor)
        self._workers, self._arrays = [], []
        self._queue.clear()
        self._cleanup.close()

    def _start(self) -> _Worker:
        actor = self._remote.remote(self._build, self._arrays)
        return _Worker(actor, actor.ready.remote(), time.monotonic())

    def _dispatch(self) -> None:
        """Give queued jobs to workers that are ready.

        A job that lost its worker runs alone: results that a worker had just finished may die with it, so the
        blame for a death can fall on the job before the culprit, but not twice.
        """
        ready = [worker for worker in self._workers if worker.ready is None]
        while self._queue and ready:
            worker = min(ready, key=lambda w: len(w.jobs))
            is_alone = any(job.attempts for _, job in [*worker.jobs, (None, self._queue[0])])
            if len(worker.jobs) >= (1 if is_alone else AHEAD):
                return
            job = self._queue.popleft()
            if not worker.jobs:
                worker.since = time.monotonic()
            worker.jobs.append((worker.actor.measure.remote(job.architecture), job))

    def _collect(self, *, patiently: bool) -> None:
        """Take in what has happened; wait for the first event, or the first time limit, if `patiently`."""
        pending = {
            worker.ready or worker.jobs[0][0]: worker
            for worker in self._workers
            if worker.ready or worker.jobs
        }
        ends = {w: w.since + (START_TIMEOUT_S if w.ready else self._timeout_s) for w in pending.values()}
        timeout = max(0.0, min(ends.values(), default=0.0) - time.monotonic()) if patiently else 0.0
        done, _ = self._ray.wait(list(pending), num_returns=1, timeout=timeout) if pending else ([], [])
        if done:
            done, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0)
        for reference, worker in pending.items():
            if reference in done:
                self._advance(worker, reference)
            elif time.monotonic() > ends[worker]:
                self._expire(worker)
        self._dispatch()

    def _advance(self, worker: _Worker, reference: Any) -> None:
        """Take in the event a worker was waiting for: it is ready, or its oldest job has ended."""
        try:
            outcome = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # Exceptions of the evaluator are caught in the actor; this is, say, a result that cannot be sent.
            outcome = (None, _reason(error.cause))
        except self._ray.exceptions.RayError as error:
            self._replace(worker, _death(error))
            return
        worker.since = time.monotonic()
        if worker.ready:
            if outcome is not None:
                raise RunError(f"a worker cannot build its evaluator: {outcome}", hint="try --workers 0")
            worker.ready = None
            self._failed_starts = 0
        else:
            _, job = worker.jobs.popleft()
            self._results.append(Result(job.number, *outcome))

    def _replace(self, worker: _Worker, reason: str) -> None:
        """Start a new actor for one that died; what it was measuring is tried again once."""
        if worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise RunError(
                    f"{self._failed_starts} workers in a row did not start: {reason}",
                    hint="run with --workers 0 to see the cause, or with fewer workers if memory is short",
                )
        elif worker.jobs:
            job = worker.jobs[0][1]
            job.attempts += 1
            if job.attempts >= ATTEMPTS:
                self._fail(worker, f"its worker died {job.attempts} times while measuring it: {reason}")
        self._renew(worker)

    def _expire(self, worker: _Worker) -> None:
        """Replace an actor that exceeds its time limit; what it was measuring fails."""
        if worker.ready:
            hint = "`ray status` shows whether there is a CPU for it; run with fewer --workers"
            raise RunError(f"a worker was not ready after {START_TIMEOUT_S:g} s", hint=hint)
        self._fail(worker, f"took longer than {self._timeout_s:g} s")
        self._renew(worker)

    def _fail(self, worker: _Worker, reason: str) -> None:
        _, job = worker.jobs.popleft()
        self._results.append(Result(job.number, None, reason))

    def _renew(self, worker: _Worker) -> None:
        self._queue.extendleft(job for _, job in reversed(worker.jobs))
        with suppress(Exception):
            self._ray.kill(worker.actor)
        self._workers[self._workers.index(worker)] = self._start()


class _Actor:
    """Runs inside a Ray worker process."""

    def __init__(self, build: Build, arrays: Sequence[Any]) -> None:
        import ray

        self._error: str | None = None
        _use_one_thread()
        try:
            self._evaluator = build(ray.get(arrays[0]))
        except Exception as error:  # noqa: BLE001 - reported by the driver in one line
            self._error = _reason(error)
        _use_one_thread()

    def ready(self) -> str | None:
        """Why the evaluator could not be built, if so."""
        return self._error

    def measure(self, architecture: Architecture) -> tuple[Measurement | None, str | None]:
        return measure(self._evaluator, architecture)


def _use_one_thread() -> None:
    # Ray sets OMP_NUM_THREADS only where the user has not. Who does not use torch is not made to import it.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _connect(address: str | None, num_workers: int, arrays: Arrays) -> tuple[Any, ExitStack]:
    """Start or find Ray: the module, and what to undo afterwards."""
    # Before the import, or Ray reports usage over the network.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Actors without a GPU of their own see all of them, as the evaluator's --device decides.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    cleanup = ExitStack()
    if ray.is_initialized():
        return ray, cleanup
    address = address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            folder = _scratch_folder()
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            size = 2 * sum(array.nbytes for array in arrays.values())
            imports = os.environ.get("PYTHONPATH", "")
            os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))  # for the actors
            cleanup.callback(os.environ.update, PYTHONPATH=imports)
            ray.init(
                address="local",
                num_cpus=num_workers,
                include_dashboard=False,
                object_store_memory=max(MIN_OBJECT_STORE_BYTES, size),
                _temp_dir=folder,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        cleanup.close()
        where = f"Ray at {address} cannot be reached" if address else "Ray cannot be started"
        raise RunError(f"{where}: {_one_line(str(error))}", hint="--workers 0 does without Ray") from error
    cleanup.callback(ray.shutdown)
    return ray, cleanup


def _scratch_folder() -> str:
    """Make a folder for Ray's sockets and logs; remove those of processes that were killed."""
    root = Path("/tmp")  # short, because paths of sockets have at most 107 characters
    for folder in root.glob("nas-ray-*"):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"nas-ray-{os.getpid()}-", dir=root)


def _death(error: Exception) -> str:
    """Say in one line why an actor died."""
    text = str(error)
    if "memory usage" in text and "threshold" in text:
        return "out of memory"
    if "End of file" in text:
        return "its process was killed (out of memory?) or crashed"
    return _one_line(text.strip().splitlines()[-1])  # of facts about the process, or of a traceback
