"""Ray: started on this machine or found at an address, whether it is still there, and what is undone at the end."""

import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from nas.base import RunError, one_line

MIN_OBJECT_STORE_BYTES = 100_000_000
CHECK_S = 2.0  # between two looks at what this process cannot do without
LOST_S = 20.0  # without them before giving up; after 60 s Ray ends this process without a word of its own
CONNECT_S = 5.0  # for one TCP connection

_Address = tuple[str, int]
_Arrays = Mapping[str, NDArray[Any]]


class RayConnection:
    """A Ray that this process is connected to; `ray` is the module.

    Without an address, that of RAY_ADDRESS where set, else a Ray of our own on this machine, with `num_workers` CPUs.
    Its object store can hold the arrays twice: now, and while they are replaced.

    Raises:
        RunError: Ray cannot be started or reached.
    """

    ray: Any

    def __init__(self, address: str | None, num_workers: int, arrays: _Arrays) -> None:
        self._cleanup = ExitStack()
        self._connect(address or os.environ.get("RAY_ADDRESS"), num_workers, arrays)
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
        import ray

        self.ray = ray
        if ray.is_initialized():
            return
        _silence(ray)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                folder = _scratch_folder()
                self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
                size = 2 * sum(array.nbytes for array in arrays.values())
                imports = os.environ.get("PYTHONPATH", "")
                os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))  # for the actors
                self._cleanup.callback(os.environ.update, PYTHONPATH=imports)
                ray.init(
                    address="local",
                    num_cpus=num_workers,
                    include_dashboard=False,
                    object_store_memory=max(MIN_OBJECT_STORE_BYTES, size),
                    _temp_dir=folder,
                    **quiet,
                )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            self._cleanup.close()
            where = f"Ray at {address} cannot be reached" if address else "Ray cannot be started"
            raise RunError(f"{where}: {one_line(str(error))}", hint="--workers 0 does without Ray") from error
        self._cleanup.callback(ray.shutdown)

    def check(self, *, at_once: bool = False) -> None:
        """Look whether Ray's head and this machine's node answer: a RunError after `LOST_S` without, or `at_once`."""
        now = time.monotonic()
        if not at_once and now - self._checked < CHECK_S:
            return
        self._checked = now
        lost = [
            name
            for name, place in (("its head", self._head), ("the node of this machine", self._own_node))
            if not _answers(place)
        ]
        if not lost:
            self._seen = now
        elif at_once or now - self._seen > LOST_S:
            raise RunError(
                f"Ray is gone: {' and '.join(lost)} cannot be reached",
                hint="nothing that was finished is lost: the same command goes on",
            )

    def is_alive(self, node: str) -> bool:
        """Whether a node answers now; Ray itself takes 13 s to notice that one has died."""
        return _answers(self._raylet(node))

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
    if address or os.environ.get("RAY_ADDRESS"):
        return asked
    return min(asked, len(os.sched_getaffinity(0)) if most is None else most)


def _answers(place: _Address | None) -> bool:
    if place is None:
        return False
    try:
        socket.create_connection(place, timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


def _silence(ray: ModuleType) -> None:
    # Ray prints on standard output, where our results go, that a worker or a node has died, with 20 lines of
    # its log. There is no option against it; where this name is not there any more, it is printed again.
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_args, **_options: None


def _scratch_folder() -> str:
    """Make a folder for Ray's sockets and logs; remove those of processes that were killed."""
    root = Path("/tmp")  # short, because paths of sockets have at most 107 characters
    for folder in root.glob("nas-ray-*"):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"nas-ray-{os.getpid()}-", dir=root)
