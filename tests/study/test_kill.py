import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from search_fakes import digits, outline, search

from nas.runs.directory import RunDirectory

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1] / "helpers"
NUM_TRIALS = 80


def start(folder: Path, log: Path) -> subprocess.Popen:
    paths = [HERE, HERE.parent, HERE.parents[1]]
    return subprocess.Popen(
        [sys.executable, HERE / "kill_driver.py", folder, log, str(NUM_TRIALS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )


def finished(folder: Path) -> set[str]:
    return (
        {trial.architecture.digest for trial in RunDirectory.open(folder).trials() if not trial.is_running}
        if folder.exists()
        else set()
    )


def test_a_search_killed_again_and_again_ends_as_one_that_was_not_and_repeats_nothing_finished(tmp_path):
    """Law 5. Kills come after a random number of evaluations, within any step of the loop."""
    rng = np.random.default_rng(0)
    folder, log = tmp_path / "run", tmp_path / "log"
    log.touch()
    kills = 0
    for goal in np.cumsum(rng.integers(3, 12, size=5)):
        known = finished(folder)
        called_before = len(log.read_text().split())
        driver = start(folder, log)
        while driver.poll() is None and len(log.read_text().split()) < called_before + (goal - len(known)):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        driver.send_signal(signal.SIGKILL)
        kills += driver.wait() == -signal.SIGKILL
        called = set(log.read_text().split()[called_before:])
        assert not called & known
    assert kills >= 3  # a busy machine may let a search end before it is killed
    assert 0 < len(finished(folder)) <= NUM_TRIALS
    known, called_before = finished(folder), len(log.read_text().split())
    assert start(folder, log).wait() == 0
    called = log.read_text().split()
    assert not set(called[called_before:]) & known
    assert len(called) <= NUM_TRIALS + kills * 4  # what was in flight
    trials = tuple(RunDirectory.open(folder).trials())
    straight = search(tmp_path / "straight", digits(), trials=NUM_TRIALS)
    assert outline(trials) == outline(straight)
    assert [t.measurement.values for t in trials] == [t.measurement.values for t in straight]
