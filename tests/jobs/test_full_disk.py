"""Disks that are full or read-only, at every stage: one line, nothing half-written, and the same command ends."""

import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest
from end_states import difference
from small_runs import QUICK, command
from small_spaces import TINY

from nas.base.disk import DiskError
from nas.jobs.callbacks import TensorBoard
from nas.runs.directory import RunDirectory
from nas.training.health import TrainProgress

DISK_BYTES = 8_000_000
ROOMS = (0, 40, 180, 600)  # KiB that are free, until the command ends
ROOMS_OF_RAY = (0, 600)  # it takes long to start


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


def assert_told(done, reason, disk, *, alone=True):
    assert (done.code, done.stdout) == (2, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(rf"error: [\w/.-]+: not written: ({reason}|no room).*", line)  # OpenVINO says no more
    assert "Traceback" not in done.stderr
    assert "the same command goes on" in done.stderr
    if alone:  # workers that were ended while they wrote leave a scratch file, which the next command sweeps
        assert not list(disk.rglob(".*.tmp"))


COMMANDS = {
    "run": ("run", "tiny.yaml", "--run=r", "--workers=0", "--trials=6", *QUICK),
    "search": ("search", "r", "--workers=0", "--trials=30"),
    "report": ("report", "r"),
    "export": ("export", "r", "--pick=knee", "--to=bundle"),
    "openvino": ("export", "r", "--pick=knee", "--to=bundle", "--formats=openvino"),
    "retrain": ("retrain", "r", "--pick=cheapest", "--epochs=1", "--baseline=none", "--workers=0", "--to=bundle"),
    "trust": ("trust", "r", "--architectures=4", "--seeds=1", "--epochs=1", "--workers=0"),
    "finalists": ("finalists", "r", "--count=4", "--epochs=1", "--workers=0"),
    "pack": ("latency", "pack", "r", "--to=pack"),
    "tensorboard": ("train", "tiny.yaml", "--run=r", "--tensorboard", *QUICK),
    "profile": ("latency", "profile", "tiny.yaml", "--architectures=12", "--rounds=3", "--to=p.json"),
}
ON_RAY = {
    "search on Ray": ("search", "r", "--workers=2", "--trials=30"),
    "trust on Ray": ("trust", "r", "--architectures=4", "--seeds=1", "--epochs=1", "--workers=2"),
    "supernet trials": (
        "run", "tiny.yaml", "--run=r", "--workers=2", "--trials=6", "--supernet-trials=2", "--set=tune.grace=2", *QUICK
    ),
}  # fmt: skip
EVERYWHERE = {**COMMANDS, **ON_RAY}
MEASURES = {"finalists", "run", "search", "search on Ray", "supernet trials"}
UNLIKE = {"profile", "openvino", "tensorboard"}  # no two are the same


def begin(name, folder, finished):
    (folder / "tiny.yaml").write_text(TINY)
    if "tiny.yaml" not in EVERYWHERE[name]:
        shutil.copytree(finished.folder, folder / "r")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS, *(pytest.param(name, marks=pytest.mark.ray) for name in ON_RAY)])
def test_a_full_disk_is_told_and_the_same_command_ends_as_undisturbed(
    name, small_disk, finished, tmp_path, monkeypatch
):
    calm = tmp_path / "calm"
    calm.mkdir()
    for folder in (calm, small_disk):
        begin(name, folder, finished)
    monkeypatch.chdir(calm)
    done = command(*EVERYWHERE[name])
    assert done.code in ((0, 1) if name == "profile" else (0,)), done.stderr  # 1: the profile is of no use
    monkeypatch.chdir(small_disk)
    refused = 0
    for kibibytes in ROOMS if name in COMMANDS else ROOMS_OF_RAY:
        with room(small_disk, kibibytes):
            again = command(*EVERYWHERE[name])
        if again.code != 2:
            break
        assert_told(again, "No space left on device", small_disk, alone=name in COMMANDS)
        refused += 1
    assert refused
    last = command(*EVERYWHERE[name]) if again.code == 2 else again
    assert last.code == done.code or name == "profile"
    assert not list(small_disk.rglob(".*.tmp"))
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


def test_tensorboard_files_that_find_no_room_are_told_once_and_go_on(small_disk, capfd):
    run = RunDirectory(small_disk / "r")
    with room(small_disk, 8), pytest.raises(DiskError, match="r/tensorboard: not written: No space left on device"):
        log_steps(TensorBoard(), run, range(1, 1001))
    log_steps(TensorBoard(), run, [1000])
    assert capfd.readouterr().err == ""


def log_steps(board, run, steps):
    for step in steps:
        values = {"losses": (1.0, 1.0, 1.0), "lr": 0.1, "images_per_second": 1.0, "eta_s": 0.0}
        board.on_train(run, TrainProgress(step=step, steps=1000, epoch=1.0, epochs=1, **values))
        time.sleep(0.001)  # for its thread


NEW = {
    "run": ("run", "tiny.yaml", "--run"),
    "train": ("train", "tiny.yaml", "--run"),
    "dry run": ("run", "tiny.yaml", "--dry-run", "--run"),
    "export": ("export", "r", "--pick=knee", "--to"),
    "retrain": ("retrain", "r", "--pick=knee", "--epochs=1", "--workers=0", "--to"),
    "pack": ("latency", "pack", "r", "--to"),
    "profile": ("latency", "profile", "tiny.yaml", "--architectures=12", "--to"),
}
NO_PLACES = {"proc": "/proc", "file": "tiny.yaml", "below a file": "tiny.yaml/a/b", "read-only": "disk"}


@pytest.mark.parametrize("place", NO_PLACES)
@pytest.mark.parametrize("name", NEW)
def test_a_place_that_takes_nothing_new_is_told_before_the_work_for_it(name, place, small_disk, finished, monkeypatch):
    """The parent of what is to be written is no folder, or cannot be written, which root, too, has to obey."""
    here = small_disk.parent
    monkeypatch.chdir(here)
    (here / "tiny.yaml").write_text(TINY)
    (here / "r").symlink_to(finished.folder)
    before = sorted(here.rglob("*"))
    target = f"{NO_PLACES[place]}/new"
    with read_only(small_disk):
        done = command(*NEW[name], target)
    assert (done.code, done.stdout) == (2, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.match(rf"error: {target}: not written: \w", line)
    assert "hint: " in done.stderr
    assert done.stderr.startswith("error: ")  # nothing was begun
    assert sorted(here.rglob("*")) == before
