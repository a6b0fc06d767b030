"""Files are whole: the old content or the new one, whatever happens; JSON holds what it can and says its version."""

import math
import os
import signal
import subprocess
import sys

import pytest

from nas.base.disk import DiskError
from nas.base.errors import RunError
from nas.base.files import (
    SCHEMA_VERSION,
    atomic_write_bytes,
    atomic_write_text,
    check_schema,
    parse_json,
    read_bytes,
    read_json,
    replacing,
    to_json_text,
)

DIE_BEFORE_REPLACE = """
import os, sys
from pathlib import Path
from nas.base import atomic_write_text
Path.replace = lambda self, target: os.kill(os.getpid(), 9)
atomic_write_text(Path(sys.argv[1]), "new")
"""


def test_what_is_written_replaces_the_old_content(tmp_path):
    path = tmp_path / "file"
    atomic_write_text(path, "old, with ü")
    atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_writer_killed_before_the_replacement_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", DIE_BEFORE_REPLACE, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_write_that_fails_leaves_the_old_content_and_no_scratch_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"file: not written: No space left on device \(3 bytes are needed, "):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_as_a_file_is(tmp_path):
    path = tmp_path / "folder"
    with replacing(path) as scratch:
        scratch.mkdir()
        (scratch / "part").touch()
        assert not path.exists()
    assert [p.name for p in path.iterdir()] == ["part"]
    with pytest.raises(DiskError), replacing(tmp_path / "missing" / "other") as scratch:
        scratch.mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_the_next_writer_of_a_file_removes_what_a_killed_one_left_of_it(tmp_path):
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", DIE_BEFORE_REPLACE, str(path)], check=False)
    assert [p.suffix for p in tmp_path.iterdir()] == [".tmp"]
    atomic_write_text(path, "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_is_sorted_indented_and_ends_with_a_newline():
    assert to_json_text({"b": 1, "a": [2]}) == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(RunError, match="not written"):
        to_json_text({"x": value})


@pytest.mark.parametrize(
    "values", [None, [], {}, {"schema_version": "1"}, {"schema_version": 0}, {"schema_version": True}]
)
def test_a_file_without_a_version_is_refused_by_name(values):
    with pytest.raises(RunError, match=r"some\.json: schema_version must be a positive number"):
        check_schema(values, "some.json")


def test_a_newer_version_is_refused_with_a_way_out_and_this_one_is_not():
    check_schema({"schema_version": SCHEMA_VERSION}, "some.json")
    with pytest.raises(RunError, match="newer than this program") as error:
        check_schema({"schema_version": SCHEMA_VERSION + 1}, "some.json")
    assert error.value.hint


def test_a_file_is_read_up_to_its_limit_and_a_pipe_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe"):
        read_bytes(tmp_path / "pipe")


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "[" * 100_000, "", "{'a': 1}", "1" * 5000, b"\xff"])
def test_what_is_no_json_of_finite_numbers_is_a_value_error(text, tmp_path):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "a.json")
