"""What people are told of their images."""

from collections import Counter

from nas.data.splits import Entry, Listing
from nas.data.summary import balance_line, pixels_line, source_line, splits_line


def entries(*labels):
    return [Entry(place, bytes([place]), label) for place, label in enumerate(labels)]


def test_classes_are_named_and_notes_follow():
    part = Listing(entries=entries(0, 1), sizes={(8, 9), (10, 4)})
    line = source_line("folder x", ("cat", "dog"), [part, Listing()], ["3 other files ignored"])
    assert line.endswith("2 images of 8 to 10 wide and 4 to 9 high, 2 classes (cat, dog); 3 other files ignored")


def test_splits_say_where_they_are_from_and_what_was_left_out():
    splits = {"train": entries(0, 1), "search": entries(0), "test": []}
    assert splits_line(splits, {"test": "carved"}, 0, (0, 0)) == "splits   train 2, search 1, test 0 (test: none)"
    line = splits_line(splits, {"search": "its own"}, 2, (3, 1))
    assert line.startswith("splits   train 2, search 1, test 0 (search: its own); left out: 2 unreadable, 3 of train ")
    assert line.endswith("1 of search that are also in test")
    line = splits_line(splits, {"test": "carved"}, 0, (0, 0), ["a.png", "b.bmp"], 7)
    words = "left out: 2 whose pixels are found under several labels: a.png, b.bmp; 7 of test nearly look like one of"
    assert words in line


def test_balance_is_of_the_smallest_and_the_largest_class():
    assert balance_line({"train": entries(0, 0, 1)}, 3) == "balance  images a class: train 0 to 2"


def test_imbalance_is_said_with_what_helps():
    plain = balance_line({"train": entries(*[0] * 10, 1)}, 2)
    assert plain == "balance  images a class: train 1 to 10"
    line = balance_line({"train": entries(*[0] * 11, 1), "search": entries(0, 1)}, 2)
    assert line.startswith("balance  images a class: train 1 to 11, search 1 to 1; imbalanced")
    assert "balanced_top1 in search.objectives" in line
    assert "train.class_weights=balanced" in line


def test_turned_images_are_counted():
    parts = [Listing(modes=Counter(RGB=2, L=1), num_turned=1), Listing(modes=Counter(P=1), num_turned=1)]
    line = pixels_line(parts, 8, 8, (0.5,) * 3, (1.0,) * 3)
    assert line.startswith("pixels   2 RGB, 1 grey, 1 other, all as RGB 8x8, 2 turned as EXIF says; ")


def test_a_larger_stored_side_is_said_with_what_is_evaluated():
    line = pixels_line([Listing(modes=Counter(RGB=2))], 12, 8, (0.5,) * 3, (1.0,) * 3)
    assert "all as RGB 12x12, evaluated by the centre of 8x8; normalised" in line
