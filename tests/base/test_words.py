import math

import pytest

from nas.base.words import duration, plural, unit_column, unit_of, with_interval, with_spread


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (41.6, "0:42"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03"), (-5, "0:00")]
)
def test_duration_is_written_as_a_clock(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 seeds"), (1, "1 seed"), (1200, "1,200 seeds")])
def test_one_is_singular(number, text):
    assert plural(number, "seed") == text


def test_an_interval_has_its_ends_and_a_spread_the_farther_one():
    assert with_interval(0.5, [0.4, 0.7]) == "0.50 [0.40, 0.70]"
    assert with_interval(0.5, [-0.4, 0.7], "+.1f") == "+0.5 [-0.4, +0.7]"
    assert with_spread(1.5, [1.4, 1.68]) == "1.500 ± 0.180"
    assert with_spread(1.5, [1.2, 1.75], ".1f") == "1.5 ± 0.3"
    assert with_spread(1.5, [1.4, 1.8]) == "1.500 (1.400 to 1.800)"  # not 1.5 ± 0.3: it does not reach 1.2
    assert with_spread(1.5, [1.2, 1.4999], ".2f") == "1.50 (1.20 to 1.50)"
    assert with_spread(1.5, [1.4999, 1.4999 + 0.0004]) == "1.500 ± 0.000"  # nothing of it is printed
    assert with_spread(1.5, None) == "1.500"
    assert with_spread(1.5, [1.4, 3.1]) == "1.500 (1.400 to 3.100)"  # not 1.5 ± 1.6: no time is below zero
    assert with_spread(-1.0, [-2.5, 1.0]) == "-1.000 ± 2.000"


def test_one_unit_a_column_follows_the_largest_value():
    assert [unit_of([1, v]) for v in (999, 1e3, 5e6, 2e9)] == [(1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]
    assert unit_of([math.nan, 3e6, math.inf]) == (1e6, "M")
    assert unit_of([]) == (1, "")
    assert unit_column("MACs", [2e6, math.nan, 31.5e6]) == ("MMACs", ["2.0", "-", "31.5"])
    assert unit_column("params", [1, 999]) == ("params", ["1", "999"])
