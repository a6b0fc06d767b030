import json
import math

import numpy as np
import pytest
from small_runs import begin, one_thread

from nas.arch import cost
from nas.base.errors import ConfigError, NoResultError, RunError
from nas.base.metrics import BALANCED
from nas.base.progress import Reporter
from nas.evaluation.accuracy import balanced_percent
from nas.jobs import stages
from nas.jobs.session import Budget, reopen
from nas.latency.meter import Clock, LatencyMeter, Timing
from nas.report.comparison.values import compare_runs
from nas.report.front_table import front_table
from nas.report.page.data import report_data
from nas.report.status import status_dict
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.results import results_of
from nas.runs.trial import TrialState
from nas.study.workers import InlineWorkers
from nas.training.trained import load_trained


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def refuse_everything(tmp_path):
    return begin(tmp_path, space_settings=["constraints.max_latency_ms=1e-9"])


def test_a_run_measures_what_it_searched(tmp_path):
    """The whole pipeline with latency as an objective."""
    session = begin(tmp_path)
    front = stages.run(session, Budget(trials=6))

    run = session.run
    assert run.manifest.stage == "finished"
    names = ("top1", "macs", "latency_ms")
    assert tuple(objective.metric.name for objective in front.objectives) == names
    trials = {trial.architecture.digest: trial.measurement for trial in run.trials() if trial.whole}
    for point in front.points:
        searched, values = trials[point.digest], point.measurement.values
        assert {name: values[name] for name in ("top1", "macs", "params")} == {
            name: searched.values[name] for name in ("top1", "macs", "params")
        }
        assert searched.conditions.latency_stage == "search"
        assert point.measurement.conditions.latency_stage == "exclusive"
        low, high = point.measurement.intervals["latency_ms"]
        assert 0 < low <= values["latency_ms"] <= high
        assert math.isclose(sum(point.details["layer_latency_share"]), 1)
    assert ParetoFront.from_run(run.path).to_dict("r") == front.to_dict("r")

    assert stages.run(reopen(run.path, Reporter(quiet=True)), Budget(trials=6)).points == front.points


class Machine:
    """Takes the place of the clock: the largest network takes `search_ms` in a search, `front_ms` at its end."""

    def __init__(self, monkeypatch, search_ms, front_ms):
        def share(model):
            return 0.1 + 0.9 * cost.macs(model.architecture, model.backbone) / 153_904

        def interleaved(meter, models, rounds, *_, **__):
            times = [share(model) * front_ms for model in models]
            return [Timing(ms, (0.99 * ms, 1.01 * ms), (ms, ms), rounds) for ms in times], Clock(front_ms, front_ms)

        monkeypatch.setattr(LatencyMeter, "calibrate", lambda *_: search_ms)
        monkeypatch.setattr(LatencyMeter, "ratio", lambda _, model, __: share(model))
        monkeypatch.setattr(LatencyMeter, "interleaved", interleaved)


def test_there_is_one_hypervolume_whatever_else_the_machine_does(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(stages.Progress, "text", property(lambda p: heard.append(p.hypervolume) or ""))
    for name, speeds in {"busy": (5.0, 8.5), "quiet": (5.0, 5.0), "idle": (3.1, 2.0)}.items():
        (tmp_path / name).mkdir()
        Machine(monkeypatch, *speeds)
        session = begin(tmp_path / name)
        run, supernet = session.run, stages.train(session)
        stages.search(session, supernet, Budget(trials=12))
        before = status_dict(run)["hypervolume"]
        points = {point.digest: point for point in results_of(run).points.values()}
        front = stages.measure(session, supernet)
        data = report_data(results_of(run))
        values = [heard[-1], before, front.hypervolume(), run.front()["hypervolume"], status_dict(run)["hypervolume"]]
        values += [data["hypervolume"], data["curve"][-1][1]]
        assert values == pytest.approx([values[0]] * 7)
        assert values[0] > 0.01
        assert data["references"]["latency_ms"] == pytest.approx(1.1 * speeds[1])
        for point in (*front.points, *results_of(run).others):  # one axis for both stages
            now, then = point.measurement.values, points[point.digest].measurement.values
            assert now["latency_ms"] / speeds[1] == pytest.approx(then["latency_ms"] / speeds[0])
        assert data["units"]["latency_ms"]["axis"]["factor"] == speeds[1]
        assert [row["latency_ratio"] for row in run.front()["points"]] == pytest.approx(
            [point.measurement.values["latency_ms"] / speeds[1] for point in front.points]
        )
    for other in ("busy", "idle"):
        found = compare_runs(tmp_path / "quiet" / "r", tmp_path / other / "r")
        assert found["left_out"] == []
        assert found["objectives"][2]["reference"] == pytest.approx(1.1)
        one, two = found["runs"]
        assert one["hypervolume"] == pytest.approx(two["hypervolume"]) == pytest.approx(heard[-1])


def test_where_measured_again_a_front_has_fewer_members_that_is_said(tmp_path, monkeypatch, capsys):
    session = begin(tmp_path, "search.objectives=[top1, latency_ms]", reporter=Reporter())
    Machine(monkeypatch, 5.0, 5.0)
    supernet = stages.train(session)
    stages.search(session, supernet, Budget(trials=12))
    found = ParetoFront.from_trials(session.run.trials(), session.run.manifest.search.objectives)

    def the_same(meter, models, rounds, *_, **__):
        return [Timing(1.0, (0.99, 1.01), (1.0, 1.0), rounds) for _ in models], Clock(5.0, 5.0)

    monkeypatch.setattr(LatencyMeter, "interleaved", the_same)
    front = stages.measure(session, supernet)
    assert len(front.points) < len(found.points)
    said = f"front     {len(front.points)} of the {len(found.points)} that the search found: measured again"
    assert said in capsys.readouterr().err


def test_a_finished_search_is_extended_and_its_trials_stay(tmp_path):
    session = begin(tmp_path, "search.objectives=[top1, macs]")
    stages.run(session, Budget(trials=4))
    first = session.run.trials()
    stages.run(session, Budget(trials=9))
    extended = session.run.trials()
    assert extended[: len(first)] == first
    assert len({trial.architecture.digest for trial in extended}) == 9
    assert session.run.manifest.stage == "finished"


def test_a_time_budget_ends_the_search(tmp_path):
    session = begin(tmp_path, "search.objectives=[top1, macs]")
    stages.run(session, Budget(trials=None, minutes=0.005))
    assert session.run.trials()


def test_training_is_not_done_again(tmp_path):
    session = begin(tmp_path)
    stages.train(session)
    digest = session.run.manifest.supernet_digest
    log = session.run.log_path.read_text()
    stages.train(session)
    assert session.run.log_path.read_text() == log
    assert session.run.manifest.supernet_digest == digest
    assert not load_trained(session.run, session.space, session.device).training


@pytest.mark.parametrize(("before_s", "is_early"), [(1e9, True), (-1.0, False)])
def test_ray_is_started_before_a_training_ends_and_goes_to_the_search(before_s, is_early, tmp_path, monkeypatch):
    started, taken = [], []
    monkeypatch.setattr(stages, "AHEAD_S", before_s)
    monkeypatch.setattr(stages.RayAhead, "start", lambda _, arrays: started.append(arrays["labels"]))
    monkeypatch.setattr(stages.RayAhead, "take", lambda _: "started")
    monkeypatch.setattr(stages.RayAhead, "close", lambda _: None)
    session = begin(tmp_path)

    def workers(build, arrays, *_, started, **__):
        taken.append(started)
        return InlineWorkers(build(arrays))

    monkeypatch.setattr(stages, "RayWorkers", workers)
    monkeypatch.setattr(InlineWorkers, "num_workers", 2, raising=False)
    stages.run(session, Budget(trials=4, workers=2))
    assert (bool(started), taken) == (is_early, ["started"])


def test_a_training_ends_with_a_line_for_every_operator_that_is_dead_and_status_repeats_it(tmp_path, capsys):
    session = begin(tmp_path, "train.static_guidance=0", reporter=Reporter())
    stages.train(session)
    lines = [line for line in capsys.readouterr().err.splitlines() if " is dead: " in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning   static attention is dead: its maps average all tokens (static_entropy 0.99")
    assert status_dict(session.run)["dead_operators"] == [lines[0].removeprefix("warning   ")]
    assert session.run.log_path.read_text().count(" is dead: ") == 1
    stages.train(session)
    assert " is dead: " not in capsys.readouterr().err  # it was trained before


def test_a_supernet_that_is_not_trained_cannot_be_searched(tmp_path):
    session = begin(tmp_path)
    with pytest.raises(RunError, match="the supernet is not trained yet") as caught:
        load_trained(session.run, session.space, session.device)
    assert caught.value.hint


def test_a_run_in_use_cannot_be_run(tmp_path):
    session = begin(tmp_path)
    with session.run.lock(), pytest.raises(RunError, match="is being written by process"):
        stages.run(session, Budget(trials=1))


def test_no_candidate_within_the_latency_bound_is_an_answer_of_its_own(tmp_path, monkeypatch):
    session = refuse_everything(tmp_path)
    with pytest.raises(NoResultError, match="the smallest network of the space takes"):
        stages.run(session, Budget(trials=2))
    assert not session.run.supernet_dir.exists() or not any(session.run.supernet_dir.iterdir())  # nothing was trained
    monkeypatch.setattr(stages, "check_latency_bounds", lambda _: None)
    with pytest.raises(NoResultError) as caught:
        stages.run(session, Budget(trials=2))
    assert caught.value.exit_code == 1
    assert caught.value.hint
    assert len(session.run.trials()) == 2


TWO_TARGETS = "evaluate.targets=[torch-cpu, 'torch-cpu-packed:batch=2']"


def test_latency_on_two_targets_is_optimised_and_measured_again(tmp_path):
    session = begin(tmp_path, TWO_TARGETS, "search.objectives=[top1, latency_ms, latency_ms_2]")
    front = stages.run(session, Budget(trials=5))
    assert [objective.metric.name for objective in front.objectives] == ["top1", "latency_ms", "latency_ms_2"]
    for trial in session.run.trials():
        assert {"latency_ms", "latency_ms_2"} < set(trial.measurement.values)
    header = (session.run.path / "trials.csv").read_text().splitlines()[0]
    assert header.endswith(",architecture,latency_ms_2")
    for point in front.points:
        for name in ("latency_ms", "latency_ms_2"):
            low, high = point.measurement.intervals[name]
            assert 0 < low <= point.measurement.values[name] <= high
        assert point.measurement.latency["latency_ms_2"].target == "torch-cpu-packed:batch=2"
    assert "torch-cpu-packed, batch of 2" in front.points[0].measurement.conditions.target
    assert ParetoFront.from_run(session.run.path).to_dict("r") == front.to_dict("r")


def test_latency_is_bounded_on_the_second_target_and_where_it_is_no_objective(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "check_latency_bounds", lambda _: None)  # which would refuse it at once
    objectives = "search.objectives=[top1, macs]"
    session = begin(tmp_path, TWO_TARGETS, objectives, space_settings=["constraints.max_latency_ms_2=1e-9"])
    with pytest.raises(NoResultError, match=r"keeps constraints\.max_latency_ms_2"):
        stages.run(session, Budget(trials=3))
    for trial in session.run.trials():
        assert "latency_ms_2" in trial.measurement.values
        assert "latency_ms" not in trial.measurement.values


def test_initial_weights_that_cannot_be_had_are_said_before_there_is_a_run(tmp_path):
    with pytest.raises(ConfigError, match="no_such_model"):
        begin(tmp_path, "init=timm:no_such_model")
    assert not list(tmp_path.rglob("manifest.json"))


def test_front_json_and_csv_hold_the_same_points(tmp_path):
    session = begin(tmp_path, "search.objectives=[top1, macs]")
    front = stages.run(session, Budget(trials=3))
    values = json.loads((session.run.path / "front.json").read_text())
    assert [point["digest"] for point in values["points"]] == [point.digest for point in front.points]
    assert values["reference_ms"] > 0
    rows = session.run.front_csv.read_text().splitlines()
    assert len(rows) == 1 + len(front.points)
    assert RunDirectory.open(session.run.path).figure_path().stat().st_size > 0


def test_a_search_for_balanced_accuracy_measures_it_and_races_nothing(tmp_path):
    heard = []

    class Told(Reporter):
        def line(self, label, text):
            heard.append(f"{label} {text}")

    session = begin(
        tmp_path, "search.objectives=[balanced_top1, macs]", "train.class_weights=balanced", reporter=Told(quiet=True)
    )
    front = stages.run(session, Budget(trials=24))
    assert "racing off: balanced accuracy needs all images of every class" in heard
    images, trials = session.data.search.labels[:40], [t for t in session.run.trials() if t.measurement]
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.REPEATED}
    for trial in trials:
        found = trial.measurement
        correct = np.unpackbits(np.frombuffer(found.correct, dtype=np.uint8), count=40).astype(bool)
        assert found.balanced_top1 == balanced_percent(correct, images)
        low, high = found.balanced_top1_interval
        assert low <= found.balanced_top1 <= high
    assert front.accuracy is BALANCED
    assert ParetoFront.from_run(session.run.path).to_dict("r") == front.to_dict("r")
    best = max(t.measurement.balanced_top1 for t in trials)
    assert front.pick("balanced").measurement.balanced_top1 == best
    assert report_data(results_of(session.run))["up"] == {"metric": "balanced_top1", "is_more": True}
    assert "balanced top-1 (%)" in [str(column.header) for column in front_table(front).columns]
