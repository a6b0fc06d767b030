"""What was measured: as JSON values, and whether it keeps bounds."""

import json
import math
from dataclasses import replace

import factories
from hypothesis import given
from hypothesis import strategies as st

from nas.runs.curve import hypervolume_curve
from nas.runs.front import ParetoFront
from nas.runs.trial import Measurement, Timed, Trial
from nas.search.standing import VisibleFront

NAMES = ("latency_ms", "latency_ms_2", "latency_ms_3", "latency_ms_4")
milliseconds = st.one_of(st.floats(0.5, 9.5), st.integers(1, 9).map(float))


@st.composite
def latencies(draw):
    """On some of the targets, with an interval or without."""
    found = {}
    for name in NAMES:
        if draw(st.booleans()):
            ms = draw(milliseconds)
            interval = (0.9 * ms, ms + draw(st.sampled_from([0.0, 0.5, 1.0])))
            found[name] = Timed(ms=ms, interval=draw(st.sampled_from([None, interval])))
    return found


bounds = st.dictionaries(st.sampled_from(NAMES), milliseconds, max_size=3)


def of(latency):
    return replace(factories.measurement(), latency=latency)


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


@given(st.lists(latencies(), min_size=1, max_size=6), bounds)
def test_the_search_its_curve_and_the_front_agree_on_what_keeps_the_bounds(found, bounds):
    architectures = factories.distinct_architectures(len(found))
    trials = [
        factories.trial(i, architecture, measurement=of(latency))
        for i, (architecture, latency) in enumerate(zip(architectures, found, strict=True))
    ]
    plane = factories.OBJECTIVES[:2]
    kept = {t.architecture.digest for t in trials if t.measurement.keeps(bounds)}  # all are equally good
    assert {p.digest for p in ParetoFront.from_trials(trials, plane, bounds).points} == kept
    visible = VisibleFront(plane, bounds)
    visible.advance(dict(enumerate(trials)), len(trials) - 1)
    assert {architecture.digest for architecture in visible.architectures} == kept
    assert (hypervolume_curve(trials, plane, bounds)[-1][1] > 0) == bool(kept)


def test_what_is_no_number_keeps_no_bound():
    assert not of({"latency_ms": Timed(ms=math.nan, interval=(0.0, 1.0))}).keeps({"latency_ms": 9.0})
    assert not of({}).keeps({"latency_ms": math.inf})


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
