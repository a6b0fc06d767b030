"""Measuring by long-lived Ray actors, on this machine or on a cluster whose nodes come and go."""

import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from nas.base import ConfigError, DiskError, OutOfMemoryError, RunError, one_line
from nas.cluster import ATTEMPTS, CHECK_S, Arrays, RayConnection, Started, possible_workers, quarantined, reason_of
from nas.study.workers import Build, Result, Task, measure

AHEAD = 2  # trials per actor: one runs, one waits, which hides the 1 to 5 ms of a proposal
BACK_OFF_S = (1.0, 4.0)  # before the second and the third attempt
NODES_LOST = 5  # under one architecture, until it is taken for their cause
MEASURING = ("nas.evaluation",)  # what actors import, which takes most of the time of their start
START_ATTEMPTS = 3  # consecutive workers that die before they are ready
START_TIMEOUT_S = 600.0  # without a single worker
LONGEST_REST_S = 60.0  # between two starts that fail


@dataclass(eq=False, slots=True)
class _Job:
    """A task and what became of it so far. `attempts` were its own fault, a node's death is not."""

    task: Task
    attempts: int = 0
    nodes_lost: int = 0
    not_before: float = 0.0


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor and what it was given, oldest first."""

    actor: Any
    ready: Any  # None once it is
    node: str = ""  # where it runs then
    since: float = 0.0  # when the oldest job began
    jobs: deque[tuple[Any, _Job]] = field(default_factory=deque)


class RayWorkers:
    """Measures in `num_workers` Ray actors of one CPU each; each holds an evaluator of its own.

    An architecture whose actor dies, or that runs out of memory, is tried again, later and in smaller batches,
    `ATTEMPTS` times in all; one that exceeds the time limit fails. The actor is replaced. A node that dies takes
    its actors along: what they were measuring is measured elsewhere, and their replacements wait for a free
    CPU, on a node that joins for example. As long as one actor is left, the search goes on.

    Args:
        build: Makes the evaluator inside an actor; a top-level function or a partial of one.
        arrays: What it is given: put into Ray's object store once, on the node of this machine, and seen by all
            actors of a node without a copy. They are read-only: a tensor made of one must not be written, or
            all actors see the change.
        num_workers: Actors. On this machine alone not more are started than it has cores; so many it has then itself.
        address: Of a running Ray cluster; None: RAY_ADDRESS where set, else a Ray of our own on this machine.
        timeout_s: Longest time for one architecture, seconds.
        num_gpus: GPUs that Ray sets aside for each actor.
        started: A Ray that was started already, with actors of `early_actor`; it is stopped with the workers.

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
        num_gpus: float = 0,
        started: Started | None = None,
    ) -> None:
        if num_workers < 1:
            raise ConfigError(f"Ray needs at least 1 worker, got {num_workers}", hint="--workers 0: no Ray")
        # One thread each, so more than cores would only take turns on these, disturb the latency and fill the memory;
        # on a cluster Ray sees to it. Proposals and results do not depend on how many there are.
        self.num_workers = num_workers = possible_workers(num_workers, address)
        self.slots = AHEAD * num_workers
        self._build = build
        self._timeout_s = timeout_s
        self._queue: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._results: deque[Result] = deque()
        self._failed_starts = 0
        self._restarts: list[float] = []  # when to start workers whose start failed
        self._connection, self._spare = started or (RayConnection(address, num_workers, arrays), [])
        self._ray = self._connection.ray
        self._last_ready = time.monotonic()  # when there was a worker that could measure
        try:
            # In a list, so that the actor gets the reference and our own keeps the arrays alive.
            self._arrays = [self._ray.put(dict(arrays))]
            self._remote = _remote(self._ray, num_gpus)
            self._workers = [self._start() for _ in range(num_workers)]
        except BaseException:
            self.close()
            raise

    def submit(self, task: Task) -> None:
        """Queue a trial."""
        self._queue.append(_Job(task))
        self._dispatch()

    def next_result(self) -> Result:
        """Wait for a submitted trial to end, whichever is first; a RunError where Ray is gone or no worker starts."""
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
        self._connection.close()

    def _start(self) -> _Worker:
        actor = self._spare.pop() if self._spare else self._remote.remote()
        return _Worker(actor, actor.ready.remote(self._build, self._arrays))

    @property
    def _ready(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.ready is None]

    def _dispatch(self) -> None:
        """Give queued jobs that may run to workers that are ready."""
        now = time.monotonic()
        for job in [job for job in self._queue if job.not_before <= now]:
            free = [worker for worker in self._ready if _has_room(worker, job)]
            if not free:
                return  # even if a later job has room: it would keep the worker busy that this one waits for
            worker = min(free, key=lambda w: len(w.jobs))
            if not worker.jobs:
                worker.since = now
            self._queue.remove(job)
            worker.jobs.append((worker.actor.measure.remote(job.task, job.attempts), job))

    def _collect(self, *, patiently: bool) -> None:
        """Take in what has happened; wait for an event, a time limit or the next check, if `patiently`."""
        self._connection.check()
        pending = {worker.ready or worker.jobs[0][0]: worker for worker in self._workers if worker.ready or worker.jobs}
        timeout = self._patience() if patiently else 0.0
        done = []
        if pending:
            done, _ = self._ray.wait(list(pending), num_returns=1, timeout=timeout)
        else:
            time.sleep(timeout)
        if done:
            done, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0)
        for reference, worker in pending.items():
            if reference in done:
                self._advance(worker, reference)
            elif not worker.ready and time.monotonic() > worker.since + self._timeout_s:
                self._expire(worker)
        self._require_workers()
        self._dispatch()

    def _patience(self) -> float:
        """Seconds until something is to be done even if nothing happens."""
        ends = [worker.since + self._timeout_s for worker in self._ready if worker.jobs]
        now = time.monotonic()
        later = [job.not_before for job in self._queue if job.not_before > now]
        return max(0.0, min([now + CHECK_S, *ends, *later, *self._restarts]) - now)

    def _require_workers(self) -> None:
        """Start workers whose time has come; RunError where there was none for too long."""
        now = time.monotonic()
        due = [start for start in self._restarts if start <= now]
        self._restarts = [start for start in self._restarts if start > now]
        self._workers += [self._start() for _ in due]
        if self._ready:
            self._last_ready = now
        elif now - self._last_ready > START_TIMEOUT_S:
            raise RunError(
                f"no worker was ready for {START_TIMEOUT_S:g} s",
                hint="`ray status` shows whether there is a CPU for one; the same command goes on with the search",
            )

    def _advance(self, worker: _Worker, reference: Any) -> None:
        """Take in the event a worker was waiting for: it is ready, or its oldest job has ended."""
        try:
            outcome = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # Whatever else the evaluator raises is caught in the actor; this is, say, a result that cannot be sent.
            self._settle(worker, error.cause)
            return
        except self._ray.exceptions.RayError as error:
            self._bury(worker, error)
            return
        if worker.ready:
            worker.node, problem = outcome
            if problem is None:
                worker.ready = None
                self._failed_starts = 0
            else:
                self._give_up_start(worker, f"a worker cannot build its evaluator: {problem}", at_once=True)
        else:
            worker.jobs.popleft()
            self._results.append(outcome)
        worker.since = time.monotonic()

    def _settle(self, worker: _Worker, error: Exception) -> None:
        """Take in what a measurement raised; its worker lives on, unless memory ran out."""
        _, job = worker.jobs.popleft()
        worker.since = time.monotonic()
        if isinstance(error, DiskError):
            raise error
        if isinstance(error, OutOfMemoryError):
            self._retry(job, one_line(error.message))
            self._replace(worker)  # its process may be what has no memory left
        else:
            self._fail(job, reason_of(error))

    def _bury(self, worker: _Worker, error: Exception) -> None:
        """Replace an actor that has died; what it was measuring is tried again."""
        self._connection.check(at_once=True)  # an actor dies with what owns it, too
        has_lost_node = "node has died" in str(error) or (
            worker.node != "" and not self._connection.is_alive(worker.node)
        )
        if worker.ready and not has_lost_node:
            count = self._failed_starts + 1
            self._give_up_start(worker, f"{count} workers in a row did not start: {_death(error)}")
            return
        if worker.jobs:
            _, job = worker.jobs.popleft()
            if has_lost_node:
                self._move(job)
            else:
                self._retry(job, f"its worker died: {_death(error)}")
        self._replace(worker)

    def _expire(self, worker: _Worker) -> None:
        """Replace an actor that exceeds its time limit; what it was measuring fails, unless its node has died."""
        self._connection.check(at_once=True)
        _, job = worker.jobs.popleft()
        if self._connection.is_alive(worker.node):
            self._fail(job, f"took longer than {self._timeout_s:g} s")
        else:
            self._move(job)
        self._replace(worker)

    def _retry(self, job: _Job, reason: str) -> None:
        """Try again, later, what killed its worker or ran out of memory."""
        job.attempts += 1
        if job.attempts >= ATTEMPTS:
            self._fail(job, quarantined(reason))
        else:
            job.not_before = time.monotonic() + BACK_OFF_S[job.attempts - 1]
            self._queue.append(job)

    def _move(self, job: _Job) -> None:
        """Measure elsewhere, at once, what lost its node."""
        job.nodes_lost += 1
        if job.nodes_lost >= NODES_LOST:
            self._fail(job, f"quarantined: {job.nodes_lost} nodes died while measuring it")
        else:
            self._queue.appendleft(job)

    def _fail(self, job: _Job, reason: str) -> None:
        self._results.append(Result(job.task.number, None, reason))

    def _replace(self, worker: _Worker) -> None:
        self._remove(worker)
        self._workers.append(self._start())

    def _remove(self, worker: _Worker) -> None:
        self._queue.extendleft(job for _, job in reversed(worker.jobs))
        with suppress(Exception):
            self._ray.kill(worker.actor)
        self._workers.remove(worker)

    def _give_up_start(self, worker: _Worker, reason: str, *, at_once: bool = False) -> None:
        """Start a worker again after a rest, unless it is hopeless: others measure meanwhile."""
        self._failed_starts += 1
        self._remove(worker)
        if not self._ready and (at_once or self._failed_starts >= START_ATTEMPTS):
            raise RunError(
                reason, hint="run with --workers 0 to see the cause, or with fewer workers if memory is short"
            )
        rest = min(LONGEST_REST_S, 4.0 ** (self._failed_starts - 1))
        self._restarts.append(time.monotonic() + rest)


class _Actor:
    """Runs inside a Ray worker process."""

    def __init__(self, modules: Sequence[str] = ()) -> None:
        with suppress(ImportError):  # the evaluator needs them, which says so
            for name in modules:
                import_module(name)

    def ready(self, build: Build, arrays: Sequence[Any]) -> tuple[str, str | None]:
        """Build the evaluator; returns the node, and why that was not possible, if so."""
        import ray

        problem = None
        _use_one_thread()
        try:
            self._evaluator = build(ray.get(arrays[0]))
        except Exception as error:  # noqa: BLE001 - reported by the driver in one line
            problem = reason_of(error)
        _use_one_thread()
        return ray.get_runtime_context().get_node_id(), problem

    def measure(self, task: Task, attempt: int) -> Result:
        return measure(self._evaluator, task, attempt)


def early_actor(ray: Any) -> Any:
    """An actor for `RayWorkers` on a CPU, of a Ray that is started before there is anything to measure."""
    return _remote(ray).remote(MEASURING)


def _remote(ray: Any, num_gpus: float = 0) -> Any:
    return ray.remote(num_cpus=1, num_gpus=num_gpus, max_restarts=0)(_Actor)


def _has_room(worker: _Worker, job: _Job) -> bool:
    """Whether a worker may be given a job now.

    One that has failed runs alone: results that a worker had just finished may die with it, so the blame for a
    death can fall on the job before the culprit, but not twice.
    """
    is_alone = job.attempts or any(other.attempts for _, other in worker.jobs)
    return len(worker.jobs) < (1 if is_alone else AHEAD)


def _use_one_thread() -> None:
    # Ray sets OMP_NUM_THREADS only where the user has not. Who does not use torch is not made to import it.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _death(error: Exception) -> str:
    """Say in one line why an actor died."""
    text = str(error)
    if "memory usage" in text and "threshold" in text:
        return "out of memory"
    if "End of file" in text:
        return "its process was killed (out of memory?) or crashed"
    return one_line(text.strip().splitlines()[-1])  # of facts about the process, or of a traceback
