"""A search over Ray in a process of its own: FOLDER NUM_TRIALS NUM_WORKERS [ADDRESS]; it looks for files in FOLDER.

Only FREE evaluations end before `gate` is there. From when `impatient` is there, no worker is waited for longer than
IMPATIENCE_S; before, and for a trial, PATIENCE_S, which no busy machine takes.
"""

import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
from search_fakes import AnalyticEvaluator, append_line, digits, search

from nas.base.errors import RunError
from nas.cluster import connection as ray_connection
from nas.study import actors as ray_workers

FREE = 20
PATIENCE_S = 500.0
IMPATIENCE_S = 3.0
SPACE = digits()


class GatedEvaluator(AnalyticEvaluator):
    """Logs the node that it runs on."""

    def __init__(self, folder: Path) -> None:
        import ray

        super().__init__(SPACE.backbone)
        self._folder = folder
        self._node = ray.get_runtime_context().get_node_id()

    def evaluate(self, architecture, plan=None, *, attempt=0):  # noqa: ARG002 - nobody is raced here
        assert attempt == 0  # a node's death is no architecture's fault
        log = self._folder / "log"
        append_line(log, f"{self._node} {architecture.digest}")
        if len(log.read_text().splitlines()) > FREE:
            while not (self._folder / "gate").exists():
                time.sleep(0.02)
        return super().evaluate(architecture)


def build(folder, arrays):
    assert arrays["weights"].sum() == arrays["weights"].size
    return GatedEvaluator(folder)


def become_impatient(file):
    while not file.exists():
        time.sleep(0.1)
    ray_workers.START_TIMEOUT_S = IMPATIENCE_S


if __name__ == "__main__":
    folder, num_trials, num_workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    address = sys.argv[4] if len(sys.argv) > 4 else None
    ray_workers.START_TIMEOUT_S = PATIENCE_S
    threading.Thread(target=become_impatient, args=(folder / "impatient",), daemon=True).start()
    ray_connection.LOST_S = 2.0
    arrays = {"weights": np.ones(1_000_000)}  # too large to be sent along: it stays in the object store
    try:
        workers = ray_workers.RayWorkers(partial(build, folder), arrays, num_workers, address, PATIENCE_S)
        try:
            search(folder / "run", SPACE, workers=workers, trials=num_trials)
        finally:
            workers.close()
    except RunError as error:
        sys.stdout.write(f"{error.message}\n{error.hint}\n")
        sys.exit(2)
