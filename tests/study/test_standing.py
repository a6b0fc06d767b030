"""How far a search is, and the front that a proposal may see."""

import factories
import numpy as np
import pytest
from factories import OBJECTIVES, trial, trials_of
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_values import bounds, latencies, of

from nas.runs.curve import hypervolume_curve
from nas.runs.front import ParetoFront
from nas.study.standing import Clock, VisibleFront


def test_a_search_without_minutes_is_never_over_and_knows_nothing_before_its_first_trial():
    clock = Clock(trials=10, minutes=None)
    assert not clock.is_over
    assert clock.left(0) is None


def test_what_is_left_goes_by_the_trials_of_this_process():
    clock = Clock(trials=10, minutes=None)
    clock._started -= 6.0
    clock.paid_before = 2
    assert clock.left(2) is None
    clock._started -= 100.0  # until the workers have begun
    assert clock.left(3) is None
    clock._started -= 6.0
    assert clock.left(7) is None
    assert clock.left(8) == pytest.approx(2 * 6 / 5, rel=0.05)
    assert clock.left(10) == 0
    assert clock.left(12) == 0


def test_the_first_limit_counts():
    clock = Clock(trials=1000, minutes=1)
    clock._started -= 30.0
    assert clock.left(1) == pytest.approx(30, abs=1)
    clock._started -= 31.0
    assert clock.is_over
    assert clock.left(1) == 0


@pytest.mark.parametrize("seed", range(5))
def test_what_is_visible_is_the_front_of_the_trials_up_to_a_number_however_it_was_reached(seed):
    rng = np.random.default_rng(seed)
    trials = dict(enumerate(trials_of(rng.uniform((10, 1, 1), (90, 9, 9), (30, 3)).tolist(), seed)))
    for last in (4, 17, 29):
        steps = sorted({last, *rng.integers(0, last + 1, 3).tolist()})
        visible = VisibleFront(OBJECTIVES, {})
        for step in steps:
            visible.advance(trials, step)
        known = [found for number, found in trials.items() if number <= last]
        front = ParetoFront.from_trials(known, OBJECTIVES)
        assert {a.digest for a in visible.architectures} == {p.digest for p in front.points}


def test_what_breaks_a_bound_is_not_visible_and_nothing_is_raced_before_enough_is_known():
    trials = {number: trial(number) for number in range(3)}
    visible = VisibleFront(OBJECTIVES, {"latency_ms": -1.0})
    visible.advance(trials, 2)
    assert visible.architectures == []
    assert visible.race_plan() is None


@settings(deadline=None, derandomize=True)
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
