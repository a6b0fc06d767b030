"""Ray tasks: each job ends with its value or its reason, whatever becomes of its process."""

import os
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
