"""Rank correlations, their intervals, and which architectures are asked."""

import json

import numpy as np
import pytest
from factories import noisy_accuracies, rank_rows
from small_spaces import tiny_space

from nas.arch import cost
from nas.base.errors import ConfigError, NoResultError
from nas.runs.ranking import (
    BASELINES,
    LEAST_ARCHITECTURES,
    RESAMPLES,
    architecture_row,
    check_counts,
    kendall_tau,
    mean_tokens,
    rank_statistics,
    spearman_rho,
)

STATISTICS = ("kendall_tau", "spearman_rho", "seed_to_seed_tau", "gap_points")


UP = [60.0, 70.0, 75.0, 80.0, 90.0, 95.0]


@pytest.mark.parametrize(("inherited", "expected"), [(UP, 1.0), (UP[::-1], -1.0)])
def test_a_perfect_and_a_reversed_order_are_the_ends_of_the_scale(inherited, expected):
    found = rank_statistics(rank_rows(inherited, UP, UP))
    assert found["kendall_tau"] == pytest.approx(expected)
    assert found["spearman_rho"] == pytest.approx(expected)
    assert found["seed_to_seed_tau"] == pytest.approx(1.0)
    assert found["kendall_tau_ci"] == pytest.approx([expected, expected])


@pytest.mark.parametrize("seed", range(30))
def test_correlations_are_scipys_with_ties_and_in_every_resample(seed):
    from scipy import stats  # half a second, in each process if it stood above

    rng = np.random.default_rng(seed)
    count = int(rng.integers(LEAST_ARCHITECTURES, 20))
    one, other = rng.integers(0, 6, size=(2, count)).astype(float)
    counts = np.vstack([np.ones(count), rng.multinomial(count, [1 / count] * count, size=4)])
    taus, rhos = kendall_tau(one, other, counts), spearman_rho(one, other, counts)
    for tau, rho, repeats in zip(taus, rhos, counts.astype(int), strict=True):
        a, b = np.repeat(one, repeats), np.repeat(other, repeats)
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            assert np.isnan(tau)
            assert np.isnan(rho)
        else:
            assert tau == pytest.approx(stats.kendalltau(a, b).statistic)
            assert rho == pytest.approx(stats.spearmanr(a, b).statistic)


@pytest.mark.parametrize("seed", range(10))
def test_every_interval_holds_its_value_and_more_architectures_narrow_it(seed):
    few, many = (rank_statistics(rank_rows(*noisy_accuracies(count, seed=seed))) for count in (10, 60))
    for found in (few, many):
        for name in STATISTICS:
            low, high = found[f"{name}_ci"]
            assert low <= found[name] <= high
            assert low < high
    assert np.ptp(many["kendall_tau_ci"]) < np.ptp(few["kendall_tau_ci"])


@pytest.mark.slow
def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Two normal variables of correlation r have tau 2/pi asin r, whatever was drawn."""
    truth = 2 / np.pi * np.arcsin(1 / np.hypot(1, 0.73))
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        inherited = rng.normal(size=24)
        low, high = rank_statistics(rank_rows(inherited, inherited + 0.73 * rng.normal(size=24)))["kendall_tau_ci"]
        held += low <= truth <= high
    assert 0.90 <= held / 200 <= 0.99


def test_the_same_accuracies_give_the_same_intervals_and_another_seed_others():
    given = rank_rows(*noisy_accuracies())
    assert rank_statistics(given, 3) == rank_statistics(given, 3)
    assert rank_statistics(given, 3)["kendall_tau_ci"] != rank_statistics(given, 4)["kendall_tau_ci"]
    assert rank_statistics(given, 3)["kendall_tau"] == rank_statistics(given[::-1], 4)["kendall_tau"]
    assert RESAMPLES >= 1000


def test_one_seed_has_no_ceiling_and_three_have_the_mean_of_their_pairs():
    from scipy import stats

    inherited, one, other = noisy_accuracies()
    third = one[::-1].copy()
    assert rank_statistics(rank_rows(inherited, one))["seed_to_seed_tau"] is None
    found = rank_statistics(rank_rows(inherited, one, other, third))["seed_to_seed_tau"]
    pairs = [(one, other), (one, third), (other, third)]
    assert found == pytest.approx(np.mean([stats.kendalltau(*pair).statistic for pair in pairs]))


def test_the_gap_is_inherited_minus_stand_alone_in_points():
    found = rank_statistics(rank_rows(UP, [value + 2 for value in UP], [value + 4 for value in UP]))
    assert found["gap_points"] == pytest.approx(-3)
    assert found["gap_points_ci"] == pytest.approx([-3, -3])


def test_what_has_no_order_is_null_and_not_a_number():
    flat = [50.0] * 6
    found = rank_statistics(rank_rows(flat, UP, macs=[7] * 6))
    assert found["kendall_tau"] is None
    assert found["kendall_tau_ci"] is None
    assert found["baselines"]["macs"]["kendall_tau"] is None
    assert found["baselines"]["mean_tokens"]["tau_above_it"] is None
    assert "no verdict" in found["verdict"]
    json.dumps(found, allow_nan=False)
    assert "no baseline" in rank_statistics(rank_rows(UP, UP, macs=[7] * 6, tokens=[4] * 6))["verdict"]


def test_the_verdict_says_better_only_where_the_interval_of_the_difference_is_above_0():
    inherited, *alone = noisy_accuracies(noise=0.2)
    order = np.argsort(np.argsort(np.mean(alone, axis=0)))
    unrelated = np.random.default_rng(5).permutation(24)
    better = rank_statistics(rank_rows(inherited, *alone, macs=unrelated, tokens=unrelated[::-1]))
    assert all(better["baselines"][name]["tau_above_it_ci"][0] > 0 for name in BASELINES)
    assert better["verdict"].startswith("inherited accuracy ranks better than MACs (+")
    assert "not" not in better["verdict"]

    same = rank_statistics(rank_rows(inherited, *alone, macs=1e9 * inherited, tokens=unrelated))["verdict"]
    assert "perhaps no better than MACs (+0.00 [+0.00, +0.00])" in same
    assert "better than mean token count" in same

    worse = rank_statistics(rank_rows(unrelated.astype(float), *alone, macs=order, tokens=unrelated))["verdict"]
    assert worse.startswith("inherited accuracy ranks worse than MACs (-")
    assert "do not trust it" in worse


def test_a_rank_correlation_of_three_architectures_is_refused():
    with pytest.raises(NoResultError, match="3 architectures were trained to their end, 4 are needed"):
        rank_statistics(rank_rows(UP[:3], UP[:3]))
    with pytest.raises(ConfigError, match=r"--architectures 3: .* at least 4"):
        check_counts(3, 2)
    with pytest.raises(ConfigError, match="--seeds 0: every architecture is trained at least once"):
        check_counts(4, 0)
    check_counts(4, 1)


def test_the_baselines_of_a_row_are_the_costs_of_its_architecture():
    space = tiny_space()
    architecture = space.smallest()
    row = architecture_row(architecture, space, 50.0, [60.0, 70.0])
    assert row["macs"] == cost.macs(architecture, space.backbone)
    assert row["mean_tokens"] == mean_tokens(architecture) == 4
    assert row["stand_alone_top1"] == 65
