"""Ray tasks: each job ends with its value or its reason, whatever becomes of its process."""

import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from nas.cluster.tasks import ATTEMPTS, quarantined, reason_of, run_tasks


def work(job, arrays):
    """Add the arrays up, unless the job is to fail; a line in a file for every time that it is tried."""
    log, conduct = job
    with Path(log).open("a") as file:
        file.write(f"{conduct}\n")
    if conduct == "raise":
        raise ValueError("cannot\nbe done")
    tries = Path(log).read_text().split("\n").count(conduct)
    if conduct == "die" or (conduct == "die once" and tries == 1):
        os._exit(1)
    return float(arrays["numbers"].sum())


def test_reasons_are_one_line():
    assert reason_of(ValueError("cannot\nbe done")) == "ValueError: cannot be done"
    assert quarantined("no memory") == f"quarantined: no memory after {ATTEMPTS} attempts"


@pytest.mark.ray
@pytest.mark.slow
def test_every_job_ends_with_its_value_or_its_reason_and_a_dead_process_is_tried_again(tmp_path):
    log = str(tmp_path / "log")
    conducts = ("work", "raise", "die", "die once")
    jobs, outcomes = deque((log, conduct) for conduct in conducts), {}
    for job, outcome in run_tasks(work, jobs, {"numbers": np.arange(4)}, 2):
        outcomes[job[1]] = outcome
        if len(outcomes) == len(conducts):
            jobs.append((log, "appended"))
    assert set(outcomes) == {*conducts, "appended"}
    for conduct in ("work", "die once", "appended"):
        assert (outcomes[conduct].value, outcomes[conduct].error) == (6.0, None)
    assert outcomes["raise"].error == "ValueError: cannot be done"
    assert outcomes["die"].error.startswith("quarantined: its process died")
    tried = Path(log).read_text().split("\n")
    assert [tried.count(conduct) for conduct in (*conducts, "appended")] == [1, 1, ATTEMPTS, 2, 1]


RAYLET_DIES = """
import time
from collections import deque
from contextlib import suppress

import numpy as np
import psutil

from nas.base import RunError
from nas.cluster.tasks import run_tasks

def work(seconds, arrays):
    time.sleep(seconds)
    return float(arrays["numbers"].sum())

try:
    for job, outcome in run_tasks(work, deque([0.0, *SECONDS]), {"numbers": np.ones(1_000_000)}, 2):
        print("job", outcome.value, outcome.error, flush=True)
        for process in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if "raylet/raylet" in " ".join(process.cmdline()):
                    process.kill()
except RunError as error:
    print(error.message, error.hint)
print("end")
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("seconds", ["[90.0, 90.0]", "[0.2] * 100"])
def test_a_raylet_that_dies_ends_the_tasks_with_one_line_and_blames_no_job(seconds, tmp_path):
    """Also where the parent of the process has died, as with nohup or in a container: there Ray ends it at once."""
    out = tmp_path / "out"
    out.touch()
    script = tmp_path / "script.py"
    script.write_text(RAYLET_DIES.replace("SECONDS", seconds))
    subprocess.run(["/bin/sh", "-c", f'"{sys.executable}" "{script}" >"{out}" 2>&1 & echo $!'], check=True)
    deadline = time.monotonic() + 120
    while "end\n" not in out.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    jobs = [line for line in out.read_text().splitlines() if line.startswith("job ")]
    assert "Ray is gone: the node of this machine" in out.read_text(), out.read_text()
    assert "the same command goes on" in out.read_text()
    assert set(jobs) == {"job 1000000.0 None"}
