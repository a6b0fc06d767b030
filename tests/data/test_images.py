import json
import os
import pickle  # noqa: TID251 - how Ray sends objects to workers
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import (
    SIZE,
    all_contents,
    encode,
    encoded_images,
    error_of,
    load,
    write_folder,
    write_parquet,
)

from nas.base.errors import DataError
from nas.data.images import ImageSet, sealed_test_split


@pytest.fixture(scope="module")
def digits():
    return load("digits")


# --- the image set ---


def test_image_set_normalises_with_its_own_moments():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    chosen = ImageSet(images, torch.tensor([0, 1]), mean=(0.5, 0.0, 0.25), std=(0.5, 1.0, 0.25))
    assert chosen.normalized([1])[0, :, 0, 0].tolist() == [1.0, 1.0, 3.0]
    assert chosen.normalized(slice(0, 1))[0, :, 0, 0].tolist() == [-1.0, 0.0, -1.0]
    assert chosen.normalized(torch.tensor([0, 1, 1])).dtype == torch.float32
    assert len(chosen) == 2


def test_digest_sees_pixels_labels_and_shape():
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    changed = images.clone()
    changed[1, 2, 3, 3] = 1
    variants = [
        ImageSet(images, labels),
        ImageSet(changed, labels),
        ImageSet(images, labels.flip(0)),
        ImageSet(images.view(2, 3, 2, 8), labels),
    ]
    digests = [variant.digest for variant in variants]
    assert len(set(digests)) == 4
    assert all(len(digest) == 16 for digest in digests)
    assert ImageSet(images.clone(), labels.clone()).digest == digests[0]


# --- digits ---


def test_digits_are_all_there_and_carved_by_the_fractions(digits):
    test = digits.open_test()
    assert (len(digits.train), len(digits.search), len(test)) == (1151, 287, 359)
    assert digits.class_names == tuple("0123456789")
    assert digits.num_classes == 10
    assert not digits.flip_safe
    for images in (digits.train, digits.search, test):
        assert images.images.shape[1:] == (3, SIZE, SIZE)
        assert images.images.dtype == torch.uint8
        assert images.labels.dtype == torch.int64
        assert set(images.labels.tolist()) == set(range(10))
    assert digits.train.images.max() == 255
    assert torch.equal(digits.train.images[:, 0], digits.train.images[:, 2])


def test_moments_are_those_of_the_train_split(digits):
    pixels = digits.train.images.double() / 255
    assert digits.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-9)
    assert digits.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-9)
    normalized = digits.train.normalized(slice(None))
    assert normalized.mean().item() == pytest.approx(0, abs=1e-5)
    assert digits.open_test().mean == digits.mean


def test_a_constant_channel_is_not_divided_by_zero(tmp_path):
    for number in range(8):
        pixels = np.full((SIZE, SIZE, 3), (number * 9, 7, 0), np.uint8)
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(pixels))
    data = load(f"folder:{tmp_path}")
    assert data.std[1:] == (1.0, 1.0)
    assert data.train.normalized(slice(None)).isfinite().all()


def test_classes_are_mixed_in_every_split(digits):
    # Racing reads a prefix of the search split: its first images must not be of a few classes.
    assert len(set(digits.search.labels[:40].tolist())) >= 8
    assert len(set(digits.train.labels[:40].tolist())) >= 8


def test_summary_is_four_lines_with_the_counts(digits):
    lines = digits.summary()
    assert len(lines) == 4
    assert "digits" in lines[0]
    assert "1,797 images of 8x8, 10 classes" in lines[0]
    assert "train 1,151, search 287, test 359" in lines[1]
    assert "train 111 to 117, search 28 to 29" in lines[2]
    assert "1,797 grey, all as RGB 8x8" in lines[3]


# --- the sealed test split ---


def test_test_split_cannot_be_opened_during_a_search(digits):
    with sealed_test_split():
        with sealed_test_split(), pytest.raises(DataError, match="during a search") as caught:
            digits.open_test()
        assert caught.value.hint
        with pytest.raises(DataError, match="during a search"):
            digits.open_test()
    assert len(digits.open_test()) == 359


def test_seal_is_lifted_after_an_error(digits):
    with pytest.raises(KeyError), sealed_test_split():
        raise KeyError
    assert len(digits.open_test()) == 359


def test_pickled_images_carry_no_test_split(digits):
    packed = pickle.dumps(digits)
    assert len(packed) < (1151 + 287) * (3 * SIZE * SIZE + 8) + 3000
    copy = pickle.loads(packed)
    assert copy.train.digest == digits.train.digest
    assert (copy.hashes, copy.mean, copy.summary()) == (digits.hashes, digits.mean, digits.summary())
    with pytest.raises(DataError, match="worker's copy"):
        copy.open_test()
    assert digits.open_test().digest == digits.open_test().digest


def test_test_images_of_files_are_decoded_only_when_opened(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, seed=1)
    victim = sorted((tmp_path / "test" / "cat").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-30])  # its header is whole
    data = load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="1 unreadable image") as caught:
        data.open_test()
    assert str(victim) in caught.value.message
    assert len(load(f"folder:{tmp_path}", skip_bad_images=True).open_test()) == 5


def test_changed_test_images_are_refused(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, seed=1)
    data = load(f"folder:{tmp_path}")
    sorted((tmp_path / "test" / "cat").iterdir())[0].write_bytes(encoded_images(1, seed=9)[0])
    with pytest.raises(DataError, match="changed since the splits were made"):
        data.open_test()


# --- splits ---


def test_splits_are_the_same_in_another_process(digits):
    code = (
        "from nas.settings import DataConfig\nfrom nas.data import load_images\n"
        "data = load_images(DataConfig(), 8, 0)\n"
        "import sys, json\n"
        "sets = (data.train, data.search, data.open_test())\n"
        "sys.stdout.write(json.dumps([data.hashes, [images.digest for images in sets]]))"
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
    digests = [images.digest for images in (digits.train, digits.search, digits.open_test())]
    assert json.loads(output) == [digits.hashes, digests]


def test_splits_depend_on_the_seed_only(digits):
    other = load("digits", seed=1)
    assert all(other.hashes[split] != digits.hashes[split] for split in ("train", "search", "test"))
    assert load("digits").hashes == digits.hashes


def test_hash_of_the_own_test_split_does_not_depend_on_the_seed(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, seed=1)
    one, two = load(f"folder:{tmp_path}", seed=0), load(f"folder:{tmp_path}", seed=1)
    assert one.hashes["test"] == two.hashes["test"]
    assert one.hashes["train"] != two.hashes["train"]


def test_hashes_do_not_depend_on_the_image_size(digits):
    larger = load("digits", size=16)
    assert larger.hashes == digits.hashes
    assert larger.train.images.shape[2:] == (16, 16)


def test_order_and_names_of_files_do_not_matter(tmp_path):
    images, labels = encoded_images(40), [number % 3 for number in range(40)]
    images += images[:10]
    labels += [(label + 1) % 3 for label in labels[:10]]  # copies under another class
    forward = write_parquet(tmp_path / "forward.parquet", images, labels)
    backward = write_parquet(
        tmp_path / "backward.parquet", images[::-1], labels[::-1], paths=["cat/1.png"] * 50
    )
    one, two = load(f"parquet:{forward}"), load(f"parquet:{backward}")
    assert one.hashes == two.hashes
    assert one.train.digest == two.train.digest
    assert one.search.digest == two.search.digest
    assert one.open_test().digest == two.open_test().digest


def test_splits_do_not_overlap_and_hold_everything(tmp_path):
    train, search, test = all_contents(load(f"folder:{write_folder(tmp_path)}"))
    assert not train & search
    assert not (train | search) & test
    assert len(train) + len(search) + len(test) == 30


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_an_image_share_a_split(tmp_path, seed):
    images = encoded_images(30)
    labels = [number % 3 for number in range(30)]
    labels_of_copies = [
        (label + number % 2) % 3 for number, label in enumerate(labels)
    ]  # half under another class
    path = write_parquet(tmp_path / "twice.parquet", images + images, labels + labels_of_copies)
    data = load(f"parquet:{path}", seed=seed, search_fraction=0.3, test_fraction=0.3)
    train, search, test = all_contents(data)
    assert not train & search
    assert not (train | search) & test
    assert len(data.train) + len(data.search) + len(data.open_test()) == 60


def test_images_of_the_own_test_split_are_left_out_of_training(tmp_path):
    write_folder(tmp_path / "train")
    test = write_folder(tmp_path / "test", per_class=2, seed=1)
    leak = sorted((tmp_path / "train" / "owl").iterdir())[0]
    (test / "owl" / "leak.png").write_bytes(leak.read_bytes())
    data = load(f"folder:{tmp_path}")
    train, search, held_out = all_contents(data)
    assert not (train | search) & held_out
    assert len(train) + len(search) == 29
    assert "left out: 1 of train that are also in test" in data.summary()[1]


def test_every_class_is_in_every_split_even_when_small(tmp_path):
    write_folder(tmp_path, per_class=3)
    data = load(f"folder:{tmp_path}", search_fraction=0.01, test_fraction=0.01)
    for images in (data.train, data.search, data.open_test()):
        assert sorted(images.labels.tolist()) == [0, 1, 2]


def test_a_class_too_small_for_all_splits_is_an_error(tmp_path):
    write_folder(tmp_path, per_class=4)
    for path in sorted((tmp_path / "dog").iterdir())[2:]:
        path.unlink()
    error = error_of(f"folder:{tmp_path}")
    assert "too few different images" in error.message
    assert "dog" in error.message
    assert "cat" not in error.message.split("split:")[1]


def test_no_search_split_is_an_error():
    assert "data.search_fraction" in error_of("digits", search_fraction=0).message


def test_no_test_fraction_means_no_test_split():
    data = load("digits", test_fraction=0)
    assert len(data.train) + len(data.search) == 1797
    assert "test 0 (test: none)" in data.summary()[1]
    with pytest.raises(DataError, match="no test split"):
        data.open_test()
