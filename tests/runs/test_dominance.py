"""Dominance and hypervolume, against brute force and boxes computed by hand."""

import itertools
import math

import numpy as np
import pytest
from dominance_by_definition import MAX, MIN, PLANE, brute_force

from nas.base.errors import ConfigError
from nas.base.metrics import LATENCY, MACS, TOP1, Objective
from nas.runs.dominance import hypervolume, non_dominated

BOX = (Objective(TOP1, 0.0), Objective(LATENCY, 10.0), Objective(MACS, 100.0))


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_mask_equals_brute_force_with_ties_and_gaps(num_objectives):
    rng = np.random.default_rng(num_objectives)
    for _ in range(150):
        rows = rng.integers(0, 5, (int(rng.integers(0, 14)), num_objectives)).astype(float)
        rows[rng.random(rows.shape) < 0.08] = rng.choice([np.nan, np.inf, -np.inf])
        directions = [MAX if up else MIN for up in rng.integers(0, 2, num_objectives)]
        assert non_dominated(rows, directions).tolist() == brute_force(rows.tolist(), directions)


def test_a_row_that_is_not_finite_neither_enters_nor_dominates():
    rows = [[90, 5], [99, -math.inf], [math.inf, 1], [99, math.nan]]
    assert non_dominated(rows, [MAX, MIN]).tolist() == [True, False, False, False]


def test_no_rows_give_an_empty_mask_and_no_volume():
    assert non_dominated([], [MAX, MIN]).shape == (0,)
    assert hypervolume([], PLANE) == 0.0


def test_hypervolume_equals_boxes_computed_by_hand_in_the_plane():
    assert hypervolume([[50, 5]], PLANE) == pytest.approx(0.5 * 0.5)
    # two boxes 0.8 x 0.2 and 0.4 x 0.9, which share 0.4 x 0.2
    assert hypervolume([[80, 8], [40, 1]], PLANE) == pytest.approx(0.16 + 0.36 - 0.08)
    assert hypervolume([[100, 0]], PLANE) == pytest.approx(1.0)


def test_hypervolume_equals_boxes_computed_by_hand_in_space():
    # boxes 0.5 x 0.5 x 0.5 and 0.2 x 0.9 x 0.9, which share 0.2 x 0.5 x 0.5
    assert hypervolume([[50, 5, 50], [20, 1, 10]], BOX) == pytest.approx(0.125 + 0.162 - 0.05)


def test_points_at_or_beyond_the_reference_add_nothing():
    inside = hypervolume([[50, 5]], PLANE)
    assert hypervolume([[50, 5], [99, 10], [99, 11], [0, 1], [math.nan, 1]], PLANE) == inside


def test_a_point_better_than_the_ideal_fills_at_most_the_box():
    assert hypervolume([[100, -3.0]], PLANE) == pytest.approx(1.0)


@pytest.mark.parametrize("objectives", [PLANE, BOX])
def test_hypervolume_never_falls_when_a_point_is_added(objectives):
    rng = np.random.default_rng(5)
    rows = rng.random((60, len(objectives))) * [110, 12, 120][: len(objectives)]
    volumes = [hypervolume(rows[:n], objectives) for n in range(len(rows) + 1)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(volumes))
    assert 0 < volumes[-1] <= 1


@pytest.mark.parametrize(("metric", "reference"), [(TOP1, 100.0), (LATENCY, 0.0), (MACS, math.inf)])
def test_a_reference_that_is_no_worse_than_the_ideal_is_refused(metric, reference):
    with pytest.raises(ConfigError, match=f"{metric.name}: the reference must be worse"):
        hypervolume([[1.0]], [Objective(metric, reference)])
