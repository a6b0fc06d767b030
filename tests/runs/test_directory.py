"""A run's folder survives kill -9, has one writer, and refuses what it cannot read."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import factories
import pytest

from nas.base.disk import DiskError
from nas.base.errors import InputFileError, RunError
from nas.base.files import atomic_write_bytes, atomic_write_text
from nas.runs import directory as run_directory
from nas.runs.directory import RunDirectory, latest_unfinished, next_path
from nas.runs.trial import TrialState

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(
        tmp_path / "digits-1",
        manifest=factories.manifest(seed=3, stage="created"),
        space_text="name: digits  # a comment\n",
        config={"seed": 3, "search": {"objectives": ("top1", "macs")}, "init": None},
    )


@contextlib.contextmanager
def process(code, *arguments):
    """Run Python code with the package and the factories importable; killed at the end if it still lives."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


HOLD_LOCK = """
    import signal, sys
    from nas.runs import RunDirectory
    with RunDirectory.open(sys.argv[1]).lock():
        print("locked", flush=True)
        signal.pause()
"""


def test_a_created_run_reads_back_what_was_given(run):
    again = RunDirectory.open(run.path)
    assert again.name == "digits-1"
    assert again.space_text() == "name: digits  # a comment\n"
    assert again.config() == {"seed": 3, "search": {"objectives": ["top1", "macs"]}, "init": None}
    assert again.manifest == factories.manifest(seed=3, stage="created", created=again.manifest.created)
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", "manifest.json", "space.yaml"]


def test_creating_leaves_an_existing_folder_alone(run):
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    with pytest.raises(RunError, match="needs an empty folder"):
        RunDirectory.create(run.path, manifest=factories.manifest(), space_text="", config={})
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before


def test_creating_with_a_number_json_cannot_hold_leaves_nothing_behind(tmp_path):
    config = {"loss": math.nan}
    with pytest.raises(RunError, match="JSON cannot hold it"):
        RunDirectory.create(tmp_path / "r", manifest=factories.manifest(), space_text="", config=config)
    assert list(tmp_path.iterdir()) == []


def test_creating_inside_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="r: not written: Not a directory"):
        RunDirectory.create(tmp_path / "file" / "r", manifest=factories.manifest(), space_text="", config={})


def test_opening_what_is_no_run_names_the_runs_beside_it(run, tmp_path):
    with pytest.raises(RunError, match="does not exist") as raised:
        RunDirectory.open(tmp_path / "digits-7")
    assert str(run.path) in raised.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"no manifest\.json"):
        RunDirectory.open(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 2}', "schema_version 2 is newer"),
        ('{"schema_version": "1"}', "must be a positive number, got '1'"),
        ("[1]", "must be a positive number, got None"),
        ('{"schema_version": 1', "cannot be read"),
    ],
)
def test_a_newer_or_damaged_manifest_is_refused(run, text, message):
    (run.path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=message) as raised:
        RunDirectory.open(run.path)
    assert raised.value.hint or "positive" in message


def test_a_newer_front_is_refused(run):
    run.write_front({"schema_version": 9})
    with pytest.raises(RunError, match="newer than this program"):
        run.front()


def test_json_in_a_run_is_sorted_and_indented(run):
    text = (run.path / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2) + "\n"


def test_trials_read_back_equal_by_number_with_the_latest_record(run):
    a, b = factories.distinct_architectures(2)
    failed = factories.trial(0, b, state=TrialState.FAILED, measurement=None, error="NaN\nin layer 3")
    running = factories.trial(1, a, state=TrialState.RUNNING, measurement=None, finished=None)
    done = factories.trial(1, a)
    for trial in (running, failed, done):
        run.append_trial(trial)
    assert run.trials() == [failed, done]
    assert len((run.path / "trials.jsonl").read_text().splitlines()) == 3


def test_every_torn_last_line_is_dropped_and_cut_off_before_the_next(run):
    first, second = (factories.trial(i, a) for i, a in enumerate(factories.distinct_architectures(2)))
    run.append_trial(first)
    path = run.path / "trials.jsonl"
    whole = path.read_bytes()
    run.append_trial(second)
    line = path.read_bytes()[len(whole) :]
    for length in {1, 2, len(line) // 2, len(line) - 2, len(line) - 1}:
        path.write_bytes(whole + line[:length])
        assert run.trials() == [first]
        run.append_trial(second)
        assert path.read_bytes() == whole + line
    path.write_bytes(line[:5])
    run.append_trial(second)
    assert run.trials() == [second]


def test_only_the_line_of_a_running_trial_is_not_waited_for(run, monkeypatch):
    synced = []
    monkeypatch.setattr(run_directory.os, "fsync", synced.append)
    for state in TrialState:
        run.append_trial(factories.trial(0))
        synced.clear()
        run.append_trial(factories.trial(1, state=state))
        assert bool(synced) is (state is not TrialState.RUNNING)


@pytest.mark.parametrize("part", [slice(0, 40), slice(300, 340), slice(-40, -1), slice(380, 420)])
def test_what_a_power_cut_left_as_zeros_was_in_flight_and_is_passed_over(run, part):
    first, *others = (factories.trial(i, a) for i, a in enumerate(factories.distinct_architectures(3)))
    run.append_trial(first)
    path = run.path / "trials.jsonl"
    synced = path.read_bytes()
    for trial in others:
        run.append_trial(replace(trial, state=TrialState.RUNNING, measurement=None, finished=None))
    late = bytearray(path.read_bytes()[len(synced) :])
    late[part] = bytes(len(late[part]))
    path.write_bytes(synced + late)
    assert run.trials()[0] == first
    assert all(trial.is_running for trial in run.trials()[1:])
    assert len(run.trials()) < 3
    for trial in others:
        run.append_trial(trial)
    assert run.trials() == [first, *others]


def test_damage_before_the_last_line_is_reported_with_its_line(run):
    run.append_trial(factories.trial(0))
    path = run.path / "trials.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(RunError, match=r"trials\.jsonl, line 1"):
        run.trials()


def test_a_trial_with_a_number_json_cannot_hold_is_refused_and_not_written(run):
    run.append_trial(factories.trial(0))
    before = (run.path / "trials.jsonl").read_bytes()
    with pytest.raises(RunError, match="trial 1 cannot be recorded"):
        run.append_trial(factories.trial(1, measurement=factories.measurement(math.nan)))
    assert (run.path / "trials.jsonl").read_bytes() == before


def test_a_trial_that_does_not_reach_the_disk_is_taken_back(run, monkeypatch):
    run.append_trial(factories.trial(0))
    before = (run.path / "trials.jsonl").read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_directory.os, "fsync", full_disk)
    with pytest.raises(DiskError, match=r"trials\.jsonl: not written: No space left .*bytes are needed"):
        run.append_trial(factories.trial(1))
    assert (run.path / "trials.jsonl").read_bytes() == before


APPEND_FOREVER = """
    import itertools, sys
    import factories
    from nas.runs import RunDirectory
    run = RunDirectory.open(sys.argv[1])
    with run.lock():
        start = len(run.trials())
        for i in itertools.count(start):
            run.append_trial(factories.trial(i))
            print(i, flush=True)
"""


def test_kill_9_in_the_middle_of_appends_loses_nothing_that_was_acknowledged(run):
    for delay in (3, 40):
        with process(APPEND_FOREVER, run.path) as child:
            acknowledged = [int(child.stdout.readline()) for _ in range(delay)]
            child.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
            child.wait()
        numbers = [trial.number for trial in run.trials()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) - 1 in (acknowledged[-1], acknowledged[-1] + 1)


def test_a_second_writer_is_refused_by_name_until_the_first_is_killed(run):
    assert not run.is_locked()
    with process(HOLD_LOCK, run.path) as child:
        assert child.stdout.readline() == "locked\n"
        assert run.is_locked()
        with pytest.raises(RunError, match=f"written by process {child.pid} on "), run.lock():
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not run.is_locked()
        with run.lock():
            assert run.is_locked()
    assert not run.is_locked()


def test_the_same_process_cannot_take_the_lock_twice(run):
    with run.lock():
        with pytest.raises(RunError, match=f"process {os.getpid()} "), RunDirectory.open(run.path).lock():
            pass
        assert run.is_locked()


def test_the_lock_is_freed_when_the_work_raises(run):
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock():
        pass


FORK_UNDER_LOCK = """
    import os, signal, sys
    from nas.runs import RunDirectory
    with RunDirectory.open(sys.argv[1]).lock():
        if not os.fork():
            print(os.getpid(), flush=True)
        signal.pause()
"""


def test_a_forked_worker_that_outlives_the_writer_does_not_keep_the_lock(run):
    with process(FORK_UNDER_LOCK, run.path) as child:
        worker = int(child.stdout.readline())
        try:
            assert run.is_locked()
            child.send_signal(signal.SIGKILL)
            child.wait()
            os.kill(worker, 0)  # lives
            assert not run.is_locked()
        finally:
            os.kill(worker, signal.SIGKILL)


DIE_BEFORE_REPLACE = """
    import os, sys
    from pathlib import Path
    from nas.base import files
    Path.replace = lambda self, target: os.kill(os.getpid(), 9)
    files.atomic_write_text(Path(sys.argv[1]), "new")
"""


def test_a_writer_killed_before_the_replacement_leaves_the_old_content(run):
    target = run.path / "front.json"
    target.write_text("old")
    with process(DIE_BEFORE_REPLACE, target) as child:
        assert child.wait() == -signal.SIGKILL
    assert target.read_text() == "old"
    scratch = [p for p in run.path.iterdir() if p.name.startswith(".front.json.")]
    assert len(scratch) == 1
    with run.lock():
        assert not scratch[0].exists()


def test_a_write_that_fails_leaves_the_old_content_and_no_scratch_file(tmp_path, monkeypatch):
    target = tmp_path / "file"
    atomic_write_text(target, "old, with ü")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_directory.os, "fsync", full_disk)
    with pytest.raises(DiskError, match="No space left"):
        atomic_write_bytes(target, b"new")
    assert target.read_text() == "old, with ü"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_front_is_absent_until_written_and_after_removal(run):
    assert run.front() is None
    run.write_front({"schema_version": 1, "points": []})
    run.write_front_csv("digest\n")
    assert run.front() == {"schema_version": 1, "points": []}
    run.remove_front()
    assert run.front() is None
    assert not run.front_csv.exists()
    with pytest.raises(RunError, match="JSON cannot hold it"):
        run.write_front({"schema_version": 1, "hypervolume": math.nan})
    assert run.front() is None


def test_the_log_keeps_one_line_an_entry(run):
    run.log("started")
    run.log("trial 3 failed:\nout of memory")
    lines = run.log_path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["started", "trial 3 failed: out of memory"]


def test_every_path_lies_inside_the_run(run):
    paths = (run.journal_path, run.front_csv, run.supernet_dir, run.report_path, run.log_path)
    for path in (*paths, run.figure_path("front")):
        assert path.is_relative_to(run.path)


def test_new_runs_are_numbered_above_the_highest(tmp_path):
    assert next_path(tmp_path / "none", "digits").name == "digits-1"
    for name in ("digits-2", "digits-10", "digits-x", "digits-big-99", "other-50"):
        (tmp_path / name).mkdir()
    assert next_path(tmp_path, "digits") == tmp_path / "digits-11"


def test_the_latest_unfinished_run_is_found_past_finished_and_unreadable_ones(tmp_path):
    assert latest_unfinished(tmp_path / "none", "digits") is None
    for name, stage in (("digits-1", "searching"), ("digits-2", "training"), ("digits-10", "finished")):
        RunDirectory.create(tmp_path / name, manifest=factories.manifest(stage=stage), space_text="", config={})
    (tmp_path / "digits-11").mkdir()
    assert latest_unfinished(tmp_path, "digits") == tmp_path / "digits-2"
    assert latest_unfinished(tmp_path, "other") is None


def test_trials_that_are_a_folder_are_a_clear_error(run):
    (run.path / "trials.jsonl").mkdir()
    with pytest.raises(RunError, match=r"trials\.jsonl cannot be read"):
        run.trials()


def test_the_order_of_lines_does_not_decide_how_a_trial_ended(run):
    for number in range(3):
        run.append_trial(factories.trial(number=number, state=TrialState.RUNNING, measurement=None))
        run.append_trial(factories.trial(number=number))
    trials, path = run.trials(), run.path / "trials.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert run.trials() == trials


@pytest.mark.parametrize("number", ["null", "-1", "true", '"x"', "1.5", "[]"])
def test_a_trial_whose_number_is_none_is_reported_with_its_line(run, number):
    (run.path / "trials.jsonl").write_text(f'{{"number": {number}, "state": "complete"}}\n')
    with pytest.raises(RunError, match="line 1: not a trial record"):
        run.trials()


def test_a_space_that_is_not_utf8_is_a_clear_error(run):
    (run.path / "space.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(InputFileError, match="not UTF-8"):
        run.space_text()
