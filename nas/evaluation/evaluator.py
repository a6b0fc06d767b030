"""From an architecture to a measurement: top-1 with inherited weights, exact costs, latency extracted."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.arch import Architecture, cost
from nas.base import LATENCY, OutOfMemoryError, by_target, is_out_of_memory
from nas.data import DataInfo, ImageSet
from nas.evaluation.accuracy import count_correct, with_answers
from nas.evaluation.protocol import RacePlan
from nas.evaluation.racing import race
from nas.latency import LatencyMeter, LatencyProfile, Predictor, default_batch, describe, device_name
from nas.model import Subnet, Supernet
from nas.runs import Conditions, Measurement, Timed
from nas.settings import EvaluateConfig, Target, parse_target
from nas.space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorSetup:
    """What a worker needs to build its evaluator, besides the arrays of weights and images.

    Attributes:
        space: With the number of classes of the data.
        precision: `fp32` or `bf16`.
        supernet_digest: Names the weights in the conditions.
        latencies: Names of those that the search needs, objectives or bounded; others are measured of the front alone.
        reference_ms: Calibrated milliseconds per batch of the reference model on the targets of these, by their names.
        profiles: Answer instead of the meter during the search, by the name of the metric.
        with_balanced: Whether the search is after balanced accuracy.
        reference: The reference model, where it is another than the largest architecture of the space.
    """

    space: SearchSpace
    config: EvaluateConfig
    info: DataInfo
    device: str
    precision: str
    supernet_digest: str
    latencies: tuple[str, ...] = ()
    reference_ms: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, LatencyProfile] = field(default_factory=dict)
    with_balanced: bool = False
    reference: Architecture | None = None

    @property
    def targets(self) -> dict[str, Target]:
        """Where and how each latency is measured, by its name: the configuration's targets, or those of profiles."""
        texts = self.config.targets or ("torch-cuda" if self.device == "cuda" else "torch-cpu",)
        return {
            name: self.profiles[name].target if name in self.profiles else parse_target(text)
            for name, text in by_target(texts).items()
        }

    @property
    def target(self) -> Target:
        """The first one."""
        return self.targets[LATENCY.name]

    def ranked(self, images: ImageSet) -> ImageSet:
        """Of the search split the images that rank architectures: all, or as many as the configuration says."""
        return images.part(0, self.config.max_images or len(images))

    def count_correct(
        self, subnet: Subnet, images: ImageSet, *, precision: str | None = None, batch_size: int | None = None
    ) -> NDArray[np.bool_]:
        """Which images a subnet gets right, [N] bool, as in the search or as said; an EvaluationError: it gives NaN."""
        device = torch.device(self.device)
        return count_correct(
            subnet.to(device),
            images,
            batch_size=batch_size or self.config.batch_size,
            device=device,
            precision=precision or self.precision,
        )

    def batch_of(self, target: Target) -> int:
        """Images per forward pass: what the target says, or the configuration; else 1 from 128 px on and 64 below."""
        return target.batch or self.config.latency_batch_size or default_batch(self.space.backbone.image_size)

    def conditions(self, num_images: int, *, stage: str) -> Conditions:
        """Under which this setup measures on a search split of so many images, of which it may use the first ones.

        The stage is `search` or `exclusive`: only during the search a profile answers.
        """
        num_images = min(num_images, self.config.max_images or num_images)

        def place(name: str) -> str:
            is_predicted = name in self.profiles and stage == "search"
            return self.profiles[name].name if is_predicted else describe(self.targets[name])

        others = [
            f"{place(name)}, batch of {self.batch_of(target)}, threads {target.threads}"
            for name, target in self.targets.items()
            if name in self.latencies and name != LATENCY.name
        ]
        return Conditions(
            device=device_name(self.device),
            precision=self.precision,
            split="search",
            num_images=num_images,
            target="; ".join([place(LATENCY.name), *others]),
            latency_batch_size=self.batch_of(self.target),
            latency_threads=self.target.threads,
            latency_stage=stage,
            supernet=self.supernet_digest,
            torch=torch.__version__,
        )

    def meter(self, supernet: Supernet, target: Target) -> LatencyMeter:
        """The latency meter of a target; its reference is the largest subnet, unless the setup has another."""
        backbone = self.space.backbone
        shape = (backbone.in_chans, backbone.image_size, backbone.image_size)
        if self.reference is None:
            reference = supernet.extract(self.space.largest())
        else:
            reference = Subnet(backbone, self.reference).eval()
        return LatencyMeter(reference, shape, self.batch_of(target), target)

    def clock(self, name: str, supernet: Supernet) -> Callable[[Subnet], float]:
        """What tells a latency of subnets in a search, milliseconds per batch: its profile, or its meter."""
        if name in self.profiles:
            predictor = Predictor(self.profiles[name])
            return lambda subnet: predictor.predict([subnet.architecture])[0]
        meter = self.meter(supernet, self.targets[name])
        return lambda subnet: meter.ratio(subnet, self.config.latency_pairs) * self.reference_ms[name]


class SubnetEvaluator:
    """Measures subnets of one supernet, which is never written, on what ranks them of the search split.

    Call it with one torch thread: the numbers must not depend on how many workers share the cores.
    """

    def __init__(self, setup: EvaluatorSetup, supernet: Supernet, images: ImageSet) -> None:
        self.setup, self.supernet, self.images = setup, supernet, setup.ranked(images)
        self.clocks = {name: setup.clock(name, supernet) for name in setup.latencies}
        self.conditions = setup.conditions(len(self.images), stage="search")

    def evaluate(self, architecture: Architecture, plan: RacePlan | None = None, *, attempt: int = 0) -> Measurement:
        """Measure costs, latency where the search needs it, and top-1; an OutOfMemoryError: even with this batch."""
        started = time.perf_counter()
        backbone = self.setup.space.backbone
        batch_size = max(1, self.setup.config.batch_size >> attempt)

        def classify(numbers: NDArray[np.int32]) -> NDArray[np.bool_]:
            images = self.images if len(numbers) == len(self.images) else self.images.chosen(numbers)
            return self.setup.count_correct(subnet, images, batch_size=batch_size)

        try:
            subnet = self.supernet.extract(architecture).to(self.setup.device)
            costs = Measurement(
                macs=float(cost.macs(architecture, backbone)),
                params=float(cost.params(architecture, backbone)),
                latency={name: Timed(ms=clock(subnet)) for name, clock in self.clocks.items()},
                conditions=self.conditions,
                seconds=0.0,
            )
            correct, verdict = race(classify, len(self.images), costs.values, plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"out of memory with {batch_size} images at once: {error}") from error
        found = with_answers(costs, correct, verdict, self.images.labels if self.setup.with_balanced else None)
        return replace(found, seconds=time.perf_counter() - started)


def build_evaluator(setup: EvaluatorSetup, arrays: Mapping[str, NDArray[Any]]) -> SubnetEvaluator:
    """An evaluator over arrays that may be shared with other processes; they are read, never written."""
    supernet = Supernet(setup.space)
    images = ImageSet(arrays["images"], arrays["labels"], setup.info)
    weights = {name: torch.from_numpy(arrays[f"weights/{name}"]) for name in supernet.state_dict()}
    supernet.load_state_dict(weights, assign=True)
    return SubnetEvaluator(setup, supernet.requires_grad_(False).eval(), images)


def evaluator_arrays(supernet: Supernet, images: ImageSet) -> dict[str, NDArray[Any]]:
    """The arrays that `build_evaluator` takes: weights and search images, and no test image."""
    weights = {f"weights/{name}": value.cpu().numpy() for name, value in supernet.state_dict().items()}
    return {**weights, "images": images.images, "labels": images.labels}
