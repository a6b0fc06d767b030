"""Listings as files."""

import io
from collections import Counter

import numpy as np

from nas.data.splits import Entry, Listing
from nas.data.store.index import read_listing, to_bytes


def test_a_listing_is_read_as_it_was_written(tmp_path):
    entries = [Entry(0, b"f" * 32, 1, "a/\udcff.png", b"p" * 32, bytes(range(72))), Entry(2, b"g" * 32, 0, "damaged")]
    listing = Listing(entries, ["x: not an image"], ["y (-1)"], Counter(RGB=1), {(3, 4)}, 1, 4)
    path = tmp_path / "a.index"
    path.write_bytes(to_bytes(listing))
    assert read_listing(path) == listing
    path.write_bytes(to_bytes(Listing()))
    assert read_listing(path) == Listing()


def test_a_damaged_file_is_none(tmp_path):
    content = to_bytes(Listing([Entry(0, b"f" * 32, 1, "a", b"p" * 32, bytes(72))], num_samples=1))
    path = tmp_path / "a.index"
    assert read_listing(path) is None
    listed = io.BytesIO()
    np.savez(listed, facts=np.frombuffer(b"[1]", np.uint8), names=np.zeros(0, np.uint8))
    directory = content.index(b"PK\1\2")
    locked = content[: directory + 8] + b"\1" + content[directory + 9 :]  # says that it is encrypted
    for bad in (b"", b"junk", content[:-40], content.replace(b"\x66" * 8, b"\x67" * 8), listed.getvalue(), locked):
        path.write_bytes(bad)
        assert read_listing(path) is None
