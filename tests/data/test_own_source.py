import numpy as np
import pytest
import torch
from PIL import Image

from nas.base.errors import DataError
from nas.data.loader import load_images
from nas.data.own_source import own_source
from nas.data.sources import open_source
from nas.settings.config import DataConfig

CONFIG = DataConfig(spec="python/Mine")


class Mine:
    """Images [8, 8] of two classes, as whatever `form` makes of them."""

    def __init__(self, form, count=40, start=0):
        self.form, self.count, self.start = form, count, start

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        pixels = np.random.default_rng(self.start + number).integers(0, 100, (8, 8), dtype=np.uint8)
        return self.form(pixels + 100 * (number % 2)), number % 2


FORMS = {
    "PIL": lambda pixels: Image.fromarray(pixels.astype(np.uint8)),
    "bytes [H, W]": lambda pixels: pixels.astype(np.uint8),
    "bytes [1, H, W]": lambda pixels: torch.tensor(pixels.astype(np.uint8))[None],
    "floats": lambda pixels: torch.tensor(pixels.astype(np.float32) / 255)[None],
    "whole numbers [H, W, 1]": lambda pixels: pixels.astype(np.int64)[..., None],
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_the_same_in_every_form(form):
    hashes = [load_images(CONFIG, 8, 0, None, Mine(FORMS[name]))[0].info.hashes for name in ("PIL", form)]
    assert hashes[0] == hashes[1]


def test_colours_are_kept_whatever_the_order_of_axes():
    pixels = np.random.default_rng(0).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    first = next(own_source([(pixels, 0)], CONFIG).train()).content
    second = next(own_source([(torch.tensor(pixels).permute(2, 0, 1), 0)], CONFIG).train()).content
    assert np.array_equal(np.asarray(first), pixels)
    assert np.array_equal(np.asarray(second), pixels)


def test_splits_are_given_or_carved():
    mine = {"train": Mine(FORMS["PIL"]), "test": Mine(FORMS["PIL"], 10, 500)}
    data, test = load_images(CONFIG, 8, 0, None, mine)
    assert len(data.train) + len(data.search) == 40
    assert len(test.open()) == 10
    carved, _ = load_images(CONFIG, 8, 0, None, Mine(FORMS["PIL"]))
    assert len(carved.train) + len(carved.search) == 32
    source = own_source({**mine, "validation": Mine(FORMS["PIL"], 10, 900)}, CONFIG)
    assert source.validation is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"valid": []}, "splits are valid"),
        ({"train": [], "dev": []}, "splits are train, dev"),
        (iter([]), "has no length"),
        (Mine(lambda pixels: pixels.astype(np.float32) - 120), "leave normalising out"),
        (Mine(lambda _: np.zeros((4, 8, 8), np.uint8)), "not .H, W. or"),
        (Mine(lambda _: 1 / 0), "ZeroDivisionError"),
        ([(np.zeros((8, 8)), "cat")], "train item 0: its label is 'cat'"),
        ([(np.zeros((8, 8)), -1)], "its label is -1"),
        ([(np.zeros((8, 8)), 0.5)], "its label is 0.5"),
        ([(np.zeros((8, 8)), None)], "its label is None"),
        ([3, 4], "train item 0 is 3, not .image, label."),
        ([(0, 1, 2)], "train item 0 is .0, 1, 2., not .image, label."),
    ],
)
def test_what_cannot_be_used_is_said(data, words):
    with pytest.raises(DataError, match=words):
        load_images(CONFIG, 8, 0, None, data)


def test_of_items_that_cannot_be_read_nothing_else_is_said():
    with pytest.raises(DataError, match="unreadable") as caught:
        load_images(CONFIG, 8, 0, None, Mine(lambda _: 1 / 0))
    assert "classes" not in caught.value.message
    assert caught.value.hint.endswith("skip_bad_images=True")
    with pytest.raises(DataError) as caught:
        load_images(CONFIG, 8, 0, None, [(np.zeros((8, 8)), "cat")] * 20)
    assert caught.value.hint == "items are (image, label); labels are whole numbers from 0"


@pytest.mark.parametrize("label", [1, np.int64(1), torch.tensor(1), np.float32(1.0), True])
def test_a_label_is_a_whole_number_in_any_form(label):
    sample = next(own_source([(np.zeros((8, 8), np.uint8), label)], CONFIG).train())
    assert (sample.label, sample.problem) == (1, "")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_data_set_whose_images_change_is_refused(split):
    rng = np.random.default_rng(0)
    flipped = Mine(lambda pixels: np.ascontiguousarray(pixels[:, :: rng.choice([-1, 1])].astype(np.uint8)))
    with pytest.raises(DataError, match=f"{split} item [0-9]+ has another image when it is read again") as caught:
        own_source({"train": Mine(FORMS["PIL"]), split: flipped}, CONFIG)
    assert "train.auto_augment" in caught.value.hint


def test_a_data_set_whose_labels_change_is_refused():
    class Relabelled(Mine):
        def __getitem__(self, number):
            self.start += 1
            return np.zeros((8, 8), np.uint8), self.start

    with pytest.raises(DataError, match="train item 0 has another label"):
        own_source(Relabelled(None), CONFIG)


def test_names_of_classes_are_taken_where_there_are_any():
    named = Mine(FORMS["PIL"])
    assert own_source(named, CONFIG).class_names == ("0", "1")
    named.classes = ["cat", "dog"]
    assert own_source(named, CONFIG).class_names == ("cat", "dog")


def test_without_the_program_the_images_are_said_to_be_elsewhere():
    with pytest.raises(DataError, match="in a Python program") as caught:
        open_source(CONFIG)
    assert "data=" in caught.value.hint
