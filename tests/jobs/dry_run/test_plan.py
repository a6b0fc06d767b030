"""`run --minutes`: what is shared out, what stands, and that a run keeps its plan."""

import json
from dataclasses import replace
from importlib import import_module

import pytest
from small_runs import QUICK, command

from nas.jobs.dry_run.plan import LEAST_TRIALS, MOST_TRIALS, Pace, plan_line, share_out
from nas.runs.directory import RunDirectory
from nas.runs.manifest import RunPlan

PACE = Pace(fixed_s=50.0, epoch_s=10.0, trial_s=1.0, workers_s=10.0, finalist_s=5.0)  # of 660 s, 600 are to be shared


def shared(minutes=11.0, epochs=None, trials=None, with_finalists=True, pace=PACE):
    return share_out(minutes, pace, epochs=epochs, trials=trials, with_finalists=with_finalists)


def test_half_is_for_training_a_fifth_for_the_search_the_rest_for_finalists():
    assert shared() == (30, 120, pytest.approx(180 / 5))


def test_without_finalists_the_others_have_their_share_in_their_proportion():
    assert shared(with_finalists=False) == (42, 171, 0.0)  # 5 / 7 and 2 / 7 of 600 s


def test_what_is_given_stands_and_the_rest_is_shared():
    assert shared(epochs=20) == (20, 160, pytest.approx(240 / 5))  # 400 s: 2 / 5 and 3 / 5
    assert shared(trials=200) == (25, 200, pytest.approx(150 / 5))  # 400 s: 5 / 8 and 3 / 8
    assert shared(epochs=20, trials=200) == (20, 200, pytest.approx(200 / 5))


def test_a_long_search_leaves_its_time_to_training_and_finalists():
    epochs, trials, finalists = shared(minutes=1001.0)  # 60,000 s
    assert trials == MOST_TRIALS
    assert (epochs, finalists) == (3687, pytest.approx((59_000 - 36_870) / 5))


def test_however_short_the_time_there_is_an_epoch_and_some_trials():
    assert shared(minutes=0.1) == (1, LEAST_TRIALS, 0.0)


def test_the_plan_is_a_line():
    plan = RunPlan(minutes=11.0, epochs=30, trials=120, finalists=16, finalist_epochs=36.0)
    said = plan_line(plan, PACE)
    assert plan_line(replace(plan, minutes=9.0), PACE).endswith("; this is longer than asked")
    assert said == "11 min: 30 epochs of the supernet (5:00), 120 trials (2:10), 16 finalists (3:00), the rest 0:50"


def test_minutes_alone_plan_a_job_and_the_same_command_keeps_the_plan(home, monkeypatch):
    forecast = import_module("nas.jobs.dry_run.forecast")
    settled = RunPlan(minutes=5.0, epochs=3, trials=9, finalists=4, finalist_epochs=2.0)
    monkeypatch.setattr(forecast, "planned", lambda *_, **__: settled)
    quick = [word for word in QUICK if not word.startswith("--epochs")]
    arguments = ("run", "tiny.yaml", "--run=r", "--workers=0", "--minutes=5", *quick)
    done = command(*arguments)
    assert done.code == 0, done.stderr
    assert "plan      5 min: 3 epochs" in done.stderr
    run = RunDirectory.open(home / "r")
    assert run.manifest.plan == settled
    assert run.config()["train"]["epochs"] == 3
    assert sum(trial.is_paid for trial in run.trials()) == 9
    assert run.front()["finalists"]["count"] == 4
    monkeypatch.setattr(forecast, "planned", None)  # not asked again
    again = command(*arguments)
    assert again.code == 0, again.stderr
    assert "finished already" in again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)


def test_a_forecast_by_minutes_is_of_the_plan(home, monkeypatch):
    before = set(home.rglob("*"))
    settled = RunPlan(minutes=5.0, epochs=3, trials=9, finalists=4, finalist_epochs=2.0)
    monkeypatch.setattr(import_module("nas.jobs.dry_run.forecast"), "planned", lambda *_, **__: settled)
    quick = [word for word in QUICK if not word.startswith("--epochs")]
    done = command("run", "tiny.yaml", "--workers=0", "--minutes=5", "--dry-run", *quick)
    assert done.code == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["steps"], values["trials"], values["finalists"]) == (3 * (1151 // 256), 9, 4)
    assert values["finalists_s"] > 0
    assert values["disk_finalists_bytes"] > 0
    assert set(home.rglob("*")) == before
