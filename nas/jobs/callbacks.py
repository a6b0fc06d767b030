"""What other code may see of a run while it goes on, and TensorBoard's files as the first that does."""

import inspect
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nas.base import BALANCED, LATENCY, MACS, TOP1, ConfigError, RunError, disk_error, writing
from nas.runs import ParetoFront, RunDirectory
from nas.study import Progress
from nas.training import TrainProgress

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

LOGGED = 1000  # points of a whole training
FLUSH_S = 10  # what a kill may cost, seconds


class Callback(Protocol):
    """Told how a run goes on, in the process that drives it and in its thread: what it takes, the run waits.

    What a callback raises ends the run as Ctrl-C does: what is finished is kept, the same call resumes. It hears
    of what happens, not of what an earlier process has done. `Session.callbacks` holds those of a run; where a run
    has several supernets, they hear of the search in each of them, and `run` says which.
    """

    def on_train(self, run: RunDirectory, progress: TrainProgress) -> None:
        """A training step is done."""

    def on_trial(self, run: RunDirectory, progress: Progress) -> None:
        """An architecture was measured, or failed: `progress.trial`; those that cost nothing are not told."""

    def on_front(self, run: RunDirectory, front: ParetoFront) -> None:
        """The front was measured and written; the report follows."""


HEARD = ("on_train", "on_trial", "on_front")


def own_callbacks(given: Iterable[Any]) -> tuple[Callback, ...]:
    """What a program gives as callbacks, as stages call them: of the three methods one is enough.

    Raises:
        ConfigError: One is a class, has none of the methods, or one that cannot be called with two arguments.
    """
    hint = "an object with on_train(run, progress), on_trial(run, progress) or on_front(run, front)"
    found = []
    for one in given:
        name = one.__name__ if isinstance(one, type) else type(one).__name__
        if isinstance(one, type):
            raise ConfigError(f"callbacks: {name} is a class, not an object of it", hint=hint)
        methods = {word: method for word in HEARD if callable(method := getattr(one, word, None))}
        if not methods:
            raise ConfigError(f"callbacks: {one!r:.80} has none of {', '.join(HEARD)}", hint=hint)
        for word, method in methods.items():
            try:
                inspect.signature(method).bind(None, None)
            except TypeError as error:
                raise ConfigError(f"callbacks: {word} of {name} takes no two arguments: {error}", hint=hint) from error
            except ValueError:  # of what is not written in Python, nothing is known
                pass
        found.append(one if len(methods) == len(HEARD) else _Told(methods))
    return tuple(found)


class _Told:
    """Hears by those of the methods that an object has; the others do nothing."""

    def __init__(self, methods: dict[str, Any]) -> None:
        heard: list[Any] = [methods.get(word, lambda *_: None) for word in HEARD]
        self.on_train, self.on_trial, self.on_front = heard


class TensorBoard:
    """Losses, trials and the front as event files in the run's folder: `tensorboard --logdir results`.

    A training that goes on from a checkpoint replaces the points of the steps that it does again.

    Raises:
        RunError: The package tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            import tensorboard  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise RunError(
                "--tensorboard: the package tensorboard is not installed", hint="pip install tensorboard"
            ) from error
        self._writers: dict[Path, SummaryWriter] = {}
        threading.excepthook = _say_what_is_not_told

    def on_train(self, run: RunDirectory, progress: TrainProgress) -> None:
        """Losses, the gap between them, learning rate and speed, about a thousand times; operators some 20 times."""
        with writing(run.tensorboard_dir):
            writer = self._writer(run, "train", progress.step)
            if progress.step % max(progress.steps // LOGGED, 1) == 0 or progress.step == progress.steps:
                for name, loss in zip(("largest", "smallest", "random"), progress.losses, strict=True):
                    writer.add_scalar(f"loss_nats/{name}", loss, progress.step)
                writer.add_scalar("loss_nats/gap", progress.gap, progress.step)
                writer.add_scalar("train/lr", progress.lr, progress.step)
                writer.add_scalar("train/images_per_s", progress.images_per_second, progress.step)
            for name, value in progress.diagnostics.items():
                writer.add_scalar(f"operators/{name}", value, progress.step)
            if progress.step == progress.steps:
                writer.flush()

    def on_trial(self, run: RunDirectory, progress: Progress) -> None:
        """What was measured, and how good the front is."""
        with writing(run.tensorboard_dir):
            number, measurement = progress.trial.number, progress.trial.measurement
            writer = self._writer(run, "search", None)  # trials end in any order: nothing is told twice
            writer.add_scalar("search/hypervolume", progress.hypervolume, number)
            writer.add_scalar("search/front_size", progress.front_size, number)
            for metric in (TOP1, BALANCED, MACS, LATENCY):
                if measurement is not None and metric.name in measurement.values:
                    writer.add_scalar(f"trials/{metric.name}", measurement.values[metric.name], number)

    def on_front(self, run: RunDirectory, front: ParetoFront) -> None:
        """The front as points: what ranks them, in its unit, over thousands of MACs."""
        with writing(run.tensorboard_dir):
            writer = self._writer(run, "front", 0)
            by = front.ranked_by
            for point in front.points:
                writer.add_scalar(f"front/{by.name}_over_kMACs", point.value(by), round(point.value(MACS) / 1000))
            self.close()

    def close(self) -> None:
        """Write what is not written yet; only needed where the process goes on to something else."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, run: RunDirectory, part: str, step: int | None) -> "SummaryWriter":
        """Of a part of a run; what an earlier process wrote from a step on is withdrawn, where one is given."""
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = run.tensorboard_dir / part
        if folder not in self._writers:
            self._writers[folder] = SummaryWriter(folder, purge_step=step, flush_secs=FLUSH_S)
        return self._writers[folder]


def _say_what_is_not_told(raised: threading.ExceptHookArgs) -> None:
    """Say what a thread raised, unless it is a disk: TensorBoard's thread writes, and its next call raises it again."""
    if raised.exc_value is None or disk_error(raised.exc_value) is None:
        threading.__excepthook__(raised)
