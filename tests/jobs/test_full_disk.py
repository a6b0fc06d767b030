"""Disks that are full or read-only, at every stage: one line, nothing half-written, and the same command ends."""

import os
import re
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from kills import difference
from small_runs import QUICK, command
from small_spaces import TINY

DISK_BYTES = 8_000_000
ROOMS = (0, 40, 180, 600)  # KiB that are free, until the command ends


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of a few megabytes; only root can mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or not shutil.which("mount")
        or subprocess.run(mounting, capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def room(disk, kibibytes):
    """Leave so much free for the duration of a block."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - 1024 * kibibytes, 1))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def assert_told(done, reason, disk):
    assert (done.code, done.stdout) == (2, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(rf"error: [\w/.-]+: not written: ({reason}|no room).*", line)  # OpenVINO says no more
    assert "Traceback" not in done.stderr
    assert "the same command goes on" in done.stderr
    assert not list(disk.rglob(".*.tmp"))


COMMANDS = {
    "run": ("run", "tiny.yaml", "--run=r", "--workers=0", "--trials=6", *QUICK),
    "search": ("search", "r", "--workers=0", "--trials=30"),
    "report": ("report", "r"),
    "export": ("export", "r", "--pick=knee", "--to=bundle"),
    "openvino": ("export", "r", "--pick=knee", "--to=bundle", "--formats=openvino"),
    "retrain": ("retrain", "r", "--pick=cheapest", "--epochs=1", "--no-baseline", "--workers=0", "--to=bundle"),
    "trust": ("trust", "r", "--architectures=4", "--seeds=1", "--epochs=1", "--workers=0"),
    "pack": ("latency", "pack", "r", "--to=pack"),
    "profile": ("latency", "profile", "tiny.yaml", "--architectures=12", "--rounds=3", "--to=p.json"),
}
MEASURES = {"run", "search"}
UNLIKE = {"profile", "openvino"}  # no two are the same


def begin(name, folder, finished):
    (folder / "tiny.yaml").write_text(TINY)
    if name not in ("run", "profile"):
        shutil.copytree(finished.folder, folder / "r")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_told_and_the_same_command_ends_as_undisturbed(
    name, small_disk, finished, tmp_path, monkeypatch
):
    calm = tmp_path / "calm"
    calm.mkdir()
    for folder in (calm, small_disk):
        begin(name, folder, finished)
    monkeypatch.chdir(calm)
    done = command(*COMMANDS[name])
    assert done.code in ((0, 1) if name == "profile" else (0,)), done.stderr  # 1: the profile is of no use
    monkeypatch.chdir(small_disk)
    refused = 0
    for kibibytes in ROOMS:
        with room(small_disk, kibibytes):
            again = command(*COMMANDS[name])
        if again.code != 2:
            break
        assert_told(again, "No space left on device", small_disk)
        refused += 1
    assert refused
    last = command(*COMMANDS[name]) if again.code == 2 else again
    assert last.code == done.code or name == "profile"
    if name not in UNLIKE:
        assert not difference(small_disk, calm, measures=name in MEASURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_disk_is_told(name, small_disk, finished, monkeypatch):
    begin(name, small_disk, finished)
    monkeypatch.chdir(small_disk)
    with read_only(small_disk):
        assert_told(command(*COMMANDS[name]), "Read-only file system", small_disk)


@pytest.mark.parametrize("arguments", [["front", "r"], ["status", "r"], ["show", "r", "knee"], ["compare", "r", "r"]])
def test_looking_at_a_run_writes_nothing(arguments, small_disk, finished, monkeypatch):
    begin("search", small_disk, finished)
    monkeypatch.chdir(small_disk)
    with read_only(small_disk):
        assert command(*arguments).code == 0
