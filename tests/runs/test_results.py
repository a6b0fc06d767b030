"""All that a run has measured, over its supernets, and what was trained alone."""

import json
from dataclasses import replace

import factories
import pytest
from report_runs import made_trials, make_run, page_data, page_space, retrained

from nas.arch import cost
from nas.runs.front import ParetoFront
from nas.runs.results import plain_vits, results_of
from nas.space.designs import is_plain, plain_shapes


def test_known_designs_are_marked_only_where_they_were_measured(page_run, tmp_path):
    names = {baseline["name"] for baseline in page_data(page_run)["baselines"]}
    assert "plain ViT, largest" in names
    later = make_run(tmp_path / "r", made_trials(20)[10:])
    assert page_data(later)["baselines"] == []


def plain_run(path, tops, *, others=(), **changes):
    """A run that measured plain ViTs, by their place among the space's shapes, and others, each with its top-1."""
    shapes, measured = plain_shapes(page_space()), []
    for architecture, top1 in [*((shapes[i], top1) for i, top1 in tops.items()), *others]:
        macs = float(cost.macs(architecture, page_space().backbone))
        found = factories.measurement(top1, macs, macs / 1e5, macs / 10, latency_stage="search")
        measured.append(factories.trial(len(measured), architecture, measurement=found))
    return make_run(path, measured, **changes)


def test_plain_vits_are_those_that_no_other_plain_one_dominates(tmp_path):
    run = plain_run(tmp_path / "r", {0: 50, 2: 60, 5: 59, 9: 70}, others=[(page_space().smallest(), 80)])
    plain, shapes = plain_vits(results_of(run)), plain_shapes(page_space())
    assert plain.num_measured == 4
    assert [point.digest for point in plain.points] == [shapes[i].digest for i in (0, 2, 9)]
    assert (plain.num_front, dict(plain.gains)) == (1, {})  # it is cheaper than every plain one


def test_the_front_is_compared_with_the_best_plain_vit_of_at_most_the_same_cost(tmp_path):
    space, shapes = page_space(), plain_shapes(page_space())
    pooled = [with_fewer_tokens(shapes[i]) for i in (7, 12)]
    assert all(a in space and not is_plain(a) for a in pooled)
    run = plain_run(tmp_path / "r", {0: 50, 1: 58, 4: 55}, others=[(pooled[0], 64), (pooled[1], 70), (shapes[9], 65)])
    plain = plain_vits(results_of(run))
    costs = [cost.macs(a, space.backbone) for a in (shapes[4], pooled[0], shapes[9], pooled[1])]
    assert costs == sorted(costs)
    assert plain.gains["macs"] == (6, 5)  # three plain ones are on the front themselves
    assert plain.num_front == 2
    written = plain.to_dict()
    assert written["above"]["macs"] == {"low": 5, "median": 5.5, "high": 6, "num_compared": 2}
    assert written["num_measured"] == 4
    assert [row["digest"] for row in written["points"]] == [shapes[i].digest for i in (0, 1, 9)]
    json.dumps(written, allow_nan=False)


def with_fewer_tokens(plain):
    *first, last = plain.layers
    return replace(plain, layers=(*first, replace(last, num_tokens=4, reducer="pool")))


def test_a_run_without_plain_vits_has_an_empty_line(tmp_path):
    run = plain_run(tmp_path / "r", {}, others=[(page_space().smallest(), 80)])
    plain = plain_vits(results_of(run))
    assert plain.to_dict() == {"num_measured": 0, "above": {}, "points": []}


def test_a_retrained_architecture_and_its_baseline_have_both_accuracies_and_their_costs(tmp_path):
    run = make_run(tmp_path / "r", made_trials(20))
    assert page_data(run)["retrained"] == []
    picked, baseline = page_data(retrained(run))["retrained"]
    knee = ParetoFront.from_run(run.path).knee()
    assert picked["digest"] == knee.digest
    assert picked["latency_ms"] == knee.measurement.values["latency_ms"]
    assert (picked["is_on_front"], picked["is_baseline"], baseline["is_baseline"]) == (True, False, True)
    assert (picked["inherited_top1"], picked["top1"], picked["test_top1"]) == (70, 79, 77.5)
    assert picked["top1_sd"] == pytest.approx(2**0.5)
    assert baseline["macs"] == cost.macs(page_space().largest(), page_space().backbone)


def test_the_same_baseline_of_two_retrained_architectures_is_there_once(tmp_path):
    run = retrained(make_run(tmp_path / "r", made_trials(20)))
    found = run.findings()[f"retrain/{ParetoFront.from_run(run.path).knee().digest}.json"]
    other = ParetoFront.from_run(run.path).pick("top1")
    run.write_retrain(other.digest, {**found, "picked": {**found["picked"], "digest": other.digest}})
    assert sorted(row["name"] for row in page_data(run)["retrained"]) == ["knee", "knee", "plain ViT"]
