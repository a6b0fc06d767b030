import json
import os
from importlib import import_module

import pytest
from small_runs import QUICK, TRIALS, command

from nas.jobs.dry_run.forecast import (
    Proposals,
    final_stage_s,
    front_size,
    num_saves,
    timed_pass_s,
    training_s,
    trials_in,
    trials_s,
)
from nas.jobs.dry_run.rehearsal import Searching, Training, size_of

TRAINING = Training(
    steps=1000, step_s=0.12, samples=9, setup_s=1.0, save_s=0.5, checkpoint_bytes=1_000_000
)  # 120 s of steps
SEARCHING = Searching(
    fixed_s=0.1,
    s_per_mac=1e-6,
    samples=9,
    parallelism=1.5,
    start_s=10.0,
    close_s=2.0,
    files_s=1.0,
    reference_s=0.01,
    trial_bytes=1e4,
    point_bytes=1e3,
    fixed_bytes=5000,
)  # 0.6 s for 500,000 MACs, so 0.4 s from one result to the next


# --- arithmetic, by hand ---


def test_checkpoints_are_written_whenever_their_minutes_are_over_and_at_the_end():
    assert [num_saves(seconds, 1.0) for seconds in (0, 59, 61, 150)] == [1, 1, 2, 3]


def test_training_takes_its_steps_its_checkpoints_and_its_start():
    assert training_s(TRAINING, 0.75) == pytest.approx(1.0 + 120.0 + 3 * 0.5)


def test_search_takes_its_trials_and_its_workers():
    assert trials_s(20, SEARCHING, 500_000) == pytest.approx(10.0 + 20 * 0.4 + 2.0)
    assert trials_s(0, SEARCHING, 500_000) == 0.0


def test_trials_of_some_seconds_are_those_that_end_in_time():
    assert trials_in(30.1, SEARCHING, 500_000) == 50
    assert trials_in(5.0, SEARCHING, 500_000) == 0


def test_proposals_begin_with_designs_and_go_on_like_uniform_draws():
    proposals = Proposals(designs=4, design_macs=100.0, later_macs=50.0)
    assert proposals.mean_macs(0, 4) == 100.0
    assert proposals.mean_macs(0, 8) == 75.0
    assert proposals.mean_macs(2, 8) == 62.5
    assert proposals.mean_macs(10, 8) == 50.0


def test_short_passes_are_repeated_until_five_milliseconds():
    assert timed_pass_s(0.002) == pytest.approx((1 + 3) * 0.002)
    assert timed_pass_s(0.01) == pytest.approx((1 + 1) * 0.01)


def test_last_stage_interleaves_and_looks_at_layers():
    warm_up = 3 * (2 * 0.01 + 2 * 0.01)
    interleaved, shares = 3 * (0.02 + 2 * (0.02 + 0.02)), 2 * 9 * 0.01
    assert final_stage_s(2, 3, 0.01, 0.01) == pytest.approx(warm_up + interleaved + shares)
    assert final_stage_s(0, 3, 0.01, 0.01) == 0.0
    warm_up = 3 * (2 * 0.01 + 7 * 0.001)  # a timing of small models takes 6 ms, so four of them share a reference
    interleaved, shares = 3 * (0.02 + 2 * 0.02 + 7 * 0.006), 7 * 9 * 0.001
    assert final_stage_s(7, 3, 0.001, 0.01) == pytest.approx(warm_up + interleaved + shares)


def test_front_grows_as_the_root_of_the_trials():
    assert [front_size(trials, 2) for trials in (0, 1, 100, 225)] == [0, 1, 8, 12]
    assert [front_size(trials, 3) for trials in (0, 1, 100, 225)] == [0, 2, 12, 18]


# --- `--dry-run` ---

ARGUMENTS = ("run", "tiny.yaml", *QUICK, "--workers=0", "--dry-run")


def forecast(*arguments):
    done = command(*arguments)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_run_is_forecast_and_nothing_is_left_behind(home):
    before = contents(home)
    values = forecast(*ARGUMENTS, "--trials=20")
    assert contents(home) == before
    assert values["schema_version"] == 1
    assert values["steps"] == 2 * (1151 // 256)
    assert values["trials"] == 20
    stages = [values[name] for name in ("start_s", "train_s", "search_s", "measure_s")]
    assert min(stages) > 0
    assert values["total_s"] == pytest.approx(sum(stages))
    assert values["memory_bytes"] >= values["memory_driver_bytes"] > values["memory_images_bytes"] > 0
    assert values["disk_bytes"] == values["disk_checkpoints_bytes"] + values["disk_trials_bytes"]
    assert values["disk_trials_bytes"] > 20 * 1000
    assert values["steps_timed"] >= 3
    assert values["evaluations_timed"] >= 3


def test_forecast_scratch_is_deleted(home, monkeypatch):
    (home / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home / "scratch"))
    forecast(*ARGUMENTS, "--trials=4")
    assert os.listdir(home / "scratch") == []  # noqa: PTH208


def test_disk_of_a_forecast_is_that_of_the_run(home, finished):
    values = forecast(*ARGUMENTS, f"--trials={TRIALS}")
    assert values["disk_bytes"] == pytest.approx(size_of(finished.folder), rel=0.2)


def test_more_trials_take_longer_and_more_disk(home):
    few, many = (forecast(*ARGUMENTS, f"--trials={trials}") for trials in (10, 1000))
    assert many["trials"] > few["trials"]
    assert many["search_s"] > few["search_s"]
    assert many["disk_trials_bytes"] > few["disk_trials_bytes"]


def test_minutes_of_a_search_are_forecast_as_trials(home, finished):
    values = forecast("search", finished.folder, "--minutes=1", "--workers=0", "--dry-run")
    assert values["trials"] > 0
    assert values["search_s"] < 60 + 5
    assert values["finalists"] == 0


def test_finalists_are_forecast_where_they_are_asked_for_or_worth_it(home):
    few = forecast(*ARGUMENTS, "--trials=9")
    assert (few["finalists"], few["finalists_s"], few["disk_finalists_bytes"]) == (0, 0, 0)
    asked = forecast(*ARGUMENTS, "--trials=9", "--finalists=4")
    assert (asked["finalists"], asked["finalist_epochs"]) == (4, 1)
    assert asked["finalists_s"] > 0
    assert asked["total_s"] == pytest.approx(
        sum(asked[f"{stage}_s"] for stage in ("start", "train", "search", "finalists", "measure"))
    )
    long = forecast(*ARGUMENTS, "--trials=9", "--epochs=4000")
    assert long["finalists"] == 16
    assert long["finalist_epochs"] * (1151 // 256) >= 200


def test_trials_never_exceed_the_space(home):
    space = json.loads(command("check", "tiny.yaml", "--set=depth=1").stdout)["architectures"]
    assert forecast(*ARGUMENTS, "--set=depth=1", "--trials=100000")["trials"] == space


def test_training_alone_is_forecast_without_a_search(home):
    before = contents(home)
    values = forecast("train", "tiny.yaml", *QUICK, "--dry-run")
    assert contents(home) == before
    assert values["train_s"] > 0
    assert (values["search_s"], values["measure_s"], values["trials"]) == (0, 0, 0)


def test_a_training_in_several_processes_is_rehearsed_in_one_which_is_said(home, monkeypatch):
    tiny = forecast("train", "tiny.yaml", *QUICK, "--workers=3", "--dry-run")
    assert not any("process" in note for note in tiny["notes"])  # it will train in one
    monkeypatch.setattr(import_module("nas.jobs.dry_run.forecast"), "LEAST_THREADED_MACS", 0)
    notes = forecast("train", "tiny.yaml", *QUICK, "--workers=3", "--dry-run")["notes"]
    (note,) = [note for note in notes if "process" in note]
    assert note == "training is that of one process; what 3 make of it is not forecast"


def test_what_is_done_is_not_forecast_again(home, finished):
    before = contents(finished.folder)
    again = forecast(*finished.arguments, "--dry-run")
    assert (again["steps"], again["trials"], again["search_s"], again["measure_s"]) == (0, 0, 0, 0)
    more = forecast("search", finished.folder, f"--trials={TRIALS + 7}", "--workers=0", "--dry-run")
    assert (more["steps"], more["trials"], more["trials_done"]) == (0, 7, TRIALS)
    assert more["search_s"] > 0
    assert contents(finished.folder) == before


def test_forecast_reads_as_a_table_and_as_csv(home):
    table = command(*ARGUMENTS, "--trials=9", "--format=table").stdout
    for word in ("training", "search", "final latency", "total", "memory", "disk", "MB", "9 architectures"):
        assert word in table
    assert command(*ARGUMENTS, "--trials=9", "--format=csv").stdout.count("\n") == 2


def test_storage_is_checked_but_no_database_is_made(home):
    before = contents(home)
    assert forecast(*ARGUMENTS, "--trials=4", "--storage=sqlite:///study.db")["trials"] == 4
    assert contents(home) == before
    assert command(*ARGUMENTS, "--storage=sqlite:///nowhere/study.db").code == 2


@pytest.mark.ray
@pytest.mark.slow
def test_ray_workers_are_rehearsed(home):
    before = contents(home)
    values = forecast("run", "tiny.yaml", *QUICK, "--workers=2", "--dry-run", "--trials=50")
    assert contents(home) == before
    assert values["memory_workers_bytes"] > 0
    assert 0 < values["parallelism"] <= 2
