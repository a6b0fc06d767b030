"""Nobody but this process gets at a Ray of its own."""

import ipaddress
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from own_processes import listening, seen_of

from nas.cluster.connection import RayConnection
from nas.cluster.own_ray import TOKEN, _scratch_folder

CLIENT = """
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=10)
except Exception as error:
    sys.exit(f"refused: {type(error).__name__}")
print("connected")
"""
CURL = """
import sys, urllib.error, urllib.request
for port in sys.argv[1:]:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/get_or_create_runtime_env", b"", timeout=5)
        print("let in by", port)
    except (urllib.error.URLError, OSError, ValueError) as error:
        print(error)
    except Exception as error:  # no HTTP there
        print(type(error))
"""


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


def _client(address: str, **environment: str) -> str:
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", CLIENT, address], env=given | environment, capture_output=True, text=True, timeout=60
    )
    return (ended.stdout + ended.stderr).strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_of_our_own_is_reached_from_this_machine_with_its_token_only(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    before = dict(os.environ)
    connection = RayConnection(None, 1, {})
    try:
        ray = connection.ray
        assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()  # there is a worker
        places = listening()
        ports = {port for _, port in places}
        assert len(ports) >= 5
        addresses = [ipaddress.ip_address(host.removeprefix("::ffff:")) for host, _ in places]
        assert all(address.is_loopback for address in addresses), places

        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        folder = token.parent
        assert (token.name, stat.S_IMODE(token.stat().st_mode), stat.S_IMODE(folder.stat().st_mode)) == (
            TOKEN,
            0o600,
            0o700,
        )
        gcs = ray.get_runtime_context().gcs_address
        assert _client(gcs, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token)) == "connected"
        for wrong in (
            {"RAY_AUTH_MODE": "disabled"},
            {"HOME": "/nonexistent"},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        ):
            assert _client(gcs, **wrong).startswith("refused"), wrong
        said = subprocess.run([sys.executable, "-c", CURL, *map(str, ports)], capture_output=True, text=True).stdout
        assert "401" in said
        assert "let in" not in said
        commands = seen_of(lambda process: " ".join(process.cmdline()), itself=False)
        assert not any(token.read_text() in command for command in commands)
        if os.getuid() == 0:
            for path in (token, folder, folder / "r"):
                ended = subprocess.run(["ls", path], user=65534, group=65534, extra_groups=[], capture_output=True)
                assert b"Permission denied" in ended.stderr
    finally:
        connection.close()
    assert not folder.exists()
    changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
    assert not {name for name in changed if name.startswith("RAY_AUTH") or name == "PYTHONPATH"}
