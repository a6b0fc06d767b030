"""The figure is drawn for every front there can be, and its staircase is the two-dimensional front."""

from dataclasses import replace

import factories
import matplotlib.image
import numpy as np
import pytest
from factories import OBJECTIVES
from matplotlib.container import ErrorbarContainer
from report_runs import made_trials, make_run, retrained, trust_found

from nas.base.metrics import TOP1, Metric, Objective
from nas.report.figures import _staircase, draw_front, front_figure, trust_figure
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.results import plain_vits, results_of, retrained_networks

UP = [60.0, 70.0, 75.0, 80.0, 90.0, 95.0]
VALUES = [(95, 1_800_000, 9.0), (90, 2_000_000, 8.0), (80, 1_000_000, 8.5), (70, 3_000_000, 9.5)]


def test_the_staircase_is_the_best_value_at_or_below_each_cost():
    x, y = [3.0, 1.0, 2.0, 2.0, 4.0], [90.0, 70.0, 60.0, 80.0, 90.0]
    assert _staircase(x, y) == ([1.0, 2.0, 3.0], [70.0, 80.0, 90.0])


def test_where_less_is_better_the_staircase_goes_down():
    x, y = [3.0, 1.0, 2.0, 2.0, 4.0], [0.1, 0.7, 0.9, 0.5, 0.1]
    assert _staircase(x, y, is_more=False) == ([1.0, 2.0, 3.0], [0.7, 0.5, 0.1])


def with_own_objective():
    """A front by `nll`, which less is better of, and MACs; top-1 would order it otherwise."""
    nll, trials = Metric("nll", "nats", "minimize", "nll", 0.0), factories.trials_of(VALUES)
    points = [
        FrontPoint(t.architecture, replace(t.measurement, own={"nll": value}))
        for t, value in zip(trials, (0.9, 0.2, 0.5, 0.1), strict=True)
    ]
    objectives = (Objective(nll, 2.0), OBJECTIVES[1])
    return ParetoFront.from_points(points, objectives), points


def test_a_front_by_a_metric_of_ones_own_is_drawn_by_it():
    front, points = with_own_objective()
    figure = draw_front(front, [p for p in points if p not in front.points], {"plain ViT": points[0]})
    left = figure.axes[0]
    assert left.get_ylabel() == "nll (nats, less is better)"
    dots = next(c for c in left.collections if c.get_label() == "Pareto front")
    assert sorted(dots.get_offsets()[:, 1]) == [0.1, 0.2, 0.5]
    stairs = next(line for line in left.lines if line.get_drawstyle() == "steps-post")
    assert list(stairs.get_ydata()) == [0.5, 0.2, 0.1, 0.1]


def test_crosses_are_in_the_legend_and_their_names_do_not_meet():
    trials = factories.trials_of(VALUES)
    front = ParetoFront.from_trials(trials, OBJECTIVES)
    close = [FrontPoint(factories.plain(), factories.measurement(93, 2_000_000 + i, 11)) for i in range(5)]
    figure = draw_front(front, [], {f"design {i}": point for i, point in enumerate(close)})
    assert "known designs" in [text.get_text() for text in figure.legends[0].texts]
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text().startswith("design")]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def others_of(trials, front):
    on_front = {point.digest for point in front.points}
    return [FrontPoint(t.architecture, t.measurement) for t in trials if t.architecture.digest not in on_front]


def colours(path):
    """Size of a picture, and how many colours every seventh of its pixels has."""
    pixels = matplotlib.image.imread(path)
    return pixels.shape[:2], len(np.unique(pixels.reshape(-1, pixels.shape[-1])[::7], axis=0))


def test_the_figure_is_a_png_that_shows_the_front_in_colour(tmp_path):
    trials = factories.trials_of(VALUES)
    front = ParetoFront.from_trials(trials, OBJECTIVES)
    others = others_of(trials, front)
    baseline = {"plain ViT": FrontPoint(factories.plain(), factories.measurement(93, 3_000_000, 11))}
    path, vectors = front_figure(front, others, tmp_path / "figures" / "front.png", baseline)
    again = front_figure(front, others, tmp_path / "again" / "front.png", baseline)[1]
    assert vectors.read_bytes().startswith(b"%PDF-")
    assert vectors.read_bytes() == again.read_bytes()
    size, count = colours(path)
    assert size == (750, 1650)
    assert count > 200  # the colour bars alone hold more


@pytest.mark.parametrize("case", ["empty", "one point", "no latency", "other conditions"])
def test_the_figure_is_drawn_for_fronts_at_the_edge(case):
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
            factories.trial(t.number, t.architecture, measurement=factories.measurement(50, 5e6, 9, split="other"))
            for t in trials
        ]
    figure = draw_front(front, others_of(trials, front), {})
    figure.draw_without_rendering()
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert ("no latency on the front" in words) == (case in ("empty", "no latency"))
    assert ("no MACs on the front" in words) == (case == "empty")
    assert any(word.startswith("knee ") for word in words) == (case != "empty")
    names = {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]}
    assert ("not on the front (other conditions)" in names) == (case == "other conditions")


def test_plain_vits_are_a_line_of_their_own_in_both_panels_and_said_below(tmp_path):
    found = results_of(make_run(tmp_path / "r", made_trials(20)))
    plain = replace(plain_vits(found), gains={"macs": (1.0,)})
    figure = draw_front(found.front, found.others, {}, (), plain)
    for axes in figure.axes[:2]:
        (line,) = (line for line in axes.lines if line.get_label() == "plain ViTs of this space")
        assert 1 <= len(line.get_xdata()) <= len(plain.points)
        assert set(line.get_ydata()) <= {point.value(TOP1) for point in plain.points}
    assert "by inherited weights" in figure.get_supxlabel()


def marks_alone(figure):
    """How many marks of what was trained alone each panel has, by the words of the legend."""
    panels = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes[:2])
    return [
        {
            name: len((mark[0] if isinstance(mark, ErrorbarContainer) else mark).get_xdata())
            for mark, name in panel
            if "split" in name
        }
        for panel in panels
    ]


def test_what_was_trained_alone_has_marks_where_its_cost_is_known(tmp_path):
    found = results_of(retrained(make_run(tmp_path / "r", made_trials(20))))
    rows = retrained_networks(found)
    marks = {"trained alone, search split": 2, "trained alone, TEST split": 2, "inherited, TEST split": 2}
    assert marks_alone(draw_front(found.front, found.others, {})) == [{}, {}]
    assert marks_alone(draw_front(found.front, found.others, {}, rows)) == [marks, marks]
    unknown = [{**row, "latency_ms": None} for row in rows]
    assert marks_alone(draw_front(found.front, found.others, {}, unknown)) == [marks, {}]


@pytest.mark.parametrize("accuracies", [factories.noisy_accuracies(), (UP, UP), ([50.0] * 6, UP)])
def test_the_figure_of_trust_is_drawn_with_and_without_spread_and_order(tmp_path, accuracies):
    path = trust_figure(trust_found(*accuracies), tmp_path / "figures" / "trust.png")
    assert colours(path)[1] > 100
