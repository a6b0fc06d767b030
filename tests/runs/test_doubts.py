"""What is missing in a run's folder is said, and a whole run raises no doubt."""

import json
import shutil
from pathlib import Path

import pytest

from nas.runs.directory import RunDirectory
from nas.runs.doubts import doubts_of

RUNS = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture
def run(tmp_path):
    """A finished run of twelve trials."""
    return RunDirectory.open(shutil.copytree(RUNS / "old_run", tmp_path / "old_run"))


def lines(run):
    return (run.path / "trials.jsonl").read_text().splitlines(keepends=True)


@pytest.mark.parametrize("name", ["old_run", "old_supernets"])
def test_a_whole_run_raises_no_doubt(name):
    assert doubts_of(RunDirectory.open(RUNS / name)) == []


@pytest.mark.parametrize("lost", [[0], [3, 4], [11], [10, 11], list(range(12))])
def test_records_that_are_lost_are_counted_and_named(run, lost):
    (run.path / "trials.jsonl").write_text("".join(text for i, text in enumerate(lines(run)) if i not in lost))
    doubt = doubts_of(run)[0]
    assert f"no record of {len(lost)} trial" in doubt
    assert f"({', '.join(map(str, lost[:8]))}" in doubt


def test_a_hole_is_seen_without_the_table_of_trials(run):
    (run.path / "trials.csv").unlink()
    (run.path / "trials.jsonl").write_text("".join(text for i, text in enumerate(lines(run)) if i != 5))
    assert "no record of 1 trial (5)" in doubts_of(run)[0]


@pytest.mark.parametrize("table", [b"", b"\xff\xfe", b"number\nx\n\n-1\n", b'"'])
def test_a_table_that_is_damaged_says_nothing(run, table):
    (run.path / "trials.csv").write_bytes(table)
    assert doubts_of(run) == []


def test_doubled_and_shuffled_lines_change_nothing(run):
    trials = run.trials()
    (run.path / "trials.jsonl").write_text("".join([*reversed(lines(run)), *lines(run)]))
    assert run.trials() == trials
    assert doubts_of(run) == []


def test_a_missing_front_of_a_finished_run_is_said(run):
    (run.path / "front.json").unlink()
    assert "front.json is missing" in doubts_of(run)[0]


def test_a_front_of_another_run_is_said(run):
    shutil.copy(RUNS / "old_supernets" / "front.json", run.path)
    (doubt,) = doubts_of(run)
    assert "but those of this run are" in doubt


def test_trials_of_another_run_are_said(run):
    shutil.copy(next(RUNS.glob("old_supernets/supernets/*/trials.jsonl")), run.path)
    assert any("trials.jsonl is of the weights" in doubt for doubt in doubts_of(run))


def test_a_member_of_the_front_that_no_trial_has_is_named(run):
    values = run.front()
    values["points"][0]["architecture"]["layers"][0]["mlp_ratio"] = 3
    run.write_front(values)
    assert "has 1 architecture that no trial has" in doubts_of(run)[0]


def test_where_a_search_was_killed_the_search_measures_them_again(run):
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps({**manifest, "stage": "searching"}))
    run.remove_front()
    (run.path / "trials.jsonl").write_text("".join(lines(run)[1:]))
    (doubt,) = doubts_of(run)
    assert "(0); a search that goes on measures them again" in doubt


def test_of_a_search_that_goes_on_nothing_is_doubted(run):
    (run.path / "trials.jsonl").write_text("".join(lines(run)[1:]))
    with run.lock():
        assert doubts_of(run) == []


def test_a_lost_record_of_one_of_several_supernets_is_named_with_its_folder(tmp_path):
    run = RunDirectory.open(shutil.copytree(RUNS / "old_supernets", tmp_path / "several"))
    path = next(run.supernets_dir.glob("*/trials.jsonl"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert any(str(path) in doubt for doubt in doubts_of(run))
