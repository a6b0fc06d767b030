"""What stops a write becomes one line: which file, why, how much is missing, what to do."""

import copyreg
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nas.base.disk import ADVICE, DiskError, check_writable, disk_error, writing
from nas.base.errors import RunError
from nas.base.files import atomic_write_bytes

STOPS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO]


def test_every_number_that_stops_a_write_has_its_advice():
    assert sorted(ADVICE) == sorted(STOPS)


@pytest.mark.parametrize("number", STOPS)
def test_the_line_names_the_file_the_reason_and_a_way_on(tmp_path, number):
    with pytest.raises(DiskError) as caught, writing(tmp_path / "weights"):
        raise OSError(number, os.strerror(number))
    assert caught.value.message.startswith(f"{tmp_path / 'weights'}: not written: {os.strerror(number)}")
    assert "the same command goes on" in caught.value.hint
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message


def test_how_much_is_needed_and_free_is_said_where_there_is_no_room(tmp_path):
    with pytest.raises(DiskError, match=r"\(1,234 bytes are needed, [\d,]+ are free\)"), writing(tmp_path / "x", 1234):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_libraries_words_for_a_disk_are_understood():
    assert "Disk quota exceeded" in disk_error(ValueError("I/O error: Disk quota exceeded (os error 122)")).message
    assert disk_error(RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"))
    assert "a/b: not written: Permission" in disk_error(PermissionError(13, "Permission denied", "a/b")).message


@pytest.mark.parametrize("error", [ValueError("os error"), FileNotFoundError(2, "no", "x"), KeyError(28)])
def test_other_errors_are_left_alone(tmp_path, error):
    assert disk_error(error) is None


def test_what_is_a_message_already_passes(tmp_path):
    with pytest.raises(RunError, match="locked"), writing(tmp_path):
        raise RunError("locked")


def test_it_crosses_processes_whole():
    error = disk_error(PermissionError(13, "Permission denied", "a/b"))
    make, arguments, state = error.__reduce__()
    assert make is copyreg.__newobj__
    again = make(*arguments)
    again.__dict__.update(state)
    assert (type(again), again.message, again.hint) == (DiskError, error.message, error.hint)


@pytest.mark.usefixtures("small_files")
def test_a_limit_on_the_size_of_files_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(DiskError, match=r"x: not written: File too large") as caught:
        atomic_write_bytes(tmp_path / "x", bytes(2000))
    assert "ulimit -f" in caught.value.hint
    with pytest.raises(DiskError, match=r"weights: not written: "), writing(tmp_path / "weights"):
        save_file({"a": np.zeros(1000)}, tmp_path / "scratch")
    assert not (tmp_path / "x").exists()


def test_a_place_that_takes_no_file_is_found_out_before_the_work_for_it(tmp_path):
    (tmp_path / "file").write_text("here")
    check_writable(tmp_path / "new" / "bundle")
    check_writable(tmp_path / "file")  # to be replaced
    check_writable(tmp_path)
    with pytest.raises(DiskError, match="file/bundle: not written: Not a directory"):
        check_writable(tmp_path / "file" / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(DiskError, match=r"/proc/bundle: not written: "):
        check_writable(Path("/proc/bundle"))
