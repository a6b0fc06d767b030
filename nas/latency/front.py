"""The latency of a front: measured again while nothing else of ours runs; and the profile that a search goes by."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.base import ConfigError, Reporter
from nas.latency.device import device_name
from nas.latency.meter import LatencyMeter, Readings, measure_alone
from nas.latency.profile import LatencyProfile, mismatches, read_profile
from nas.latency.runtimes import check_available
from nas.model import Subnet
from nas.runs import Conditions, FrontPoint
from nas.settings import LATENCIES, LATENCY, Metric, RunConfig, parse_target, profile_path
from nas.space import SearchSpace

SHARE_ROUNDS = 9


def measure_front(
    meters: Mapping[Metric, LatencyMeter],
    found: Sequence[FrontPoint],
    subnets: Sequence[Subnet],
    reporter: Reporter,
    *,
    searched: Collection[Metric],
    rounds: int,
    conditions: Conditions,
) -> tuple[list[FrontPoint], list[dict[str, Any]]]:
    """Time the candidates on every target of the configuration.

    Args:
        meters: One a target, that of `latency_ms` first.
        found: The candidates.
        subnets: Their networks.
        reporter: Tells people.
        searched: The latencies that the search was after, objectives or bounded.
        rounds: Of timings.
        conditions: Whose target says where all of it was measured.

    Returns:
        The candidates with the latencies that the search was after, and those on further targets in their
        details; and what holds for all of them, a row a target (`Readings.to_dict`).
    """
    readings = [_alone(meter, subnets, rounds, reporter) for meter in meters.values()]
    digests = [point.digest for point in found]
    tables = [reading.points(digests) for reading in readings]
    points = []
    for i, (point, subnet) in enumerate(zip(found, subnets, strict=True)):
        before, row = point.measurement, tables[0][i]
        rows = {
            metric.name: table[i]
            for metric, table in zip(meters, tables, strict=True)
            if metric is LATENCY or metric in searched
        }
        measurement = replace(
            before,
            values={**before.values, **{name: found["latency_ms"] for name, found in rows.items()}},
            intervals={
                **before.intervals,
                **{name: tuple(found["latency_ci_ms"]) for name, found in rows.items()},
            },
            conditions=replace(before.conditions, latency_stage="exclusive", target=conditions.target),
            correct=b"",  # stays with the trial
        )
        details = {
            **point.details,
            "layer_latency_share": meters[LATENCY].layer_shares(subnet, SHARE_ROUNDS),
            "latency": {key: row[key] for key in ("rounds", "noisy", "ties")},
        }
        further = {
            str(reading.target): {
                key: table[i][key] for key in ("latency_ms", "latency_ci_ms", "noisy", "ties")
            }
            for reading, table in zip(readings[1:], tables[1:], strict=True)
        }
        if further:
            details["latency_targets"] = further
        points.append(FrontPoint(point.architecture, measurement, details))
    return points, [reading.to_dict() for reading in readings]


def kept_when_slow(
    constraints: Mapping[str, float | None], latency: Sequence[Mapping[str, Any]], reporter: Reporter
) -> dict[str, float | None]:
    """The constraints, those on latency so much lower that they hold in the machine's slow moments as well.

    Args:
        constraints: Metric name -> highest allowed value.
        latency: Of `measure_front`, a row a target.
        reporter: Told what becomes of a bound.
    """
    kept = dict(constraints)
    for metric, row in zip(LATENCIES, latency, strict=False):
        bound, slowness = kept.get(metric.name), row["reference_slow_ms"] / row["reference_ms"]
        if bound is not None:
            kept[metric.name] = bound / slowness
            reporter.line(
                "bound",
                f"{bound:g} ms on {row['target']} is kept as {bound / slowness:.4g} ms: this machine was "
                f"{100 * (slowness - 1):.0f} % slower in its slow moments",
            )
    return kept


def _alone(meter: LatencyMeter, subnets: Sequence[Subnet], rounds: int, reporter: Reporter) -> Readings:
    with reporter.bar("latency") as bar:

        def show(done: int, of: int) -> None:
            bar(
                done,
                of,
                f"{len(subnets)} architectures on {meter.target}, round {done}/{of}, nothing else runs",
            )

        readings = measure_alone(meter, subnets, rounds, show)
    reporter.line("latency", f"{meter.target}, batch of {readings.batch}: {readings.summary()}")
    return readings


def check_targets_here(config: RunConfig, space: SearchSpace, reporter: Reporter) -> None:
    """Find out what would stop the measuring of latency, before hours are spent on the training.

    A profile of another device is used all the same, with a warning.

    Raises:
        ConfigError: A target is not there, or a profile cannot be used.
    """
    profiles = latency_profiles(config, space).values()
    texts = [text for text in config.evaluate.targets if profile_path(text) is None]
    for target in [*map(parse_target, texts), *(profile.target for profile in profiles)]:
        check_available(target)
    without = {metric.name for metric in LATENCIES[max(1, len(config.evaluate.targets)) :]}
    if bounded := [f"max_{name}" for name in space.constraints.latency_bounds() if name in without]:
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


def latency_profiles(config: RunConfig, space: SearchSpace) -> dict[str, LatencyProfile]:
    """The profiles that answer during the search, by the name of the metric.

    Raises:
        ConfigError: One cannot be used, or not for this space.
    """
    found = {}
    for metric, text in zip(LATENCIES, config.evaluate.targets, strict=False):
        path = profile_path(text)
        if path is None:
            continue
        found[metric.name] = profile = read_profile(path)
        if problems := mismatches(profile, space.backbone):
            raise ConfigError(
                f"{path} is of another backbone: {'; '.join(problems)}",
                hint="python search.py latency profile SPACE.yaml makes one for this space",
            )
    return found


def searched_latencies(config: RunConfig, space: SearchSpace) -> tuple[Metric, ...]:
    """The latencies that a search needs: objectives, and what the space bounds."""
    names = {*config.search.objectives, *space.constraints.latency_bounds()}
    return tuple(metric for metric in LATENCIES if metric.name in names)
