"""Which images, which difference: what is said beside the numbers of runs."""

import math

from report_runs import made_trials, make_run, row_with, text_of

from nas.report.comparison.tables import compare_tables
from nas.report.comparison.values import compare_runs

APART = "measured under other conditions: their numbers must not be compared"


def run(path, seed, *, epochs=3, split="a", spec="digits"):
    splits = {"train": "1" * 16, "search": split * 16}
    config = {"train": {"epochs": epochs}, "data": {"spec": spec}}
    return make_run(path, made_trials(20, seed=seed + 10 * epochs), seed=seed, splits=splits, config=config).path


def test_runs_that_ranked_by_other_images_are_said_not_to_be_comparable_before_any_number(tmp_path):
    first, same, other = (run(tmp_path / name, 0, split=split) for name, split in (("a", "a"), ("b", "a"), ("c", "c")))
    found = compare_runs(first, other)
    assert found["other_conditions"] == [{"key": "splits.search", "values": ["a" * 8, "c" * 8]}]
    text = text_of(compare_tables(found))
    assert text.index(APART) < text.index("hypervolume")
    assert row_with(text, "search split, other images").split()[-2:] == ["a" * 8, "c" * 8]
    assert "minus" not in text
    assert compare_runs(first, same)["other_conditions"] == []
    assert APART not in text_of(compare_tables(compare_runs(first, same)))


def test_groups_rank_by_the_images_of_their_seeds_and_that_is_said_where_they_have_none_in_common(tmp_path):
    def of(epochs, seed):
        return run(tmp_path / f"{epochs}-{seed}", seed, epochs=epochs, split=str(seed))

    paths = [of(epochs, seed) for epochs in (3, 9) for seed in (0, 1)]
    assert APART not in text_of(compare_tables(compare_runs(*paths)))
    assert APART in text_of(compare_tables(compare_runs(paths[0], paths[3], of(7, 0))))


def test_a_difference_says_which_run_is_subtracted_and_how_sure_it_is(tmp_path):
    found = compare_runs(*(run(tmp_path / name, seed) for seed, name in enumerate("ab")))
    last = found["budgets"][-1]
    (one, other), (first, second) = last["best_top1"], last["best_top1_ci"]
    assert [first, second] == [[value - 4, value + 4] for value in (one, other)]
    text = text_of(compare_tables(found))
    assert "b minus a" in text
    assert text.count(f"{other - one:+.1f} ± {math.hypot(4, 4):.1f}") >= 1
    assert "± half of the 95 % interval" in text
    for budget in found["budgets"]:
        budget["best_top1_ci"][0] = None
    unsure = text_of(compare_tables(found))
    assert f"{other - one:+.1f}" in unsure
    assert "±" not in unsure
