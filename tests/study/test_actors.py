"""Architectures measured by Ray actors: the results of this process, whatever dies."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from search_fakes import AnalyticEvaluator, Weigher, build_analytic, outline, search
from worker_conduct import BAD, CONDUCT, GOOD, PLAIN, QUARANTINED, SPACE, build_exhausted, results_of, values

from nas.base.errors import ConfigError, RunError
from nas.cluster.ahead import RayAhead
from nas.study.actors import RayWorkers, early_actor
from nas.study.workers import Task

pytestmark = pytest.mark.slow

TIMEOUT_S = 5.0  # a busy machine lets a process stand still for seconds

ARRAYS = {"weights": np.array([1.0, 2.0, 3.0])}


def test_ray_workers_need_a_worker():
    with pytest.raises(ConfigError, match="at least 1 worker, got 0"):
        RayWorkers(partial(AnalyticEvaluator, SPACE.backbone), ARRAYS, 0, None, TIMEOUT_S)


def test_a_cluster_that_does_not_answer_is_one_clear_error():
    code = (
        "from nas.study import RayWorkers; from nas.base import RunError\n"
        "try: RayWorkers(dict, {}, 1, 'nonsense', 1.0)\n"
        "except RunError as error: print(error.message)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Ray at nonsense cannot be reached: ")
    assert done.stdout.count("\n") == 1


@pytest.mark.ray
def test_workers_are_not_more_than_cores_and_hold_no_copy_of_the_arrays(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    weights = np.ones(12_500_000)
    workers = RayWorkers(partial(Weigher, SPACE.backbone), {"weights": weights}, 3, None, 60.0)
    try:
        assert (workers.num_workers, workers.slots) == (1, 2)
        (result,) = results_of(workers, GOOD[:1])
    finally:
        workers.close()
    assert values(result)["macs"] < 0.2 * weights.nbytes
    assert values(result)["params"] > 0.9 * weights.nbytes


@pytest.fixture(scope="module")
def flag(tmp_path_factory):
    return tmp_path_factory.mktemp("ray") / "flag"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """While this file exists, no evaluator can be built."""
    return tmp_path_factory.mktemp("ray") / "broken"


@pytest.fixture(scope="module")
def ray_workers(flag, broken):
    """Two actors for the whole module: starting Ray takes seconds."""
    conduct = {**CONDUCT, BAD["die once"].digest: str(flag)}
    workers = RayWorkers(partial(build_analytic, SPACE.backbone, conduct, broken), ARRAYS, 2, None, TIMEOUT_S)
    yield workers
    workers.close()
    workers.close()


@pytest.mark.ray
def test_two_actors_give_the_results_of_this_process(ray_workers):
    assert ray_workers.slots == 4
    assert [values(r) for r in results_of(ray_workers, GOOD)] == [values(r) for r in results_of(PLAIN, GOOD)]


@pytest.mark.ray
def test_a_search_over_actors_has_the_trials_of_one_in_this_process(ray_workers, tmp_path):
    straight = search(tmp_path / "inline", SPACE, trials=30)
    assert outline(search(tmp_path / "ray", SPACE, workers=ray_workers, trials=30)) == outline(straight)


@pytest.mark.ray
def test_a_killed_actor_is_replaced_and_its_architecture_measured_after_all(ray_workers, flag, capfd):
    results = results_of(ray_workers, [GOOD[0], BAD["die once"], *GOOD[1:4]])
    assert flag.read_text().split() == ["died"]
    assert [result.error for result in results] == [None] * 5
    assert capfd.readouterr().out == ""  # where the answer goes


@pytest.mark.ray
def test_actors_try_smaller_batches_too_and_nothing_waits_for_them(ray_workers):
    for number, architecture in enumerate([BAD["memory"], BAD["memory twice"], *GOOD]):
        ray_workers.submit(Task(number, architecture))
    results = [ray_workers.next_result() for _ in range(2 + len(GOOD))]
    assert {result.number for result in results[-2:]} == {0, 1}
    assert {result.number: result.error for result in results if result.error} == {0: QUARANTINED}


@pytest.mark.ray
def test_bad_architectures_fail_with_their_reasons_and_the_others_complete(ray_workers):
    bad = ("raise", "nan", "die", "hang")
    results = results_of(ray_workers, [GOOD[0], *(BAD[name] for name in bad), *GOOD[1:]])
    assert [result.error is None for result in results] == [True] + [False] * 4 + [True] * 7
    errors = dict(zip(bad, (result.error for result in results[1:5]), strict=True))
    assert errors["raise"] == "ValueError: cannot be done"
    assert errors["nan"] == "top1 is nan"
    assert errors["die"].startswith("quarantined: its worker died: its process was killed")
    assert errors["die"].endswith(" after 3 attempts")
    assert errors["hang"] == "took longer than 5 s"


@pytest.mark.ray
def test_results_that_have_arrived_are_taken_without_waiting(ray_workers):
    for number, architecture in enumerate([*GOOD[:3], BAD["hang"]]):
        ray_workers.submit(Task(number, architecture))
    found, deadline = [], time.monotonic() + 60
    while len(found) < 3 and time.monotonic() < deadline:
        started = time.monotonic()
        found += ray_workers.finished()
        assert time.monotonic() - started < TIMEOUT_S
        time.sleep(0.01)
    assert sorted(result.number for result in found) == [0, 1, 2]
    assert ray_workers.next_result().error == "took longer than 5 s"


@pytest.mark.ray
def test_an_evaluator_that_cannot_be_built_ends_the_search_with_its_reason(ray_workers, broken):
    """The last one: the actors are of no use afterwards."""
    broken.touch()
    ray_workers.submit(Task(0, BAD["die"]))
    with pytest.raises(RunError, match="a worker cannot build its evaluator: FileExistsError: broken"):
        ray_workers.next_result()


@pytest.mark.ray
def test_a_worker_that_has_no_memory_left_is_replaced_and_its_candidates_are_not_blamed():
    ahead = RayAhead(1, None, early_actor)
    ahead.start(ARRAYS)
    workers = RayWorkers(partial(build_exhausted, SPACE.backbone), ARRAYS, 1, None, 60.0, started=ahead.take())
    try:
        assert workers._spare == []  # it is the first worker, the next ones are started as they are needed
        assert [result.error for result in results_of(workers, GOOD[:3])] == [None] * 3
    finally:
        workers.close()
