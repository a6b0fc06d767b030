"""Long jobs that do not need each other, as Ray tasks of one CPU each."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nas.base import ConfigError, NasError, disk_error, one_line
from nas.cluster.connection import CHECK_S, RayConnection, possible_workers

Job = TypeVar("Job")
Value = TypeVar("Value")
Arrays = Mapping[str, Any]

ATTEMPTS = 3  # of a job that kills its process or runs out of memory


def check_sendable(value: object, what: str, hint: str) -> None:
    """Find out whether a value can go to other processes; a ConfigError says what cannot, and why."""
    from ray import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception as error:  # whatever an object of a user raises
        raise ConfigError(f"{what} cannot be sent to Ray's processes: {one_line(str(error))}", hint=hint) from error


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Value]):
    """How a job ended."""

    value: Value | None  # what it returned; None when it failed
    error: str | None  # one line why it failed; None when it did not


def run_tasks(
    function: Callable[[Job, Arrays], Value],
    jobs: deque[Job],
    arrays: Arrays,
    num_workers: int,
    *,
    address: str | None = None,
    num_gpus: float = 0,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Job, Outcome[Value]]]:
    """Do each job in a worker process; yields them as they end, whichever is first.

    A job whose process dies is done again, `ATTEMPTS` times in all, and then it has failed.

    Args:
        function: Does a job; a top-level function. What it raises is the job's error.
        jobs: What to do, sent to the workers in this order. It is emptied, and more may be appended as jobs end.
        arrays: Put into Ray's object store once; read, never written.
        num_workers: Jobs at a time, at most as many as there are at first; on this machine alone, as it has cores.
        address: Of a running cluster; None: RAY_ADDRESS where set, else a Ray of our own on this machine.
        num_gpus: GPUs that Ray sets aside for each.
        on_wait: Called every few seconds until all are done.

    Raises:
        RunError: Ray cannot be started, or is gone.
        DiskError: A job could not write.
    """
    num_workers = possible_workers(min(num_workers, len(jobs)), address)
    connection = RayConnection(address, num_workers, arrays)
    try:
        ray = connection.ray
        stored = ray.put(dict(arrays))
        task = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=ATTEMPTS - 1)(function)
        pending: dict[Any, Job] = {}
        while jobs or pending:
            while jobs and len(pending) < num_workers:
                job = jobs.popleft()
                pending[task.remote(job, stored)] = job
            connection.check()
            done, _ = ray.wait(list(pending), num_returns=1, timeout=CHECK_S)
            on_wait()
            for reference in done:
                yield pending.pop(reference), _outcome(connection, reference)
    finally:
        connection.close()


def _outcome(connection: RayConnection, reference: Any) -> Outcome[Any]:
    ray = connection.ray
    try:
        return Outcome(ray.get(reference), None)
    except ray.exceptions.RayTaskError as error:
        if full := disk_error(error.cause):
            raise full from error  # not the job's fault, and the next ones would fail, too
        return Outcome(None, reason_of(error.cause))
    except ray.exceptions.RayError as error:
        connection.check(at_once=True)  # a job dies with Ray, too, and that is not its fault
        return Outcome(None, quarantined(one_line(f"its process died: {error}")))


def quarantined(reason: str) -> str:
    """Why a job is not tried again: the reason, and how often it was tried."""
    return f"quarantined: {reason} after {ATTEMPTS} attempts"


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    return one_line(error.message if isinstance(error, NasError) else f"{type(error).__name__}: {error}")
