import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import (
    NAMES,
    contents,
    encoded_images,
    error_of,
    load,
    load_both,
    load_test,
    write_folder,
    write_parquet,
)
from PIL import Image

REAL = Path(os.environ.get("NAS_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real images at {REAL}; set NAS_DATA")


# --- specs ---


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digit", 'did you mean "digits"?'),
        ("foldr:pets", 'did you mean "folder:pets"?'),
        ("digits:x", "write just: digits"),
        ("folder:", "folder:DIR"),
        ("hfds:/pets", "hfds/NAME"),
        ("torch/cifar10", "torch/cifar10:DIR"),
        ("https://example.org", "data is one of"),
    ],
)
def test_wrong_spec_says_what_to_write(spec, words):
    assert words in error_of(spec).hint


def test_a_bare_path_is_told_its_prefix(tmp_path):
    assert error_of(tmp_path).hint == f'did you mean "folder:{tmp_path}"?'


def test_missing_path_names_its_neighbour(tmp_path):
    write_folder(tmp_path / "pets")
    assert f'did you mean "{tmp_path / "pets"}"?' in error_of(f"folder:{tmp_path / 'pest'}").message


def test_all_missing_parquet_files_are_named_at_once(tmp_path):
    error = error_of(f"parquet:{tmp_path / 'a.parquet'},{tmp_path / 'b.parquet'}")
    assert "2 problems" in error.message
    assert "a.parquet" in error.message
    assert "b.parquet" in error.message


# --- folders ---


def test_flat_folder_is_split_and_labelled_in_natural_order(tmp_path):
    write_folder(tmp_path, classes=("class10", "class2"))
    (tmp_path / "notes.txt").write_text("not an image")
    data, test = load_both(f"folder:{tmp_path}")
    assert data.info.class_names == ("class2", "class10")
    assert data.info.flip_safe
    assert len(test.open()) == 4
    assert "1 other file ignored" in data.summary[0]


@pytest.mark.parametrize(
    ("present", "used"), [(("val",), "val"), (("validation",), "validation"), (("val", "test"), "test")]
)
def test_own_test_folder_is_the_test_split(tmp_path, present, used):
    write_folder(tmp_path / "train")
    for number, name in enumerate(present):
        write_folder(tmp_path / name, per_class=2, seed=number + 1)
    data, test = load_both(f"folder:{tmp_path}")
    expected = {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in (tmp_path / used).rglob("*.png")}
    assert contents(test.open()) == expected
    assert len(data.train) + len(data.search) == 30
    assert ("val/ is not used" in data.summary[0]) == (len(present) == 2)


def test_ten_digit_folders_are_not_flipped(tmp_path):
    assert not load(f"folder:{write_folder(tmp_path, per_class=3, classes=tuple('0123456789'))}").info.flip_safe


def test_problems_of_folders_are_listed_together(tmp_path):
    write_folder(tmp_path / "train")
    (tmp_path / "train" / "yak").mkdir()
    write_folder(tmp_path / "test", per_class=2, classes=("cat", "dog", "emu"))
    message = error_of(f"folder:{tmp_path}").message
    assert f"class folders of {tmp_path / 'train'} without images: yak" in message
    assert f"classes of {tmp_path / 'train'} that {tmp_path / 'test'} lacks: owl, yak" in message
    assert f"classes of {tmp_path / 'test'} that {tmp_path / 'train'} lacks: emu" in message


def test_one_class_is_an_error(tmp_path):
    assert "at least 2 class folders" in error_of(f"folder:{write_folder(tmp_path, classes=('cat',))}").message


def test_the_folder_inside_is_suggested(tmp_path):
    write_folder(tmp_path / "pets" / "train")
    assert error_of(f"folder:{tmp_path}").hint == f'did you mean "folder:{tmp_path / "pets"}"?'


def test_splits_without_class_folders_are_not_taken_for_classes(tmp_path):
    write_folder(tmp_path, classes=("train", "test"))
    assert "no train/ with a folder for each class" in error_of(f"folder:{tmp_path}").message


def test_an_archive_is_told_to_be_unpacked(tmp_path):
    path = tmp_path / "pets.zip"
    path.write_bytes(b"PK")
    assert "unpack" in error_of(f"folder:{path}").hint


# --- parquet ---


def test_parquet_names_come_from_the_schema(tmp_path):
    images, labels = encoded_images(30), [number % 3 for number in range(30)]
    path = write_parquet(tmp_path / "pets.parquet", images, labels)
    assert load(f"parquet:{path}").info.class_names == NAMES
    write_parquet(path, images, labels, names=None)
    assert load(f"parquet:{path}").info.class_names == ("0", "1", "2")


def test_parquet_test_file_is_the_test_split(tmp_path):
    images, labels = encoded_images(36), [number % 3 for number in range(36)]
    train = write_parquet(tmp_path / "a.parquet", images[:30], labels[:30])
    test = write_parquet(tmp_path / "b.parquet", images[30:], labels[30:])
    data, test = load_both(f"parquet:{train},{test}")
    assert len(test.open()) == 6
    assert len(data.train) + len(data.search) == 30
    swapped = write_parquet(tmp_path / "b.parquet", images[30:], labels[30:], names=("dog", "cat", "owl"))
    assert "disagree on the names" in error_of(f"parquet:{train},{swapped}").message


def test_parquet_folder_is_split_by_the_names_of_its_files(tmp_path):
    images, labels = encoded_images(36), [number % 3 for number in range(36)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", images[:15], labels[:15])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", images[15:30], labels[15:30])
    assert len(load_test(f"parquet:{tmp_path}")) == 6  # a fifth of 30
    write_parquet(tmp_path / "test-00000-of-00001.parquet", images[30:], labels[30:])
    data = load(f"parquet:{tmp_path}")
    assert len(data.train) + len(data.search) == 30
    assert "the data's own" in data.summary[1]
    write_parquet(tmp_path / "more.parquet", images[:3], labels[:3])
    assert "more.parquet" in error_of(f"parquet:{tmp_path}").message


def test_wrong_columns_are_named_with_those_that_are_there(tmp_path):
    path = tmp_path / "wrong.parquet"
    pq.write_table(pa.table({"picture": [b"x"], "label": ["cat"]}), path)
    message = error_of(f"parquet:{path}").message
    assert "no column image; columns: picture, label" in message
    assert "column label must be integer, is string" in message


def test_damaged_parquet_is_one_clear_error(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet", encoded_images(30), [number % 3 for number in range(30)])
    whole = path.read_bytes()
    path.write_bytes(b"junk")
    assert "not a readable parquet file" in error_of(f"parquet:{path}").message
    path.write_bytes(whole[:4] + b"\0" * 3000 + whole[3004:])
    assert str(path) in error_of(f"parquet:{path}").message


def test_bad_rows_and_labels_are_named_by_row(tmp_path):
    images, labels = encoded_images(30), [number % 3 for number in range(30)]
    images[4], images[7], labels[9], labels[10] = b"junk", None, 3, None
    message = error_of(f"parquet:{write_parquet(tmp_path / 'pets.parquet', images, labels)}").message
    assert "pets.parquet row 4: not an image" in message
    assert "pets.parquet row 7: no bytes" in message
    assert "labels must be 0 to 2; 2 are not" in message
    assert "row 9 (3)" in message


def test_a_class_without_images_is_an_error(tmp_path):
    path = write_parquet(
        tmp_path / "pets.parquet", encoded_images(30), [number % 3 for number in range(30)], (*NAMES, "yak")
    )
    assert "without a readable training image: yak" in error_of(f"parquet:{path}").message


# --- real images ---


@needs_real
def test_fashion_mnist_test_file_is_grey_and_complete():
    data, test = load_both(f"parquet:{REAL / 'fashion-mnist-test.parquet'}", size=28)
    assert len(data.train) + len(data.search) + len(test.open()) == 5000
    assert data.info.class_names[9] == "Ankle boot"
    assert "5,000 grey" in data.summary[3]
    assert np.array_equal(data.train.images[:, 0], data.train.images[:, 1])


@needs_real
def test_cifar_names_and_balance():
    data = load(f"parquet:{REAL / 'cifar10-test.parquet'}", size=32)
    assert data.info.class_names[:2] == ("airplane", "automobile")
    assert "train 320 to 320, search 80 to 80, test 100 to 100" in data.summary[2]


@needs_real
def test_caltech_folder_with_grey_images(tmp_path):
    with zipfile.ZipFile(REAL / "caltech101-imagefolder.zip") as archive:
        names = [name for name in archive.namelist() if "/a" in name and name.endswith(".jpg")]
        archive.extractall(tmp_path, names)
    data, test = load_both(f"folder:{tmp_path / 'caltech101'}", size=32)
    assert data.info.class_names == ("accordion", "airplanes", "anchor", "ant")
    assert len(data.train) + len(data.search) == sum("/train/" in name for name in names)
    assert len(test.open()) == sum("/val/" in name for name in names)
