"""How the hypervolume grew over a run, and a random search beside it."""

import factories
import pytest
from report_runs import COUNT, made_trials, make_run, page_data

from nas.base.errors import RunError
from nas.runs.curve import hypervolume_curve
from nas.runs.dominance import hypervolume
from nas.runs.front import ParetoFront


def test_the_hypervolume_curve_rises_to_that_of_all_trials_and_failures_cost(page_run):
    trials = page_run.trials()
    curve = hypervolume_curve(trials, factories.OBJECTIVES)
    paid, values = [count for count, _ in curve], [value for _, value in curve]
    assert paid == sorted(paid)
    assert paid[-1] == COUNT + 3
    assert values == sorted(values)
    rows = [[t.measurement.values[o.metric.name] for o in factories.OBJECTIVES] for t in trials[:COUNT]]
    assert values[-1] == hypervolume(rows, factories.OBJECTIVES)


def test_trials_beyond_a_constraint_add_no_hypervolume():
    trials = made_trials(20)
    bound = min(trial.measurement.highest("latency_ms") for trial in trials)
    curve = hypervolume_curve(trials, factories.OBJECTIVES, {"latency_ms": bound})
    only = [t for t in trials if t.measurement.highest("latency_ms") == bound]
    assert curve[-1][1] == hypervolume_curve(only, factories.OBJECTIVES)[-1][1]
    assert len({value for _, value in curve} - {0.0}) == 1


def test_a_long_curve_has_few_points_and_keeps_its_end():
    trials = [factories.trial(i) for i in range(1_001)]
    curve = hypervolume_curve(trials, factories.OBJECTIVES)
    assert len(curve) <= 201
    assert curve[-1][0] == 1_001
    assert hypervolume_curve([], factories.OBJECTIVES) == []


def test_random_search_is_shown_up_to_the_same_budget(page_run, tmp_path):
    config = {"search": {"sampler": "random"}}
    largest = page_run.manifest.search.reference_digest
    longer = make_run(tmp_path / "random", made_trials(COUNT + 30, seed=5), config=config, reference_digest=largest)
    found = page_data(page_run, longer)["random"]
    assert found["num_trials"] == COUNT + 3
    assert found["curve"][-1][0] == COUNT + 3
    front = ParetoFront.from_trials(longer.trials()[: COUNT + 3], factories.OBJECTIVES)
    assert found["hypervolume"] == front.hypervolume()
    assert page_data(page_run)["random"] is None


def test_what_is_no_random_search_on_these_weights_is_refused(page_run, tmp_path):
    with pytest.raises(RunError, match="its sampler is predictor, not random"):
        page_data(page_run, make_run(tmp_path / "a", made_trials(5), config={"search": {"sampler": "predictor"}}))
    config = {"search": {"sampler": "random"}}
    with pytest.raises(RunError, match="ratios to another reference model"):
        page_data(page_run, make_run(tmp_path / "c", made_trials(5), config=config))
    with pytest.raises(RunError, match="other conditions"):
        page_data(page_run, make_run(tmp_path / "b", made_trials(5, supernet="fedcba987654"), config=config))
