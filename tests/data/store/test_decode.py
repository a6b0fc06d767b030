"""One pass over samples."""

import io

import numpy as np
from image_files import SIZE, encoded_images

from nas.data.samples import Sample
from nas.data.store.decode import SUMS, list_samples


def test_rows_are_in_the_order_of_the_samples_and_what_is_no_image_is_a_row_of_zeros():
    images = encoded_images(70)
    samples = [Sample(f"{i}", i % 2, image) for i, image in enumerate(images)]
    samples[5] = Sample("5", 1, b"junk")
    samples[6] = Sample("6", 9, images[6])
    samples[7] = Sample("7", 1, images[7][:-30])
    stream = io.BytesIO()
    told = []
    listing = list_samples(iter(samples), 2, stream, SIZE, told.append)
    assert told == list(range(1, 71))
    content = stream.getvalue()
    size = 70 * 3 * SIZE**2
    rows = np.frombuffer(content[:size], np.uint8).reshape(70, 3, SIZE, SIZE)
    sums = np.frombuffer(content[size:], np.int64).reshape(70, SUMS)
    expected = [i for i in range(70) if i not in (5, 6, 7)]
    assert [entry.position for entry in listing.entries if entry.pixels] == expected
    assert [entry.position for entry in listing.entries if not entry.pixels] == [7]
    assert not rows[[5, 6, 7]].any()
    assert rows[expected].any(axis=(1, 2, 3)).all()
    wide = rows.astype(np.int64)
    assert np.array_equal(sums[:, :3], wide.sum(axis=(2, 3)))
    assert np.array_equal(sums[:, 3:], (wide**2).sum(axis=(2, 3)))
    assert (listing.num_samples, len(listing.unreadable), listing.bad_labels) == (70, 2, ["6 (9)"])
    assert list_samples(iter(samples), 2).entries == listing.entries
