"""A latency profile of the tiny space."""

from dataclasses import replace

from small_spaces import tiny_space

from nas.arch import cost
from nas.latency.device import device_name
from nas.latency.profile import OURS, LatencyProfile, Score, design
from nas.settings.target import parse_target


def packed_profile(**changes):
    """Made of arithmetic, and good enough to be used."""
    backbone = tiny_space().backbone
    made = LatencyProfile(
        target=parse_target("torch-cpu-packed:batch=16"),
        batch=16,
        device=device_name("cpu"),
        cores=2,
        versions={},
        backbone=backbone,
        measured={a: 5.0 + 1e-5 * cost.macs(a, backbone) for a in design(tiny_space(), 16, 0)},
        scores={OURS: Score(1.0, 0.99), "MACs": Score(2.0, 0.9)},
    )
    return replace(made, **changes)
