"""The latency of a front: measured again while nothing else of ours runs; and the profile that a search goes by."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nas.base import (
    LATENCIES,
    LATENCY,
    ConfigError,
    NasError,
    Reporter,
    atomic_write_bytes,
    by_target,
    command_line,
    plural,
    read_bytes,
    writing,
)
from nas.latency.device import default_batch, device_name
from nas.latency.meter import LatencyMeter, Readings, measure_alone
from nas.latency.profile import LatencyProfile, mismatches, read_profile
from nas.latency.runtimes import check_available, excess_threads, own_timer, random_subnet
from nas.model import Subnet
from nas.runs import Conditions, FrontPoint, RunDirectory, Timed
from nas.settings import PROFILE, EvaluateConfig, OwnTarget, RunConfig, is_own, parse_target, profile_path
from nas.space import SearchSpace

SHARE_ROUNDS = 9


def measure_front(
    meters: Mapping[str, LatencyMeter],
    candidates: Sequence[FrontPoint],
    subnets: Sequence[Subnet],
    reporter: Reporter,
    *,
    searched: Collection[str],
    rounds: int,
    conditions: Conditions,
) -> tuple[list[FrontPoint], dict[str, dict[str, Any]]]:
    """Time the candidates on every target of the configuration.

    There is a meter for each, by the name of the latency, of which the search was after those in `searched`, objectives
    or bounded. The target of the conditions says where all of it was measured.

    Returns:
        The candidates with their latencies; and what holds for all of them (`ParetoFront.targets`).
    """
    digests = [point.digest for point in candidates]
    latencies: list[dict[str, Timed]] = [{} for _ in candidates]
    targets = {}
    for name, meter in meters.items():
        found = measure_networks(meter, subnets, rounds, reporter, note=", nothing else of ours runs")
        reporter.line("latency", f"{meter.target}, batch of {found.batch}: {found.summary()}")
        targets[name] = found.to_dict()
        for latency, timed in zip(latencies, found.timed(digests), strict=True):
            latency[name] = replace(timed, is_searched=name == LATENCY.name or name in searched)
    points = []
    for point, subnet, latency in zip(candidates, subnets, latencies, strict=True):
        measurement = replace(
            point.measurement,
            latency=latency,
            conditions=replace(point.measurement.conditions, latency_stage="exclusive", target=conditions.target),
            correct=b"",  # stays with the trial
        )
        shares = meters[LATENCY.name].layer_shares(subnet, SHARE_ROUNDS)
        points.append(FrontPoint(point.architecture, measurement, {**point.details, "layer_latency_share": shares}))
    return points, targets


def tighten_latency_bounds(
    bounds: Mapping[str, float], targets: Mapping[str, Mapping[str, Any]], reporter: Reporter
) -> dict[str, float]:
    """Bounds on latency, so much lower that what keeps them does so in the machine's slow moments as well.

    They are milliseconds per batch by the name of the latency; `targets` is what `measure_front` returns.
    """
    tight = {}
    for name, bound in bounds.items():
        slowness = targets[name]["reference_slow_ms"] / targets[name]["reference_ms"]
        tight[name] = bound / slowness
        reporter.line(
            "bound",
            f"{bound:g} ms on {targets[name]['target']} is kept as {tight[name]:.4g} ms: this machine was "
            f"{100 * (slowness - 1):.0f} % slower in its slow moments",
        )
    return tight


def measure_networks(
    meter: LatencyMeter, networks: Sequence[nn.Module], rounds: int, reporter: Reporter, *, note: str = ""
) -> Readings:
    """`measure_alone` with a bar that shows how far it is, and a note behind that."""
    with reporter.bar("latency") as bar:
        words = f"{plural(len(networks), 'architecture')} on {meter.target}{note}"
        return measure_alone(meter, networks, rounds, lambda done, of: bar(done, of, f"round {done}/{of}  {words}"))


def check_targets_here(config: RunConfig, space: SearchSpace, reporter: Reporter) -> None:
    """Find out what would stop measuring latency; a ConfigError says it. A profile of another device is a warning."""
    profiles = latency_profiles(config, space).values()
    texts = [text for text in config.evaluate.targets if profile_path(text) is None]
    own = [text for text in texts if is_own(text)]  # is missed where something is measured
    for target in [
        *(parse_target(text) for text in texts if text not in own),
        *(profile.target for profile in profiles),
    ]:
        check_available(target)
        if problem := excess_threads(target):
            reporter.line("warning", problem)
    known = list(LATENCIES)[: max(1, len(config.evaluate.targets))]
    if bounded := [f"max_{name}" for name in space.constraints.max_latency if name not in known]:
        raise ConfigError(
            f"constraints: {', '.join(bounded)}, but evaluate.targets names {len(config.evaluate.targets)}",
            hint="one --target for each, in their order",
        )
    for profile in profiles:
        here = device_name("cuda" if profile.target.is_cuda else "cpu")
        if profile.device != here:
            reporter.line(
                "warning",
                f"the latency profile was measured on {profile.device}, this is {here}: the search goes by that "
                "device, the front is measured on this one",
            )


def check_own_targets(devices: Mapping[str, OwnTarget], config: EvaluateConfig, space: SearchSpace) -> None:
    """Have each device of a Python program time one pass of the smallest network, untrained, before hours of training.

    They are by the names that the configuration has for them; the space has the classes of the images.

    Raises:
        ConfigError: One cannot take it, raises, or says no time.
    """
    backbone = space.backbone
    for text in (text for text in config.targets if is_own(text)):
        target = parse_target(text)
        target = replace(target, own=devices.get(target.runtime))
        batch = target.batch or config.latency_batch_size or default_batch(backbone.image_size)
        images = torch.zeros(batch, backbone.in_chans, backbone.image_size, backbone.image_size)
        try:
            own_timer(target, random_subnet(backbone, space.smallest()), images)(1)
        except Exception as error:
            reason = error.message if isinstance(error, NasError) else f"{type(error).__name__}: {error}"
            raise ConfigError(
                f"target {target}, tried on the smallest network of the space: {reason}",
                hint="timer(model, images) returns a function of how many passes, which returns the seconds of one",
            ) from error


def latency_profiles(config: RunConfig, space: SearchSpace) -> dict[str, LatencyProfile]:
    """The profiles that answer during the search, by the metric's name; a ConfigError: one cannot for this space."""
    paths = {name: profile_path(text) for name, text in by_target(config.evaluate.targets).items()}
    found = {name: read_profile(path) for name, path in paths.items() if path is not None}
    for name, profile in found.items():
        if problems := mismatches(profile, space.backbone):
            raise ConfigError(
                f"{paths[name]} is of another backbone: {'; '.join(problems)}",
                hint=f"{command_line('latency', 'profile', 'SPACE')} makes one for this space",
            )
    return found


def keep_profiles(run: RunDirectory, config: RunConfig) -> None:
    """Copy the latency profiles of a located configuration into its run, which then goes on whatever becomes of them.

    Raises:
        DiskError: They cannot be written.
    """
    for name, text in by_target(config.evaluate.targets).items():
        if (path := profile_path(text)) is not None:
            kept = run.profile_path(name)
            with writing(kept):
                kept.parent.mkdir(exist_ok=True)
            atomic_write_bytes(kept, read_bytes(path))


def with_kept_profiles(run: RunDirectory, config: RunConfig, *, only_missing: bool = False) -> RunConfig:
    """A located configuration with the copies that its run keeps, for all profiles or for those that are not there."""

    def kept(name: str, text: str) -> str:
        path, own = profile_path(text), run.profile_path(name)
        return f"{PROFILE}{own}" if path and own.is_file() and not (only_missing and path.is_file()) else text

    targets = tuple(kept(name, text) for name, text in by_target(config.evaluate.targets).items())
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"targets": targets})})


def searched_latencies(config: RunConfig, space: SearchSpace) -> tuple[str, ...]:
    """Names of the latencies that a search needs: objectives, and what the space bounds."""
    return tuple(n for n in LATENCIES if n in config.search.objectives or n in space.constraints.max_latency)
