"""Data sets through timm's readers, and what is said where they fail."""

import struct

import numpy as np
import pytest
from image_files import NAMES, encoded_images, error_of, load, load_both, write_folder, write_parquet
from odd_folders import write_layout

# --- timm ---


def write_mnist(root, kind, number, seed):
    """Files of torchvision's MNIST readers with images of 28 x 28 noise."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (number, 28, 28), dtype=np.uint8)
    (root / f"{kind}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, number, 28, 28) + pixels.tobytes())
    labels = (np.arange(number) % 10).astype(np.uint8)
    (root / f"{kind}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, number) + labels.tobytes())


@pytest.mark.parametrize(
    ("name", "folder", "flip_safe"), [("mnist", "MNIST", False), ("fashion_mnist", "FashionMNIST", True)]
)
def test_timm_torch_data_sets(tmp_path, name, folder, flip_safe):
    write_mnist(tmp_path / folder / "raw", "train", 100, seed=0)
    write_mnist(tmp_path / folder / "raw", "t10k", 30, seed=1)
    data, test = load_both(f"torch/{name}:{tmp_path}", size=28)
    assert len(data.train) + len(data.search) == 100
    assert len(test.open()) == 30
    assert data.info.num_classes == 10
    assert data.info.flip_safe == flip_safe


def test_timm_folder_without_validation_is_carved(tmp_path):
    write_folder(tmp_path / "train")
    data, test = load_both(f"torch/image_folder:{tmp_path}")
    assert data.info.class_names == NAMES
    assert len(test.open()) == 6


@pytest.mark.parametrize("layout", ["Train/a Train/b Test/a Test/b", "foo/a foo/b bar/a bar/b"])
def test_folders_of_splits_that_timm_takes_for_classes_are_refused(tmp_path, layout):
    error = error_of(f"torch/image_folder:{write_layout(tmp_path, layout)}")
    assert "timm takes the folders of splits for classes" in error.message or "hold the same folders" in error.message
    assert "folder:" in error.hint


def test_a_split_that_timm_does_not_know_is_told(tmp_path):
    write_layout(tmp_path, "train/a train/b val/a val/b test/a test/b")
    data, test = load_both(f"torch/image_folder:{tmp_path}")
    assert len(test.open()) == 12
    assert f"{tmp_path / 'test'} is not used" in data.summary[0]


def test_timm_errors_are_translated(tmp_path):
    assert "Dataset not found" in error_of(f"torch/cifar10:{tmp_path}").message
    assert "Unknown torchvision dataset" in error_of(f"torch/cifar11:{tmp_path}").message
    assert "no such folder" in error_of(f"torch/cifar10:{tmp_path / 'none'}").message
    error = error_of(f"tfds/mnist:{tmp_path}")
    assert "tensorflow_datasets" in error.message
    assert error.hint


def test_hugging_face_data_sets_through_timm(tmp_path_factory):
    pytest.importorskip("datasets")
    tmp_path = tmp_path_factory.mktemp("images")  # datasets reads a split from the words of a path
    images, labels = encoded_images(36), [number % 3 for number in range(36)]
    write_parquet(tmp_path / "pets" / "train-0.parquet", images[:30], labels[:30])
    write_parquet(tmp_path / "pets" / "test-0.parquet", images[30:], labels[30:])
    ours = load(f"parquet:{tmp_path / 'pets'}")
    theirs = load(f"hfds/{tmp_path / 'pets'}:{tmp_path_factory.mktemp('cache')}")
    assert theirs.info.hashes == ours.info.hashes
    assert theirs.info.class_names == NAMES
