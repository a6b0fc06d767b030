"""Metrics have a unit and a direction; latencies are numbered in the order of a run's targets."""

import pytest

from nas.base.errors import ConfigError
from nas.base.metrics import (
    BALANCED,
    LATENCIES,
    LATENCY,
    MACS,
    METRICS,
    TOP1,
    Metric,
    Objective,
    accuracy_of,
    by_target,
    metric_named,
    ranked_by,
)


def test_better_is_higher_for_top1_and_lower_for_costs():
    assert TOP1.is_better(90.0, 80.0)
    assert MACS.is_better(1e6, 2e6)
    assert not any(metric.is_better(1.0, 1.0) for metric in METRICS.values())


def test_the_ideal_is_all_right_and_no_cost():
    assert Objective(TOP1, 0.0).ideal == 100.0
    assert all(Objective(metric, 1.0).ideal == 0.0 for metric in (MACS, *LATENCIES.values()))


def test_targets_are_numbered_from_the_second_on():
    assert list(LATENCIES) == ["latency_ms", "latency_ms_2", "latency_ms_3", "latency_ms_4"]
    assert by_target(["a", "b"]) == {"latency_ms": "a", "latency_ms_2": "b"}
    assert by_target([]) == {}


@pytest.mark.parametrize("name", [*METRICS, *LATENCIES])
def test_a_metric_is_found_by_its_name(name):
    assert metric_named(name).name == name


def test_what_is_named_first_ranks():
    assert accuracy_of(["macs", "balanced_top1", "top1"]) is BALANCED is metric_named("balanced_top1")
    assert accuracy_of(["top1", "balanced_top1"]) is TOP1 is accuracy_of(["macs"])


def test_an_unknown_metric_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="unknown metric 'flops'") as error:
        metric_named("flops")
    assert LATENCY.name in error.value.hint


def test_a_front_is_ranked_by_an_accuracy_else_by_the_first_metric_of_ones_own():
    nll, recall = Metric("nll", "nats", "minimize", "nll"), Metric("recall", "%", "maximize", "recall")
    assert ranked_by([nll, MACS]) is nll
    assert ranked_by([MACS, nll, recall]) is recall
    assert ranked_by([recall, TOP1]) is TOP1
    assert ranked_by([BALANCED, TOP1]) is BALANCED
    assert ranked_by([MACS]) is TOP1
