"""Names of splits in every usual spelling, and paths with commas and globs."""

from pathlib import Path

import pytest

from nas.base.errors import DataError
from nas.data.split_names import by_name, by_place, is_litter, natural_key, roles, spec_paths, split_of
from nas.settings.config import DataConfig


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAINING training_set trainset seg_train train_img trainImages train2017 partial-train"),
        ("train", "train-00000-of-00003 TrainingData my.train bullet_train train_"),
        ("validation", "val valid validation VAL Validation dev dev_set valset val2017 seg_val imagenet-val"),
        ("test", "test testing Test_Set testset eval evaluation Evaluation2 seg_test test-00000-of-00001 TestImages"),
    ],
)
def test_usual_spellings(split, names):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    "name", ["trains", "contest", "latest", "retrain", "device", "tést", "restaurant", "evaluate", "x"]
)
def test_words_that_only_look_alike(name):
    assert split_of(name) is None


def test_a_name_that_says_two_splits_says_none():
    assert split_of("train_val") is None
    assert split_of("train-training") == "train"


@pytest.mark.parametrize("name", [".DS_Store", "._cat.jpg", "__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", ".git"])
def test_litter(name):
    assert is_litter(name)
    assert not is_litter(name.lstrip("._@") + "s")


def test_numbers_count_in_the_order_of_names():
    assert sorted(["b", "a10", "A2", "²"], key=natural_key) == ["A2", "a10", "b", "²"]


def found(spec, text):
    return [(path.written, [one.name for one in path.found]) for path in spec_paths(spec, text, "file")]


def test_paths_are_parted_at_commas_but_not_at_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "a,b", "x1", "x2", "[q]"):
        (tmp_path / name).touch()
    assert found("s", "a,x1") == [("a", ["a"]), ("x1", ["x1"])]
    assert found("s", "b, a,b") == [("b", ["b"]), ("a,b", ["a,b"])]
    assert found("s", "x*,[q]") == [("x*", ["x1", "x2"]), ("[q]", ["[q]"])]
    for text, words in {
        "a,a": "named twice",
        "a,": "comma too many",
        "y*": "nothing matches",
        "c": "no such file",
    }.items():
        with pytest.raises(DataError, match=words):
            spec_paths("s", text, "file")


def test_a_list_longer_than_a_name_can_be_is_no_name(tmp_path):
    names = [str(tmp_path / f"{number:0200}") for number in range(30)]
    for name in names:
        Path(name).touch()
    assert len(spec_paths("s", ",".join(names), "file")) == 30


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("a b", "train test"),
        ("a b c", "train validation test"),
        ("train-0 train-1", "train train"),
        ("test train val", "test train validation"),
        ("train a", "train test"),
        ("val test", "train test"),
        ("train-0 train-1 dev eval", "train train validation test"),
    ],
)
def test_names_decide_where_all_say_a_split_else_their_order(tmp_path, names, splits):
    paths = []
    for name in names.split():
        (tmp_path / name).touch()
        paths += spec_paths("s", str(tmp_path / name), "file")
    assert by_place("parquet:x", paths, [[split_of(name)] for name in names.split()]) == splits.split()


@pytest.mark.parametrize(
    ("names", "words"), [("a train", "in the place of test, but says train"), ("a b c train", "say no split")]
)
def test_names_and_order_that_contradict_are_refused(tmp_path, names, words):
    paths = []
    for name in names.split():
        (tmp_path / name).touch()
        paths += spec_paths("s", str(tmp_path / name), "file")
    with pytest.raises(DataError, match=words) as caught:
        by_place("parquet:x", paths, [[split_of(name)] for name in names.split()])
    assert "parquet:TRAIN,TEST" in caught.value.hint


def test_files_without_a_split_are_train(tmp_path):
    assert by_name("s", [tmp_path / "a"], tmp_path, is_chosen=False) == (
        {"train": [tmp_path / "a"]},
        ["all files are train: no name says a split"],
    )


@pytest.mark.parametrize(
    ("splits", "fraction", "found", "note"),
    [
        ("train validation test", None, ("test", "validation"), ""),
        ("train validation test", 0.2, ("test", None), "validation is not used: data.search_fraction is set"),
        ("train validation", 0.2, ("validation", None), "validation is the test split"),
        ("train test", None, ("test", None), ""),
        ("train", None, (None, None), ""),
    ],
)
def test_validation_ranks_beside_a_test_split_and_tests_without_one(splits, fraction, found, note):
    notes: list[str] = []
    assert roles(dict.fromkeys(splits.split()), DataConfig(search_fraction=fraction), notes) == found
    assert notes == [note] * bool(note)
