"""What the page says is what was measured; nothing of a run can break out of the page's data."""

import json
import re
import shlex

import factories
import pytest
from report_runs import (
    lost_trials,
    made_trials,
    make_run,
    page_space,
    retrained,
    supernets_run,
    trusted,
)

from nas.arch import cost
from nas.base.errors import RunError
from nas.report.page.data import genes, report_data
from nas.report.page.file import report_html, write_report
from nas.runs.curve import hypervolume_curve
from nas.runs.directory import RunDirectory
from nas.runs.dominance import hypervolume
from nas.runs.front import ParetoFront
from nas.runs.results import results_of
from nas.runs.trial import TrialState

COUNT = 60


def page_data(run, random=None):
    return report_data(results_of(run), random)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    trials = [*made_trials(COUNT), *lost_trials(3, COUNT)]
    largest = page_space().largest().digest
    return make_run(tmp_path_factory.mktemp("runs") / "page-1", trials, reference_digest=largest, seed=7)


def embedded(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])


def test_the_page_holds_its_data_and_asks_for_nothing_else(run):
    page = report_html(page_data(run))
    assert embedded(page) == json.loads(json.dumps(page_data(run)))
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[\w/]*", page.replace("// ", "")))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of SVG, not an address that is opened
    assert "default-src 'none'" in page
    assert "{{" not in page


def test_every_point_of_the_front_is_there_with_its_values_layers_and_commands(run):
    front, data = ParetoFront.from_run(run.path), page_data(run)
    assert [row["digest"] for row in data["front"]] == [point.digest for point in front.points]
    for row, point in zip(data["front"], front.points, strict=True):
        assert {name: row[name] for name in ("top1", "macs", "params", "latency_ms")} == dict(
            point.measurement.values
        )
        assert row["latency_ms_ci"] == list(point.measurement.intervals["latency_ms"])
        assert sum(part["macs"] for part in row["rows"]) == cost.macs(
            point.architecture, page_space().backbone
        )
        words = shlex.split(row["export"])
        assert words[:4] == ["python", "search.py", "export", str(run.path)]
        assert front.pick(words[words.index("--pick") + 1]) == point
    assert data["picks"]["knee"] == front.knee().digest


def test_what_is_not_on_the_front_is_a_dot_or_is_counted(run):
    data, trials = page_data(run), run.trials()
    on_front = {row["digest"] for row in data["front"]}
    whole = {t.architecture.digest for t in trials if t.state is TrialState.COMPLETE}
    assert set(data["cloud"]["digest"]) == whole - on_front
    assert data["counts"] == {"complete": COUNT, "failed": 3}
    assert data["errors"] == [("out of memory", 3)]


def test_known_designs_are_marked_only_where_they_were_measured(run, tmp_path):
    names = {baseline["name"] for baseline in page_data(run)["baselines"]}
    assert "plain ViT, largest" in names
    later = make_run(tmp_path / "r", made_trials(20)[10:])
    assert page_data(later)["baselines"] == []


def test_the_hypervolume_curve_rises_to_that_of_all_trials_and_failures_cost(run):
    trials = run.trials()
    curve = hypervolume_curve(trials, factories.OBJECTIVES)
    paid, values = [count for count, _ in curve], [value for _, value in curve]
    assert paid == sorted(paid)
    assert paid[-1] == COUNT + 3
    assert values == sorted(values)
    rows = [[t.measurement.values[o.metric.name] for o in factories.OBJECTIVES] for t in trials[:COUNT]]
    assert values[-1] == hypervolume(rows, factories.OBJECTIVES)


def test_trials_beyond_a_constraint_add_no_hypervolume():
    trials = made_trials(20)
    bound = min(trial.measurement.highest("latency_ms") for trial in trials)
    curve = hypervolume_curve(trials, factories.OBJECTIVES, {"latency_ms": bound})
    only = [t for t in trials if t.measurement.highest("latency_ms") == bound]
    assert curve[-1][1] == hypervolume_curve(only, factories.OBJECTIVES)[-1][1]
    assert len({value for _, value in curve} - {0.0}) == 1


def test_a_long_curve_has_few_points_and_keeps_its_end():
    trials = [factories.trial(i) for i in range(1_001)]
    curve = hypervolume_curve(trials, factories.OBJECTIVES)
    assert len(curve) <= 201
    assert curve[-1][0] == 1_001
    assert hypervolume_curve([], factories.OBJECTIVES) == []


def test_text_of_a_run_cannot_end_the_script_that_holds_it(tmp_path):
    hostile = "</script><script>broken = 1</script><!-- \u2028 & \" '"
    trials = [*made_trials(10), *lost_trials(1, 10, hostile)]
    run = make_run(tmp_path / "a\"b'<i>&", trials, command=hostile)
    page = report_html(page_data(run))
    assert page.count("<script") == page.count("</script>") == 2
    assert embedded(page)["errors"] == [[hostile.splitlines()[0], 1]]
    assert embedded(page)["command"] == hostile
    assert "<title>a&quot;b&#x27;&lt;i&gt;&amp;: Pareto front</title>" in page


def test_random_search_is_shown_up_to_the_same_budget(run, tmp_path):
    config = {"search": {"sampler": "random"}}
    longer = make_run(tmp_path / "random", made_trials(COUNT + 30, seed=5), config=config)
    found = page_data(run, longer)["random"]
    assert found["num_trials"] == COUNT + 3
    assert found["curve"][-1][0] == COUNT + 3
    front = ParetoFront.from_trials(longer.trials()[: COUNT + 3], factories.OBJECTIVES)
    assert found["hypervolume"] == front.hypervolume()
    assert page_data(run)["random"] is None


def test_what_is_no_random_search_on_these_weights_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="its sampler is predictor, not random"):
        page_data(run, make_run(tmp_path / "a", made_trials(5), config={"search": {"sampler": "predictor"}}))
    config = {"search": {"sampler": "random"}}
    with pytest.raises(RunError, match="other conditions"):
        page_data(run, make_run(tmp_path / "b", made_trials(5, supernet="fedcba987654"), config=config))


def test_what_trust_found_is_there_as_it_was_written(tmp_path):
    run = make_run(tmp_path / "r", made_trials(10))
    assert page_data(run)["trust"] is None
    trusted(run)
    assert page_data(run)["trust"] == json.loads((run.path / "trust.json").read_text())


def test_of_several_supernets_the_knees_is_the_one_that_trust_is_asked_of(tmp_path):
    run = supernets_run(tmp_path / "several", 20)
    of_knee = RunDirectory.open(run.path / ParetoFront.from_run(run.path).knee().details["supernet_run"])
    assert shlex.split(page_data(run)["trust_command"])[-1] == str(of_knee.path)
    trusted(of_knee)
    assert page_data(run)["trust"]["run"] == of_knee.name


def test_a_retrained_architecture_and_its_baseline_have_both_accuracies_and_their_costs(tmp_path):
    run = make_run(tmp_path / "r", made_trials(20))
    assert page_data(run)["retrained"] == []
    picked, baseline = page_data(retrained(run))["retrained"]
    knee = ParetoFront.from_run(run.path).knee()
    assert picked["digest"] == knee.digest
    assert picked["latency_ms"] == knee.measurement.values["latency_ms"]
    assert (picked["is_on_front"], picked["is_baseline"], baseline["is_baseline"]) == (True, False, True)
    assert (picked["inherited_top1"], picked["top1"], picked["test_top1"]) == (70, 79, 77.5)
    assert picked["top1_sd"] == pytest.approx(2**0.5)
    assert baseline["macs"] == cost.macs(page_space().largest(), page_space().backbone)


def test_the_same_baseline_of_two_retrained_architectures_is_there_once(tmp_path):
    run = retrained(make_run(tmp_path / "r", made_trials(20)))
    found = run.findings()[f"retrain/{ParetoFront.from_run(run.path).knee().digest}.json"]
    other = ParetoFront.from_run(run.path).pick("top1")
    run.write_retrain(other.digest, {**found, "picked": {**found["picked"], "digest": other.digest}})
    assert sorted(row["name"] for row in page_data(run)["retrained"]) == ["knee", "knee", "plain ViT"]


def test_every_target_is_a_metric_with_its_unit_conditions_and_doubts(tmp_path):
    run = make_run(tmp_path / "r", made_trials(40), targets=2)
    data, front = page_data(run), ParetoFront.from_run(run.path)
    assert [target["metric"] for target in data["targets"]] == ["latency_ms", "latency_ms_2"]
    assert [target["repeat_tau"] for target in data["targets"]] == [0.93, None]
    assert data["units"]["latency_ms_2"]["unit"] == "ms per batch of 1"
    for row, point in zip(data["front"], front.points, strict=True):
        first, second = point.measurement.latency.values()
        assert (row["latency_ms_2"], row["latency_ms_2_ci"]) == (second.ms, list(second.interval))
        assert row["doubts"]["latency_ms"] == {"noisy": first.noisy, "ties": list(first.ties)}
    digest, written = front.points[0].digest, run.front()
    ties = written["points"][1]["details"]["latency"]["ties"]
    ties.append("0" * 12)  # was measured and is not on the front
    run.write_front(written)
    assert page_data(run)["front"][1]["doubts"]["latency_ms"]["ties"] == [digest]


def test_a_run_of_one_target_has_no_other_latency(run):
    data = page_data(run)
    assert [target["metric"] for target in data["targets"]] == ["latency_ms"]
    assert "latency_ms_2" not in {**data["units"], **data["front"][0], **data["cloud"]}


def test_genes_of_what_is_not_on_the_front_are_those_of_its_architecture(run):
    cloud = page_data(run)["cloud"]
    trials = {trial.architecture.digest: trial.architecture for trial in run.trials()}
    for i, digest in enumerate(cloud["digest"]):
        for name, value in genes(trials[digest]).items():
            assert cloud[name][i] == pytest.approx(value, rel=1e-4)


def test_the_trials_of_all_supernets_are_shown_each_with_its_own(tmp_path):
    run = supernets_run(tmp_path / "several", 30)
    data = page_data(run)
    assert [(one["number"], one["state"], one["num_trials"]) for one in data["supernets"]] == [
        (0, "complete", 30),
        (1, "complete", 30),
        (2, "failed", 0),
    ]
    on_front = [row["supernet"] for row in data["front"]]
    assert [one["num_on_front"] for one in data["supernets"]] == [
        on_front.count(number) for number in range(3)
    ]
    assert set(on_front) == set(data["cloud"]["supernet"]) == {0, 1}
    folders = {one["number"]: run.supernets_dir / one["key"] for one in data["supernets"]}
    trials = {number: RunDirectory.open(folder).trials() for number, folder in folders.items()}
    measured = {t.architecture.digest for number in (0, 1) for t in trials[number]}
    assert {row["digest"] for row in data["front"]} | set(data["cloud"]["digest"]) == measured
    for row in data["front"]:
        assert trials[row["supernet"]][row["number"]].architecture.digest == row["digest"]
    assert data["curve"][-1][0] == 60
    assert data["conditions"]["cloud"]["supernet"] == data["conditions"]["front"]["supernet"]
    assert page_data(make_run(tmp_path / "one", made_trials(5)))["supernets"] == []


def test_of_an_architecture_in_several_supernets_the_better_top1_counts(tmp_path):
    run = supernets_run(tmp_path / "several", 30)
    data = page_data(run)
    best = {}
    for one in data["supernets"][:2]:
        for trial in RunDirectory.open(run.supernets_dir / one["key"]).trials():
            top1 = trial.measurement.values["top1"]
            best[trial.architecture.digest] = max(top1, best.get(trial.architecture.digest, 0))
    assert len(best) < 60
    shown = dict(zip(data["cloud"]["digest"], data["cloud"]["top1"], strict=True))
    assert all(top1 == pytest.approx(best[digest], rel=1e-4) for digest, top1 in shown.items())


def test_a_run_without_a_trial_has_no_report(tmp_path):
    run = make_run(tmp_path / "r", lost_trials(2, 0), is_final=False)
    with pytest.raises(RunError, match="nothing was measured yet"):
        write_report(run)
    assert not run.report_path.exists()


def test_the_files_of_a_report_are_a_page_and_its_figures(tmp_path):
    run = make_run(tmp_path / "r", made_trials(10))
    files = write_report(run)
    assert [file.relative_to(run.path).as_posix() for file in files] == [
        "report.html", "figures/front.png", "figures/front.pdf",
    ]  # fmt: skip
    assert all(file.stat().st_size > 5_000 for file in files)


def test_thousands_of_trials_stay_a_small_file(tmp_path):
    run = make_run(tmp_path / "r", made_trials(3_000))
    assert len(report_html(page_data(run)).encode()) < 2_000_000
