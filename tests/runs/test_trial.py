"""What was measured: as JSON values, and whether it keeps bounds."""

import json
import math
from dataclasses import replace

import factories
from hypothesis import given, settings
from latency_values import bounds, latencies, of

from nas.runs.trial import Measurement, Timed, Trial


@settings(deadline=None, derandomize=True)
@given(latencies(), bounds)
def test_a_bound_is_kept_by_what_was_measured_and_cannot_be_above_it(latency, bounds):
    kept = all(
        name in latency and latency[name].ms <= bound and (latency[name].interval or (0, 0))[1] <= bound
        for name, bound in bounds.items()
    )
    assert of(latency).keeps(bounds) == kept
    looser = {name: bound + 1 for name, bound in bounds.items()}
    assert not kept or of(latency).keeps(looser)
    assert of(latency).keeps({})


def test_what_is_no_number_keeps_no_bound():
    assert not of({"latency_ms": Timed(ms=math.nan, interval=(0.0, 1.0))}).keeps({"latency_ms": 9.0})
    assert not of({}).keeps({"latency_ms": math.inf})


@settings(deadline=None, derandomize=True)
@given(latencies())
def test_a_trial_comes_back_from_its_line(latency):
    measurement = replace(of(latency), top1_interval=(80.0, 95.0), correct=b"\x05", beaten_by=3)
    trial = factories.trial(4, measurement=measurement)
    line = json.dumps(trial.to_dict(), sort_keys=True)
    assert Trial.from_dict(json.loads(line)) == trial
    values = trial.to_dict()["measurement"]
    assert set(values["values"]) == {"top1", "macs", "params", *latency}
    assert set(values["intervals"]) == {"top1", *(n for n, timed in latency.items() if timed.interval)}


def test_only_what_was_measured_is_written():
    nothing = Measurement(conditions=factories.conditions(), seconds=0.5)
    assert (nothing.values, nothing.intervals) == ({}, {})
    assert Measurement.from_dict(nothing.to_dict()) == nothing
