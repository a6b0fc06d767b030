"""Ray: started on this machine or found at an address, whether it is still there, and what is undone at the end."""

import errno
import importlib.util
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nas.base import RunError, one_line
from nas.cluster.own_ray import own_ray

MIN_OBJECT_STORE_BYTES = 100_000_000
CHECK_S = 2.0  # between two looks at what this process cannot do without
LOST_S = 20.0  # without them before giving up; after 60 s Ray ends this process without a word of its own
CONNECT_S = 5.0  # for one TCP connection

_Address = tuple[str, int]
_Arrays = Mapping[str, Any]


class RayConnection:
    """A Ray that this process is connected to; `ray` is the module.

    Without an address, that of RAY_ADDRESS where set, else a Ray of our own on this machine, with `num_workers` CPUs.
    Its object store can hold the arrays twice: now, and while they are replaced.

    Raises:
        RunError: Ray cannot be started or reached.
    """

    ray: Any
    folder: Path | None = None
    """Of a Ray of our own, for files that nobody else may see; None: a cluster."""

    def __init__(self, address: str | None, num_workers: int, arrays: _Arrays) -> None:
        self._cleanup = ExitStack()
        self._connect(_cluster(address), num_workers, arrays)
        context = self.ray.get_runtime_context()
        host, port = context.gcs_address.rsplit(":", 1)
        self._head = (host.strip("[]"), int(port))
        self._own_node = self._raylet(context.get_node_id())
        self._checked = self._seen = time.monotonic()

    def _connect(self, address: str | None, num_workers: int, arrays: _Arrays) -> None:
        # Before the import, or Ray reports usage over the network.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Actors without a GPU of their own see all of them, as the evaluator's --device decides.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Where the node's daemon is gone, Ray's C++ ends a process whose parent has died (nohup, a container) with exit
        # code 1 and no word, unless it takes a living process for that daemon: then it raises.
        os.environ.setdefault("RAY_RAYLET_PID", str(os.getpid()))
        _check_installed()
        import ray

        self.ray = ray
        if ray.is_initialized():
            return
        _silence(ray)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        size = 2 * sum(array.nbytes for array in arrays.values())
        where = f"Ray at {address} cannot be reached" if address else "Ray cannot be started"
        try:
            with _last_words(f"error: {where}: one of its processes died\nhint: the same command goes on"):
                if address:
                    ray.init(address=address, **quiet)
                    self._cleanup.callback(ray.shutdown)
                else:
                    size = max(MIN_OBJECT_STORE_BYTES, size)
                    own = own_ray(ray, num_cpus=num_workers, object_store_memory=size, **quiet)
                    self.folder = self._cleanup.enter_context(own)
        except Exception as error:  # where one of its processes dies, Ray raises an `Exception`
            self._cleanup.close()
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"{where}: {one_line(str(error))}", hint="the same command goes on; --workers 0 does without Ray"
            ) from error

    def check(self, *, at_once: bool = False) -> None:
        """Look whether Ray's head and this machine's node answer; what refuses on this machine is not waited for.

        Raises:
            RunError: One does not for `LOST_S`, or now if `at_once`, or has died.
        """
        now = time.monotonic()
        if not at_once and now - self._checked < CHECK_S:
            return
        self._checked = now
        head, node = _problem(self._head), _problem(self._own_node)
        lost = [name for name, problem in (("its head", head), ("the node of this machine", node)) if problem]
        here = (node, head) if self.folder else (node,)
        if not lost:
            self._seen = now
        elif at_once or now - self._seen > LOST_S or any(isinstance(one, ConnectionRefusedError) for one in here):
            raise RunError(
                f"Ray is gone: {' and '.join(lost)} cannot be reached",
                hint="nothing that was finished is lost: the same command goes on",
            )

    def is_alive(self, node: str) -> bool:
        """Whether a node answers now; Ray itself takes 13 s to notice that one has died."""
        return _problem(self._raylet(node)) is None

    def _raylet(self, node: str) -> _Address | None:
        """Where a living node's daemon listens."""
        for entry in self.ray.nodes():
            if entry["NodeID"] == node and entry["Alive"]:
                return entry["NodeManagerAddress"], entry["NodeManagerPort"]
        return None

    def close(self) -> None:
        """Disconnect, and stop a Ray of our own. May be called twice."""
        self._cleanup.close()


def possible_workers(asked: int, address: str | None, most: int | None = None) -> int:
    """How many to start: on a cluster what was asked for; on this machine alone at most `most`, or one a core."""
    if _cluster(address):
        return asked
    return min(asked, len(os.sched_getaffinity(0)) if most is None else most)


def check_cluster(address: str | None) -> None:
    """Find out whether there is Ray, and whether the cluster answers and lets us in that this or RAY_ADDRESS names.

    Raises:
        RunError: There is not, it does not, or the address is none.
    """
    _check_installed()
    address = _cluster(address)
    if address is None:
        return
    if address != "auto":
        host, _, port = address.rpartition("://")[2].rpartition(":")
        if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise RunError(f"Ray address {address!r} is none", hint="HOST:PORT, as `ray status` on the head shows it")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except (OSError, UnicodeError) as error:
            raise RunError(
                f"nothing answers at Ray address {address!r}: {error}",
                hint="`ray status` on the head node shows its address",
            ) from error
    RayConnection(address, 1, {}).close()


def _cluster(address: str | None) -> str | None:
    """The address of a cluster; None where Ray is to be started here, which Ray itself calls `local`."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in ("", "local") else address


def is_elsewhere(address: str | None) -> bool:
    """Whether Ray is a cluster, at this address or RAY_ADDRESS, and not to be started here."""
    return _cluster(address) is not None


def _check_installed() -> None:
    try:
        found = importlib.util.find_spec("ray")
    except ImportError:
        found = None
    if found is None:
        raise RunError("Ray is not installed", hint="--workers 0 does without; or pip install 'ray[tune]'")


def _problem(place: _Address | None) -> OSError | None:
    """Why nothing answers there; None: something does."""
    if place is None:
        return OSError(errno.EADDRNOTAVAIL, "there is none")
    try:
        socket.create_connection(place, timeout=CONNECT_S).close()
    except OSError as error:
        return error
    return None


@contextmanager
def _last_words(text: str) -> Iterator[None]:
    """Have `text` printed where this process ends within the block.

    As Ray's C++ ends it, past all of Python, where one of its daemons dies while this process connects to it.
    """
    command = ["/bin/sh", "-c", 'read -r ended || printf "%s\\n" "$0" >&2', text]
    listener = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        listener.communicate(b"\n")


def _silence(ray: ModuleType) -> None:
    # Ray prints on standard output, where our results go, that a worker or a node has died, with 20 lines of
    # its log. There is no option against it; where this name is not there any more, it is printed again.
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_args, **_options: None
