"""Images are decoded once: what is found again is right, whatever has changed, been killed or been deleted."""

import copy
import json
import os
import pickle  # noqa: TID251 - how Ray sends objects to workers
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import SIZE, encoded_images, load, load_both, write_folder, write_parquet
from PIL import Image
from small_runs import one_thread, trainer
from timm.data import create_transform

from nas.base.errors import DataError
from nas.data.store import part
from nas.data.store.folder import stored_files, sweep_store
from nas.data.store.part import Pixels
from nas.training.trained import state_digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def passes(monkeypatch):
    """How often samples were decoded."""
    found, decode = [], part.list_samples
    monkeypatch.setattr(part, "list_samples", lambda *arguments: found.append(1) or decode(*arguments))
    return found


@pytest.fixture
def settled(monkeypatch):
    """Files count as unchanged at once."""
    monkeypatch.setattr(part, "SETTLED_NS", -(10**15))


def made(root):
    write_folder(root / "train")
    return f"folder:{write_folder(root / 'test', per_class=2, seed=1).parent}"


def test_images_are_decoded_once_and_not_even_read_again(tmp_path, passes, settled, monkeypatch):
    spec = made(tmp_path / "images")
    first = load(spec)
    assert len(passes) == 2
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read") if path.suffix == ".png" else read(path))
    again = load(spec)
    assert len(passes) == 2
    assert (again.info, again.summary) == (first.info, first.summary)
    assert (again.train.digest, again.search.digest) == (first.train.digest, first.search.digest)


def test_a_changed_file_is_seen_whatever_its_size_and_time_are_set_to(tmp_path, passes, settled):
    spec = made(tmp_path / "images")
    before = load(spec)
    victim = sorted((tmp_path / "images" / "train" / "cat").iterdir())[0]
    status, content = victim.stat(), encoded_images(1, seed=9)[0]
    victim.write_bytes(content.ljust(status.st_size, b"\0")[: max(status.st_size, len(content))])
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = load(spec)
    assert len(passes) == 3
    assert after.info.hashes != before.info.hashes
    assert after.info.hashes["test"] == before.info.hashes["test"]


def test_a_file_changed_just_now_is_read_and_not_trusted_by_its_time(tmp_path, passes):
    path = write_parquet(tmp_path / "a.parquet", encoded_images(30), [i % 3 for i in range(30)])
    one = load(f"parquet:{path}")
    status = path.stat()
    write_parquet(path, encoded_images(30, seed=3), [i % 3 for i in range(30)])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(f"parquet:{path}").info.hashes != one.info.hashes
    assert len(passes) == 2


def test_what_was_deleted_or_damaged_is_made_again(tmp_path, cache, passes):
    spec = made(tmp_path / "images")
    digest = load(spec).train.digest
    for victims in ("*.images", "*.index", "*"):
        for path in cache.glob(victims):
            path.unlink()
        assert load(spec).train.digest == digest
    for path in cache.glob("*.index"):
        path.write_bytes(path.read_bytes()[:100])
    assert load(spec).train.digest == digest
    for length in (0, 100, -1):
        for path in cache.glob("*.images"):
            path.write_bytes(path.read_bytes()[:length])
        assert load(spec).train.digest == digest


def test_the_same_images_by_another_path_are_kept_once(tmp_path, cache):
    first = load(made(tmp_path / "images"))
    kept = sorted(path.name for path in cache.glob("*.images"))
    assert len(kept) == 1  # a test split of its own is not kept
    shutil.copytree(tmp_path / "images", tmp_path / "copied")
    again = load(f"folder:{tmp_path / 'copied'}")
    assert sorted(path.name for path in cache.glob("*.images")) == kept
    assert np.array_equal(again.train.images[:], first.train.images[:])


def test_another_size_shares_the_listing(tmp_path, cache, passes):
    spec = made(tmp_path / "images")
    load(spec)
    larger = load(spec, size=2 * SIZE)
    assert larger.train.images.shape[1:] == (3, 2 * SIZE, 2 * SIZE)
    assert len(passes) == 3  # not of the test part
    assert len(list(cache.glob("*.images"))) == 2


def test_pickled_images_are_opened_by_who_gets_them_and_made_anew_where_they_are_missing(tmp_path, passes):
    data, test = load_both(made(tmp_path / "images"))
    digest, packed = data.train.digest, pickle.dumps(data.train)
    assert pickle.loads(packed).digest == digest
    assert len(passes) == 2
    del data, test
    assert len(sweep_store()) == 1
    assert pickle.loads(packed).digest == digest  # as on another machine
    assert len(passes) == 3
    sweep_store()
    victim = sorted((tmp_path / "images" / "train" / "cat").iterdir())[0]
    victim.write_bytes(encoded_images(1, seed=9)[0])
    with pytest.raises(DataError, match="other images on this machine"):
        pickle.loads(packed)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, cache, monkeypatch):
    spec = made(tmp_path / "images")
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(part.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"30 images of 8x8 need 0.0 GiB in .*, 0.0 GiB are free") as caught:
        load(spec)
    assert "cache --sweep" in caught.value.hint
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_a_larger_stored_size_is_seen_by_its_centre(tmp_path):
    spec = made(tmp_path / "images")
    whole = load(spec, size=12)
    data, test = load_both(spec, size=SIZE, stored_size=12)
    numbers = np.arange(4)
    assert data.train.stored_side == 12
    assert np.array_equal(data.train.uncut(numbers), whole.train.uncut(numbers))
    assert np.array_equal(data.train.images[numbers], whole.train.images[numbers][..., 2:10, 2:10])
    assert data.search.normalized(numbers).shape == test.open().normalized(numbers).shape == (4, 3, SIZE, SIZE)


@pytest.mark.parametrize(("size", "stored"), [(8, 12), (6, 14), (12, 16), (5, 13), (9, 13), (8, 8)])
def test_what_is_evaluated_of_a_larger_stored_size_is_what_timm_makes_of_the_file(tmp_path, size, stored):
    """By the bundle's own `crop_pct`. With other differences a centre between two pixels may be the other one's."""
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for number in range(30):
        shape = [(20, 28), (28, 20), (24, 24), (40, 24)][number % 4]
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
    data, test = load_both(f"folder:{root}", size=size, stored_size=stored)
    info = data.info
    transform = create_transform(
        (3, size, size), crop_pct=info.crop_pct, interpolation="bicubic", mean=info.mean, std=info.std
    )
    made = torch.stack([transform(Image.open(path)) for path in sorted(root.rglob("*.png"))])
    for split in (data.train, data.search, test.open()):
        seen = split.normalized(slice(None))
        apart = (seen[:, None] - made[None]).abs().amax(dim=(2, 3, 4)).min(dim=1).values
        assert apart.max() < 1e-5


def test_crops_of_training_are_cut_from_the_larger_side_and_evaluation_sees_its_centre(tmp_path):
    """Black centres of 8 px in white frames of 16: only who sees the frame sees white."""
    pixels = np.full((16, 16, 3), 255, dtype=np.uint8)
    pixels[4:12, 4:12] = 0
    for number in range(30):
        pixels[7, 7] = number  # or all would be one image
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    data, test = load_both(f"folder:{tmp_path / 'images'}", stored_size=16)
    for images in (data.train, data.search, test.open()):
        assert np.asarray(images.images).max() < 30
        assert images.uncut(np.arange(len(images))).max() == 255
    white = (1 - np.array(data.info.mean)) / np.array(data.info.std)

    def most(crop_scale):
        images = trainer(tmp_path / str(crop_scale), split=data.train, batch_size=8, crop_scale=crop_scale)._batch(0)[0]
        assert images.shape == (8, 3, SIZE, SIZE)
        return images.amax(dim=(0, 2, 3)).numpy()

    assert most((0.9, 1.0)) == pytest.approx(white, abs=1e-3)
    assert (most((1.0, 1.0)) < white - 0.5).all()


def test_a_stored_size_below_the_networks_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"kept at 6 px \(data.stored_size\), and the space's image_size is 8"):
        load(made(tmp_path / "images"), stored_size=6)


def in_memory(images):
    """The same images, whose pixels are not read from a file: all that is stored of them, also around the centre."""
    stored = copy.copy(images.images._stored)
    stored.rows = np.array(stored.rows)
    assert not isinstance(stored.rows.base, np.memmap)
    return replace(images, images=Pixels(stored, images.images._positions, images.images._side))


@pytest.mark.parametrize("recipe", [{}, {"auto_augment": "rand-m5-n1", "hflip": 0.5}, {"rule": "sandwich"}])
def test_a_larger_stored_size_trains_the_same_from_memory_from_the_file_and_resumed(tmp_path, cache, recipe):
    options = {"size": SIZE, "stored_size": 12}
    spec = made(tmp_path / "images")
    train = load(spec, **options).train

    def weights(name, split, until=None):
        return state_digest(
            trainer(tmp_path / name, split=split, batch_size=8, crop_scale=(0.5, 1.0), **recipe)
            .run(until=until)
            .state_dict()
        )

    with one_thread():
        straight = weights("file", train)
        assert weights("memory", in_memory(train)) == straight
        weights("stopped", train, until=3)
        del train
        for path in cache.iterdir():  # the next process decodes anew
            path.unlink()
        assert weights("stopped", load(spec, **options).train) == straight
        assert weights("whole", load(spec, size=SIZE).train) != straight


def test_results_are_those_of_images_in_memory_bit_for_bit(tmp_path):
    data, _ = load_both(made(tmp_path / "images"))
    whole = [replace(images, images=np.array(images.images)) for images in (data.train, data.search)]
    numbers = np.array([3, 1, 1])
    for stored, held in zip((data.train, data.search), whole, strict=True):
        assert stored.digest == held.digest
        assert torch.equal(stored.normalized(numbers), held.normalized(numbers))
        assert torch.equal(stored.part(2, 5).normalized(slice(None)), held.part(2, 5).normalized(slice(None)))
        assert np.array_equal(stored.chosen(numbers).images, held.chosen(numbers).images)
    with one_thread():
        digests = {
            state_digest(trainer(tmp_path / name, split=images, batch_size=8).run().state_dict())
            for name, images in (("stored", data.train), ("held", whole[0]))
        }
    assert len(digests) == 1


@pytest.mark.slow
def test_images_three_times_as_large_as_the_memory_of_the_process_are_trained_and_measured_on(tmp_path, cache):
    """RLIMIT_DATA leaves room for less than a quarter of the images beside what torch reserves; RssAnon is watched."""
    number = 12000
    path = write_parquet(tmp_path / "a.parquet", encoded_images(number), [i % 3 for i in range(number)])
    driver = Path(__file__).parents[2] / "helpers" / "memory_driver.py"
    command = [sys.executable, str(driver), f"parquet:{path}", "256", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["stored"] > 3 * found["used"]
    assert found["stored"] > 4 * found["room"]
    assert found["is_limited"]
    assert found["measured"] == [640, 640]


TRAINED = """
import sys, time
from pathlib import Path
from image_files import load
from small_runs import one_thread, trainer
with one_thread():
    train = load(sys.argv[1], stored_size=12).train
    trainer(Path(sys.argv[2]), split=train, batch_size=4, crop_scale=(0.5, 1.0)).run(lambda _: time.sleep(0.1))
"""


@pytest.mark.slow
def test_a_training_from_the_file_that_was_killed_ends_as_one_that_was_not(tmp_path):
    spec, folder = made(tmp_path / "images"), tmp_path / "killed"
    helpers = str(Path(__file__).parents[2] / "helpers")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([helpers, *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", TRAINED, spec, str(folder)], env=environment)
    while not list(folder.glob("step-00000003.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("step-00000012.json"))
    train = load(spec, stored_size=12).train
    with one_thread():
        ended = [
            state_digest(trainer(place, split=train, batch_size=4, crop_scale=(0.5, 1.0)).run().state_dict())
            for place in (folder, tmp_path / "undisturbed")
        ]
    assert ended[0] == ended[1]


KILLED = """
import sys, time
from nas.data.store import decode
look = decode._look
decode._look = lambda *arguments: (time.sleep(0.05), look(*arguments))[1]
from nas.settings import DataConfig
from nas.data import load_images
load_images(DataConfig(spec=sys.argv[1]), 8, 0)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_nothing_and_two_at_once_are_harmless(tmp_path, cache):
    spec = f"folder:{write_folder(tmp_path / 'images', per_class=40)}"
    command = [sys.executable, "-c", KILLED, spec]
    killed = subprocess.Popen(command)
    while not list(cache.glob(".images*.tmp")):
        time.sleep(0.02)
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list(cache.glob("*.images"))
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list(cache.glob("*.images"))) == 1
    assert not list(cache.glob(".*.tmp"))
    assert [file.images for file in stored_files()] == [120]
    assert load(spec).train.images[0].any()
