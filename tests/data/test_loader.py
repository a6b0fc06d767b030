import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    SIZE,
    all_contents,
    contents,
    encode,
    encoded_images,
    error_of,
    load,
    load_both,
    load_splits,
    write_folder,
    write_parquet,
)


@pytest.fixture(scope="module")
def both():
    return load_both("digits")


@pytest.fixture(scope="module")
def digits(both):
    return both[0]


# --- digits ---


def test_digits_are_all_there_and_carved_by_the_fractions(both):
    digits, test = both[0], both[1].open()
    assert (len(digits.train), len(digits.search), len(test)) == (1151, 287, 359)
    assert digits.info.class_names == tuple("0123456789")
    assert digits.info.num_classes == 10
    assert not digits.info.flip_safe
    for images in (digits.train, digits.search, test):
        assert images.images.shape[1:] == (3, SIZE, SIZE)
        assert images.images.dtype == np.uint8
        assert images.labels.dtype == np.int64
        assert set(images.labels.tolist()) == set(range(10))
        assert not images.images.flags.writeable
        assert not images.labels.flags.writeable
    assert digits.train.images.max() == 255
    assert np.array_equal(digits.train.images[:, 0], digits.train.images[:, 2])


def test_moments_are_those_of_the_train_split(both):
    digits, test = both
    pixels = digits.train.images / 255
    assert digits.info.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist(), abs=1e-9)
    assert digits.info.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), abs=1e-9)
    normalized = digits.train.normalized(slice(None))
    assert normalized.mean().item() == pytest.approx(0, abs=1e-5)
    assert test.open().info == digits.search.info == digits.info


def test_a_constant_channel_is_not_divided_by_zero(tmp_path):
    for number in range(8):
        pixels = np.full((SIZE, SIZE, 3), (number * 9, 7, 0), np.uint8)
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(pixels))
    data = load(f"folder:{tmp_path}")
    assert data.info.std[1:] == (1.0, 1.0)
    assert data.train.normalized(slice(None)).isfinite().all()


def test_classes_are_mixed_in_every_split(digits):
    # Racing reads a prefix of the search split: its first images must not be of a few classes.
    assert len(set(digits.search.labels[:40].tolist())) >= 8
    assert len(set(digits.train.labels[:40].tolist())) >= 8


def test_summary_is_four_lines_with_the_counts(digits):
    lines = digits.summary
    assert len(lines) == 4
    assert "digits" in lines[0]
    assert "1,797 images of 8x8, 10 classes" in lines[0]
    assert "train 1,151, search 287, test 359" in lines[1]
    assert "train 111 to 117, search 28 to 29" in lines[2]
    assert "1,797 grey, all as RGB 8x8" in lines[3]


# --- splits ---


def test_splits_are_the_same_in_another_process(both):
    digits, test = both
    code = (
        "from nas.settings import DataConfig\nfrom nas.data import load_images\n"
        "data, test = load_images(DataConfig(), 8, 0)\n"
        "import sys, json\n"
        "sets = (data.train, data.search, test.open())\n"
        "sys.stdout.write(json.dumps([data.info.hashes, [images.digest for images in sets]]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    output = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    digests = [images.digest for images in (digits.train, digits.search, test.open())]
    assert json.loads(output) == [digits.info.hashes, digests]


def test_splits_depend_on_the_seed_only(digits):
    other = load("digits", seed=1)
    assert all(other.info.hashes[split] != digits.info.hashes[split] for split in ("train", "search", "test"))
    assert load("digits").info.hashes == digits.info.hashes


def test_hash_of_the_own_test_split_does_not_depend_on_the_seed(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, seed=1)
    one, two = load(f"folder:{tmp_path}", seed=0), load(f"folder:{tmp_path}", seed=1)
    assert one.info.hashes["test"] == two.info.hashes["test"]
    assert one.info.hashes["train"] != two.info.hashes["train"]


def test_hashes_do_not_depend_on_the_image_size(digits):
    larger = load("digits", size=16)
    assert larger.info.hashes == digits.info.hashes
    assert larger.train.images.shape[2:] == (16, 16)


def test_order_and_names_of_files_do_not_matter(tmp_path):
    images, labels = encoded_images(40), [number % 3 for number in range(40)]
    images += images[:10]
    labels += [(label + 1) % 3 for label in labels[:10]]  # copies under another class
    forward = write_parquet(tmp_path / "forward.parquet", images, labels)
    backward = write_parquet(tmp_path / "backward.parquet", images[::-1], labels[::-1], paths=["cat/1.png"] * 50)
    one, two = load_splits(f"parquet:{forward}"), load_splits(f"parquet:{backward}")
    assert one[0].info.hashes == two[0].info.hashes
    assert [images.digest for images in one] == [images.digest for images in two]


def test_splits_do_not_overlap_and_hold_everything(tmp_path):
    train, search, test = all_contents(f"folder:{write_folder(tmp_path)}")
    assert not train & search
    assert not (train | search) & test
    assert len(train) + len(search) + len(test) == 30


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_an_image_share_a_split(tmp_path, seed):
    images = encoded_images(30)
    labels = [number % 3 for number in range(30)]
    labels_of_copies = [(label + number % 2) % 3 for number, label in enumerate(labels)]  # half under another class
    path = write_parquet(tmp_path / "twice.parquet", images + images, labels + labels_of_copies)
    data, test = load_both(f"parquet:{path}", seed=seed, search_fraction=0.3, test_fraction=0.3)
    splits = data.train, data.search, test.open()
    train, search, held_out = map(contents, splits)
    assert not train & search
    assert not (train | search) & held_out
    assert sum(map(len, splits)) == 60


def test_images_of_the_own_test_split_are_left_out_of_training(tmp_path):
    write_folder(tmp_path / "train")
    test = write_folder(tmp_path / "test", per_class=2, seed=1)
    leak = sorted((tmp_path / "train" / "owl").iterdir())[0]
    (test / "owl" / "leak.png").write_bytes(leak.read_bytes())
    data = load(f"folder:{tmp_path}")
    train, search, held_out = all_contents(f"folder:{tmp_path}")
    assert not (train | search) & held_out
    assert len(train) + len(search) == 29
    assert "left out: 1 of train that are also in test" in data.summary[1]


def test_every_class_is_in_every_split_even_when_small(tmp_path):
    write_folder(tmp_path, per_class=3)
    data, test = load_both(f"folder:{tmp_path}", search_fraction=0.01, test_fraction=0.01)
    for images in (data.train, data.search, test.open()):
        assert sorted(images.labels.tolist()) == [0, 1, 2]


def test_a_class_too_small_for_all_splits_is_an_error(tmp_path):
    write_folder(tmp_path, per_class=4)
    for path in sorted((tmp_path / "dog").iterdir())[2:]:
        path.unlink()
    error = error_of(f"folder:{tmp_path}")
    assert "too few different images" in error.message
    assert "dog" in error.message
    assert "cat" not in error.message.split("split:")[1]


def test_small_classes_can_be_left_out(tmp_path):
    write_folder(tmp_path, per_class=4)
    for path in sorted((tmp_path / "dog").iterdir())[1:]:
        path.unlink()
    assert "data.skip_small_classes=true" in error_of(f"folder:{tmp_path}").hint
    data, test = load_both(f"folder:{tmp_path}", skip_small_classes=True)
    assert data.info.class_names == ("cat", "owl")
    assert "left out 1 class with too few images: dog" in data.summary[0]
    assert len(data.train) + len(data.search) + len(test.open()) == 8
    assert set(test.open().labels.tolist()) == {0, 1}
    (tmp_path / "dog").rename(tmp_path / "zebra")
    assert load(f"folder:{tmp_path}", skip_small_classes=True).info.hashes == data.info.hashes


def test_damage_is_told_before_a_class_is_left_out_for_it(tmp_path):
    write_folder(tmp_path)
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(b"junk")
    assert "10 unreadable images" in error_of(f"folder:{tmp_path}", skip_small_classes=True).message
    data = load(f"folder:{tmp_path}", skip_small_classes=True, skip_bad_images=True)
    assert data.info.class_names == ("cat", "owl")


def test_when_every_class_is_small_none_is_left(tmp_path):
    write_folder(tmp_path, per_class=1)
    assert "at least 2 classes are needed, found 0" in error_of(f"folder:{tmp_path}", skip_small_classes=True).message


def test_no_search_split_is_an_error():
    assert "data.search_fraction" in error_of("digits", search_fraction=0).message


def test_no_test_fraction_means_no_test_split():
    data, test = load_both("digits", test_fraction=0)
    assert len(data.train) + len(data.search) == 1797
    assert "test 0 (test: none)" in data.summary[1]
    assert test is None
