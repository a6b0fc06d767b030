"""What is understood of parquet files: splits by name, columns, labels, and what is refused."""

from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import NAMES, SIZE, encode, encoded_images, error_of, load, load_both, load_test, write_parquet
from odd_tables import COLOURS, class_names, structs, write_files, write_table


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


def test_text_that_is_no_utf8_is_one_clear_error(tmp_path):
    images, path = pa.array(encoded_images(30)), tmp_path / "pets.parquet"
    labels = pa.array([b"\xff" if number % 3 else b"a" for number in range(30)]).view(pa.string())
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    assert "pets.parquet cannot be read: 'utf-8' codec can't decode byte 0xff" in error_of(f"parquet:{path}").message
    pq.write_table(pa.table({"image": images, "labelx": pa.array([1] * 30)}), path)
    path.write_bytes(path.read_bytes().replace(b"labelx", b"label\xff"))
    assert "pets.parquet" in error_of(f"parquet:{path}").message


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


# --- splits by name ---


def counts(spec, **options):
    """Images of train and search together where search is carved, else of each; of the data's own test split."""
    data, test = load_both(spec, **options)
    own = "search:" in data.summary[1]
    seen = (len(data.train), len(data.search)) if own else (len(data.train) + len(data.search),)
    return *seen, 0 if test is None or "carved" in data.summary[1] else len(test.open())


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ("default/train/0000 default/test/0000", (12, 12)),  # the hub's export
        ("default/partial-train/0000 default/partial-test/0000", (12, 12)),
        ("train valid", (12, 12)),
        ("Train Test", (12, 12)),
        ("data/train-00000-of-00002 data/train-00001-of-00002 data/test-00000-of-00001", (24, 12)),
        ("data/train-0 data/validation-0 data/test-0", (12, 12, 12)),
        ("train dev eval", (12, 12, 12)),
        ("train/0 val/0 test/0", (12, 12, 12)),
        ("train test .cache/more __MACOSX/more", (12, 12)),
    ],
)
def test_files_of_a_folder_are_split_by_name(tmp_path, files, found):
    write_files(tmp_path / "it", *files.split())
    assert counts(f"parquet:{tmp_path / 'it'}") == found


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("a/train/0 a/test/0 b/train/0 b/test/0", ["2 configurations beside each other: a, b"]),
        ("a/part-0 b/part-0", ["2 configurations beside each other: a, b"]),
        ("train extra", ["some names say a split, but these do not: extra"]),
        ("data-0 test", ["some names say a split, but these do not: data-0", "of test, but none of train"]),
        ("val test", ["files of test and validation, but none of train"]),
        ("train/test-0 train/train-0", ["names that say several splits: train/test-0.parquet"]),
        (
            "train-0 validation_matched-0 validation_mismatched-0",
            ["validation_matched-0, validation_mismatched-0 claim one split, validation"],
        ),
        ("train eval test", ["eval, test claim one split, test"]),
        ("train/0 test-a/0 test-b/0", ["test-a, test-b claim one split, test"]),
        ("entrenamiento prueba", ["entrenamiento, prueba say no split: parts of one, or splits?"]),
        ("tr-0 tr-1 te-0", ["te-0, tr-0 say no split: parts of one, or splits?"]),
    ],
)
def test_files_that_are_half_understood_are_an_error(tmp_path, files, words):
    error = error_of(f"parquet:{write_files(tmp_path / 'it', *files.split())}")
    for some in words:
        assert some in error.message
    assert "parquet:" in error.hint


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ("part-0001-9f3e part-0002-ab10", "no name says a split"),
        ("fold1 fold2", "no name says a split"),
        ("train/cats train/dogs", ""),
        ("train-00000-of-00002-0c1f5c09d1 train-00001-of-00002-99ffeea", ""),
        ("test-0 test-1", "their names say test"),
        ("train-0 train-1", ""),
    ],
)
def test_files_of_one_kind_are_train(tmp_path, files, note):
    data = load(f"parquet:{write_files(tmp_path / 'it', *files.split())}")
    assert "test: carved" in data.summary[1]
    assert (f"all files are train: {note}" in data.summary[0]) == bool(note)


def test_files_are_named_by_lists_and_globs(tmp_path):
    folder = write_files(tmp_path / "a,b", "train-0", "train-1", "val-0", "test-0", "x", "y", "z")

    def spec(*names):
        return "parquet:" + ",".join(f"{folder}/{name}.parquet" for name in names)

    assert counts(spec("x", "y")) == (12, 12)
    assert counts(spec("x", "y", "z")) == (12, 12, 12)
    assert counts(spec("train-0", "train-1")) == (18, 0)  # 6 of 24 are set aside
    assert counts(spec("train-0", "train-1", "val-0", "test-0")) == (24, 12, 12)
    assert counts(spec("train-*", "test-*")) == (24, 12)
    assert counts(spec("*-*")) == (24, 12, 12)
    assert counts(spec("[xyz]")) == (30, 0)
    for names, words in {("x", "y", "z", "test-0"): "say no split: ", ("x", "train-0"): "but says train"}.items():
        assert words in error_of(spec(*names)).message
    assert "named twice" in error_of(spec("x", "x")).message
    assert "nothing matches" in error_of(spec("q*")).message


def test_other_files_beside_are_counted(tmp_path):
    write_files(tmp_path / "it", "Train.PARQUET", "test")
    for name in ("README.md", "more.arrow", ".gitattributes"):
        (tmp_path / "it" / name).touch()
    assert counts(f"parquet:{tmp_path / 'it'}") == (12, 12)
    assert "2 other files ignored" in load(f"parquet:{tmp_path / 'it'}").summary[0]


def test_a_folder_of_several_splits_is_no_split(tmp_path):
    write_files(tmp_path / "a", "train", "test")
    write_files(tmp_path / "b", "x", "y")
    write_table(tmp_path / "c" / "z.parquet", seed=9)
    error = error_of(f"parquet:{tmp_path / 'a'},{tmp_path / 'c'}")
    assert "in the place of train, but says test and train" in error.message
    assert counts(f"parquet:{tmp_path / 'b'},{tmp_path / 'c'}") == (24, 24)


def test_configurations_that_belong_together_are_named_by_a_glob(tmp_path):
    write_files(tmp_path, "a/train-0", "b/train-0", "b/test-0")
    assert counts(f"parquet:{tmp_path}/*/*.parquet") == (24, 12)
    write_files(tmp_path / "c", "train", "val_matched", "val_mismatched")
    assert counts(f"parquet:{tmp_path}/c/*.parquet") == (12, 24)


def test_an_unlabelled_test_split_is_none(tmp_path):
    """The hub's ImageNet-1k: labels of test are -1."""
    for unlabelled in (lambda _: -1, pa.nulls(24), None):
        for split, seed in (("train", 0), ("validation", 1)):
            write_table(tmp_path / "data" / f"{split}-00000-of-00001.parquet", seed=seed)
        write_table(tmp_path / "data" / "test-00000-of-00001.parquet", seed=2, label=unlabelled)
        assert counts(f"parquet:{tmp_path}") == (24, 24)
        summary = load(f"parquet:{tmp_path}").summary[0]
        assert "test has no labelled image and is not used; validation is the test split" in summary


def test_the_third_split_does_not_rank_where_a_share_is_given(tmp_path):
    write_files(tmp_path, "train", "val", "test")
    assert counts(f"parquet:{tmp_path}", search_fraction=0.25) == (12, 12)
    assert (
        "validation is not used: data.search_fraction is set"
        in load(f"parquet:{tmp_path}", search_fraction=0.25).summary[0]
    )


# --- labels ---


def text(number):
    return COLOURS[number % 3]


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (text, ("blue", "green", "red")),
        (pa.array([text(n) for n in range(24)]).dictionary_encode(), ("blue", "green", "red")),
        (pa.array([text(n) for n in range(24)], pa.large_string()), ("blue", "green", "red")),
        (lambda n: f"class{(2, 10, 1)[n % 3]}", ("class1", "class2", "class10")),
        (lambda n: n % 2 == 0, ("false", "true")),
        (lambda n: float(n % 3), ("0", "1", "2")),
        (lambda n: n % 3 + 1, ("1", "2", "3")),
        (lambda n: (0, 7, 10**12)[n % 3], ("0", "7", "1000000000000")),
        (pa.array([n % 3 for n in range(24)], pa.uint8()), ("0", "1", "2")),
    ],
)
def test_labels_of_every_type_become_classes(tmp_path, label, names):
    data, test = load_both(f"parquet:{write_table(tmp_path / 'a.parquet', label=label)}")
    assert data.info.class_names == names
    total = np.concatenate([part.labels for part in (data.train, data.search, test.open())])
    assert np.bincount(total).tolist() == [24 // len(names)] * len(names)


def test_labels_go_with_their_images(tmp_path):
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    rng = np.random.default_rng(0)
    plain = [np.clip(rng.integers(0, 60, (SIZE, SIZE, 3)) + colours[text(n)], 0, 255) for n in range(24)]
    images = structs([encode(image.astype(np.uint8)) for image in plain])
    data = load(f"parquet:{write_table(tmp_path / 'a.parquet', image=images, label=text)}")
    strongest = np.asarray(data.train.images).mean(axis=(2, 3)).argmax(axis=1)
    assert [COLOURS[channel] for channel in strongest] == [data.info.class_names[label] for label in data.train.labels]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (lambda n: n % 3 + 0.5, "here are fractions: 0.5, 1.5, 2.5"),
        (lambda n: None if n == 2 else text(n), "row 2 (no label)"),
        (lambda n: "" if n == 2 else text(n), "row 2 (no label)"),
        (lambda n: float("nan") if n == 2 else n % 3, "row 2 (no label)"),
        (lambda _: -1, "no training image has a label"),
        (pa.nulls(24), "no training image has a label"),
        (lambda n: [n % 3], "column label must hold one integer, text, float or truth value a row, is list"),
        (lambda n: {"fine": n}, "data.label_column can be label.fine"),
        (lambda n: Decimal(n % 3), "is decimal128"),
        (lambda n: date(2020, 1, 1 + n % 3), "is date32"),
        (None, "no column label; columns: image"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, label, words):
    assert words in error_of(f"parquet:{write_table(tmp_path / 'a.parquet', label=label)}").message


def test_the_finer_of_two_labels_is_taken_and_said(tmp_path):
    metadata = class_names(fine_label=tuple("abcdef"), coarse_label=tuple("xyz"))
    both = {"coarse_label": lambda n: n % 6 // 2, "fine_label": lambda n: n % 6}
    spec = f"parquet:{write_table(tmp_path / 'a.parquet', metadata=metadata, label=None, **both)}"
    data = load(spec)
    assert data.info.class_names == tuple("abcdef")
    assert "labels in column fine_label, which says more than coarse_label" in data.summary[0]
    assert load(spec, label_column="coarse_label").info.class_names == tuple("xyz")
    unclear = write_table(tmp_path / "b.parquet", label=None, category=lambda n: n % 3, target=lambda n: n // 12)
    error = error_of(f"parquet:{unclear}")
    assert "which of these columns holds the label is unclear: category, target" in error.message
    assert "data.label_column" in error.hint


def test_other_splits_have_the_classes_of_train(tmp_path):
    write_table(tmp_path / "train.parquet", label=text)
    write_table(tmp_path / "test.parquet", seed=1, label=lambda n: "pink" if n < 3 else text(n))
    spec = f"parquet:{tmp_path}"
    error = error_of(spec)
    assert "classes without a readable training image: pink" in error.message
    assert "data.skip_small_classes=true" in error.hint
    assert counts(spec, skip_small_classes=True) == (24, 21)
    assert "left out 1 class with too few images: pink" in load(spec, skip_small_classes=True).summary[0]
    for label, words in ((None, "no column label; columns: image, labels"), (lambda n: n % 3, "text in some files")):
        more = {"labels": text} if label is None else {}
        write_table(tmp_path / "test.parquet", seed=1, label=label, **more)
        assert words in error_of(spec).message


# --- columns ---

IMAGES = encoded_images(24)


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({}, {"image": IMAGES}),
        ({}, {"image": pa.array(IMAGES, pa.large_binary())}),
        ({}, {"image": pa.array(IMAGES).dictionary_encode()}),
        ({}, {"image": None, "img": structs(IMAGES)}),
        ({}, {"image": None, "picture": IMAGES}),
        ({}, {"image": None, "Image": structs(IMAGES), "label": None, "LABEL": lambda n: n % 3}),
        ({}, {"label": None, "Target": lambda n: n % 3}),
        ({}, {"label": None, "cls": lambda n: n % 3}),
        ({}, {"Label": lambda _: 0, "IMAGE": encoded_images(24, seed=7)}),  # as written comes first
        ({"image_column": "right"}, {"image": None, "left": encoded_images(24, seed=7), "right": IMAGES}),
        ({"image_column": "a.b"}, {"image": None, "a.b": IMAGES}),
        ({"image_column": "it.image"}, {"image": None, "it": [{"image": {"bytes": i, "path": ""}} for i in IMAGES]}),
        ({"image_column": "it.image.bytes"}, {"image": None, "it": [{"image": {"bytes": i}} for i in IMAGES]}),
        ({"label_column": "to.fine"}, {"label": None, "to": [{"fine": n % 3, "coarse": 0} for n in range(24)]}),
        ({"label_column": "kind"}, {"label": lambda _: 0, "kind": lambda n: n % 3}),
    ],
)
def test_columns_by_name_and_type(tmp_path, options, columns):
    expected = load(f"parquet:{write_table(tmp_path / 'a.parquet')}")
    found = load(f"parquet:{write_table(tmp_path / 'b.parquet', **columns)}", **options)
    assert found.info.hashes == expected.info.hashes


@pytest.mark.parametrize(
    ("options", "columns", "words"),
    [
        ({}, {"image": None, "left": IMAGES, "right": IMAGES}, "no column image; columns: label, left, right"),
        ({}, {"image": [[image] for image in IMAGES]}, "one encoded image a row is needed, not a list"),
        ({}, {"image": [list(image) for image in IMAGES]}, "one encoded image a row is needed, not a list"),
        ({}, {"image": lambda n: f"{n}.png"}, "images as paths, addresses or base64 are not read"),
        ({}, {"image": [{"path": "x"}] * 24}, "must have a field bytes, has: path"),
        ({}, {"label": None, "Label": lambda n: n % 3, "LABEL": lambda n: n % 2}, "columns: image, Label, LABEL"),
        ({"image_column": "img"}, {}, "no column img; columns: image, label"),
        ({"label_column": "lable"}, {}, "no column lable; columns: image, label"),
        ({"label_column": "image"}, {}, "column image is a struct"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_with_those_that_are_there(tmp_path, options, columns, words):
    error = error_of(f"parquet:{write_table(tmp_path / 'a.parquet', **columns)}", **options)
    assert words in error.message
    assert "data.image_column" in error.hint


def test_two_columns_of_one_name_are_told(tmp_path):
    table = pq.read_table(write_table(tmp_path / "a.parquet"))
    pq.write_table(table.append_column("label", table["label"]), tmp_path / "a.parquet")
    assert "several columns are called label" in error_of(f"parquet:{tmp_path}").message


def test_files_with_other_columns_are_named(tmp_path):
    write_table(tmp_path / "train.parquet")
    write_table(tmp_path / "test.parquet", image=None, picture=IMAGES)
    assert "test.parquet: no column image; columns: label, picture" in error_of(f"parquet:{tmp_path}").message
