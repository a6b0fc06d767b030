"""What is understood of parquet files: splits by name, columns, labels, and what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
from image_files import NAMES, encoded_images, error_of, load, load_both, load_test, write_parquet


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
    pq.write_table(pa.table({"left": [b"x"], "right": [b"x"], "label": [["cat"]]}), path)
    message = error_of(f"parquet:{path}").message
    assert "no column image; columns: left, right, label" in message
    assert "column label must hold one integer, text, float or truth value a row, is list" in message


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
