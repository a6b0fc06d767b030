"""Names of splits in every usual spelling, and paths with commas and globs."""

import pytest

from nas.data.split_names import split_of


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
