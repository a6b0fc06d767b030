"""What the page says is what was measured; nothing of a run can break out of the page's data."""

import json
import re
import shlex

import factories
import pytest
from report_runs import lost_trials, made_trials, make_run, page_space

from nas import cost
from nas.errors import RunError
from nas.html_report import hypervolume_curve, report_data, report_html, write_report
from nas.pareto import ParetoFront, hypervolume
from nas.run_directory import RunDirectory
from nas.trial import TrialState

COUNT = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    trials = [*made_trials(COUNT), *lost_trials(3, COUNT)]
    largest = page_space().largest().digest
    return make_run(tmp_path_factory.mktemp("runs") / "page-1", trials, reference_digest=largest, seed=7)


def embedded(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])


def test_the_page_holds_its_data_and_asks_for_nothing_else(run):
    page = report_html(report_data(run))
    assert embedded(page) == json.loads(json.dumps(report_data(run)))
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[\w/]*", page.replace("// ", "")))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of SVG, not an address that is opened
    assert "default-src 'none'" in page
    assert "{{" not in page


def test_every_point_of_the_front_is_there_with_its_values_layers_and_commands(run):
    front, data = ParetoFront.from_run(run.path), report_data(run)
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
    data, trials = report_data(run), run.trials()
    on_front = {row["digest"] for row in data["front"]}
    whole = {t.architecture.digest for t in trials if t.state is TrialState.COMPLETE}
    assert set(data["cloud"]["digest"]) == whole - on_front
    assert data["counts"] == {"complete": COUNT, "failed": 3}
    assert data["errors"] == [("out of memory", 3)]


def test_known_designs_are_marked_only_where_they_were_measured(run, tmp_path):
    names = {baseline["name"] for baseline in report_data(run)["baselines"]}
    assert "plain ViT, largest" in names
    later = make_run(tmp_path / "r", made_trials(20)[10:])
    assert report_data(later)["baselines"] == []


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
    bound = min(trial.measurement.values["latency_ms"] for trial in trials)
    curve = hypervolume_curve(trials, factories.OBJECTIVES, {"latency_ms": bound})
    only = [t for t in trials if t.measurement.values["latency_ms"] == bound]
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
    page = report_html(report_data(run))
    assert page.count("<script") == page.count("</script>") == 2
    assert embedded(page)["errors"] == [[hostile.splitlines()[0], 1]]
    assert embedded(page)["command"] == hostile
    assert "<title>a&quot;b&#x27;&lt;i&gt;&amp;: Pareto front</title>" in page


def test_random_search_is_shown_up_to_the_same_budget(run, tmp_path):
    config = {"search": {"sampler": "random"}}
    longer = make_run(tmp_path / "random", made_trials(COUNT + 30, seed=5), config=config)
    found = report_data(run, longer)["random"]
    assert found["num_trials"] == COUNT + 3
    assert found["curve"][-1][0] == COUNT + 3
    front = ParetoFront.from_trials(longer.trials()[: COUNT + 3], factories.OBJECTIVES)
    assert found["hypervolume"] == front.hypervolume()
    assert report_data(run)["random"] is None


def test_what_is_no_random_search_on_these_weights_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="its sampler is predictor, not random"):
        report_data(
            run, make_run(tmp_path / "a", made_trials(5), config={"search": {"sampler": "predictor"}})
        )
    config = {"search": {"sampler": "random"}}
    with pytest.raises(RunError, match="other conditions"):
        report_data(run, make_run(tmp_path / "b", made_trials(5, supernet="fedcba987654"), config=config))


def test_what_other_commands_found_is_shown(tmp_path):
    run = make_run(tmp_path / "r", made_trials(10))
    assert report_data(run)["findings"] == {}
    trust = {"schema_version": 1, "kendall_tau": 0.5}
    (run.path / "trust.json").write_text(json.dumps(trust))
    (run.path / "retrain").mkdir()
    (run.path / "retrain" / "knee.json").write_text('{"schema_version": 1}')
    assert report_data(run)["findings"] == {"trust.json": trust, "retrain/knee.json": {"schema_version": 1}}


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
    assert len(report_html(report_data(run)).encode()) < 2_000_000


def test_every_run_ends_with_a_report(finished):
    run = RunDirectory.open(finished.folder)
    assert embedded(run.report_path.read_text())["run"] == run.name
    assert run.figure_path().with_suffix(".pdf").is_file()
