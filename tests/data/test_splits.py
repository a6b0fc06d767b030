"""Splits go by content: the same whatever the order, copies together, every class in each."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from nas.data.splits import Entry, Listing, carve, contradicted, ordered, split_hash


def entries(count: int = 120, classes: int = 3) -> list[Entry]:
    return [Entry(i, hashlib.sha256(bytes([i])).digest(), i % classes) for i in range(count)]


def shuffled(items: list[Entry], seed: int) -> list[Entry]:
    """The same images in another order, as another file system would list them."""
    order = np.random.default_rng(seed).permutation(len(items))
    return [Entry(place, items[i].fingerprint, items[i].label) for place, i in enumerate(order)]


def contents(split: list[Entry]) -> list[tuple[bytes, int]]:
    return [(entry.fingerprint, entry.label) for entry in split]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_the_files_changes_no_split_and_no_order_within_one(seed):
    one = carve(entries(), test_fraction=0.2, search_fraction=0.25, seed=seed)
    other = carve(shuffled(entries(), 5), test_fraction=0.2, search_fraction=0.25, seed=seed)
    assert list(map(contents, one[:3])) == list(map(contents, other[:3]))


def test_splits_share_out_every_image_once_by_their_fractions():
    train, search, test, too_small = carve(entries(), test_fraction=0.2, search_fraction=0.25, seed=0)
    assert sorted(contents(train + search + test)) == sorted(contents(entries()))
    assert (len(train), len(search), len(test), too_small) == (72, 24, 24, [])


def test_copies_of_an_image_share_a_split_also_under_two_classes():
    twins = [Entry(i, entry.fingerprint, (entry.label + 1) % 3) for i, entry in enumerate(entries(), start=120)]
    splits = carve(entries() + twins, test_fraction=0.2, search_fraction=0.25, seed=0)[:3]
    homes = [{entry.fingerprint for entry in split} for split in splits]
    assert not homes[0] & homes[1] | homes[0] & homes[2] | homes[1] & homes[2]


@pytest.mark.parametrize("seed", range(3))
def test_what_shows_the_same_shares_the_split_of_its_smallest_fingerprint(seed):
    """And data without twins is split as if nobody had looked for them."""
    shown = [replace(entry, pixels=hashlib.sha256(entry.fingerprint).digest()) for entry in entries()]
    later = [b"\xff" * 28 + bytes([0, 0, 0, i]) for i in range(120)]
    twins = [replace(entry, fingerprint=late, name="twin") for entry, late in zip(shown, later, strict=True)]
    cases = (entries(), shown, shown + twins)
    plain, alone, both = (carve(part, test_fraction=0.2, search_fraction=0.25, seed=seed)[:3] for part in cases)
    assert list(map(contents, plain)) == list(map(contents, alone))
    for split, with_twins in zip(plain, both, strict=True):
        assert contents(split) == contents([entry for entry in with_twins if entry.name != "twin"])
        assert len(with_twins) == 2 * len(split)


def test_what_is_shown_under_two_labels_is_found():
    some = [Entry(0, b"a", 0, pixels=b"x"), Entry(1, b"b", 1, pixels=b"x"), Entry(2, b"c", 1, pixels=b"y")]
    assert contradicted(some) == {b"x"}
    assert contradicted([*some[1:], some[1]]) == set()


def test_another_seed_makes_other_splits():
    one, other = (carve(entries(), test_fraction=0.2, search_fraction=0.25, seed=s)[2] for s in (0, 1))
    assert set(contents(one)) != set(contents(other))


def test_a_class_with_too_few_images_is_told():
    few = [*entries(), Entry(120, b"alone" * 8, 3)]
    assert carve(few, test_fraction=0.2, search_fraction=0.25, seed=0)[3] == [3]


def test_without_a_test_fraction_nothing_is_kept_for_it():
    train, search, test, _ = carve(entries(), test_fraction=0, search_fraction=0.25, seed=0)
    assert (len(train), len(search), test) == (90, 30, [])


def test_an_order_mixes_the_classes():
    labels = [entry.label for entry in ordered(entries(), 0)]
    assert len(set(labels[:12])) == 3
    assert labels != [entry.label for entry in ordered(entries(), 1)]


def test_a_hash_depends_on_images_and_labels_alone():
    assert split_hash(entries()) == split_hash(shuffled(entries(), 3))
    relabelled = [Entry(e.position, e.fingerprint, 0) for e in entries()]
    assert len({split_hash(entries()), split_hash(relabelled), split_hash(entries(119))}) == 3


def test_a_listing_without_some_classes_numbers_the_others_anew():
    listing = Listing(entries=[Entry(i, bytes([i]), label) for i, label in enumerate((0, 1, 2, 3, 1))], num_samples=5)
    left = listing.without({0, 2})
    assert [(entry.position, entry.label) for entry in left.entries] == [(1, 0), (3, 1), (4, 0)]
    assert left.num_samples == 5
