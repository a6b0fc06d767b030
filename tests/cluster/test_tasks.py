"""Ray tasks: each job ends as a result, whatever becomes of its process."""

import os
from pathlib import Path

import numpy as np
import pytest

from nas.cluster.tasks import run_tasks
from nas.runs.trial import Conditions, Measurement
from nas.search.workers import ATTEMPTS, Result

FIELDS = dict.fromkeys(Conditions.__slots__, "") | dict.fromkeys(
    ("num_images", "latency_batch_size", "latency_threads"), 1
)


def work(job, arrays):
    """Add the arrays up, unless the job is to fail; a line in a file for every time that it is tried."""
    log, conduct = job
    with Path(log).open("a") as file:
        file.write(f"{conduct}\n")
    if conduct == "raise":
        raise ValueError("cannot be done")
    tries = Path(log).read_text().split("\n").count(conduct)
    if conduct == "die" or (conduct == "die once" and tries == 1):
        os._exit(1)
    values = {"top1": float(arrays["numbers"].sum())}
    return Result(0, Measurement(values=values, conditions=Conditions(**FIELDS), seconds=0.0), None)


@pytest.mark.ray
@pytest.mark.slow
def test_every_job_ends_with_its_result_or_its_reason_and_a_dead_process_is_tried_again(tmp_path):
    log = str(tmp_path / "log")
    jobs = [(log, conduct) for conduct in ("work", "raise", "die", "die once", "work too")]
    results = {job[1]: result for job, result in run_tasks(work, jobs, {"numbers": np.arange(4)}, 2)}
    assert set(results) == {conduct for _, conduct in jobs}
    for conduct in ("work", "die once", "work too"):
        assert results[conduct].error is None
        assert results[conduct].measurement.values == {"top1": 6.0}
    assert results["raise"].error == "ValueError: cannot be done"
    assert results["die"].error.startswith("quarantined: its process died")
    tried = Path(log).read_text().split("\n")
    assert [tried.count(conduct) for _, conduct in jobs] == [1, 1, ATTEMPTS, 2, 1]
