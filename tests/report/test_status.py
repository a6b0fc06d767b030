"""How a run stands, in numbers and in words."""

import re
from pathlib import Path

import factories
import pytest
from report_runs import row_with, text_of

from nas.base.errors import RunError
from nas.report.status import run_rows, runs_table, status_dict, status_line, status_table
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.trial import TrialState

ROOT = Path(__file__).resolve().parents[2]


def make_run(tmp_path, **manifest):
    path = tmp_path / "digits-1"
    return RunDirectory.create(path, manifest=factories.manifest(**manifest), space_text="", config={})


def fill(run):
    """Five measured trials 30 s apart with a pause of a day in between, one repeat, one in flight."""
    a, *others = factories.distinct_architectures(6)
    times = [0, 30, 60, 86_460, 86_490]
    fixed = [{"finished": 1e9 + t} for t in times]
    fixed[1] |= {"state": TrialState.FAILED, "measurement": None, "error": "NaN"}
    fixed[2] |= {"state": TrialState.PRUNED, "measurement": None}
    for i, (architecture, changes) in enumerate(zip([a, *others], fixed, strict=False)):
        run.append_trial(factories.trial(i, architecture, **changes))
    run.append_trial(factories.trial(5, a, state=TrialState.REPEATED, repeat_of=0, finished=1e9 + 86_490))
    run.append_trial(factories.trial(6, others[-1], state=TrialState.RUNNING, measurement=None, finished=None))


def test_status_counts_every_state_and_forecasts_from_the_pace_without_pauses(tmp_path):
    run = make_run(tmp_path, budget={"num_trials": 15})
    fill(run)
    with run.lock():
        status = status_dict(run)
    assert status["trials"] == {"running": 1, "complete": 3, "failed": 1, "repeated": 1, "pruned": 1}
    assert status["state"] == "searching"
    assert status["throughput_per_minute"] == pytest.approx(2.0)
    assert status["minutes_left"] == pytest.approx((15 - 5) / 2.0)
    assert status["hypervolume"] == ParetoFront.from_run(run.path).hypervolume() > 0
    assert status["front_size"] == 3
    text = text_of(status_table(status))
    assert row_with(text, "trials complete").split()[-3:] == ["3", "of", "15"]
    assert row_with(text, "throughput").split()[-2:] == ["2.0", "trials/min"]


def test_status_of_a_run_whose_writer_is_gone_is_interrupted_with_nothing_running(tmp_path):
    run = make_run(tmp_path)
    fill(run)
    status = status_dict(run)
    assert (status["state"], status["stage"]) == ("interrupted", "searching")
    assert (status["trials"]["running"], status["trials"]["lost"]) == (0, 1)
    assert row_with(text_of(status_table(status)), "trials lost").split()[-1] == "1"
    with run.lock():
        assert status_dict(run)["trials"]["running"] == 1
        run.update_manifest(stage="training")  # resumed, and not yet where the search takes it up
        assert (status_dict(run)["trials"]["running"], status_dict(run)["trials"]["lost"]) == (0, 1)
    assert "interrupted while searching" in text_of(status_table(status))


def test_status_before_the_first_trial_knows_no_pace(tmp_path):
    status = status_dict(make_run(tmp_path, stage="created", budget={"num_trials": 10}))
    assert status["state"] == "created"
    assert (status["throughput_per_minute"], status["minutes_left"]) == (None, None)
    assert (status["hypervolume"], status["front_size"]) == (0.0, 0)
    assert "not known yet" in text_of(status_table(status))


def test_status_leaves_the_nearer_of_trials_and_deadline(tmp_path):
    run = make_run(tmp_path, budget={"num_trials": 15, "deadline": 2e9})
    fill(run)
    assert status_dict(run, now=2e9 - 120)["minutes_left"] == pytest.approx(2.0)
    assert status_dict(run, now=2e9 + 5)["minutes_left"] == 0
    run.update_manifest(stage="finished")
    assert (status_dict(run)["state"], status_dict(run)["minutes_left"]) == ("finished", 0)


def test_every_key_of_status_and_manifest_is_explained_in_the_readme(tmp_path):
    explained = set(re.findall(r"`([\w.]+)`", (ROOT / "results" / "README.md").read_text()))
    keys = {*status_dict(make_run(tmp_path)), *factories.manifest().to_dict(), "budget"}
    assert keys - explained == set()


def log_of(run, *rows):
    """A training's log with the columns of the rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = [",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]
    run.supernet_dir.mkdir(exist_ok=True)
    run.training_log.write_text("\n".join(text) + "\n")


LOSSES = {"epoch": 1, "loss_largest": 1, "loss_smallest": 2, "loss_random": 1.5, "lr": 0.1, "images_per_second": 9}


def test_status_says_which_operator_is_dead_by_the_last_row_that_tells(tmp_path):
    run = make_run(tmp_path, stage="training")
    early = {"step": 10, "steps": 100, **LOSSES, "glad_share": 0.0, "linear_scale": 1.1}
    log_of(run, early)
    assert status_dict(run)["dead_operators"] == []
    later = {**early, "step": 60, "linear_scale": 0.9}
    log_of(run, early, later, {"step": 70, "steps": 100, **LOSSES})
    status = status_dict(run)
    assert status["training"] == {"step": 70, "steps": 100, **LOSSES}
    assert status["diagnostics"] == {"glad_share": 0.0, "linear_scale": 0.9}
    assert len(status["dead_operators"]) == 1
    assert "glad is dead" in row_with(text_of(status_table(status), 400), "warning")


def test_status_of_a_log_of_an_earlier_version_tells_of_no_operator(tmp_path):
    run = make_run(tmp_path, stage="training")
    log_of(run, {"step": 99, "steps": 100, **LOSSES})
    status = status_dict(run)
    assert (status["diagnostics"], status["dead_operators"]) == ({}, [])
    assert status["training"]["step"] == 99
    assert "warning" not in text_of(status_table(status))


def test_runs_of_a_folder_stand_in_a_table_the_newest_first(tmp_path):
    fill(make_run(tmp_path, budget={"num_trials": 15}, created=1e9))
    RunDirectory.create(tmp_path / "later", manifest=factories.manifest(created=2e9), space_text="", config={})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    (tmp_path / "no run").mkdir()
    rows = run_rows(tmp_path)
    assert [row["run"] for row in rows] == ["later", "digits-1", "broken"]
    assert rows[2]["error"]
    text = text_of(runs_table({"folder": "results", "runs": rows}), 160)
    assert "3 runs in results" in text
    assert "cannot be read" in text
    assert "3 of 15" in row_with(text, "digits-1")
    with pytest.raises(RunError, match="no such folder"):
        run_rows(tmp_path / "none")
    assert "1 run in results" in text_of(runs_table({"folder": "results", "runs": rows[:1]}), 160)
    narrow = text_of(runs_table({"folder": "results", "runs": rows}), 80)
    assert "…" not in narrow
    assert "3 of 15" in row_with(narrow, "digits-1")
    for word in ("trials", "front", "hypervolume", "state"):
        assert word in narrow


def test_a_line_for_a_log_says_state_and_how_far(tmp_path):
    run = make_run(tmp_path, budget={"num_trials": 15})
    fill(run)
    with run.lock():
        line = status_line(status_dict(run))
    assert re.fullmatch(r"\w+(, trials complete \d+/15)?(, hypervolume [\d.]+)?", line)
