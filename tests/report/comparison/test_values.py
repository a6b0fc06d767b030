"""Two runs are compared by one measure, and what was different between them is said."""

import io
import shutil
from dataclasses import replace

import factories
import numpy as np
import pytest
from factories import OBJECTIVES
from report_runs import made_trials, make_run
from rich.console import Console
from scipy import stats

from nas.base.errors import RunError
from nas.base.metrics import BALANCED, LATENCY, MACS, TOP1, Objective
from nas.report.comparison.tables import compare_tables
from nas.report.comparison.values import compare_rows, compare_runs
from nas.runs.dominance import hypervolume
from nas.runs.front import ParetoFront
from nas.runs.manifest import objective_to_dict
from nas.runs.trial import TrialState


def text_of(found):
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(compare_tables(found))
    return console.file.getvalue()


@pytest.fixture
def pair(tmp_path):
    first = make_run(tmp_path / "a", made_trials(30), seed=0)
    second = make_run(tmp_path / "b", made_trials(30, seed=1, supernet="fedcba987654"), seed=1)
    return first, second


def test_both_hypervolumes_have_the_worse_reference_of_each_objective(pair):
    first, second = pair
    objectives = [objective_to_dict(o) for o in first.manifest.search.objectives]
    objectives[1]["reference"] *= 2
    objectives[2]["reference_ratio"] = 3.0
    front = second.front()
    second.write_front({**front, "objectives": objectives})
    found = compare_runs(first.path, second.path)
    assert [o["reference"] for o in found["objectives"]] == [0.0, 20e6, 4.0]  # 20 ms where the reference takes 5
    shared = [Objective(TOP1, 0.0), Objective(MACS, 20e6), Objective(LATENCY, 20.0)]
    for run, shown in zip(pair, found["runs"], strict=True):
        rows = [[p.value(o.metric) for o in shared] for p in ParetoFront.from_run(run.path).points]
        assert shown["hypervolume"] == pytest.approx(hypervolume(rows, shared))
        assert shown["front_size"] == len(rows)


def test_budgets_name_the_best_of_each_run_within_them(pair):
    found = compare_runs(*(run.path for run in pair))
    fronts = [ParetoFront.from_run(run.path) for run in pair]
    assert len(found["budgets"]) == 6
    for budget in found["budgets"]:
        for front, best in zip(fronts, budget["best_top1"], strict=True):
            assert best == front.within("macs", maximum=budget["max_macs"]).pick("top1").value(TOP1)
    last = [front.pick("top1").value(TOP1) for front in fronts]
    assert found["budgets"][-1]["best_top1"] == last


def test_a_run_and_its_copy_differ_in_nothing(pair, tmp_path):
    shutil.copytree(pair[0].path, tmp_path / "copy" / "a")
    found = compare_runs(pair[0].path, tmp_path / "copy" / "a")
    assert found["differences"] == found["other_conditions"] == []
    assert found["runs"][0]["hypervolume"] == found["runs"][1]["hypervolume"]
    assert found["shared_architectures"] == found["runs"][0]["front_size"]
    assert [run["run"] for run in found["runs"]] == [str(pair[0].path), str(tmp_path / "copy" / "a")]


def test_what_was_different_is_said_with_both_values(tmp_path):
    first = make_run(tmp_path / "a", made_trials(5), seed=0, config={"train": {"epochs": 3}})
    second = make_run(tmp_path / "b", made_trials(5), seed=1, config={"train": {"epochs": 30}})
    found = compare_runs(first.path, second.path)
    differences = {row["key"]: row["values"] for row in found["differences"]}
    assert differences == {"seed": [0, 1], "train.epochs": [3, 30]}
    assert "train.epochs" in text_of(found)


def test_other_weights_may_be_compared_and_another_device_may_not(pair, tmp_path):
    assert compare_runs(*(run.path for run in pair))["other_conditions"] == []
    elsewhere = make_run(tmp_path / "c", made_trials(5, device="cpu: Other"))
    found = compare_runs(pair[0].path, elsewhere.path)
    assert found["other_conditions"] == [{"key": "device", "values": ["cpu: Test CPU", "cpu: Other"]}]
    said = " ".join(text_of(found).split())
    assert said.startswith("measured under other conditions: their numbers must not be compared")
    assert "b minus a" in text_of(compare_runs(*(run.path for run in pair)))
    assert "minus" not in said
    assert "must not be compared" not in text_of(compare_runs(*(run.path for run in pair)))


def test_runs_on_different_data_are_said_not_to_be_comparable_before_any_number(pair, tmp_path):
    about = {"class_names": ("cat", "dog"), "splits": {"train": "0" * 16}}
    other = make_run(tmp_path / "c", made_trials(30), seed=0, **about)
    for runs in ((pair[0], other), (*pair, other)):
        found = compare_runs(*(run.path for run in runs))
        (row,) = found["other_conditions"]
        assert row["key"] == "data"
        assert "2 classes, train split 00000000" in row["values"][-1]
        said = " ".join(text_of(found).split())
        assert said.index("must not be compared") < said.index("hypervolume")
    assert compare_runs(*(run.path for run in pair))["other_conditions"] == []


def test_runs_without_a_shared_objective_or_a_measurement_are_refused(pair, tmp_path):
    only_top1 = make_run(tmp_path / "c", made_trials(5), objectives=factories.OBJECTIVES[:1])
    only_macs = make_run(tmp_path / "d", made_trials(5), objectives=factories.OBJECTIVES[1:2])
    with pytest.raises(RunError, match="share no objective: top1 against macs"):
        compare_runs(only_top1.path, only_macs.path)
    empty = make_run(tmp_path / "e", [], is_final=False)
    with pytest.raises(RunError, match="nothing was measured yet"):
        compare_runs(pair[0].path, empty.path)


def test_runs_without_latency_are_compared_by_what_they_have(pair, tmp_path):
    fewer = make_run(tmp_path / "c", made_trials(9, with_latency=False), objectives=factories.OBJECTIVES[:2])
    found = compare_runs(pair[0].path, fewer.path)
    assert [objective["name"] for objective in found["objectives"]] == ["top1", "macs"]
    assert all(0 < run["hypervolume"] < 1 for run in found["runs"])


def test_csv_has_a_row_a_run(pair):
    found = compare_runs(*(run.path for run in pair))
    rows = compare_rows(found)
    assert [row["run"] for row in rows] == ["a", "b"]
    assert [row["best_top1"] for row in rows] == [run["best_top1"] for run in found["runs"]]
    assert len(rows[0]) == 5 + len(found["budgets"])


def test_latencies_are_compared_as_ratios_on_the_same_target_alone(tmp_path):
    plain = make_run(tmp_path / "a", made_trials(30))
    slow = make_run(tmp_path / "b", [trial.scaled({"latency_ms": 1.7}) for trial in made_trials(30)])
    front = slow.front()
    slow.write_front({**front, "reference_ms": 1.7 * front["reference_ms"]})  # the machine was, not the networks
    one, two = compare_runs(plain.path, slow.path)["runs"]
    assert one["hypervolume"] == pytest.approx(two["hypervolume"])

    for name, value in {"target": "onnxruntime-cpu", "latency_batch_size": 1}.items():
        other = make_run(tmp_path / name, made_trials(30, **{name: value}))
        found = compare_runs(plain.path, other.path)
        assert [objective["name"] for objective in found["objectives"]] == ["top1", "macs"]
        assert [row["name"] for row in found["left_out"]] == ["latency_ms"]
        assert f"{name} is" in found["left_out"][0]["reason"]
        assert "latency_ms is left out of it" in text_of(found)
    other = make_run(tmp_path / "other", made_trials(30), reference_digest="f" * 12)
    found = compare_runs(plain.path, other.path)
    assert found["left_out"][0]["reason"] == f"the reference model is {'0' * 12} against {'f' * 12}"
    one, two = (
        make_run(tmp_path / f"only-{i}", made_trials(9), objectives=OBJECTIVES[2:], reference_digest=12 * str(i))
        for i in (1, 2)
    )
    with pytest.raises(RunError, match="latency_ms cannot be compared: the reference model is"):
        compare_runs(one.path, two.path)


def test_fronts_of_one_point_are_compared(tmp_path):
    for macs in (8640.0, 8752.0, 153_904.0):
        trial = made_trials(1)[0]
        trial = replace(trial, measurement=replace(trial.measurement, macs=macs))
        run = make_run(tmp_path / str(macs), [trial])
        assert [budget["max_macs"] for budget in compare_runs(run.path, run.path)["budgets"]] == [macs]


def test_balanced_accuracy_stands_beside_top1_where_it_was_measured(tmp_path):
    def balanced(trial):
        found = trial.measurement
        return trial if found is None else replace(trial, measurement=replace(found, balanced_top1=found.top1 - 5))

    first = make_run(tmp_path / "a", [balanced(trial) for trial in made_trials(30)], seed=0)
    second = make_run(tmp_path / "b", made_trials(30, seed=1), seed=1)
    found = compare_runs(first.path, second.path)
    best = max(p.measurement.balanced_top1 for p in ParetoFront.from_run(first.path).points)
    assert found["runs"][0]["best_balanced_top1"] == best
    assert "best_balanced_top1" not in found["runs"][1]
    assert "best balanced" in text_of(found)
    assert compare_rows(found)[0]["best_balanced_top1"] == best
    both = compare_runs(second.path, second.path)
    assert "best balanced" not in text_of(both)


def test_runs_after_balanced_accuracy_are_compared_by_it_throughout(tmp_path):
    """Who is best in top-1 is not who is best: its classes are unlike."""

    def balanced(trial):
        found = trial.measurement
        if found is None:
            return trial
        return replace(trial, measurement=replace(found, balanced_top1=found.top1 - 3 * (trial.number % 5)))

    objectives = (Objective(BALANCED, 0.0), Objective(MACS, 20e6))
    pair = [
        make_run(tmp_path / name, [balanced(t) for t in made_trials(30, seed=seed)], objectives=objectives, seed=seed)
        for seed, name in enumerate("ab")
    ]
    found = compare_runs(*(run.path for run in pair))
    fronts = [ParetoFront.from_run(run.path) for run in pair]
    assert found["accuracy"] == "balanced_top1"
    for budget in found["budgets"]:
        assert "best_top1" not in budget
        for front, best in zip(fronts, budget["best_balanced_top1"], strict=True):
            assert best == max(p.value(BALANCED) for p in front.points if p.value(MACS) <= budget["max_macs"])
    for run, front in zip(found["runs"], fronts, strict=True):
        assert [point["balanced_top1"] for point in run["points"]] == [p.value(BALANCED) for p in front.points]
    shown = " ".join(text_of(found).split())
    assert "best balanced top-1 (%) within a budget of MACs" in shown
    assert "best top-1 (%) within" not in shown
    row = compare_rows(found)[1]
    most = found["budgets"][-1]["max_macs"]
    assert (
        row[f"best_balanced_top1_within_{most:.0f}_macs"]
        == row["best_balanced_top1"]
        == fronts[1].pick("balanced").value(BALANCED)
    )
    mixed = compare_runs(pair[0].path, make_run(tmp_path / "c", made_trials(30), seed=2).path)
    assert mixed["accuracy"] == "top1"
    assert "best_top1" in mixed["budgets"][0]


# --- more than two ---


@pytest.fixture
def many(tmp_path):
    """Two set-ups, with seeds 0, 1, 2 and 0, 1, 7."""

    def run(name, seed, epochs):
        trials = made_trials(20, seed=seed + 10 * epochs)
        return make_run(tmp_path / name, trials, seed=seed, config={"train": {"epochs": epochs}}).path

    return [run(f"a{seed}", seed, 3) for seed in (0, 1, 2)] + [run(f"b{seed}", seed, 30) for seed in (0, 1, 7)]


def test_runs_that_differ_by_the_seed_alone_are_a_group(many):
    found = compare_runs(*many)
    volumes = {run["run"]: run["hypervolume"] for run in found["runs"]}
    first, second = found["groups"]
    assert (first["group"], first["runs"], first["seeds"]) == ("A", ["a0", "a1", "a2"], [0, 1, 2])
    assert (second["runs"], second["seeds"]) == (["b0", "b1", "b7"], [0, 1, 7])
    own = [volumes[name] for name in first["runs"]]
    assert first["hypervolume_median"] == sorted(own)[1]
    assert first["hypervolume_range"] == [min(own), max(own)]
    expected = stats.t.interval(0.95, 2, np.mean(own), stats.sem(own))
    assert first["hypervolume_mean_ci"] == pytest.approx(expected)


def test_groups_are_compared_on_the_seeds_that_both_have(many):
    found = compare_runs(*many)
    volumes = {run["run"]: run["hypervolume"] for run in found["runs"]}
    (pair,) = found["pairs"]
    gains = [volumes[f"b{seed}"] - volumes[f"a{seed}"] for seed in (0, 1)]
    assert (pair["groups"], pair["seeds"]) == (["A", "B"], [0, 1])
    assert pair["mean_difference"] == pytest.approx(np.mean(gains))
    assert pair["median_difference"] == pytest.approx(np.median(gains))
    assert pair["second_is_better"] == sum(gain > 0 for gain in gains)
    assert pair["mean_difference_ci"] == pytest.approx(stats.t.interval(0.95, 1, np.mean(gains), stats.sem(gains)))


def test_all_runs_have_one_reference_and_are_a_row_each(many):
    found = compare_runs(*many)
    assert len(found["budgets"][0]["best_top1"]) == 6
    alone = compare_runs(many[0], many[3])
    assert [o["reference"] for o in found["objectives"]] == [o["reference"] for o in alone["objectives"]]
    rows = compare_rows(found)
    assert [(row["run"], row["group"], row["seed"]) for row in rows][2:4] == [("a2", "A", 2), ("b0", "B", 0)]
    assert {row["key"] for row in found["differences"]} == {"seed", "train.epochs"}


def test_tables_of_many_runs_have_a_column_a_group(many):
    text = text_of(compare_runs(*many))
    for words in ("on all fronts", "over the seeds of a group", "seed by seed", "median of the group", "● A   ○ B"):
        assert words in text
    different = text.partition("what was different")[2]
    assert "train.epochs" in different
    assert "seed" not in different


def test_three_runs_of_their_own_are_three_groups_of_one(many, tmp_path):
    third = make_run(tmp_path / "c", made_trials(9), config={"train": {"epochs": 9}}).path
    found = compare_runs(many[0], many[3], third)
    assert [group["group"] for group in found["groups"]] == ["A", "B", "C"]
    assert all(group["hypervolume_mean_ci"] is None for group in found["groups"])
    assert "seeds of a group" not in text_of(found)
    assert "median of the group" not in text_of(found)


def test_a_seed_that_is_there_twice_has_no_partner_and_its_group_no_interval(many, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(many[0], again)
    found = compare_runs(many[0], again, many[3])
    text_of(found)
    first = found["groups"][0]
    assert first["seeds"][0] == first["seeds"][1]
    assert first["hypervolume_mean_ci"] is None
    assert not found["pairs"]


def test_a_run_that_is_given_twice_among_several_is_refused(many):
    with pytest.raises(RunError, match="a run is there twice"):
        compare_runs(many[0], many[1], many[0])


def test_what_other_runs_had_measured_is_a_difference(many, tmp_path):
    trials = made_trials(9)
    taken = [replace(trials[0], state=TrialState.REPEATED, source="results/x#3"), *trials[1:]]
    run = make_run(tmp_path / "c", taken).path
    rows = {row["key"]: row["values"] for row in compare_runs(many[0], run)["differences"]}
    assert rows["taken_over"] == [0, 1]


def test_two_runs_are_no_groups_and_one_is_refused(many):
    assert not {"groups", "pairs"} & set(compare_runs(*many[:2]))
    with pytest.raises(RunError, match="two runs or more"):
        compare_runs(many[0])


def test_how_many_first_trials_are_the_same_is_said(tmp_path):
    trials, others = made_trials(30), made_trials(30, seed=1)
    later = [t if t.number < 7 else replace(others[t.number], number=t.number) for t in trials]
    runs = [make_run(tmp_path / name, found) for name, found in (("a", trials), ("b", later))]
    first = next(i for i, (one, other) in enumerate(zip(trials, later, strict=True))
                 if one.architecture != other.architecture)  # fmt: skip
    assert first >= 7
    found = compare_runs(*(run.path for run in runs))
    assert found["shared_first_trials"] == first
    assert f"the first {first} propose the same" in text_of(found)
