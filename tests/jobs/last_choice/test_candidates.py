"""Candidates for a front's last choice: which they are, which go on, for how long."""

from dataclasses import replace
from itertools import pairwise

import pytest

from nas.base.metrics import MACS
from nas.jobs.last_choice.candidates import candidates, epochs_within, least_beaten, rungs_of
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import points_of
from nas.space.designs import is_plain


def whole(folder):
    return points_of(RunDirectory.open(folder).trials())


def inherited_front(folder):
    return ParetoFront.from_trials(RunDirectory.open(folder).trials(), ParetoFront.from_run(folder).objectives)


def test_the_first_rung_is_a_third_where_there_is_one():
    assert [rungs_of(epochs) for epochs in (1, 2, 3, 10)] == [[1], [2], [1, 3], [3, 10]]


def test_a_plain_rival_of_a_level_is_never_left_out(finished):
    front, measured = inherited_front(finished.folder), whole(finished.folder)
    for count in (2, 4, 7, 12):
        levels = candidates(front, measured, count)
        chosen = {point.digest for level in levels for point in level}
        bounds = [max(p.value(MACS) for p in level) for level in levels if level]
        for low, high in pairwise([0.0, *bounds]):
            plain = [p for p in measured if is_plain(p.architecture) and low < p.value(MACS) <= high]
            assert not plain or max(plain, key=lambda p: p.accuracy).accuracy in {
                p.accuracy for p in plain if p.digest in chosen
            }


@pytest.mark.parametrize("count", [2, 3, 6, 12, 100])
def test_candidates_are_spread_over_the_costs_with_the_best_of_the_front_and_the_best_plain_one(finished, count):
    measured = whole(finished.folder)
    front = ParetoFront.from_trials(
        RunDirectory.open(finished.folder).trials(), ParetoFront.from_run(finished.folder).objectives
    )
    levels = candidates(front, measured, count)
    found = [point for level in levels for point in level]
    assert len(found) == min(count, len(measured)) == len({point.digest for point in found})
    metric = next(o.metric for o in front.objectives if o.metric.direction == "minimize")
    costs = [[point.value(metric) for point in level] for level in levels if level]
    assert all(max(cheaper) <= min(dearer) for cheaper, dearer in pairwise(costs))
    on_front = {point.digest for point in front.points}
    for level in levels:
        of_level = [p for p in measured if p.digest in {x.digest for x in level}]
        assert not level or level[0].digest in on_front or not any(p.digest in on_front for p in of_level)
        plain = [point for point in level if is_plain(point.architecture)]
        assert not plain or plain[0] in level[:2]


def test_those_least_beaten_go_on(finished):
    macs = next(o.metric for o in inherited_front(finished.folder).objectives if o.metric.name == "macs")
    points = sorted(whole(finished.folder), key=lambda point: (point.value(macs), point.digest))[:5]
    costs = [point.value(macs) for point in points]
    assert len(set(costs)) == 5, "a fixture with five different costs"
    accuracies = dict(zip((point.digest for point in points), (50.0, 60.0, 59.5, 55.0, 61.0), strict=True))
    # by how much each is below the best that costs no more: not at all, -10, 0.5, 5, -1
    kept = [[points.index(point) for point in least_beaten(points, accuracies, [macs], n)] for n in (0, 1, 3, 4)]
    assert kept == [[0], [0], [0, 1, 4], [0, 1, 4, 2]]
    assert least_beaten([], {}, [macs], 3) == []


def test_the_best_plain_vit_that_was_measured_is_a_candidate_of_its_level(finished):
    front = inherited_front(finished.folder)
    on_front = {point.digest for point in front.points}
    rest = [point for point in whole(finished.folder) if point.digest not in on_front]
    plain = [point for point in rest if is_plain(point.architecture)]
    worst = [replace(p, measurement=replace(p.measurement, top1=0.1 * i)) for i, p in enumerate(plain, start=1)]
    others = [point for point in rest if point not in plain]
    assert worst
    assert len(others) > 3
    (level,) = candidates(front, [*others, *worst], 3)
    assert level[1] == worst[-1]


@pytest.mark.parametrize("budget", [1, 100, 1_000, 12_345])
@pytest.mark.parametrize("seeds", [1, 3])
def test_without_epochs_the_trainings_fill_their_budget(budget, seeds):
    macs = [4.0, 5.0, 6.0, 10.0, 20.0, 45.0]

    def spent(epochs):
        last = 90 if epochs < 3 else 45  # half of them after the first rung
        return epochs // 3 * 90 + epochs * last * seeds

    epochs = epochs_within(budget, macs, seeds)
    assert spent(epochs) <= budget
    assert spent(epochs + 1) > budget
    assert (epochs == 0) == (budget < 90 * seeds)
