"""The front against brute force and hand-computed boxes, and the laws of conditions, JSON and picking."""

import json
import math
import random
from dataclasses import replace

import factories
import numpy as np
import pytest
from dominance_by_definition import MAX, MIN, PLANE, brute_force
from factories import OBJECTIVES, point

from nas.base.errors import ConfigError, RunError
from nas.base.metrics import LATENCY, MACS, PARAMS, TOP1, Objective
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.trial import Measurement, Timed, TrialState


def test_front_of_trials_does_not_depend_on_their_order():
    rng = np.random.default_rng(0)
    trials = factories.trials_of(rng.integers(1, 8, (40, 3)).tolist())
    front = ParetoFront.from_trials(trials, OBJECTIVES)
    kept = brute_force([[t.measurement.values[o.metric.name] for o in OBJECTIVES] for t in trials], [MAX, MIN, MIN])
    assert {p.digest for p in front.points} == {
        t.architecture.digest for t, keep in zip(trials, kept, strict=True) if keep
    }
    for seed in range(5):
        random.Random(seed).shuffle(trials)
        assert ParetoFront.from_trials(trials, OBJECTIVES) == front
    macs = [p.value(MACS) for p in front.points]
    assert macs == sorted(macs)


def test_equal_values_of_different_architectures_all_stay_but_a_repeat_counts_once():
    first, second = factories.distinct_architectures(2)
    trials = [
        factories.trial(0, first),
        factories.trial(1, second),
        factories.trial(2, first, state=TrialState.REPEATED, repeat_of=0),
    ]
    digests = [p.digest for p in ParetoFront.from_trials(trials, OBJECTIVES).points]
    assert sorted(digests) == sorted([first.digest, second.digest])


def test_only_trials_with_every_objective_finite_enter():
    a, b, c, d, e = factories.distinct_architectures(5)
    unmeasured = factories.measurement(99, 1, None)
    trials = [
        factories.trial(0, a),
        factories.trial(1, b, state=TrialState.FAILED, measurement=None, error="out of memory"),
        factories.trial(2, c, state=TrialState.PRUNED, measurement=factories.measurement(99, 1, 1)),
        factories.trial(3, d, measurement=unmeasured),
        factories.trial(4, e, measurement=factories.measurement(math.nan, 1, 1)),
    ]
    assert [p.digest for p in ParetoFront.from_trials(trials, OBJECTIVES).points] == [a.digest]


def test_a_measured_bound_excludes_violators_before_they_can_dominate():
    trials = factories.trials_of([(95, 1e6, 9.0), (90, 2e6, 7.8), (80, 3e6, 8.5)])
    plane = (Objective(TOP1, 0.0), Objective(MACS, 1e7))
    front = ParetoFront.from_trials(trials, plane, {"latency_ms": 8.0})
    assert [p.value(TOP1) for p in front.points] == [90]


def test_measurements_under_different_conditions_never_meet_on_one_front():
    a, b = factories.distinct_architectures(2)
    trials = [
        factories.trial(0, a, measurement=factories.measurement(99, 1, 1)),
        # dominated, and still refused: the comparison itself would be unsound
        factories.trial(1, b, measurement=factories.measurement(1, 9, 9, precision="bf16", torch="2.9.0")),
    ]
    with pytest.raises(RunError, match=r"precision \(fp32, bf16\); torch \(2.8.0, 2.9.0\)") as raised:
        ParetoFront.from_trials(trials, OBJECTIVES)
    assert "device" not in raised.value.message
    points = [FrontPoint(t.architecture, t.measurement) for t in trials]
    with pytest.raises(RunError, match="different conditions"):
        ParetoFront(OBJECTIVES, points)


def test_knee_is_the_point_nearest_to_the_ideal_corner_of_the_front():
    a, b, c = factories.distinct_architectures(3)
    # scaled losses (0, 1), (0.1, 0.2), (1, 0): the second lies nearest to (0, 0)
    points = [point(100, 1e6, 11, a), point(91, 1e6, 3, b), point(10, 1e6, 1, c)]
    assert ParetoFront(OBJECTIVES, points).knee().digest == b.digest


def test_equally_near_points_give_the_lower_digest_as_knee():
    architectures = factories.distinct_architectures(4)
    points = [point(90, 1e6, 5, a) for a in architectures]
    assert ParetoFront(OBJECTIVES, points).knee().digest == min(a.digest for a in architectures)


def front_of_three():
    a, b, c = factories.distinct_architectures(3)
    return ParetoFront(OBJECTIVES, [point(60, 1e6, 5, a), point(90, 3e6, 4, b), point(95, 9e6, 9, c)])


def test_pick_finds_each_named_point_and_digest_prefixes():
    front = front_of_three()
    cheap, fast, best = front.points
    assert [front.pick(name) for name in ("cheapest", "fastest", "top1")] == [cheap, fast, best]
    assert front.pick("knee") == front.knee()
    for p in front.points:
        assert front.pick(p.digest) == front.pick(p.digest[:6].upper()) == p


def test_equal_bests_are_told_apart_by_the_other_objectives():
    a, b = factories.distinct_architectures(2)
    front = ParetoFront(OBJECTIVES, [point(90, 3e6, 4, a), point(90, 1e6, 8, b)])
    assert front.pick("top1").digest == b.digest


@pytest.mark.parametrize("text", ["abc", "", "median", "000000000000"])
def test_an_unknown_pick_names_what_can_be_picked(text):
    with pytest.raises(RunError) as raised:
        front_of_three().pick(text)
    assert "fastest" in raised.value.message + raised.value.hint


def test_a_misspelt_pick_is_guessed():
    front = front_of_three()
    for text, meant in (("kne", "knee"), ("Chepest", "cheapest")):
        with pytest.raises(RunError) as raised:
            front.pick(text)
        assert f'did you mean "{meant}"?' in raised.value.hint
    with pytest.raises(RunError) as raised:
        front.pick("ffffff")
    assert "did you mean" not in raised.value.hint


def test_an_ambiguous_prefix_names_the_candidates():
    front = front_of_three()
    for i, p in enumerate(front.points):
        # the digest is cached on the architecture, so it can stand for a collision
        p.architecture.__dict__["digest"] = f"abcdef{i}00000"
    with pytest.raises(RunError, match="ambiguous: abcdef000000, abcdef100000, abcdef200000"):
        front.pick("abcdef")
    assert front.pick("abcdef1") == front.points[1]


def test_picking_from_an_empty_front_says_so():
    empty = front_of_three().within("latency_ms", maximum=1)
    assert empty.points == ()
    for pick in ("knee", "top1"):
        with pytest.raises(RunError, match="the front is empty"):
            empty.pick(pick)


def test_picking_the_fastest_where_latency_was_not_measured_says_so():
    with pytest.raises(RunError, match="latency was not measured"):
        ParetoFront(PLANE[:1], [point(90, 1e6, None, factories.plain())]).pick("fastest")


def test_within_is_inclusive_and_refuses_unknown_metrics_and_nan():
    front = front_of_three()
    assert [p.value(MACS) for p in front.within("macs", maximum=3e6).points] == [1e6, 3e6]
    assert [p.value(TOP1) for p in front.within("top1", minimum=90, maximum=94).points] == [90]
    with pytest.raises(ConfigError, match="unknown metric 'speed'"):
        front.within("speed", maximum=1)
    with pytest.raises(ConfigError, match="must be a number"):
        front.within("macs", maximum=math.nan)


def test_sorting_puts_the_best_first_and_the_unmeasured_last():
    front = front_of_three()
    assert [p.value(TOP1) for p in front.sorted_by("top1").points] == [95, 90, 60]
    assert [p.value(LATENCY) for p in front.sorted_by("latency_ms").points] == [4, 5, 9]
    unmeasured = FrontPoint(factories.plain(), factories.measurement(params=None))
    front = replace(front, points=(unmeasured, *front.points))
    assert math.isnan(front.sorted_by("params").points[-1].value(PARAMS))


def test_json_round_trip_keeps_everything_and_the_keys_of_the_interface():
    a, b = factories.distinct_architectures(2)
    shares = {"layer_latency_share": [0.25, 0.25, 0.5]}
    other = replace(
        factories.measurement(80, 1_000_000), top1_interval=(78.0, 82.0), latency={"latency_ms": Timed(ms=4)}
    )
    points = [FrontPoint(a, factories.measurement(90, 2_000_000, 5), shares), FrontPoint(b, other)]
    front = ParetoFront(OBJECTIVES, points)
    values = json.loads(json.dumps(front.to_dict("digits-1"), allow_nan=False))
    assert ParetoFront.from_dict(values) == front
    assert values["schema_version"] == 1
    assert values["run"] == "digits-1"
    assert values["hypervolume"] == front.hypervolume()
    assert values["objectives"][1] == {"name": "macs", "unit": "MACs/image", "direction": "minimize", "reference": 10e6}
    first, second = values["points"]
    assert first["flops"] == 2 * first["macs"] == 4_000_000
    assert isinstance(first["macs"], int)
    assert first["latency_ci_ms"] == pytest.approx([4.9, 5.1])
    assert second["latency_ci_ms"] is None
    assert first["split"] == first["conditions"]["split"] == "search"
    assert first["details"] == shares
    assert "details" not in second


def test_metrics_that_were_not_measured_are_null():
    only = FrontPoint(factories.plain(), factories.measurement(90, math.nan, params=None))
    values = ParetoFront(PLANE, [only]).to_dict("r")["points"][0]
    assert (values["params"], values["macs"], values["flops"]) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "newer than this program"),
        ({"schema_version": None}, "schema_version must be"),
        ({"points": [{"digest": "x"}]}, "missing or malformed"),
        ({"objectives": [{"name": "top1"}]}, "missing or malformed"),
    ],
)
def test_a_damaged_or_newer_front_is_refused(change, message):
    with pytest.raises(RunError, match=message):
        ParetoFront.from_dict({**front_of_three().to_dict("r"), **change})


@pytest.mark.parametrize("key", ["top1", "macs", "params", "latency_ms", "seconds", "top1_ci", "latency_ci_ms"])
@pytest.mark.parametrize("value", [[[1.0], 2.0], {"a": 1.0}, "x1"])
def test_a_front_whose_numbers_are_none_is_refused(key, value):
    values = front_of_three().to_dict("r")
    first, *others = values["points"]
    with pytest.raises(RunError, match="missing or malformed"):
        ParetoFront.from_dict({**values, "points": [{**first, key: value}, *others]})


def make_run(tmp_path, **manifest):
    path = tmp_path / "digits-1"
    return RunDirectory.create(path, manifest=factories.manifest(**manifest), space_text="", config={})


def test_a_run_gives_its_trials_front_until_the_final_one_is_written(tmp_path):
    run = make_run(tmp_path, constraints={"latency_ms": 8.5})
    assert ParetoFront.from_run(run.path).points == ()
    for trial in factories.trials_of([(95, 1_000_000, 9.0), (90, 2_000_000, 8.0)]):
        run.append_trial(trial)
    so_far = ParetoFront.from_run(run.path)
    assert [p.value(TOP1) for p in so_far.points] == [90]
    assert so_far.objectives == OBJECTIVES
    final = front_of_three()
    run.write_front(final.to_dict(run.name))
    assert ParetoFront.from_run(run.path) == final


def test_a_run_whose_search_has_not_begun_is_refused(tmp_path):
    run = RunDirectory.create(tmp_path / "r", manifest=factories.manifest(search=None), space_text="", config={})
    with pytest.raises(RunError, match="does not say what is optimised"):
        ParetoFront.from_run(run.path)


def test_what_may_be_above_a_bound_by_its_interval_is_left_out():
    one, other = factories.distinct_architectures(2)
    made = [
        FrontPoint(
            architecture,
            Measurement(
                top1=top1,
                top1_interval=(0.0, 100.0),
                latency={"latency_ms": Timed(ms=7.9, interval=(7.5, high))},
                conditions=factories.conditions(),
                seconds=1.0,
            ),
        )
        for architecture, top1, high in ((one, 90.0, 8.1), (other, 80.0, 8.0))
    ]
    objectives = [Objective(TOP1, 0.0), Objective(LATENCY, 20.0)]
    bounded = ParetoFront.from_points(made, objectives, {"latency_ms": 8.0})
    assert [point.digest for point in bounded.points] == [other.digest]
    assert [p.digest for p in ParetoFront.from_points(made, objectives).points] == [one.digest]
