"""What says whether something answers, and what a killed process leaves behind, without starting Ray."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nas.cluster.connection import RayConnection, _answers, _scratch_folder


def test_what_listens_answers_and_what_has_closed_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        assert _answers(place)
    assert not _answers(place)
    assert not _answers(None)


def test_folders_of_killed_processes_are_swept_and_those_of_living_ones_are_not():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = Path(f"/tmp/nas-ray-{gone.pid}-test")
    left.mkdir()
    first, second = _scratch_folder(), _scratch_folder()
    try:
        assert not left.exists()
        assert first != second
        assert all(Path(folder).name.startswith(f"nas-ray-{os.getpid()}-") for folder in (first, second))
    finally:
        for folder in (first, second):
            Path(folder).rmdir()


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
