"""Where decoded images are kept, and how they are swept."""

import os
import subprocess
import sys

import pytest
from image_files import SIZE, load_both, write_folder

from nas.base.disk import DiskError
from nas.base.scratch import scratch_path
from nas.data.store.folder import cache_folder, store_folder, stored_files, sweep_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_is_the_users_own_unless_it_is_named(tmp_path, monkeypatch, cache):
    assert store_folder() == cache
    assert cache.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("NAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store_folder() == tmp_path / "xdg" / "vit-front" / "images"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises((DiskError, NotADirectoryError)):
        cache_folder()


@pytest.mark.parametrize("variable", ["NAS_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_without_a_folder_to_write_into_images_are_decoded_for_one_command(tmp_path, monkeypatch, variable):
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    for name in ("NAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    environment = {**os.environ, variable: str(tmp_path / "file" / "x"), "TMPDIR": str(tmp_path / "tmp")}
    code = (
        "import os; from nas.base import Reporter; from nas.data.store.folder import store_folder\n"
        "first = store_folder(Reporter())\n"
        "assert str(store_folder()) == str(first) == os.environ['NAS_CACHE']\n"
        "(first / 'x').touch(); os.fork() or exit(); os.wait(); assert first.is_dir(); print(first)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no cache, images are decoded anew") == 1
    assert str(tmp_path / "tmp" / "nas-images-") in done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_in_use_stays_and_what_was_killed_goes(tmp_path, cache):
    data, test = load_both(f"folder:{write_folder(tmp_path / 'images')}")
    assert all(path.stat().st_mode & 0o077 == 0 for path in cache.iterdir())
    (file,) = stored_files()
    assert (file.images, file.side, file.in_use) == (30, SIZE, True)
    assert file.num_bytes == 30 * (3 * SIZE**2 + 48)
    assert sweep_store() == []
    assert data.train.images[0].shape == (3, SIZE, SIZE)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = scratch_path(cache / "images")
    left = left.with_name(left.name.replace(f".{os.getpid()}-", f".{gone.pid}-"))
    left.write_bytes(b"half")
    others = [cache / name for name in ("vectors.index", ".poetry.lock", "holiday.images", ".notes.tmp")]
    for path in others:
        path.write_text("another program's")
    del data, test
    assert [swept.name for swept in sweep_store()] == [file.name]
    assert sorted(cache.iterdir()) == sorted(others)
