"""Laws of a whole run, from the command line: what is written, kills, Ctrl-C, workers."""

import json
import signal
import threading
import time

import pytest
from small_runs import TRIALS, command, run_arguments, search_process

from nas.runs.directory import RunDirectory

PATIENCE_S = 500


def outline(folder):
    """(number, digest, state) of every trial that ended, and what was measured of it, latency aside."""
    return [
        (
            trial.number,
            trial.architecture.digest,
            trial.state,
            {name: trial.measurement.values.get(name) for name in ("top1", "macs", "params")},  # beaten early: no top1
        )
        for trial in RunDirectory.open(folder).trials()
        if not trial.is_running
    ]


def front(folder):
    return [(point["digest"], point["top1"], point["macs"]) for point in RunDirectory.open(folder).front()["points"]]


def stage(folder):
    return RunDirectory.open(folder).manifest.stage if (folder / "manifest.json").exists() else ""


def num_lines(path):
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def wait_until(condition, process):
    """Whether it came true before the process ended."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.001)
    return False


def test_a_run_writes_its_folder_and_nothing_else(finished):
    assert finished.beside == {"tiny.yaml", "r"}
    for name in (
        "manifest.json", "space.yaml", "config.yaml", "journal.log", "trials.jsonl", "trials.csv",
        "front.json", "front.csv", "run.log", "figures/front.png",
    ):  # fmt: skip
        assert (finished.folder / name).stat().st_size > 0, name
    assert list(finished.folder.glob("supernet/*.safetensors"))
    assert not list(finished.folder.rglob("*.tmp"))


def test_a_run_pays_for_every_architecture_once(finished):
    trials = RunDirectory.open(finished.folder).trials()
    paid = [trial.architecture.digest for trial in trials if trial.is_paid]
    assert len(paid) == len(set(paid)) == TRIALS


def test_a_finished_run_is_not_done_again(finished):
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    again = command(*finished.arguments)
    assert again.code == 0
    assert json.loads(again.stdout) == json.loads(finished.stdout)
    assert "finished already" in again.stderr
    after = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    del before[finished.folder / "lock"], after[finished.folder / "lock"]
    assert after == before


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_as_one_that_was_not(finished, tmp_path):
    """Law 5: the weights, the trials and the front, and no finished evaluation is repeated."""
    folder = tmp_path / "r"
    arguments = run_arguments(folder, "--trials", str(TRIALS))

    with search_process(arguments, tmp_path) as training:
        assert wait_until(lambda: (folder / "supernet" / "step-00000003.json").exists(), training)
    assert stage(folder) == "training"
    assert num_lines(folder / "trials.jsonl") == 0

    with search_process(arguments, tmp_path) as searching:
        assert wait_until(lambda: len(outline(folder)) >= 4, searching)
    assert "trained to step" in (folder / "run.log").read_text()
    found = outline(folder)
    assert len(found) >= 4

    with search_process(arguments, tmp_path) as measuring:
        assert wait_until(lambda: stage(folder) == "measuring", measuring)
    assert outline(folder)[: len(found)] == found

    resumed = command(*arguments)
    assert resumed.code == 0, resumed.stderr
    straight = RunDirectory.open(finished.folder).manifest
    assert RunDirectory.open(folder).manifest.supernet_digest == straight.supernet_digest
    assert outline(folder) == outline(finished.folder)
    assert front(folder) == front(finished.folder)
    written = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    paid = [record["digest"] for record in written if record["state"] in ("complete", "pruned")]  # beaten early
    assert len(paid) == len(set(paid)) == TRIALS
    assert not list(folder.rglob("*.tmp"))


@pytest.fixture
def as_from_a_terminal():
    """Python's own handler: there is none where a shell started the tests in the background."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("as_from_a_terminal")
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(finished, tmp_path):
    folder = tmp_path / "r"
    slow = "--set=evaluate.batch_size=1"  # or the search may be over before a busy machine lets us interrupt it
    arguments = run_arguments(folder, slow, "--trials")
    main_thread = threading.main_thread().ident

    def interrupt():
        deadline = time.monotonic() + PATIENCE_S
        while num_lines(folder / "trials.jsonl") < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(main_thread, signal.SIGINT)

    finger = threading.Thread(target=interrupt)
    finger.start()
    stopped = command(*arguments, "400")
    finger.join()
    assert (stopped.code, stopped.stdout) == (130, "")
    assert f"Resume: nas run {tmp_path / 'tiny.yaml'}" in stopped.stderr.splitlines()[-1]
    assert num_lines(folder / "trials.jsonl") >= 3
    assert not RunDirectory.open(folder).is_locked()
    kept = outline(folder)
    assert command(*arguments, str(max(TRIALS, len(kept)))).code == 0
    assert outline(folder)[: len(kept)] == kept
    assert outline(folder)[:TRIALS] == outline(finished.folder)[:TRIALS]


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_find_what_one_process_finds(finished, tmp_path):
    folder = tmp_path / "r"
    with search_process(run_arguments(folder, "--trials", str(TRIALS), workers=2), tmp_path) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["points"]
    assert sorted(map(str, outline(folder))) == sorted(map(str, outline(finished.folder)))
    assert front(folder) == front(finished.folder)
    assert "Warning" not in stderr
