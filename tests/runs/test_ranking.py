"""Rank correlations, their intervals, and which architectures are asked."""

import json
import re

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from small_runs import tiny_space

from nas.arch import cost
from nas.base.errors import ConfigError, NoResultError
from nas.jobs.trust import architecture_row, choose
from nas.report.figures import trust_figure
from nas.report.job_tables import trust_table
from nas.runs.ranking import (
    BASELINES,
    LEAST_ARCHITECTURES,
    RESAMPLES,
    check_counts,
    kendall_tau,
    mean_tokens,
    rank_statistics,
    spearman_rho,
)
from nas.space.space import SearchSpace, parse_space

STATISTICS = ("kendall_tau", "spearman_rho", "seed_to_seed_tau", "gap_points")


def rows(inherited, *by_seed, macs=None, tokens=None):
    """Rows of `rank_statistics`; without costs, MACs and tokens are in two orders of their own."""
    count = len(inherited)
    macs = np.random.default_rng(1).permutation(count) if macs is None else macs
    tokens = np.random.default_rng(2).permutation(count) if tokens is None else tokens
    return [
        {
            "inherited_top1": inherited[i],
            "stand_alone_top1": float(np.mean([values[i] for values in by_seed])),
            "stand_alone_top1_by_seed": [values[i] for values in by_seed],
            "macs": int(macs[i]),
            "mean_tokens": float(tokens[i]),
        }
        for i in range(count)
    ]


def noisy(count=24, noise=0.5, seed=0):
    """Inherited accuracy, and two seeds alone, around the same order."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=count)
    return [50 + 10 * (quality + noise * rng.normal(size=count)) for _ in range(3)]


UP = [60.0, 70.0, 75.0, 80.0, 90.0, 95.0]


@pytest.mark.parametrize(("inherited", "expected"), [(UP, 1.0), (UP[::-1], -1.0)])
def test_a_perfect_and_a_reversed_order_are_the_ends_of_the_scale(inherited, expected):
    found = rank_statistics(rows(inherited, UP, UP))
    assert found["kendall_tau"] == pytest.approx(expected)
    assert found["spearman_rho"] == pytest.approx(expected)
    assert found["seed_to_seed_tau"] == pytest.approx(1.0)
    assert found["kendall_tau_ci"] == pytest.approx([expected, expected])


@pytest.mark.parametrize("seed", range(30))
def test_correlations_are_scipys_with_ties_and_in_every_resample(seed):
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
    few, many = (rank_statistics(rows(*noisy(count, seed=seed))) for count in (10, 160))
    for found in (few, many):
        for name in STATISTICS:
            low, high = found[f"{name}_ci"]
            assert low <= found[name] <= high
            assert low < high
    assert np.ptp(many["kendall_tau_ci"]) < np.ptp(few["kendall_tau_ci"])


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Two normal variables of correlation r have tau 2/pi asin r, whatever was drawn."""
    truth = 2 / np.pi * np.arcsin(1 / np.hypot(1, 0.73))
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        inherited = rng.normal(size=24)
        low, high = rank_statistics(rows(inherited, inherited + 0.73 * rng.normal(size=24)))["kendall_tau_ci"]
        held += low <= truth <= high
    assert 0.90 <= held / 200 <= 0.99


def test_the_same_accuracies_give_the_same_intervals_and_another_seed_others():
    given = rows(*noisy())
    assert rank_statistics(given, 3) == rank_statistics(given, 3)
    assert rank_statistics(given, 3)["kendall_tau_ci"] != rank_statistics(given, 4)["kendall_tau_ci"]
    assert rank_statistics(given, 3)["kendall_tau"] == rank_statistics(given[::-1], 4)["kendall_tau"]
    assert RESAMPLES >= 1000


def test_one_seed_has_no_ceiling_and_three_have_the_mean_of_their_pairs():
    inherited, one, other = noisy()
    third = one[::-1].copy()
    assert rank_statistics(rows(inherited, one))["seed_to_seed_tau"] is None
    found = rank_statistics(rows(inherited, one, other, third))["seed_to_seed_tau"]
    pairs = [(one, other), (one, third), (other, third)]
    assert found == pytest.approx(np.mean([stats.kendalltau(*pair).statistic for pair in pairs]))


def test_the_gap_is_inherited_minus_stand_alone_in_points():
    found = rank_statistics(rows(UP, [value + 2 for value in UP], [value + 4 for value in UP]))
    assert found["gap_points"] == pytest.approx(-3)
    assert found["gap_points_ci"] == pytest.approx([-3, -3])


def test_what_has_no_order_is_null_and_not_a_number():
    flat = [50.0] * 6
    found = rank_statistics(rows(flat, UP, macs=[7] * 6))
    assert found["kendall_tau"] is None
    assert found["kendall_tau_ci"] is None
    assert found["baselines"]["macs"]["kendall_tau"] is None
    assert found["baselines"]["mean_tokens"]["tau_above_it"] is None
    assert "no verdict" in found["verdict"]
    json.dumps(found, allow_nan=False)
    assert "no baseline" in rank_statistics(rows(UP, UP, macs=[7] * 6, tokens=[4] * 6))["verdict"]


def test_the_verdict_says_better_only_where_the_interval_of_the_difference_is_above_0():
    inherited, *alone = noisy(noise=0.2)
    order = np.argsort(np.argsort(np.mean(alone, axis=0)))
    unrelated = np.random.default_rng(5).permutation(24)
    better = rank_statistics(rows(inherited, *alone, macs=unrelated, tokens=unrelated[::-1]))
    assert all(better["baselines"][name]["tau_above_it_ci"][0] > 0 for name in BASELINES)
    assert better["verdict"].startswith("inherited accuracy ranks better than MACs (+")
    assert "not" not in better["verdict"]

    same = rank_statistics(rows(inherited, *alone, macs=1e9 * inherited, tokens=unrelated))["verdict"]
    assert "perhaps no better than MACs (+0.00 [+0.00, +0.00])" in same
    assert "better than mean token count" in same

    worse = rank_statistics(rows(unrelated.astype(float), *alone, macs=order, tokens=unrelated))["verdict"]
    assert worse.startswith("inherited accuracy ranks worse than MACs (-")
    assert "do not trust it" in worse


def test_a_rank_correlation_of_three_architectures_is_refused():
    with pytest.raises(NoResultError, match="3 architectures were trained to their end, 4 are needed"):
        rank_statistics(rows(UP[:3], UP[:3]))
    with pytest.raises(ConfigError, match=r"--architectures 3: .* at least 4"):
        check_counts(3, 2)
    with pytest.raises(ConfigError, match="--seeds 0: every architecture is trained at least once"):
        check_counts(4, 0)
    check_counts(4, 1)


# --- selection ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_space():
    return SearchSpace.from_yaml("search_spaces/digits.yaml")


@pytest.mark.parametrize("seed", [0, 7])
def test_one_architecture_is_chosen_from_each_equal_part_of_the_macs(digits_space, seed):
    low, high = digits_space.macs_range()
    chosen = choose(digits_space, 8, seed)
    places = [(cost.macs(a, digits_space.backbone) - low) / (high - low) for a in chosen]
    # Drawn as near to a wanted number of MACs as 2 % of it, where the space has an architecture there.
    assert np.abs(np.diff(sorted(places)) - 1 / 8).max() < 0.05
    assert all(architecture in digits_space for architecture in chosen)


def test_the_choice_is_the_same_for_the_same_seed_and_goes_on_with_a_larger_number(digits_space):
    chosen = choose(digits_space, 12, 0)
    assert choose(digits_space, 12, 0) == chosen
    assert choose(digits_space, 20, 0)[:12] == chosen
    assert choose(digits_space, 12, 1) != chosen
    assert len({architecture.digest for architecture in chosen}) == 12


def test_a_space_with_few_architectures_gives_each_of_them_once():
    few = parse_space(
        "name: few\nbackbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}\n"
        "embed_dim: [16, 24]\ndepth: [1, 2]\nlayers: {num_heads: [1, 2], mlp_ratio: 1}\n",
        "few.yaml",
    )
    chosen = choose(few, 100, 0)
    assert len(set(chosen)) == len(chosen) == few.size() == 12
    lonely = parse_space(
        "name: lonely\nbackbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}\n"
        "embed_dim: [16, 24]\ndepth: 1\nlayers: {num_heads: 1, mlp_ratio: 1}\n",
        "lonely.yaml",
    )
    with pytest.raises(ConfigError, match="lonely: only 2 architectures, too few to rank"):
        choose(lonely, 100, 0)


def test_the_baselines_of_a_row_are_the_costs_of_its_architecture():
    space = tiny_space()
    architecture = space.smallest()
    row = architecture_row(architecture, space, 50.0, [60.0, 70.0])
    assert row["macs"] == cost.macs(architecture, space.backbone)
    assert row["mean_tokens"] == mean_tokens(architecture) == 4
    assert row["stand_alone_top1"] == 65


# --- for people -----------------------------------------------------------------------------------------------


def found(*accuracies, failed=()):
    return {
        "run": "digits-1",
        "num_architectures": len(accuracies[0]),
        "num_seeds": len(accuracies) - 1,
        "epochs": 30,
        "supernet": "0123456789ab",
        "split": "search",
        "num_images": 287,
        "precision": "fp32",
        **rank_statistics(rows(*accuracies)),
        "failed": list(failed),
        "architectures": rows(*accuracies),
    }


def shown(values):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(trust_table(values))
    return capture.get()


def test_the_table_names_every_number_with_its_interval_and_conditions():
    text = shown(found(UP, UP, UP))
    assert re.search(r"inherited top-1 +1\.00 \[1\.00, 1\.00\]", text)
    for words in (
        "MACs",
        "mean token count",
        "another seed (ceiling)",
        "gap: inherited is",
        "287 images of the search",
    ):
        assert words in text, words
    assert "failed" not in text
    assert "1 training failed" in shown(found(UP, UP, failed=[{"digest": "x"}]))


@pytest.mark.parametrize("accuracies", [noisy(), (UP, UP), ([50.0] * 6, UP)])
def test_the_figure_is_drawn_with_and_without_spread_and_order(tmp_path, accuracies):
    pixels = matplotlib.image.imread(trust_figure(found(*accuracies), tmp_path / "figures" / "trust.png"))
    assert len({tuple(p) for p in pixels.reshape(-1, pixels.shape[-1])[::7].tolist()}) > 100
