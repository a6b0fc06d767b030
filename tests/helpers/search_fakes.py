"""A real but instant evaluator, small spaces, and a search put together from them."""

import hashlib
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import psutil

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.arch.backbone import Backbone
from nas.base.errors import EvaluationError, OutOfMemoryError
from nas.base.metrics import LATENCY, MACS, TOP1, Objective
from nas.runs.directory import RunDirectory
from nas.runs.trial import Measurement, Timed, Trial
from nas.space.constraints import Constraints
from nas.space.domain import LayerDomain
from nas.space.space import SearchSpace
from nas.study.loop import Search
from nas.study.study import ArchitectureStudy
from nas.study.workers import InlineWorkers, Result, Task, Workers

DIGITS = Path(__file__).parents[2] / "search_spaces" / "digits.yaml"
OBJECTIVES = (Objective(TOP1, 0.0), Objective(MACS, 4e6), Objective(LATENCY, 20.0))


def digits() -> SearchSpace:
    return SearchSpace.from_yaml(DIGITS)


def tiny_space(num_heads: tuple[int, ...] = (1, 2, 3), **constraints: float) -> SearchSpace:
    """Two layers: as many architectures as pairs of `num_heads`."""
    domain = LayerDomain(num_tokens=(16,), num_heads=num_heads, mlp_ratio=(2,))
    return SearchSpace(
        name="tiny",
        backbone=factories.backbone(),
        embed_dim=(24,),
        depth=(2,),
        layers=(domain, domain),
        constraints=Constraints.from_keys(constraints),
    )


class AnalyticEvaluator:
    """Values from arithmetic. `conduct` says, by digest, which architectures misbehave and how."""

    conditions = factories.conditions()

    def __init__(
        self,
        backbone: Backbone,
        log: Path | None = None,
        conduct: Mapping[str, str] | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self._backbone = backbone
        self._log = log
        self._conduct = conduct or {}
        self._delay_s = delay_s

    def evaluate(
        self,
        architecture: Architecture,
        plan: Any = None,  # noqa: ARG002 - nobody is raced here
        *,
        attempt: int = 0,
    ) -> Measurement:
        conduct = self._conduct.get(architecture.digest, "")
        if self._log is not None:
            append_line(self._log, architecture.digest)
        time.sleep(self._delay_s)
        macs = cost.macs(architecture, self._backbone)
        noise = int(hashlib.sha256(architecture.digest.encode()).hexdigest()[:4], 16) / 0xFFFF
        found = Measurement(
            top1=95 * (1 - math.exp(-macs / 1e6)) + 5 * noise,
            macs=float(macs),
            params=float(cost.params(architecture, self._backbone)),
            latency={"latency_ms": Timed(ms=macs / 1e6 + architecture.depth + noise)},
            conditions=self.conditions,
            seconds=self._delay_s,
        )
        if conduct == "raise":
            raise ValueError("cannot\nbe done")
        if conduct == "refuse":
            raise EvaluationError("no memory for it")
        if conduct == "memory" or (conduct == "memory twice" and attempt < 2):
            raise OutOfMemoryError(f"out of memory: a batch of {8 >> attempt}")
        if conduct == "interrupt":
            raise KeyboardInterrupt
        if conduct == "die" or (conduct.startswith("/") and not Path(conduct).exists()):
            if conduct != "die":
                append_line(Path(conduct), "died")
            os.kill(os.getpid(), signal.SIGKILL)
        if conduct == "hang":
            time.sleep(600)
        if conduct == "nan":
            return replace(found, top1=math.nan)
        if conduct == "incomplete":
            return replace(found, macs=None, latency={})
        return found


def append_line(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def build_analytic(
    backbone: Backbone, conduct: Mapping[str, str], broken: Path, arrays: Mapping[str, Any]
) -> AnalyticEvaluator:
    """For Ray: top-level, so that it can be sent to an actor."""
    assert arrays["weights"].tolist() == [1.0, 2.0, 3.0]
    assert not arrays["weights"].flags.writeable
    if broken.exists():
        raise FileExistsError(broken.name)
    return AnalyticEvaluator(backbone, conduct=conduct)


class Weigher(AnalyticEvaluator):
    """Says of an array by how many bytes the private memory of its process grows for reading and for copying it.

    They stand where MACs and parameters would.
    """

    def __init__(self, backbone: Backbone, arrays: Mapping[str, Any]) -> None:
        super().__init__(backbone)
        self._weights = arrays["weights"]

    def evaluate(self, architecture: Architecture, *_: Any, **__: Any) -> Measurement:
        process = psutil.Process()
        before = process.memory_full_info().uss
        assert self._weights.sum() == self._weights.size
        read = process.memory_full_info().uss - before
        copy = self._weights + 1
        copied = process.memory_full_info().uss - before - read
        assert copy.size == self._weights.size
        return replace(super().evaluate(architecture), macs=float(read), params=float(copied))


class ShuffledWorkers:
    """Many slots, and results in a random order."""

    def __init__(self, evaluator: AnalyticEvaluator, slots: int, seed: int) -> None:
        self.slots = slots
        self.is_closed = False
        self.most_in_flight = 0
        self._evaluator = evaluator
        self._rng = np.random.default_rng(seed)
        self._queue: list[Task] = []

    def submit(self, task: Task) -> None:
        self._queue.append(task)
        self.most_in_flight = max(self.most_in_flight, len(self._queue))

    def next_result(self) -> Result:
        inline = InlineWorkers(self._evaluator)
        inline.submit(self._queue.pop(int(self._rng.integers(len(self._queue)))))
        return inline.next_result()

    def finished(self) -> list[Result]:
        return [self.next_result()] if self._queue else []

    def close(self) -> None:
        self.is_closed = True


def new_run(folder: Path) -> RunDirectory:
    return RunDirectory.create(folder, manifest=factories.manifest(), space_text="", config={})


def make_study(
    space: SearchSpace, storage: Path | str, sampler: str = "nsga2", seed: int = 0, **options: Any
) -> ArchitectureStudy:
    return ArchitectureStudy(space, OBJECTIVES, sampler, 6, seed, storage, **options)


def search(
    folder: Path,
    space: SearchSpace,
    evaluator: AnalyticEvaluator | None = None,
    workers: Workers | None = None,
    *,
    sampler: str = "nsga2",
    trials: int | None = None,
    minutes: float | None = None,
    **options: Any,
) -> tuple[Trial, ...]:
    """Search in a run's folder as a new process would: made or resumed, and everything closed at the end."""
    run = RunDirectory.open(folder) if folder.exists() else new_run(folder)
    workers = workers or InlineWorkers(evaluator or AnalyticEvaluator(space.backbone))
    study = make_study(space, run.journal_path, sampler)
    try:
        return Search(space, OBJECTIVES, study, workers, run).run(trials=trials, minutes=minutes, **options)
    finally:
        study.close()


def outline(trials: tuple[Trial, ...]) -> list[tuple[int, str, str]]:
    """What the laws speak about: (number, digest, state) of every trial."""
    return [(trial.number, trial.architecture.digest, trial.state.value) for trial in trials]
