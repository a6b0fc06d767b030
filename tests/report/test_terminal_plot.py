"""A plot of characters: every point at its place, the axes say what they are."""

import math
from dataclasses import replace

import factories
import pytest
from report_runs import made_trials

from nas.base.metrics import LATENCY, MACS, TOP1, Metric, Objective
from nas.report.terminal_plot import Series, front_plots, scatter
from nas.runs.front import ParetoFront
from nas.runs.point import points_of


def grid(text):
    """The lines between the axes' name and the frame, without the margin."""
    return [line.partition("│")[2] for line in text.splitlines() if "│" in line]


def test_corners_are_where_the_extremes_are():
    text = scatter([Series("a", [(1, 10)]), Series("b", [(5, 20)])], "x", "y", width=9, height=4)
    assert grid(text) == ["        b", "", "", "a"]
    assert text.splitlines()[0].strip() == "y"
    assert text.splitlines()[1].startswith("20 │")
    assert text.splitlines()[4].startswith("10 │")
    assert text.splitlines()[-1].split() == ["1", "x", "5"]


def test_later_series_cover_earlier_ones_and_what_is_not_finite_is_left_out():
    series = [Series(".", [(1, 1), (2, 2), (math.nan, 1)]), Series("o", [(2, 2), (1, math.inf)])]
    assert " ".join(grid(scatter(series, "x", "y"))).split() == ["o", "."]


@pytest.mark.parametrize(("largest", "is_log"), [(9, False), (1_000, True)])
def test_costs_of_many_sizes_have_a_logarithmic_axis_and_say_so(largest, is_log):
    middle = math.sqrt(largest)
    text = scatter([Series("o", [(1, 0), (middle, 0), (largest, 0)])], "x", "y", width=41, height=1)
    columns = [i for i, sign in enumerate(grid(text)[0]) if sign == "o"]
    assert ("logarithmic" in text) == is_log
    assert (columns == [0, 20, 40]) == is_log


def test_a_front_by_a_metric_of_ones_own_is_drawn_by_it():
    agree = Metric("agree", "%", "maximize", "agree")
    points = [replace(p, measurement=replace(p.measurement, own={"agree": 99.0 - i})) for i, p in enumerate(
        points_of(made_trials(4)))]  # fmt: skip
    front = ParetoFront.from_points(points, (Objective(agree, 0.0), Objective(MACS, 1e9)))
    (first, *_) = front_plots(front, [], front)
    assert first.split("\n")[0].strip() == "agree (%)"
    assert "99 │" in first


def test_without_a_point_there_is_no_plot():
    assert scatter([Series("o", [])], "x", "y") == ""
    assert scatter([Series("o", [(math.nan, 1)])], "x", "y") == ""


def test_a_single_point_is_in_the_middle():
    text = scatter([Series("o", [(3, 7)])], "x", "y", width=5, height=3)
    assert grid(text) == ["", "  o", ""]
    assert text.splitlines() == ["  y", "  │", "7 │  o", "  │", "  └─────", "     3", "     x"], "each value once"


def test_the_name_of_an_axis_keeps_off_its_ends_and_within_the_width():
    points = [Series("o", [(0.12345, 1), (123.45, 2)])]
    short, long = (scatter(points, name, "y") for name in ("kMACs per image", "latency (1 = 142.4 ms / 64 images)"))
    assert short.splitlines()[-1].split("  ")[-1].strip() == "123.5"
    assert short.splitlines()[-1].split()[0] == "0.1235"
    assert "kMACs per image, logarithmic" in short.splitlines()[-1]
    assert long.splitlines()[-2].split() == ["0.1235", "123.5"]
    assert long.splitlines()[-1].strip() == "latency (1 = 142.4 ms / 64 images), logarithmic"
    assert max(map(len, long.splitlines())) <= 56 + 3


def test_the_front_is_drawn_with_its_knee_and_what_is_not_on_it():
    trials = made_trials(40)
    front = ParetoFront.from_trials(trials, factories.OBJECTIVES)
    others = points_of(trials)
    by_macs, by_latency = front_plots(front, others, front)
    assert "kMACs per image" in by_macs
    assert "latency (ms / 64 images)" in by_latency
    assert all(plot.count("★") == 1 for plot in (by_macs, by_latency))
    assert "·" in by_macs
    assert "·" in by_latency
    _, by_ratio = front_plots(replace(front, clocks={"latency_ms": 5.0}), others, front)
    assert "latency (1 = 5 ms / 64 images)" not in by_ratio  # of the whole front its clock counts
    _, by_ratio = front_plots(front, others, replace(front, clocks={"latency_ms": 5.0}))
    assert "latency (1 = 5 ms / 64 images)" in by_ratio
    assert [*map(float, by_ratio.splitlines()[-1].split()[:1])] == [
        float(f"{min(point.value(LATENCY) for point in others) / 5:.4g}")
    ]
    values = [trial.measurement.values for trial in trials]
    low, high = (f(v[MACS.name] for v in values) / 1e3 for f in (min, max))
    ends = by_macs.splitlines()[-1].split()
    assert (ends[0], ends[-1]) == (f"{low:.4g}", f"{high:.4g}")
    assert by_macs.splitlines()[1].split()[0] == f"{max(v[TOP1.name] for v in values):.4g}"
