import pytest

from nas.base.errors import RunError
from nas.cluster import ahead as ahead_file
from nas.cluster.ahead import RayAhead


class FakeConnection:
    ray = "ray"

    def __init__(self, address, num_workers, arrays):
        assert address is None
        self.asked, self.is_open = (num_workers, arrays), True

    def close(self):
        self.is_open = False


@pytest.fixture
def connections(monkeypatch):
    """Those that were opened."""
    opened = []
    monkeypatch.setattr(ahead_file, "possible_workers", lambda asked, _: asked)
    monkeypatch.setattr(ahead_file, "RayConnection", lambda *args: opened.append(FakeConnection(*args)) or opened[-1])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return opened


def test_it_is_started_once_with_an_actor_for_each_worker_and_stopped_by_whoever_has_it(connections):
    ahead = RayAhead(2, None, lambda ray: f"actor of {ray}")
    assert ahead.take() is None
    ahead.start({"labels": "array"})
    ahead.start({})
    (connection,) = connections
    assert connection.asked == (2, {"labels": "array"})
    assert ahead.take() == (connection, ["actor of ray"] * 2)
    ahead.close()
    assert connection.is_open
    ahead.start({})
    assert ahead.take() is None


def test_what_nobody_took_is_stopped(connections):
    ahead = RayAhead(1, None, str)
    ahead.start({})
    ahead.close()
    assert [connection.is_open for connection in connections] == [False]
    assert ahead.take() is None


@pytest.mark.parametrize(("workers", "address", "variable"), [(0, None, ""), (2, "host:1", ""), (2, None, "host:1")])
def test_nothing_is_started_for_nobody_and_beside_a_cluster(workers, address, variable, connections, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", variable)
    RayAhead(workers, address, str).start({})
    assert connections == []


def test_where_ray_cannot_be_started_nothing_happens_yet(connections, monkeypatch):
    def refuse(*_):
        raise RunError("Ray cannot be started: no room")

    monkeypatch.setattr(ahead_file, "RayConnection", refuse)
    ahead = RayAhead(2, None, str)
    ahead.start({})
    assert ahead.take() is None
