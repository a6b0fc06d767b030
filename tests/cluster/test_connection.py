"""What says whether something answers."""

import socket
import subprocess
import sys
import time

import pytest

from nas.base.errors import RunError
from nas.cluster.connection import RayConnection, _problem


def closed_place():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()


def test_what_listens_answers_and_what_has_closed_refuses():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert _problem(server.getsockname()) is None
    assert isinstance(_problem(closed_place()), ConnectionRefusedError)
    assert isinstance(_problem(None), OSError)


@pytest.mark.parametrize(
    ("gone", "is_own", "is_fatal"),
    [("_own_node", True, True), ("_own_node", False, True), ("_head", True, True), ("_head", False, False)],
)
def test_what_has_died_on_this_machine_is_not_waited_for(gone, is_own, is_fatal, tmp_path):
    """Ray's C++ ends the process 16 s after the death of its node; the head of a cluster may come back."""
    connection = RayConnection.__new__(RayConnection)
    connection.folder = tmp_path if is_own else None
    connection._checked, connection._seen = 0.0, time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection._head = connection._own_node = server.getsockname()
        setattr(connection, gone, closed_place())
        if is_fatal:
            with pytest.raises(RunError, match=r"Ray is gone: .* cannot be reached") as caught:
                connection.check()
            assert "the same command goes on" in caught.value.hint
        else:
            connection.check()


DIES = """
import os, sys
import ray
from nas.cluster.connection import RayConnection

def init(**options):
    if sys.argv[1] == "raises":
        raise Exception("The current node timed out during startup.")
    os._exit(1)  # as Ray's C++ does

ray.init = init
try:
    RayConnection(None, 1, {})
except Exception as error:
    print(f"{type(error).__name__}: {error} {error.hint}", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            "raises",
            "RunError: Ray cannot be started: The current node timed out during startup. the same command goes on",
        ),
        ("exits", "error: Ray cannot be started: one of its processes died\nhint: the same command goes on"),
    ],
)
def test_a_ray_that_dies_while_it_starts_is_one_clear_message(how, said):
    ended = subprocess.run([sys.executable, "-c", DIES, how], capture_output=True, text=True)
    assert ended.stderr.startswith(said)


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_of_our_own_answers_until_it_is_closed():
    connection = RayConnection(None, 1, {})
    try:
        connection.check(at_once=True)
        head = connection._head
        node = connection.ray.get_runtime_context().get_node_id()
        assert connection.is_alive(node)
    finally:
        connection.close()
    connection.close()  # a second time
    assert _problem(head)
