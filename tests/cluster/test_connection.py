"""What says whether something answers."""

import socket
import subprocess
import sys

import pytest

from nas.cluster.connection import RayConnection, _answers


def test_what_listens_answers_and_what_has_closed_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        assert _answers(place)
    assert not _answers(place)
    assert not _answers(None)


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
        ("raises", "RunError: Ray cannot be started: The current node timed out during startup. --workers 0"),
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
    assert not _answers(head)
