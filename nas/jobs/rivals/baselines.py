"""The baselines of `retrain`: which networks are trained beside the picked one, from which weights, and their time."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from nas.arch import Architecture, cost
from nas.base import LATENCY, MACS, EvaluationError, Reporter
from nas.evaluation import EvaluatorSetup
from nas.jobs.alone import StandAloneSetup, trained_guest, trained_network
from nas.latency import describe, measure_networks, torch_threads
from nas.model import Supernet
from nas.runs import FrontPoint
from nas.settings import NARROW, PLAIN, WHOLE, parse_target
from nas.space import SearchSpace, is_plain, known_designs, plain_shapes

EQUAL = "best plain ViT at no more MACs"
EAGER = "torch-cpu"
MUCH = 10  # times the MACs of the picked network; a line says so before such a model is trained
ALL_SHAPES = 1_000_000

Start = Literal["scratch", "inherited", "timm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A network that is trained alone beside others.

    Attributes:
        name: In words.
        architecture: What is trained; of a guest, in whose place.
        setup: Of its first training.
        start: Its first weights: random, of the supernet, or timm's.
        baseline: The word that asked for it (`nas.settings.RIVALS`), None for the picked network.
    """

    name: str
    architecture: Architecture
    setup: StandAloneSetup
    start: Start
    baseline: str | None = None

    @property
    def is_guest(self) -> bool:
        """Whether it is a model of timm, and no architecture of the space."""
        return bool(self.setup.guest)

    @property
    def key(self) -> tuple[str, str]:
        """What tells its trainings from those of others: name and recipe."""
        return self.setup.name(self.architecture), self.setup.recipe

    @property
    def about(self) -> dict[str, Any]:
        """What it is and costs: `digest`, `from`, `macs`, `params`, `baseline` of its row (`network_row`)."""
        named = {"digest": self.setup.name(self.architecture), "from": self.start}
        if self.baseline is not None:
            named["baseline"] = self.baseline
        if self.is_guest:
            guest = self.setup.network()
            return {**named, "macs": guest.macs(), "params": guest.params()}
        backbone = self.setup.evaluation.space.backbone
        return {
            **named,
            "macs": cost.macs(self.architecture, backbone),
            "params": cost.params(self.architecture, backbone),
        }

    def network(self, seed: int) -> nn.Module:
        """What its training with a seed left behind, in evaluation mode; a RunError: it is not there, or damaged."""
        setup = replace(self.setup, seed=seed)
        if self.is_guest:
            return trained_guest(setup, self.architecture)
        return trained_network(setup, self.architecture)

    def is_of(self, record: Mapping[str, Any]) -> bool:
        """Whether a training is its own."""
        return (record["digest"], record["recipe"]) == self.key


def rivals_of(
    picked: Rival, names: Sequence[str], scratch: StandAloneSetup, measured: Iterable[FrontPoint], reporter: Reporter
) -> list[Rival]:
    """What is trained beside an architecture, each once; a line says why there is none under a name.

    `plain` and `whole` start where it starts; `narrow` and models of timm, by the other setup, at random weights, those
    with a tag at timm's.

    Raises:
        ConfigError: A model of timm cannot be had, or cannot take the images.
    """
    space, found = picked.setup.evaluation.space, [picked]
    first: Start
    for name in names:
        if name.startswith("timm:"):
            setup = replace(scratch, guest=name)
            first = "timm" if setup.network().is_pretrained else "scratch"
            rival = Rival(name=name, architecture=space.largest(), setup=setup, start=first, baseline=name)
            if (times := rival.about["macs"] / picked.about["macs"]) >= MUCH:
                reporter.line("baseline", f"{name}: {times:.3g} times the MACs of the picked network")
        else:
            first = "scratch" if name == NARROW else picked.start
            label, architecture = _NAMED[name](space, picked.architecture, measured)
            if architecture is None:
                reporter.line("baseline", f"{name}: none; {label}")
                continue
            if name == PLAIN and label != EQUAL:
                times = cost.macs(architecture, space.backbone) / cost.macs(picked.architecture, space.backbone)
                instead = f"the {label} of the space instead, {times:.3g} times as many"
                reporter.line("baseline", f"plain: none was measured at no more MACs; {instead}")
            setup = scratch if name == NARROW else picked.setup
            rival = Rival(name=label, architecture=architecture, setup=setup, start=first, baseline=name)
        twin = next((one for one in found if one.key == rival.key), None)
        if twin is None:
            found.append(rival)
        else:
            reporter.line("baseline", f"{name}: none; it is the {twin.name} itself")
    return found


def baseline_of(space: SearchSpace, picked: Architecture, measured: Iterable[FrontPoint]) -> tuple[str, Architecture]:
    """The plain ViT that an architecture is compared with, and its name.

    The one of at most as many MACs that has the best accuracy of those in `measured`; where there is none, the
    largest plain ViT of the space, else its largest architecture.
    """
    most = cost.macs(picked, space.backbone)
    rivals = [
        point
        for point in measured
        if is_plain(point.architecture)
        and point.architecture != picked
        and point.value(MACS) <= most
        and point.architecture in space
    ]
    if rivals := [point for point in rivals if not math.isnan(point.accuracy)]:
        best = max(rivals, key=lambda point: (point.accuracy, -point.value(MACS), point.digest))
        return EQUAL, best.architecture
    (plain,) = known_designs(space, ["deit"]).values()
    return ("plain ViT", plain) if is_plain(plain) else ("largest", space.largest())


def narrow_of(
    space: SearchSpace,
    picked: Architecture,
    measured: Iterable[FrontPoint] = (),  # noqa: ARG001 - costs decide
) -> tuple[str, Architecture | None]:
    """The plain ViT of the space that is next below an architecture in MACs, and its name; or why there is none."""
    most = cost.macs(picked, space.backbone)
    shapes = [shape for shape in plain_shapes(space, ALL_SHAPES) if cost.macs(shape, space.backbone) <= most]
    shapes = [shape for shape in shapes if shape != picked]
    return ("narrow plain ViT", shapes[-1]) if shapes else ("no other plain ViT of the space has as few MACs", None)


def _whole_of(space: SearchSpace, *_: object) -> tuple[str, Architecture | None]:
    return "largest", space.largest()


_NAMED: dict[str, Callable[..., tuple[str, Architecture | None]]] = {
    PLAIN: baseline_of,
    WHOLE: _whole_of,
    NARROW: narrow_of,
}


def time_all(
    evaluation: EvaluatorSetup, supernet: Supernet, networks: Sequence[nn.Module], reporter: Reporter
) -> tuple[list[float | None], dict[str, Any]]:
    """Latencies of networks, milliseconds per batch, in turn and alone on the machine; and what holds for all of them.

    On the run's first target where that is one of torch, which takes any network, else by torch on a CPU.
    """
    target = evaluation.targets[LATENCY.name]
    if not target.runtime.startswith("torch"):
        target = parse_target(EAGER)
    meter = evaluation.meter(supernet, target)
    about = {"target": str(target), "runtime": describe(target), "batch": evaluation.batch_of(target)}
    try:
        with torch_threads(1):
            read = measure_networks(meter, [one.eval() for one in networks], evaluation.config.final_rounds, reporter)
    except EvaluationError as error:
        reporter.line("latency", f"not measured: {error}")
        return [None] * len(networks), about
    reporter.line("latency", f"{target}, batch of {read.batch}: {read.summary()}")
    return [timing.median_ms for timing in read.timings], about
