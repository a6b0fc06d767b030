"""What is understood of a folder: splits and classes by name, litter, what is left out, what is refused."""

import numpy as np
import pytest
from image_files import contents, error_of, load, load_both, write_folder
from PIL import Image


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
    """A third split ranks candidates, but where `search_fraction` is set, as it is in the files of earlier runs."""
    write_folder(tmp_path / "train")
    for number, name in enumerate(present):
        write_folder(tmp_path / name, per_class=2, seed=number + 1)
    data, test = load_both(f"folder:{tmp_path}", search_fraction=0.2)
    expected = {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in (tmp_path / used).rglob("*.png")}
    assert contents(test.open()) == expected
    assert len(data.train) + len(data.search) == 30
    assert ("val is not used" in data.summary[0]) == (len(present) == 2)


def test_ten_digit_folders_are_not_flipped(tmp_path):
    assert not load(f"folder:{write_folder(tmp_path, per_class=3, classes=tuple('0123456789'))}").info.flip_safe


def test_problems_of_folders_are_listed_together(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", per_class=2, classes=("cat", "dog", "emu"))
    message = error_of(f"folder:{tmp_path}").message
    assert f"classes of {tmp_path / 'train'} that {tmp_path / 'test'} lacks: owl" in message
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
