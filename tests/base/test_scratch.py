"""What killed processes leave is removed, and nothing else."""

import os
import subprocess
import sys
import tempfile

import pytest

from nas.base import scratch as module
from nas.base.disk import DiskError
from nas.base.scratch import scratch_path, sweep, temporary_folder


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_scratch_files_are_hidden_beside_their_target_and_never_the_same(tmp_path):
    path = tmp_path / "file"
    names = {scratch_path(path) for _ in range(100)}
    assert len(names) == 100
    assert all(p.parent == tmp_path and p.name.startswith(".file.") and p.suffix == ".tmp" for p in names)


def test_only_what_processes_of_this_machine_left_that_are_gone_is_removed(tmp_path, dead, monkeypatch):
    living = scratch_path(tmp_path / "living")
    name = living.name.replace("living", "{}").replace(f".{os.getpid()}-", ".{}-")
    gone, folder = (tmp_path / name.format(kind, dead) for kind in ("gone", "folder"))
    old = tmp_path / f".of-an-earlier-version.{dead}.0a1b2c3d.tmp"
    others = [tmp_path / name for name in (".mine.tmp", ".x.1.tmp", f"x.{dead}-abcdef.0a1b2c3d.tmp", "y.tmp")]
    for path in (living, gone, old, *others):
        path.touch()
    folder.mkdir()
    (folder / "part").touch()
    monkeypatch.setattr(module, "_machine", lambda: "ffffff")
    elsewhere = tmp_path / scratch_path(tmp_path / "elsewhere").name.replace(f"{os.getpid()}-", f"{dead}-")
    elsewhere.touch()
    monkeypatch.undo()
    sweep(tmp_path.iterdir())
    assert set(tmp_path.iterdir()) == {living, elsewhere, *others}


def test_a_temporary_folder_is_private_and_those_of_killed_processes_go(tmp_path, dead, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, kept = tmp_path / f"nas-onnx-{dead}-abc", tmp_path / "nas-results-1"
    left.mkdir()
    kept.mkdir()
    with temporary_folder("dry-run") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert set(tmp_path.iterdir()) == {folder, kept}
    assert set(tmp_path.iterdir()) == {kept}


def test_where_no_temporary_folder_can_be_made_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DiskError, match="missing: not written"), temporary_folder("onnx"):
        pass
