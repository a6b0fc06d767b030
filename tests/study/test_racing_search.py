"""Searches over a replay table: racing, and what other runs have measured."""

import json

import numpy as np
import pytest
from replay_evaluator import ReplayEvaluator
from replay_searches import OBJECTIVES, TABLE, search
from search_fakes import ShuffledWorkers, outline

from nas.runs.dominance import non_dominated
from nas.runs.front import ParetoFront
from nas.runs.trial import Trial, TrialState
from nas.space.designs import plain_shapes


def pruned(trials):
    return [t for t in trials if t.state is TrialState.PRUNED]


def test_a_beaten_architecture_is_pruned_with_its_interval_and_never_on_the_front(tmp_path):
    trials = search(tmp_path / "run", trials=80)
    beaten = pruned(trials)
    assert len(beaten) > 20
    by_number = {trial.number: trial for trial in trials}
    for trial in beaten:
        found, winner = trial.measurement, by_number[trial.measurement.beaten_by]
        assert "top1" not in found.values
        assert found.conditions.num_images < 1600
        low, high = found.intervals["top1"]
        assert low < high < winner.measurement.values["top1"]
        assert found.conditions.num_images % 64 == 0
        assert winner.state is TrialState.COMPLETE
        assert winner.number <= trial.number - 8
        assert winner.measurement.values["macs"] <= found.values["macs"]
    front = {point.digest for point in ParetoFront.from_trials(trials, OBJECTIVES).points}
    assert not front & {trial.architecture.digest for trial in beaten}
    assert [Trial.from_dict(json.loads(json.dumps(t.to_dict()))) for t in trials] == list(trials)


def test_racing_spares_images_and_keeps_the_front(tmp_path):
    raced, whole = (search(tmp_path / str(racing), trials=120, racing=racing, seed=1) for racing in (True, False))
    assert not pruned(whole)
    assert outline(raced)[0][1] == outline(whole)[0][1]
    assert [t.architecture for t in raced] == [t.architecture for t in whole]  # random proposals
    shown = sum(t.measurement.conditions.num_images for t in raced if t.state is not TrialState.REPEATED)
    assert shown < 0.8 * 1600 * 120
    rows = [TABLE.row(t.architecture) for t in raced]
    values = np.stack([TABLE.top1()[rows], TABLE.macs[rows]], axis=1)
    on_front = non_dominated(values, ["maximize", "minimize"])
    assert not any(t.state is TrialState.PRUNED and is_best for t, is_best in zip(raced, on_front, strict=True))


def test_plain_shapes_are_measured_on_all_images_whoever_beats_them(tmp_path):
    trials = search(tmp_path / "run", trials=80, sampler="nsga2")
    assert pruned(trials)
    plain = {shape.digest for shape in plain_shapes(TABLE.space)}
    states = {t.architecture.digest: t.state for t in reversed(trials) if t.architecture.digest in plain}
    assert states == dict.fromkeys(plain, TrialState.COMPLETE)


@pytest.mark.parametrize("sampler", ["predictor", "nsga2", "evolution"])
def test_workers_and_order_change_nothing_in_a_race(tmp_path, sampler):
    inline = search(tmp_path / "inline", trials=60, sampler=sampler)
    assert pruned(inline)
    for slots in (2, 8):
        workers = ShuffledWorkers(ReplayEvaluator(TABLE), slots, seed=slots)
        shuffled = search(tmp_path / str(slots), trials=60, sampler=sampler, workers=workers)
        assert outline(shuffled) == outline(inline)
        assert [t.measurement.beaten_by for t in shuffled] == [t.measurement.beaten_by for t in inline]


def test_a_search_that_is_extended_races_as_if_it_had_not_stopped(tmp_path):
    search(tmp_path / "parts", trials=30, sampler="predictor")
    assert outline(search(tmp_path / "parts", trials=60, sampler="predictor")) == outline(
        search(tmp_path / "whole", trials=60, sampler="predictor")
    )
