"""Architectures that are measured well, and others at which a worker misbehaves."""

import numpy as np
from search_fakes import AnalyticEvaluator, digits

from nas.base.errors import OutOfMemoryError
from nas.study.workers import InlineWorkers, Task

SPACE = digits()
GOOD = [SPACE.sample(np.random.default_rng(seed)) for seed in range(8)]
BAD = {
    name: SPACE.sample(np.random.default_rng(100 + i))
    for i, name in enumerate(("raise", "nan", "die", "hang", "die once", "memory", "memory twice"))
}
CONDUCT = {architecture.digest: name for name, architecture in BAD.items() if name != "die once"}
QUARANTINED = "quarantined: out of memory: a batch of 2 after 3 attempts"


class Exhausted(AnalyticEvaluator):
    """Its process has memory for one architecture."""

    measured = 0

    def evaluate(self, architecture, plan=None, *, attempt=0):  # noqa: ARG002
        type(self).measured += 1
        if type(self).measured > 1:
            raise OutOfMemoryError("out of memory")
        return super().evaluate(architecture, plan, attempt=0)


def build_exhausted(backbone, arrays):
    return Exhausted(backbone)


def values(result):
    return None if result.measurement is None else dict(result.measurement.values)


def results_of(workers, architectures):
    for number, architecture in enumerate(architectures):
        workers.submit(Task(number, architecture))
    results = [workers.next_result() for _ in architectures]
    return sorted(results, key=lambda result: result.number)


PLAIN = InlineWorkers(AnalyticEvaluator(SPACE.backbone))
