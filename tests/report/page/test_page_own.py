"""The page of a run whose objective is a metric of a Python program, of which more or less may be better."""

from dataclasses import replace

import pytest
from report_browser import answer, complaints, css, needs_browser, opened
from report_runs import made_trials, make_run, page_data

from nas.base.metrics import MACS, Metric, Objective
from nas.report.page.file import write_report
from nas.runs.front import ParetoFront


def own_run(path, metric, value):
    """A run that was searched by a metric, a function of top-1."""
    trials = made_trials(40)
    measured = [replace(t.measurement, own={metric.name: value(t.measurement.top1)}) for t in trials]
    trials = [replace(trial, measurement=one) for trial, one in zip(trials, measured, strict=True)]
    worst = 0.0 if metric.direction == "maximize" else 100.0
    return make_run(path, trials, objectives=(Objective(metric, worst), Objective(MACS, 1e9)))


MISSES = Metric("misses", "points", "minimize", "misses")
HITS = Metric("hits", "points", "maximize", "hits", best=200.0)


@pytest.mark.parametrize(("metric", "is_more"), [(MISSES, False), (HITS, True)])
def test_the_data_say_what_is_drawn_and_which_way_is_better(metric, is_more, tmp_path):
    data = page_data(own_run(tmp_path / "r", metric, lambda top1: 2 * top1 if is_more else 100 - top1))
    assert data["up"] == {"metric": metric.name, "is_more": is_more}
    assert data["own"] == [metric.name]
    assert all(len(data["cloud"][name]) == len(data["cloud"]["digest"]) for name in (metric.name, "top1"))
    assert data["units"][metric.name]["unit"] == "points"


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("metric", "value"), [(MISSES, lambda top1: 100 - top1), (HITS, lambda top1: 2 * top1)])
def test_the_page_draws_and_chooses_by_the_objective_of_the_search(metric, value, browser, tmp_path):
    run = own_run(tmp_path / "r", metric, value)
    write_report(run)
    page = opened(browser, run)
    assert complaints(page) == []
    points = ParetoFront.from_run(run.path).points
    best = (min if metric is MISSES else max)(points, key=lambda point: point.value(metric))
    assert answer(page) == best.digest
    decimals = page_data(run)["units"][metric.name]["decimals"]
    assert f"{metric.name} {best.value(metric):.{decimals}f} points" in css(page, "#answer")[0].text
    assert f"{metric.name} (points)" in css(page, "#by-macs")[0].text
    heads = [head.text for head in css(page, "#front-table th")]
    assert {"top-1 (%)", f"{metric.name} (points)"} <= set(heads)
    heights = {p.get_attribute("data-digest"): float(p.get_attribute("cy")) for p in css(page, "#by-macs .point")}
    ranked = sorted(points, key=lambda point: -point.value(metric))
    assert sorted(heights, key=heights.__getitem__) == [point.digest for point in ranked]
    assert css(page, "#by-macs .stairs")[0].get_attribute("d").count("V") == len(points) - 1  # each is a corner
