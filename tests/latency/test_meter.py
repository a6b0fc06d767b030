import itertools
import math
import time

import pytest
import torch
from small_runs import one_thread, tiny_space
from torch import nn

from nas.latency import meter as meter_file
from nas.latency.meter import EAGER, Clock, LatencyMeter, Readings, Timing
from nas.model.supernet import Supernet
from nas.settings.target import parse_target

WIDTH = 768


def work(times):
    """As many equal matrix products as asked for."""
    return nn.Sequential(nn.Flatten(), *(nn.Linear(WIDTH, WIDTH) for _ in range(times)))


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def meter():
    return LatencyMeter(work(2), (3, 16, 16), 64)


def test_four_times_the_work_takes_longer(meter):
    assert meter.ratio(work(8), pairs=4) > 1.5


def test_the_reference_takes_as_long_as_itself(meter):
    assert 0.5 < meter.ratio(meter.reference, pairs=8) < 2.0


def test_calibration_is_a_positive_time(meter):
    assert 0 < meter.calibrate(3) < 10_000


@pytest.mark.parametrize("rounds", [3, 6, 9])
def test_models_measured_in_turn_keep_their_order_and_their_intervals_hold_the_median(meter, rounds):
    seen = []
    (slow, fast), _ = meter.interleaved([work(8), work(1)], rounds, seen.append)
    assert seen == list(range(1, rounds + 1))
    assert fast.median_ms < slow.median_ms
    for timing in (slow, fast):
        low, high = timing.interval_ms
        assert 0 < low <= timing.median_ms <= high
        assert math.isfinite(high)


def test_the_reference_among_the_models_takes_what_the_clock_says(meter):
    (one,), clock = meter.interleaved([meter.reference], 6)
    assert 0.5 < one.median_ms / clock.median_ms < 2
    assert clock.slow_ms >= clock.median_ms


def test_the_clock_is_of_all_timings_of_the_reference(meter):
    before_and_after = iter([0.02, 0.04] * 3)
    meter._reference = lambda: next(before_and_after)
    (one,), clock = meter.interleaved([work(1)], 3)
    assert next(before_and_after, None) is None
    assert clock.median_ms == pytest.approx(30)
    assert clock.slow_ms == pytest.approx(40)
    assert one.rounds == 3


def test_a_clock_knows_how_slow_the_machine_was_for_a_while():
    steady = Clock.of([0.01] * 200)
    assert steady.median_ms == steady.slow_ms == pytest.approx(10)
    one_slow_timing = Clock.of([0.01] * 199 + [0.5])
    assert one_slow_timing.slow_ms == pytest.approx(10)
    scattered = Clock.of([0.02 if i % 10 == 0 else 0.01 for i in range(200)])
    assert scattered.slow_ms == pytest.approx(10)
    slow_for_a_fifth = Clock.of([0.01] * 160 + [0.015] * 40)
    assert slow_for_a_fifth.median_ms == pytest.approx(10)
    assert slow_for_a_fifth.slow_ms == pytest.approx(15)
    assert Clock.of([0.01, 0.02]).slow_ms == pytest.approx(19.5)


def test_a_calibration_lasts_as_long_as_it_is_told():
    diary = []
    meter = LatencyMeter(Diary("reference", diary), (3, 4, 4), 1)
    started = time.perf_counter()
    meter.calibrate(2, at_least_s=0.2)
    assert time.perf_counter() - started >= 0.2
    assert diary.count("reference") > 10


def test_images_are_the_same_in_every_process_and_of_the_batch_asked_for(meter):
    again = LatencyMeter(meter.reference, (3, 16, 16), 64)
    assert meter.images.shape == (64, 3, 16, 16)
    assert torch.equal(again.images, meter.images)


@pytest.mark.parametrize("class_token", [True, False])
def test_shares_of_the_layers_sum_to_one(class_token):
    from dataclasses import replace

    space = tiny_space()
    space = replace(space, backbone=replace(space.backbone, class_token=class_token))
    subnet = Supernet(space).extract(space.largest())
    shares = LatencyMeter(subnet, (3, 8, 8), 4).layer_shares(subnet, 3)
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0


class Diary(nn.Module):
    """Writes its name down whenever it runs, and takes long enough to be timed once."""

    def __init__(self, name, diary):
        super().__init__()
        self.name, self.diary = name, diary

    def forward(self, images):
        self.diary.append(self.name)
        end = time.perf_counter() + 0.006
        while time.perf_counter() < end:
            pass
        return images


@pytest.mark.parametrize("how", ["ratio", "interleaved"])
def test_every_timing_follows_a_pass_of_the_same_model(how):
    diary = []
    meter = LatencyMeter(Diary("reference", diary), (3, 4, 4), 1)
    if how == "ratio":
        meter.ratio(Diary("small", diary), pairs=3)
    else:
        meter.interleaved([Diary("small", diary), Diary("other", diary)], 3)
    blocks = [(name, len(list(calls))) for name, calls in itertools.groupby(diary)]
    assert {name for name, _ in blocks} >= {"reference", "small"}
    assert all(length >= 2 for _, length in blocks), blocks


def test_a_model_that_was_timed_last_is_timed_again_at_once():
    diary = []
    LatencyMeter(Diary("reference", diary), (3, 4, 4), 1).ratio(Diary("small", diary), pairs=3)
    blocks = [(name, len(list(calls))) for name, calls in itertools.groupby(diary)]
    assert blocks[2:] == [("reference", 2), ("small", 3), ("reference", 3), ("small", 2)]


@pytest.mark.parametrize(("every_s", "shared"), [(0.0, 1), (math.inf, 3)])
def test_small_models_share_the_timings_of_the_reference_between_which_they_are(every_s, shared, monkeypatch):
    monkeypatch.setattr(meter_file, "REFERENCE_EVERY_S", every_s)
    meter, timed = LatencyMeter(work(1), (3, 16, 16), 1), []
    times = {"reference": itertools.cycle([0.001, 0.004]), "model": itertools.repeat(0.002)}

    def timer(name):
        return lambda: timed.append(name) or next(times[name])

    meter._reference, meter._runner = timer("reference"), lambda _: timer("model")
    found, _ = meter.interleaved([work(1)] * 3, 2)
    one_round = ["reference", *(["model"] * shared + ["reference"]) * (3 // shared)]
    assert timed == one_round * 2
    if shared == 3:  # over the geometric mean of 1 and 4 ms, times the median of 1, 4, 1 and 4 ms
        assert [one.median_ms for one in found] == pytest.approx([2.5] * 3)


def test_what_is_known_is_said_of_latencies():
    def said(*halves):
        timings = tuple(
            Timing(ms, (ms * (1 - half), ms * (1 + half)), (ms, ms), 15) for ms, half in enumerate(halves, 1)
        )
        about = {
            "target": parse_target("torch-cpu"),
            "batch": 64,
            "clock": Clock(5.0, 5.0),
            "cores": (),
            "machine": {"before": {"load_average": [0.1, 0.1], "cpu_mhz": None, "cores": 2}},
        }
        return Readings(timings=timings, **about).summary().partition(",")[0]

    assert said(0.01, 0.03, 0.03) == "1 of 3 latencies known within 2 %"
    assert said(0.01) == "1 of 1 latency known within 2 %"


@pytest.mark.parametrize(("load", "told"), [(6.72, "; load average 6.7 on 2 cores"), (2.0, ""), (0.4, "")])
def test_a_load_above_the_number_of_cores_is_told(load, told):
    timing = Timing(1.0, (0.99, 1.01), (1.0, 1.0), 9)
    machine = {"before": {"load_average": [load, 1.0], "cpu_mhz": None, "cores": 2}}
    clock = Clock(1.0, 1.0)
    found = Readings(target=EAGER, batch=1, clock=clock, timings=(timing,), cores=(), machine=machine)
    assert found.summary() == f"1 of 1 latency known within 2 %{told}"
