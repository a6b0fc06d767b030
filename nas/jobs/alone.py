"""An architecture trained alone, with the recipe and the images of a run."""

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nas.arch import Architecture, Backbone
from nas.base import CheckpointError, RunError, atomic_write_bytes, one_line
from nas.cluster import Arrays
from nas.data import ImageData, ImageSet
from nas.evaluation import EvaluatorSetup, RacePlan, SubnetEvaluator, with_answers
from nas.initial import warm_start
from nas.latency import torch_threads
from nas.model import Subnet, Supernet
from nas.runs import Measurement, RunDirectory
from nas.settings import RunConfig
from nas.space import Constraints, LayerDomain, SearchSpace
from nas.study import InlineWorkers, Result, Task
from nas.training import Guest, TrainerSetup

Network = TypeVar("Network", Subnet, Guest)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandAloneSetup:
    """What a worker needs to train architectures of a run alone, besides the arrays of images.

    Attributes:
        evaluation: How the run measures accuracy, and in which space; the trainings name their own weights.
        config: Of the run, with paths that lead from anywhere; its seed is that of the images and of the supernet.
        seed: Of the trainings.
        recipe: Names what else decides the results (`recipe_digest`).
        folder: Where trainings keep their checkpoints.
        keeps_weights: Whether a training leaves its network behind.
        guest: `timm:NAME` of a model that is trained in the place of the architecture; empty: the architecture is.
    """

    evaluation: EvaluatorSetup
    config: RunConfig
    seed: int
    recipe: str
    folder: Path
    keeps_weights: bool = False
    guest: str = ""

    def name(self, architecture: Architecture) -> str:
        """Of what is trained: the digest of an architecture, `timm:NAME` of a guest."""
        return self.guest or architecture.digest

    def network(self) -> Guest:
        """The guest with its first weights, in evaluation mode; a ConfigError: it cannot be had."""
        space, drop_path = self.evaluation.space, self.config.train.drop_path
        return Guest(self.guest, space.backbone, self.evaluation.info, seed=self.seed, drop_path=drop_path)

    def path(self, architecture: Architecture, suffix: str = "") -> Path:
        """Of one training: the folder of its checkpoints, its record (`.json`) or its network (`.safetensors`)."""
        name = self.name(architecture).replace(":", "-").replace("/", "-")
        return self.folder / f"{name}-seed{self.seed}-{self.recipe}{suffix}"


class StandAloneEvaluator:
    """Trains an architecture alone and measures it as the search does: an `Evaluator`.

    A network that is trained alone starts where its slice of the supernet started: at random, or at the
    weights that the run was started from. A training that was interrupted goes on from its checkpoint.

    Call it with one torch thread: the numbers must not depend on how many workers share the cores.
    `on_step` is called after every step of a training.
    """

    def __init__(self, setup: StandAloneSetup, data: ImageData, on_step: Callable[[], None] = lambda: None) -> None:
        self.setup, self.data, self.on_step = setup, data, on_step
        self.space, self.device = setup.evaluation.space, torch.device(setup.evaluation.device)
        self.conditions = self._named(f"trained alone, seed {setup.seed}").conditions(len(data.search), stage="search")

    def _named(self, weights: str) -> EvaluatorSetup:
        return replace(self.setup.evaluation, supernet_digest=weights)

    def evaluate(
        self,
        architecture: Architecture,
        plan: RacePlan | None = None,  # noqa: ARG002
        *,
        attempt: int = 0,
    ) -> Measurement:
        """Train to the end, then measure on the search split; see `Evaluator`. Nothing races."""
        folder = self.setup.path(architecture)
        try:
            return self._evaluate(architecture, folder, attempt)
        except CheckpointError:  # of another version of the program, or damaged: only time is lost
            shutil.rmtree(folder)
            return self._evaluate(architecture, folder, attempt)

    def _evaluate(self, architecture: Architecture, folder: Path, attempt: int) -> Measurement:
        setup, config = self.setup, self.setup.config.model_copy(update={"seed": self.setup.seed})
        guest = setup.network() if setup.guest else None
        if guest is not None:  # it has no static maps
            config = config.model_copy(update={"train": config.train.model_copy(update={"static_guidance": 0.0})})
        training = TrainerSetup(
            space=space_of_one(self.space, architecture),
            config=config,
            precision=setup.evaluation.precision,
            directory=RunDirectory(folder).supernet_dir.absolute(),
        )
        trainer = training.trainer(self.data.train, self.device, guest=guest)
        if guest is not None:
            trainer.start = lambda _: None
        elif config.init:
            trainer.start = lambda alone: alone.load_slices(self._first.state_dict())
        started = time.perf_counter()
        trained = trainer.run(lambda _: self.on_step())
        network: Subnet | Guest
        if guest is not None:
            network = cast(Guest, trained)
            found = self._measure_guest(network, self._named(trainer.digest()), attempt)
        else:
            evaluator = SubnetEvaluator(self._named(trainer.digest()), trained, self.data.search)
            found, network = evaluator.evaluate(architecture, attempt=attempt), trained.extract(architecture)
        if setup.keeps_weights:
            weights = {name: value.contiguous() for name, value in network.cpu().state_dict().items()}
            atomic_write_bytes(setup.path(architecture, ".safetensors"), save(weights))
        return replace(found, seconds=time.perf_counter() - started)

    def _measure_guest(self, guest: Guest, evaluation: EvaluatorSetup, attempt: int) -> Measurement:
        images = evaluation.ranked(self.data.search)
        correct = evaluation.count_correct(guest, images, batch_size=max(1, evaluation.config.batch_size >> attempt))
        costs = Measurement(
            macs=float(guest.macs()),
            params=float(guest.params()),
            conditions=evaluation.conditions(len(self.data.search), stage="search"),
            seconds=0.0,
        )
        return with_answers(costs, correct, labels=images.labels if evaluation.with_balanced else None)

    @cached_property
    def _first(self) -> Supernet:
        """The run's supernet before its first step; only where the run has a start of its own (`init`)."""
        config = self.setup.config
        supernet = Supernet(self.space, seed=config.seed).to(self.device)
        warm_start(supernet, config.init, self.data.train, ordered=config.init_ordered, device=self.device)
        return supernet


def space_of_one(space: SearchSpace, architecture: Architecture) -> SearchSpace:
    """The part of a space that holds one architecture and nothing else."""
    genes: dict[str, Any] = space.encode(architecture)
    return replace(
        space,
        embed_dim=(architecture.embed_dim,),
        stem=(architecture.stem,),
        depth=(architecture.depth,),
        layers=tuple(
            LayerDomain(**{gene: (genes[f"layers.{i:02d}.{gene}"],) for gene in space.layers[i].genes})
            for i in range(architecture.depth)
        ),
        constraints=Constraints(),
    )


def recipe_digest(config: RunConfig, hashes: Mapping[str, str], precision: str) -> str:
    """First 8 hex digits of the SHA-256 of what decides a stand-alone accuracy, but for architecture and seed.

    Keys at their default are left out, or at what was their default when they came: a key that a later version adds
    changes no digest, and another default changes those of new runs alone.
    """
    train = config.train
    of_supernets = {"checkpoint_minutes", "draw", "same_attention"}  # without effect on what a network alone learns
    by_default = {**type(train)().model_dump(mode="json"), **train.former, **train.model_dump(include=of_supernets)}
    elsewhere = {"seed", "device", "precision", "data", "search", "evaluate", "tune", "init_ordered"}
    content = {
        **config.model_dump(mode="json", exclude_defaults=True, exclude=elsewhere),
        **({"init_ordered": True} if config.init and config.init_ordered else {}),  # False was the default once
        "train": {key: value for key, value in train.model_dump(mode="json").items() if value != by_default[key]},
        "max_images": config.evaluate.max_images,
        "splits": [hashes["train"], hashes["search"]],
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def trained_network(setup: StandAloneSetup, architecture: Architecture) -> Subnet:
    """The network that a training left behind, in evaluation mode; a RunError: it is not there, or damaged."""
    return network_at(setup.path(architecture, ".safetensors"), setup.evaluation.space.backbone, architecture)


def trained_guest(setup: StandAloneSetup, architecture: Architecture) -> Guest:
    """The same of a guest, which was trained in the place of the architecture."""
    return _filled(setup.network(), setup.path(architecture, ".safetensors"))


def network_at(path: Path, backbone: Backbone, architecture: Architecture) -> Subnet:
    """The network whose weights a training left in a file, in evaluation mode; a RunError as `trained_network`."""
    return _filled(Subnet(backbone, architecture), path)


def _filled(network: Network, path: Path) -> Network:
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"{path}: not the weights of a training: {one_line(str(error))}",
            hint="delete it to train again; workers on other machines must see this folder",
        ) from error
    return network.eval()


def build_stand_alone(
    setup: StandAloneSetup, arrays: Arrays, on_step: Callable[[], None] = lambda: None
) -> StandAloneEvaluator:
    """An evaluator over arrays that may be shared with other processes; they are read, never written."""
    info = setup.evaluation.info
    train, search = (
        ImageSet(arrays[f"{split}/images"], arrays[f"{split}/labels"], info) for split in ("train", "search")
    )
    return StandAloneEvaluator(setup, ImageData(train=train, search=search), on_step)


def train_alone(
    job: tuple[StandAloneSetup, Architecture], arrays: Arrays, on_step: Callable[[], None] = lambda: None
) -> Result:
    """Train and measure, or say in one line why it was not possible: a task for another process."""
    setup, architecture = job
    workers = InlineWorkers(build_stand_alone(setup, arrays, on_step))
    workers.submit(Task(0, architecture))
    with torch_threads(1):
        return workers.next_result()


def image_arrays(data: ImageData) -> Arrays:
    """The arrays that `build_stand_alone` takes: train and search images, and no test image."""
    parts = itertools.product(("train", "search"), ("images", "labels"))
    return {f"{split}/{part}": getattr(getattr(data, split), part) for split, part in parts}
