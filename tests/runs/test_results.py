"""All that a run has measured, over its supernets, and what was trained alone."""

import pytest
from report_runs import made_trials, make_run, page_data, page_space, retrained

from nas.arch import cost
from nas.runs.front import ParetoFront


def test_known_designs_are_marked_only_where_they_were_measured(page_run, tmp_path):
    names = {baseline["name"] for baseline in page_data(page_run)["baselines"]}
    assert "plain ViT, largest" in names
    later = make_run(tmp_path / "r", made_trials(20)[10:])
    assert page_data(later)["baselines"] == []


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
