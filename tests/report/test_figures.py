"""The figure is drawn for every front there can be, and its staircase is the two-dimensional front."""

from dataclasses import replace

import factories
import matplotlib.image
import pytest
from factories import OBJECTIVES
from report_runs import made_trials, make_run, retrained, trust_found

from nas.report.figures import RETRAINED, _staircase, front_figure, trust_figure
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.results import results_of, retrained_networks
from nas.settings.metrics import TOP1

UP = [60.0, 70.0, 75.0, 80.0, 90.0, 95.0]
VALUES = [(95, 1_800_000, 9.0), (90, 2_000_000, 8.0), (80, 1_000_000, 8.5), (70, 3_000_000, 9.5)]


def test_the_staircase_is_the_best_value_at_or_below_each_cost():
    x, y = [3.0, 1.0, 2.0, 2.0, 4.0], [90.0, 70.0, 60.0, 80.0, 90.0]
    assert _staircase(x, y) == ([1.0, 2.0, 3.0], [70.0, 80.0, 90.0])


def others_of(trials, front):
    on_front = {point.digest for point in front.points}
    return [
        FrontPoint(t.architecture, t.measurement) for t in trials if t.architecture.digest not in on_front
    ]


def drawn(path):
    pixels = matplotlib.image.imread(path)
    return pixels.shape[:2], len({tuple(p) for p in pixels.reshape(-1, pixels.shape[-1])[::7].tolist()})


def test_the_figure_is_a_png_that_shows_the_front_in_colour(tmp_path):
    trials = factories.trials_of(VALUES)
    front = ParetoFront.from_trials(trials, OBJECTIVES)
    others = others_of(trials, front)
    baseline = {"plain ViT": FrontPoint(factories.plain(), factories.measurement(93, 3_000_000, 11))}
    path, vectors = front_figure(front, others, tmp_path / "figures" / "front.png", baseline)
    again = front_figure(front, others, tmp_path / "again" / "front.png", baseline)[1]
    assert vectors.read_bytes().startswith(b"%PDF-")
    assert vectors.read_bytes() == again.read_bytes()
    size, colours = drawn(path)
    assert size == (750, 1650)
    assert colours > 200  # the colour bars alone hold more


@pytest.mark.parametrize("case", ["empty", "one point", "no latency", "other conditions"])
def test_the_figure_is_drawn_for_fronts_at_the_edge(tmp_path, case):
    trials = factories.trials_of(VALUES)
    front = ParetoFront.from_trials(trials, OBJECTIVES)
    if case == "empty":
        front, trials = ParetoFront(OBJECTIVES, ()), []
    elif case == "one point":
        trials = trials[:1]
        front = ParetoFront.from_trials(trials, OBJECTIVES)
    elif case == "no latency":
        trials = [replace(trial, measurement=replace(trial.measurement, latency={})) for trial in trials]
        front = ParetoFront.from_trials(trials, (OBJECTIVES[0],))
        assert [p.value(TOP1) for p in front.points] == [95]
    else:
        trials = [
            factories.trial(
                t.number, t.architecture, measurement=factories.measurement(50, 5e6, 9, split="other")
            )
            for t in trials
        ]
    for file in front_figure(front, others_of(trials, front), tmp_path / "front.png"):
        assert file.stat().st_size > 5_000


def violet(path):
    """How many pixels have the colour of what was trained alone."""
    pixels = (255 * matplotlib.image.imread(path)[..., :3]).round()
    return int((abs(pixels - [int(RETRAINED[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=-1) < 4).sum())


def test_what_was_trained_alone_has_marks_where_its_cost_is_known(tmp_path):
    found = results_of(retrained(make_run(tmp_path / "r", made_trials(20))))
    rows = retrained_networks(found)
    without = front_figure(found.front, found.others, tmp_path / "without.png")[0]
    everywhere = front_figure(found.front, found.others, tmp_path / "with.png", {}, rows)[0]
    unknown = [{**row, "latency_ms": None} for row in rows]
    by_macs = front_figure(found.front, found.others, tmp_path / "by_macs.png", {}, unknown)[0]
    assert violet(without) == 0 < violet(by_macs) < violet(everywhere)


@pytest.mark.parametrize("accuracies", [factories.noisy_accuracies(), (UP, UP), ([50.0] * 6, UP)])
def test_the_figure_of_trust_is_drawn_with_and_without_spread_and_order(tmp_path, accuracies):
    pixels = matplotlib.image.imread(
        trust_figure(trust_found(*accuracies), tmp_path / "figures" / "trust.png")
    )
    assert len({tuple(p) for p in pixels.reshape(-1, pixels.shape[-1])[::7].tolist()}) > 100
