"""A Ray of our own, started before it is needed: its actors import what they will run while this process computes."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from nas.base import RunError
from nas.cluster.connection import RayConnection, is_elsewhere, possible_workers
from nas.cluster.tasks import Arrays

Started = tuple[RayConnection, list[Any]]
"""A Ray and its actors."""


class RayAhead:
    """Can start a Ray of our own for so many workers, and an actor for each.

    Nothing is started for no workers, or where there is a cluster at the address. Where it cannot be started nothing
    happens either: who needs Ray later starts it, and says why not. `make` makes an actor, by the module of Ray.
    """

    def __init__(self, num_workers: int, address: str | None, make: Callable[[Any], Any]) -> None:
        self._num_workers = 0 if is_elsewhere(address) else possible_workers(num_workers, None)
        self._make = make
        self._started: Started | None = None

    def start(self, arrays: Arrays) -> None:
        """Start it, once; some seconds. Its object store can hold arrays as large as these."""
        workers, self._num_workers = self._num_workers, 0
        if not workers:
            return
        with suppress(RunError):
            connection, actors = self._started = RayConnection(None, workers, arrays), []
            actors.extend(self._make(connection.ray) for _ in range(workers))

    def take(self) -> Started | None:
        """What was started, which is the caller's to close from now on; None: nothing was."""
        taken, self._started = self._started, None
        return taken

    def close(self) -> None:
        """Stop it, unless it was taken."""
        if (left := self.take()) is not None:
            left[0].close()
