"""Searches over real Ray clusters of several nodes on this machine, parts of which are killed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from cluster_driver import FREE, IMPATIENCE_S, PATIENCE_S
from search_fakes import digits, outline, search

from nas.cluster.connection import RayConnection
from nas.runs.directory import RunDirectory

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HERE = Path(__file__).parents[1] / "helpers"
IMPORTS = os.pathsep.join(map(str, [HERE, HERE.parent, HERE.parents[1]]))
NUM_TRIALS = 40
RESUMES = "nothing that was finished is lost: the same command goes on"


def start(folder: Path, num_workers: int, address: str = "") -> subprocess.Popen:
    arguments = [folder, str(NUM_TRIALS), str(num_workers), *([address] if address else [])]
    unset = ("RAY_TMPDIR", "RAY_ADDRESS")
    return subprocess.Popen(
        [sys.executable, HERE / "cluster_driver.py", *arguments],
        env={key: value for key, value in os.environ.items() if key not in unset} | {"PYTHONPATH": IMPORTS},
        stdout=subprocess.PIPE,
        text=True,
    )


def log(folder: Path) -> list[tuple[str, str]]:
    """(node, digest) of every evaluation that was begun."""
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.split()) for line in lines]


def wait_for(is_reached, driver: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_reached():
        if driver.poll() is not None or time.monotonic() > deadline:
            driver.kill()
            pytest.fail(f"it did not come to that: {driver.communicate()[0]}")
        time.sleep(0.02)


def end_of(driver: subprocess.Popen) -> tuple[int, list[str]]:
    """Exit code and what it wrote."""
    lines = driver.communicate(timeout=PATIENCE_S)[0].splitlines()
    return driver.returncode, lines


@pytest.fixture(scope="module")
def cluster():
    """A head without a CPU, on which drivers live; tests add nodes."""
    folder = tempfile.mkdtemp(prefix="ray-test-", dir="/tmp")  # short, for the paths of sockets
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("PYTHONPATH", IMPORTS)  # a node has what it imports installed
        from ray.cluster_utils import Cluster

        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
        found = Cluster(initialize_head=True, head_node_args={**head, "_system_config": quick})
        yield found
        found.shutdown()
    end_all(process for process in psutil.process_iter() if is_in(process, folder))
    shutil.rmtree(folder, ignore_errors=True)


def is_in(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def end_all(processes) -> None:
    """Ray's agents outlive a daemon that was killed by a minute."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=100_000_000)


def kill_daemon(node) -> None:
    """Of a node: its actors live on for a while, but nobody can reach them any more."""
    daemon = node.all_processes["raylet"][0].process
    daemon.kill()
    daemon.wait()


def kill_all(node) -> None:
    """As if its machine had lost power."""
    daemon = psutil.Process(node.all_processes["raylet"][0].process.pid)
    end_all([daemon, *daemon.children(recursive=True)])


def assert_is_as_inline(folder: Path) -> None:
    trials = tuple(RunDirectory.open(folder / "run").trials())
    straight = search(folder / "inline", digits(), trials=NUM_TRIALS)
    assert sorted(outline(trials)) == outline(straight)
    assert {t.number: t.measurement.values for t in trials} == {t.number: t.measurement.values for t in straight}


def test_a_node_that_dies_and_one_that_joins_change_nothing(cluster, tmp_path):
    nodes = [add_node(cluster), add_node(cluster)]
    driver = start(tmp_path, 2, cluster.address)
    # Both are measuring, and will until the gate opens.
    wait_for(lambda: len(log(tmp_path)) == FREE + 2, driver)
    assert {node for node, _ in log(tmp_path)} == {node.node_id for node in nodes}
    kill_daemon(nodes[0])
    newcomer = add_node(cluster)
    wait_for(lambda: log(tmp_path)[-1][0] == newcomer.node_id, driver)
    (tmp_path / "gate").touch()
    assert end_of(driver) == (0, [])
    lost = {digest for node, digest in log(tmp_path) if node == nodes[0].node_id}
    again = [digest for node, digest in log(tmp_path) if node != nodes[0].node_id]
    assert len(again) == len(set(again))
    assert lost & set(again)
    assert_is_as_inline(tmp_path)
    cluster.remove_node(nodes[1])
    cluster.remove_node(newcomer)


def test_the_last_node_is_waited_for_but_not_for_ever(cluster, tmp_path):
    """The weights of a new actor come from the driver's node, the only one left that has them."""
    first = add_node(cluster)
    driver = start(tmp_path, 1, cluster.address)
    wait_for(lambda: len(log(tmp_path)) == FREE + 1, driver)
    kill_all(first)
    second = add_node(cluster)
    wait_for(lambda: log(tmp_path)[-1][0] == second.node_id, driver)
    kill_all(second)
    (tmp_path / "impatient").touch()
    code, (message, hint) = end_of(driver)
    assert code == 2
    assert message == f"no worker was ready for {IMPATIENCE_S:g} s"
    assert hint.endswith("the same command goes on with the search")
    third = add_node(cluster)
    (tmp_path / "impatient").unlink()
    (tmp_path / "gate").touch()
    assert end_of(start(tmp_path, 1, cluster.address)) == (0, [])
    assert_is_as_inline(tmp_path)
    cluster.remove_node(third)


def test_a_dead_node_is_known_before_ray_knows(cluster):
    """What was measured there when its time ran out goes elsewhere instead of failing."""
    node = add_node(cluster)
    connection = RayConnection(cluster.address, 1, {})
    try:
        assert connection.is_alive(node.node_id)
        kill_daemon(node)
        assert not connection.is_alive(node.node_id)
        connection.check(at_once=True)  # our own node is there
    finally:
        connection.close()


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_ray_that_is_gone_is_one_clear_error(part, tmp_path):
    driver = start(tmp_path, 1)
    wait_for(lambda: len(log(tmp_path)) == FREE + 1, driver)
    processes = psutil.Process(driver.pid).children(recursive=True)
    next(process for process in processes if process.name().startswith(part)).kill()
    code, (message, hint) = end_of(driver)
    end_all(processes)
    assert code == 2
    assert message.startswith("Ray is gone: ")
    assert hint == RESUMES
    assert sum(not trial.is_running for trial in RunDirectory.open(tmp_path / "run").trials()) >= FREE
