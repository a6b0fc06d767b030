"""The latency of a front: its targets are there, bounds on it hold in slow moments."""

import contextlib
import json

import pytest
from small_runs import begin
from small_spaces import tiny_space

from nas.base.errors import ConfigError, NoResultError
from nas.base.progress import Reporter
from nas.jobs import stages
from nas.jobs.session import Budget
from nas.latency.front import check_own_targets, tighten_latency_bounds
from nas.settings.config import EvaluateConfig
from nas.training.trained import load_trained


def test_a_bound_on_latency_is_kept_in_the_slow_moments_of_the_machine_too(tmp_path):
    told = Reporter(quiet=True)
    said = []
    told.line = lambda label, text: said.append((label, text))
    targets = {
        "latency_ms": {"target": "torch-cpu", "reference_ms": 10.0, "reference_slow_ms": 12.5},
        "latency_ms_2": {"target": "torch-cpu-packed", "reference_ms": 4.0, "reference_slow_ms": 4.0},
    }
    bounds = {"latency_ms": 5.0, "latency_ms_2": 3.0}
    assert tighten_latency_bounds(bounds, targets, told) == {"latency_ms": 4.0, "latency_ms_2": 3.0}
    assert [label for label, _ in said] == ["bound", "bound"]
    assert "5 ms on torch-cpu is kept as 4 ms: this machine was 25 % slower" in said[0][1]
    assert tighten_latency_bounds({}, targets, told) == {}
    assert len(said) == 2


def test_a_front_under_a_bound_holds_what_keeps_it_in_slow_moments(tmp_path):
    session = begin(tmp_path, space_settings=["constraints.max_latency_ms=1000"])
    front = stages.run(session, Budget(trials=4))
    (row,) = json.loads((session.run.path / "front.json").read_text())["latency"]
    row["reference_slow_ms"] = 1.25 * row["reference_ms"]
    highest = sorted(point.measurement.intervals["latency_ms"][1] for point in front.points)
    supernet = load_trained(session.run, session.space, session.device)
    session.run.update_manifest(constraints={"latency_ms": 1.249 * highest[0]})
    with patched_measurements(front, row), pytest.raises(NoResultError, match="when measured again"):
        stages.measure_points(session, supernet, front, [])
    session.run.update_manifest(constraints={"latency_ms": 1.251 * highest[0]})
    with patched_measurements(front, row):
        assert len(stages.measure_points(session, supernet, front, []).points) == 1


@contextlib.contextmanager
def patched_measurements(front, row):
    """What a second measuring would find, exactly as the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "measure_front", lambda *_, **__: (list(front.points), {"latency_ms": row}))
        yield


def test_a_bound_on_a_target_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"max_latency_ms_2, but evaluate\.targets names 0"):
        begin(tmp_path, space_settings=["constraints.max_latency_ms_2=3"])


class Device:
    """Times as it is told; keeps what it saw."""

    name = "device"

    def __init__(self, seconds):
        self.seconds, self.seen = seconds, []

    def timer(self, model, images):
        def forward(times):
            self.seen.append((model.architecture, tuple(images.shape), times))
            return self.seconds()

        return forward


def test_a_device_of_a_program_is_tried_once_on_the_smallest_network():
    space, device = tiny_space().with_num_classes(10), Device(lambda: 1e-3)
    config = EvaluateConfig(targets=("torch-cpu", "python/device:batch=5"))
    check_own_targets({"python/device": device}, config, space)
    side = space.backbone.image_size
    assert device.seen == [(space.smallest(), (5, space.backbone.in_chans, side, side), 1)]


class Deaf(Device):
    def timer(self, _model):
        return None


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (Device(lambda: 0.0), "0.0 are no seconds"),
        (Device(lambda: None), "None are no seconds"),
        (Device(lambda: 1 / 0), "ZeroDivisionError"),
        (Deaf(None), "cannot take it: TypeError"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(device, words):
    space = tiny_space().with_num_classes(10)
    with pytest.raises(ConfigError, match=f"target python/device, tried on the smallest network.*{words}"):
        check_own_targets({"python/device": device}, EvaluateConfig(targets=("python/device",)), space)
