import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded_images, error_of, load, load_both, write_folder, write_parquet

from nas.data.sources import spec_at

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
        ("folder:~no-such-user/pets", "relative paths start at"),
        ("parquet:~no-such-user/pets", "relative paths start at"),
        ("~no-such-user", "data is one of"),
    ],
)
def test_wrong_spec_says_what_to_write(spec, words):
    assert words in error_of(spec).hint


def test_columns_are_of_parquet_files(tmp_path):
    write_folder(tmp_path)
    assert "data.label_column is for parquet files" in error_of(f"folder:{tmp_path}", label_column="x").message


def test_the_other_prefix_is_suggested(tmp_path):
    write_folder(tmp_path / "images")
    assert "folder:DIR" in error_of(f"parquet:{tmp_path / 'images'}").hint
    write_parquet(tmp_path / "tables" / "train.parquet", encoded_images(30), [number % 3 for number in range(30)])
    assert error_of(f"folder:{tmp_path / 'tables'}").hint == f'did you mean "parquet:{tmp_path / "tables"}"?'


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


# --- real images ---


@needs_real
def test_fashion_mnist_test_file_is_grey_and_complete():
    data, test = load_both(f"parquet:{REAL / 'fashion-mnist-test.parquet'}", size=28)
    assert len(data.train) + len(data.search) + len(test.open()) == 5000
    assert data.info.class_names[9] == "Ankle boot"
    assert "5,000 grey" in data.summary[3]
    assert np.array_equal(data.train.images[:][:, 0], data.train.images[:][:, 1])


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


def test_a_spec_is_read_from_another_folder_where_all_of_it_is_there(tmp_path):
    for name in ("train, all", "test"):
        (tmp_path / name).mkdir()
    (tmp_path / "a-1.parquet").touch()
    assert spec_at("folder:test", tmp_path) == f"folder:{tmp_path}/test"
    assert spec_at("folder:train, all,test", tmp_path) == f"folder:{tmp_path}/train, all,{tmp_path}/test"
    assert spec_at("parquet:a-*.parquet", tmp_path) == f"parquet:{tmp_path}/a-*.parquet"
    assert spec_at("torch/cifar10:test", tmp_path) == f"torch/cifar10:{tmp_path}/test"
    assert spec_at(f"folder:{tmp_path}/test", tmp_path / "elsewhere") == f"folder:{tmp_path}/test"
    for spec in ("digits", "hfds/cifar10"):
        assert spec_at(spec, tmp_path) == spec
    for spec in ("folder:train", "folder:test,train", "parquet:b-*.parquet", "torch/cifar10:data"):
        assert spec_at(spec, tmp_path) is None
