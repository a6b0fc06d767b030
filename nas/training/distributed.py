"""Supernet training in several processes, through Ray Train, on this machine or a cluster: the same training as in one.

Every process draws the same architectures and augments the same batch, computes on its share of it, and adds up
the gradients with the others'. Checkpoints are the trainer's own, in the run's folder; Ray Train keeps none. When a
process dies, all start again from the newest one.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from nas.base import DiskError, NasError, RunError, atomic_write_text, disk_error, one_line, remove
from nas.cluster import RayConnection, possible_workers
from nas.data import ImageSet
from nas.model import Supernet
from nas.settings import RunConfig
from nas.space import SearchSpace
from nas.training.distill import LateTeacher
from nas.training.guest import Guest
from nas.training.health import TrainProgress
from nas.training.trainer import ALONE, Start, SupernetTrainer
from nas.training.world import World

FAILURES = 3  # deaths of processes that a training survives
REPORT_S = 1.0  # between two reports of the first process
LOOK_S = 0.2  # between two looks at its report
SILENCE_S = 600.0  # without a report; a cluster may have to find the CPUs first
PROGRESS = "progress.json"  # in the folder of the checkpoints, as is the other, while there is training
SCRATCH = "ray-train"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSetup:
    """What makes a trainer, but for the images and the device: small, and the same in every process."""

    space: SearchSpace  # of the supernet
    config: RunConfig  # of the run
    precision: str  # `fp32` or `bf16`
    directory: Path  # of the checkpoints; processes on several machines must all see it

    def trainer(
        self,
        images: ImageSet,
        device: torch.device,
        *,
        world: World = ALONE,
        start: Start = None,
        guest: Guest | None = None,
    ) -> SupernetTrainer:
        """The trainer of one process, at its beginning; of a guest instead of a supernet, where there is one."""
        config = self.config
        supernet = Supernet(self.space, seed=config.seed) if guest is None else cast(Supernet, guest)
        teacher = LateTeacher(config.teacher, images.info, device) if config.teacher else None
        return SupernetTrainer(
            supernet,
            images,
            config.train,
            seed=config.seed,
            device=device,
            precision=self.precision,
            directory=self.directory,
            start=start,
            teacher=teacher,
            world=world,
        )


def possible_processes(asked: int, device: torch.device, address: str | None) -> int:
    """How many processes to train in: on this machine alone, not more than it has cores, or GPUs to train on."""
    return possible_workers(asked, address, torch.cuda.device_count() if device.type == "cuda" else None)


def train_distributed(
    trainer: SupernetTrainer,
    setup: TrainerSetup,
    num_workers: int,
    address: str | None,
    on_progress: Callable[[TrainProgress], None],
) -> Supernet:
    """Train to the end in several processes, from the newest checkpoint where there is one.

    Where fewer than `num_workers` processes find a CPU (or GPU), it goes on with those, and with more again once they
    do: the weights are the same but for rounding. Every process opens the file of the train images itself.

    The trainer is that of this process, at its beginning; the setup makes the others'. Without an address, RAY_ADDRESS
    or a Ray of our own on this machine is used. `on_progress` is told about once a second. Returns the supernet with
    averaged weights, in evaluation mode, which the trainer has then, too.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The checkpoints are damaged or belong to another space, data or recipe.
        RunError: Ray cannot be had or is gone, processes die again and again, or do not see the checkpoints.
    """
    if trainer.begin() < trainer.schedule.steps:  # first weights are on disk before the others start
        arrays: dict[str, Any] = {"images": trainer.images.images, "labels": trainer.images.labels}
        connection = RayConnection(address, num_workers, arrays)
        try:
            _fit(connection, trainer, setup, num_workers, arrays, on_progress)
        finally:
            connection.close()
            forget_processes(trainer.directory)
        trainer.resume()
    return trainer.trained()


def forget_processes(directory: Path) -> None:
    """Remove what a training in several processes has left beside its checkpoints, killed or not."""
    remove(directory / SCRATCH)
    remove(directory / PROGRESS)


def _fit(
    connection: RayConnection,
    trainer: SupernetTrainer,
    setup: TrainerSetup,
    num_workers: int,
    arrays: Mapping[str, Any],
    on_progress: Callable[[TrainProgress], None],
) -> None:
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths of the configuration stay valid
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    backend = "nccl" if trainer.device.type == "cuda" else "gloo"
    meeting = TorchConfig(backend=backend) if connection.folder is None else _private(backend, connection.folder)

    forget_processes(trainer.directory)
    scratch, report = trainer.directory / SCRATCH, trainer.directory / PROGRESS
    uses_gpu = trainer.device.type == "cuda"
    kept = [connection.ray.put(arrays)]  # in a list, or the processes would get copies of the arrays
    group = TorchTrainer(
        _train,
        train_loop_config={"setup": setup, "arrays": kept, "info": trainer.images.info, "report": report.absolute()},
        torch_config=meeting,
        scaling_config=train.ScalingConfig(num_workers=(1, num_workers), use_gpu=uses_gpu),
        run_config=train.RunConfig(
            name="run", storage_path=str(scratch.absolute()), failure_config=train.FailureConfig(max_failures=FAILURES)
        ),
    )
    ended: list[NasError | Exception | None] = []

    def fit() -> None:
        try:
            ended.append(group.fit().return_value)
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            ended.append(error)

    # In a thread of its own: in the main one Ray Train would take over Ctrl-C.
    fitting = threading.Thread(target=fit, daemon=True)
    fitting.start()
    heard = time.monotonic()
    seen: TrainProgress | None = None
    while fitting.is_alive():
        fitting.join(LOOK_S)
        connection.check()
        progress = _read(report)
        if progress not in (None, seen):
            seen, heard = progress, time.monotonic()
            on_progress(progress)
        elif time.monotonic() - heard > SILENCE_S:
            raise RunError(
                f"nothing was heard of the training processes for {SILENCE_S:g} s",
                hint="`ray status` shows whether there is a CPU or GPU for them; the same command goes on",
            )
    problem = ended[0]
    if isinstance(problem, NasError):
        raise problem
    for cause in [] if problem is None else _failures(problem):
        if full := disk_error(cause):
            raise full from problem
    if problem is not None:
        raise RunError(
            f"training in several processes failed: {_cause(problem)}",
            hint="the newest checkpoint is kept: the same command goes on; --workers 0 trains in one process",
        ) from problem


def _private(backend: str, folder: Path) -> Any:
    """How the processes of this machine meet: over a file in a folder of ours.

    The meeting place that torch opens by itself listens on all interfaces, and believes whoever comes.
    """
    import ray
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _setup_torch_process_group, _TorchBackend

    class Backend(_TorchBackend):  # type: ignore[misc]
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            place: dict[str, Any] = {"backend": backend, "init_method": f"file://{folder}/{secrets.token_hex(8)}"}
            place |= {"world_size": len(worker_group), "timeout_s": backend_config.timeout_s}
            ray.get(
                [
                    worker_group.execute_single_async(rank, _setup_torch_process_group, world_rank=rank, **place)
                    for rank in range(len(worker_group))
                ]
            )

    class Config(TorchConfig):  # type: ignore[misc]
        backend_cls = property(lambda _: Backend)

    return Config(backend=backend)


def _cause(error: Exception) -> str:
    """In one line: of a process's death and the errors of others that it was connected to, the death."""
    failures = _failures(error)
    from ray.exceptions import RayActorError

    worst = next((failure for failure in failures if isinstance(failure, RayActorError)), failures[0])
    text = str(worst).strip()
    return one_line(f"{type(worst).__name__}: {text.splitlines()[-1] if text else 'no message'}")


def _failures(error: Exception) -> Sequence[BaseException]:
    """What the processes raised."""
    found = list(getattr(error, "worker_failures", {}).values()) or [error]
    return [getattr(failure, "cause", None) or failure for failure in found]


def _read(report: Path) -> TrainProgress | None:
    try:
        values = json.loads(report.read_text())
    except FileNotFoundError:
        return None
    return TrainProgress(**{**values, "losses": tuple(values["losses"])})


# --- in the other processes --------------------------------------------------------------------------------


def _train(task: Mapping[str, Any]) -> NasError | None:
    """What each process does; returns what the user has to be told, the same in all of them."""
    import ray.train
    from ray.train.torch import get_device

    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size()))
    arrays, info = ray.get(task["arrays"][0]), task["info"]
    setup: TrainerSetup = task["setup"]
    found: int | NasError | None
    try:
        trainer = setup.trainer(ImageSet(arrays["images"], arrays["labels"], info), get_device(), world=world)
        found = trainer.resume()
    except NasError as error:
        found = error
    everywhere: list[Any] = [None] * world.size
    torch.distributed.all_gather_object(everywhere, found)
    if problem := _disagreement(everywhere, setup.directory):
        return problem
    try:
        trainer.run(_reporter(task["report"]) if world.rank == 0 else lambda _: None)
    except DiskError:  # only the first process writes, and the others would wait for it
        raise
    except NasError as error:  # the same in every process: losses are those of the whole batch
        return error
    return None


def _disagreement(found: Sequence[int | NasError | None], directory: Path) -> NasError | None:
    """Why processes that found these numbers of steps cannot train together, if so."""
    for problem in found:
        if isinstance(problem, NasError):
            return problem
    if len(set(found)) > 1 or None in found:
        steps = ", ".join("none" if step is None else str(step) for step in found)
        return RunError(
            f"{directory}: the training processes find different checkpoints there (after steps: {steps})",
            hint="all machines of the cluster must see the run's folder at the same path",
        )
    return None


def _reporter(report: Path) -> Callable[[TrainProgress], None]:
    last = 0.0

    def tell(progress: TrainProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_S or progress.step == progress.steps or progress.warning:
            last = now
            atomic_write_text(report, json.dumps(asdict(progress)))

    return tell
