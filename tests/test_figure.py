"""The figure is drawn for every front there can be, and its staircase is the two-dimensional front."""

import factories
import matplotlib.image
import pytest
from factories import OBJECTIVES

from nas.figure import _staircase, front_figure
from nas.metrics import TOP1
from nas.pareto import FrontPoint, ParetoFront

VALUES = [(95, 1_800_000, 9.0), (90, 2_000_000, 8.0), (80, 1_000_000, 8.5), (70, 3_000_000, 9.5)]


def test_the_staircase_is_the_best_value_at_or_below_each_cost():
    x, y = [3.0, 1.0, 2.0, 2.0, 4.0], [90.0, 70.0, 60.0, 80.0, 90.0]
    assert _staircase(x, y) == ([1.0, 2.0, 3.0], [70.0, 80.0, 90.0])


def drawn(path):
    pixels = matplotlib.image.imread(path)
    return pixels.shape[:2], len({tuple(p) for p in pixels.reshape(-1, pixels.shape[-1])[::7].tolist()})


def test_the_figure_is_a_png_that_shows_the_front_in_colour(tmp_path):
    trials = factories.trials_of(VALUES)
    front = ParetoFront.from_trials(trials, OBJECTIVES)
    baseline = {"plain ViT": FrontPoint(factories.plain(), factories.measurement(93, 3_000_000, 11))}
    path, vectors = front_figure(front, trials, tmp_path / "figures" / "front.png", baseline)
    again = front_figure(front, trials, tmp_path / "again" / "front.png", baseline)[1]
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
        for trial in trials:
            del trial.measurement.values["latency_ms"]
        front = ParetoFront.from_trials(trials, (OBJECTIVES[0],))
        assert [p.value(TOP1) for p in front.points] == [95]
    else:
        trials = [
            factories.trial(
                t.number, t.architecture, measurement=factories.measurement(50, 5e6, 9, split="other")
            )
            for t in trials
        ]
    for file in front_figure(front, trials, tmp_path / "front.png"):
        assert file.stat().st_size > 5_000
