"""From an architecture to a measurement: top-1 with inherited weights, exact costs, latency extracted."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.arch import Architecture, cost
from nas.base import LATENCY, NoResultError, OutOfMemoryError, by_target, is_out_of_memory, plural
from nas.data import DataInfo, ImageSet
from nas.evaluation.accuracy import count_correct, count_together, features_of, with_answers
from nas.evaluation.own_metrics import of_features, of_logits, of_network
from nas.evaluation.protocol import RacePlan
from nas.evaluation.racing import Race
from nas.latency import LatencyMeter, LatencyProfile, Predictor, default_batch, describe, device_name, random_subnet
from nas.model import Subnet, SubnetParts, SubnetTree, Supernet, subtrees
from nas.runs import Conditions, Measurement, Timed
from nas.settings import EvaluateConfig, OwnMetric, OwnTarget, Target, parse_target
from nas.space import SearchSpace, plain_shapes

TIMINGS = 20  # of a network that a bound on latency is tried on


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
        metrics: What a Python program measures besides; nothing is raced then.
        devices: Targets of a Python program, by the names that the configuration has for them.
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
    metrics: tuple[OwnMetric, ...] = ()
    devices: Mapping[str, OwnTarget] = field(default_factory=dict)
    reference: Architecture | None = None

    @property
    def targets(self) -> dict[str, Target]:
        """Where and how each latency is measured, by its name: the configuration's targets, or those of profiles."""
        texts = self.config.targets or ("torch-cuda" if self.device == "cuda" else "torch-cpu",)
        return {
            name: self.profiles[name].target if name in self.profiles else self._target(text)
            for name, text in by_target(texts).items()
        }

    def _target(self, text: str) -> Target:
        target = parse_target(text)
        return replace(target, own=self.devices.get(target.runtime))

    @property
    def target(self) -> Target:
        """The first one."""
        return self.targets[LATENCY.name]

    def ranked(self, images: ImageSet) -> ImageSet:
        """Of the search split the images that rank architectures: all, or as many as the configuration says."""
        return images.part(0, self.config.max_images or len(images))

    def count_correct(
        self, network: nn.Module, images: ImageSet, *, precision: str | None = None, batch_size: int | None = None
    ) -> NDArray[np.bool_]:
        """Which images a network gets right, [N] bool, as in the search or as said; an EvaluationError: it gives NaN.

        It is in evaluation mode.
        """
        device = torch.device(self.device)
        return count_correct(
            network.to(device),
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
            reference = random_subnet(backbone, self.reference)
        return LatencyMeter(reference, shape, self.batch_of(target), target)

    def clock(self, name: str, supernet: Supernet) -> Callable[[Subnet], float]:
        """What tells a latency of subnets in a search, milliseconds per batch: its profile, or its meter."""
        if name in self.profiles:
            predictor = Predictor(self.profiles[name])
            return lambda subnet: predictor.predict([subnet.architecture])[0]
        meter = self.meter(supernet, self.targets[name])
        return lambda subnet: meter.ratio(subnet, self.config.latency_pairs) * self.reference_ms[name]


def check_latency_bounds(setup: EvaluatorSetup) -> None:
    """Try each bound on latency on the smallest networks of the space, with random weights.

    They are the one with the fewest MACs and the smallest plain ViT. The least of some timings counts: other work on
    the machine only ever adds to it.

    Raises:
        NoResultError: None of them keeps a bound; says the least possible.
    """
    space, backbone = setup.space, setup.space.backbone
    smallest = dict.fromkeys([space.smallest(), *plain_shapes(space)[:1]])
    shape = (backbone.in_chans, backbone.image_size, backbone.image_size)
    for name, bound in space.constraints.max_latency.items():
        target = setup.targets[name]
        batch = setup.batch_of(target)
        if name in setup.profiles:
            least = min(Predictor(setup.profiles[name]).predict([*smallest]))
        else:
            meters = [LatencyMeter(random_subnet(backbone, one), shape, batch, target) for one in smallest]
            least = min(meter.calibrate(1) for meter in meters for _ in range(TIMINGS))
        if least > bound:
            an_image = f" ({least / batch:.3g} ms an image)" if batch > 1 else ""
            raise NoResultError(
                f"constraints.max_{name} is {bound:g}, and the smallest network of the space takes {least:.3g} ms / "
                f"{plural(batch, 'image')}{an_image} on {target}",
                hint=f"the bound has to be above {least:.3g}, or the space needs smaller networks",
            )


class SubnetEvaluator:
    """Measures subnets of one supernet, which is never written, on what ranks them of the search split.

    Call it with one torch thread: the numbers must not depend on how many workers share the cores.
    """

    def __init__(self, setup: EvaluatorSetup, supernet: Supernet, images: ImageSet) -> None:
        self.setup, self.supernet, self.images = setup, supernet, setup.ranked(images)
        self.clocks = {name: setup.clock(name, supernet) for name in setup.latencies}
        self.conditions = setup.conditions(len(self.images), stage="search")
        self._of_answers = tuple(metric for metric in setup.metrics if metric.of_network is None)
        self._answers: dict[int, list[tuple[Tensor, Tensor]]] = {}  # of what is measured now: features and logits
        self._parts = SubnetParts(supernet, torch.device(setup.device), setup.precision)

    def evaluate(self, architecture: Architecture, plan: RacePlan | None = None, *, attempt: int = 0) -> Measurement:
        """Measure costs, latency where the search needs it, and top-1; an OutOfMemoryError: even with this batch."""
        (found,) = self.evaluate_many([(architecture, plan)], attempt=attempt)
        if isinstance(found, Exception):
            raise found
        return found

    def evaluate_many(
        self, candidates: Sequence[tuple[Architecture, RacePlan | None]], *, attempt: int = 0
    ) -> list[Measurement | Exception]:
        """What `evaluate` returns or raises for each: the same values, latency aside.

        Where architectures begin alike that is computed once. Where this fails, they are measured one by one.
        """
        batch_size = max(1, self.setup.config.batch_size >> attempt)
        costs: dict[int, Measurement] = {}
        races: dict[int, Race] = {}
        found: dict[int, Measurement | Exception] = {}
        for i, (architecture, plan) in enumerate(candidates):
            try:
                costs[i] = self._costs(architecture)
                races[i] = Race(len(self.images), costs[i].values, plan)
            except Exception as error:  # noqa: BLE001 - the others are measured
                found[i] = _explained(error, batch_size)
        numbers = list(races)
        for part in subtrees([candidates[i][0] for i in numbers], self.setup.space.backbone):
            started = time.perf_counter()
            chosen = {numbers[k]: candidates[numbers[k]][0] for k in part}
            failed = self._classify(chosen, races, batch_size)
            shares = {i: cost.macs(chosen[i], self.setup.space.backbone) * races[i].seen for i in chosen}
            s_per_mac = (time.perf_counter() - started) / max(sum(shares.values()), 1)
            for i in chosen.keys() - failed.keys():
                try:
                    found[i] = self._with_answers(i, costs[i], races[i], shares[i] * s_per_mac)
                except Exception as error:  # noqa: BLE001 - of another's metric
                    found[i] = error
            for i, reason in failed.items():
                again = self.evaluate_many([candidates[i]], attempt=attempt) if len(chosen) > 1 else ()
                (found[i],) = again or (_explained(reason, batch_size),)
        return [found[i] for i in range(len(candidates))]

    def _costs(self, architecture: Architecture) -> Measurement:
        """All but the accuracy."""
        started, backbone = time.perf_counter(), self.setup.space.backbone
        self.supernet.check(architecture)
        latency = {}
        own: dict[str, float] = {}
        if self.clocks or len(self._of_answers) < len(self.setup.metrics):
            subnet = self.supernet.extract(architecture).to(self.setup.device)
            own = of_network(self.setup.metrics, subnet)
            latency = {name: Timed(ms=clock(subnet)) for name, clock in self.clocks.items()}
        return Measurement(
            macs=float(cost.macs(architecture, backbone)),
            params=float(cost.params(architecture, backbone)),
            own=own,
            latency=latency,
            conditions=self.conditions,
            seconds=time.perf_counter() - started,
        )

    def _classify(
        self, chosen: Mapping[int, Architecture], races: Mapping[int, Race], batch_size: int
    ) -> dict[int, Exception]:
        """Run the races of some architectures, those over the same order of images together; returns what failed."""
        if batch_size < self.setup.config.batch_size:
            self._parts.trim(0)  # memory has run out before
        try:
            tree = SubnetTree(self._parts, chosen)
        except Exception as error:  # noqa: BLE001 - that of one, but of which?
            return dict.fromkeys(chosen, error)
        failed: dict[int, Exception] = {}
        alike: dict[Hashable, set[int]] = {}
        for i in chosen:
            alike.setdefault((races[i].order.tobytes(), *races[i].stops), set()).add(i)
        for left in alike.values():
            first = races[min(left)]
            for start, stop in pairwise((0, *first.stops)):
                images = self.images.chosen(first.order[start:stop]) if first.is_raced else self.images
                answers, errors = count_together(
                    tree,
                    left,
                    images,
                    batch_size=batch_size,
                    device=torch.device(self.setup.device),
                    precision=self.setup.precision,
                    hear=self._keep if self._of_answers else lambda *_: None,
                )
                failed |= errors
                for i, correct in answers.items():
                    races[i].tell(correct)
                left = {i for i in answers if races[i].verdict is None}
                if not left:
                    break
        return failed

    def _keep(self, number: int, start: int, features: Tensor, logits: Tensor) -> None:
        if start == 0:
            self._answers[number] = []
        self._answers[number].append((features.float().cpu(), logits.float().cpu()))

    @cached_property
    def _whole(self) -> Tensor:
        """Features [N, D] of the plain ViT that the supernet holds."""
        model = self.supernet.dense().to(self.setup.device)
        return features_of(
            model,
            self.images,
            batch_size=self.setup.config.batch_size,
            device=torch.device(self.setup.device),
            precision=self.setup.precision,
        )

    def _with_answers(self, number: int, costs: Measurement, race: Race, seconds: float) -> Measurement:
        if self._of_answers:
            features, logits = map(torch.cat, zip(*self._answers.pop(number), strict=True))
            own = of_logits(self._of_answers, logits, torch.tensor(self.images.labels))
            if any(metric.of_features for metric in self._of_answers):
                own |= of_features(self._of_answers, features, self._whole)
            costs = replace(costs, own={**costs.own, **own})
        labels = self.images.labels if self.setup.with_balanced else None
        found = with_answers(costs, race.correct, race.verdict, labels)
        return replace(found, seconds=costs.seconds + seconds)


def _explained(error: Exception, batch_size: int) -> Exception:
    """An error, or what says that memory ran out."""
    if not isinstance(error, RuntimeError | MemoryError) or not is_out_of_memory(error):
        return error
    found = OutOfMemoryError(f"out of memory with {batch_size} images at once: {error}")
    found.__cause__ = error
    return found


def build_evaluator(setup: EvaluatorSetup, arrays: Mapping[str, NDArray[Any]]) -> SubnetEvaluator:
    """An evaluator over arrays that may be shared with other processes; they are read, never written."""
    supernet = Supernet(setup.space)
    images = ImageSet(arrays["images"], arrays["labels"], setup.info)
    prefix = "weights/"
    weights = {n.removeprefix(prefix): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(prefix)}
    supernet.load_state_dict(weights, assign=True)
    return SubnetEvaluator(setup, supernet.requires_grad_(False).eval(), images)


def evaluator_arrays(supernet: Supernet, images: ImageSet) -> dict[str, NDArray[Any]]:
    """The arrays that `build_evaluator` takes: weights and search images, and no test image."""
    weights = {f"weights/{name}": value.cpu().numpy() for name, value in supernet.state_dict().items()}
    return {**weights, "images": images.images, "labels": images.labels}
