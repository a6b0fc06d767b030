"""A point of a front as JSON values."""

import json
from dataclasses import replace

import factories
import pytest

from nas.base.metrics import LATENCIES, by_target
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint, interval_key
from nas.runs.trial import Timed

TARGETS = by_target(
    {"target": text, "reference_ms": 2.0} for text in ("torch-cpu:batch=64", "zebra", "onnxruntime-cpu")
)


def measured_alone():
    """On three targets, of which the search was after the first two."""
    latency = {
        name: factories.timed(2.0 + i, noisy=i == 1, ties=("0" * 12,) * i, target=about["target"], is_searched=i < 2)
        for i, (name, about) in enumerate(TARGETS.items())
    }
    latency["latency_ms"] = replace(latency["latency_ms"], rounds=15)
    measurement = replace(factories.measurement(), latency=latency)
    return FrontPoint(factories.plain(), measurement, {"layer_latency_share": [0.25, 0.25, 0.5]})


def test_latencies_of_several_targets_come_back_from_the_file():
    front = ParetoFront(factories.OBJECTIVES, [measured_alone()], TARGETS)
    written = json.loads(json.dumps(front.to_dict("r"), sort_keys=True))
    assert ParetoFront.from_dict(written) == front
    assert (written["reference_ms"], written["latency"]) == (2.0, list(TARGETS.values()))


def test_a_search_puts_its_latencies_among_the_values_and_others_into_the_details():
    row = measured_alone().to_dict()
    assert (row["latency_ms"], row["latency_ms_2"]) == (2.0, 3.0)
    assert row["latency_ci_ms"] == [1.96, 2.04]
    assert row["latency_ms_2_ci"] == [2.94, 3.06]
    assert "latency_ms_3" not in row
    assert row["details"]["latency"] == {"noisy": False, "rounds": 15, "ties": []}
    others = row["details"]["latency_targets"]
    assert list(others) == ["onnxruntime-cpu", "zebra"]
    assert others["onnxruntime-cpu"] == {
        "latency_ci_ms": [3.92, 4.08],
        "latency_ms": 4.0,
        "noisy": False,
        "ties": ["0" * 12] * 2,
    }


def test_what_only_a_search_measured_has_no_details():
    searched = replace(factories.measurement(), latency={"latency_ms_2": Timed(ms=3.0)})
    row = FrontPoint(factories.plain(), searched).to_dict()
    assert (row["latency_ms"], row["latency_ms_2"], row["latency_ms_2_ci"]) == (None, 3.0, None)
    assert "details" not in row
    assert FrontPoint.from_dict(row).measurement.latency == searched.latency


@pytest.mark.parametrize("name", ["top1", *LATENCIES])
def test_every_interval_is_under_its_key(name):
    row = measured_alone().to_dict()
    assert (interval_key(name) in row) == (name in row)
