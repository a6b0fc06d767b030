"""One pass over the samples of a part: what each is and shows, and its pixels into a file."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nas.data.samples import DamagedImageError, Sample, UnreadableImageError, decoded, fitted
from nas.data.splits import Entry, Listing
from nas.data.twins import pixel_hash, thumbnail

Tell = Callable[[int], None]
SUMS = 6  # of a row: the sum of each of three channels, and of its squares
_CHUNK = 16  # samples that a thread decodes at a time


@dataclass(slots=True)
class _Look:
    """What is seen of one sample."""

    entry: Entry | None = None
    unreadable: str = ""
    bad_label: str = ""
    mode: str = ""  # empty where it cannot be decoded
    size: tuple[int, int] = (0, 0)
    is_turned: bool = False
    row: NDArray[np.uint8] | None = None  # [3, S, S]
    sums: tuple[int, ...] = (0,) * SUMS


def _look(num_classes: int, side: int | None, position: int, sample: Sample) -> _Look:
    if sample.content is None or sample.problem:
        return _Look(unreadable=f"{sample.name}: {sample.problem}")
    if not 0 <= sample.label < num_classes:
        return _Look(bad_label=f"{sample.name} ({'no label' if sample.label == -1 else sample.label})")
    fingerprint = sample.fingerprint()
    try:
        image, mode, is_turned = decoded(sample.content)
        row = None if side is None else np.ascontiguousarray(fitted(image, side).transpose(2, 0, 1))
    except UnreadableImageError as error:
        # One that is damaged behind its head has always counted where splits are carved.
        entry = (
            Entry(position, fingerprint, sample.label, sample.name) if isinstance(error, DamagedImageError) else None
        )
        return _Look(entry, unreadable=f"{sample.name}: {error}")
    entry = Entry(position, fingerprint, sample.label, sample.name, pixel_hash(image), thumbnail(image))
    look = _Look(entry, mode=mode, size=image.size, is_turned=is_turned, row=row)
    if row is not None:
        squares = np.square(row, dtype=np.int32).sum(axis=(1, 2), dtype=np.int64)
        look.sums = (*row.sum(axis=(1, 2), dtype=np.int64).tolist(), *squares.tolist())
    return look


def _looks(samples: Iterator[Sample], num_classes: int, side: int | None) -> Iterator[_Look]:
    """In order; as many threads as cores decode, and few samples wait."""
    numbered, threads = enumerate(samples), len(os.sched_getaffinity(0))
    look = partial(_look, num_classes, side)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[list[_Look]]] = deque()
        while chunk := list(islice(numbered, _CHUNK)):
            waiting.append(pool.submit(lambda chunk: [look(*one) for one in chunk], chunk))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def list_samples(
    samples: Iterator[Sample],
    num_classes: int,
    file: BinaryIO | None = None,
    side: int = 0,
    tell: Tell = lambda _: None,
) -> Listing:
    """What all samples are. Every image is decoded; into a file goes a row [3, S, S] each of `side` S, then all sums.

    A sample without an image is a row of zeros. `tell` is told how many samples are done.
    """
    listing, sums = Listing(), []
    for look in _looks(samples, num_classes, side if file else None):
        _add(listing, look)
        if file:
            file.write(bytes(3 * side**2) if look.row is None else look.row.data)
            sums.append(look.sums)
            tell(listing.num_samples)
    if file:
        file.write(np.array(sums, dtype=np.int64).tobytes())
    return listing


def _add(listing: Listing, look: _Look) -> None:
    listing.num_samples += 1
    if look.entry:
        listing.entries.append(look.entry)
    if look.unreadable:
        listing.unreadable.append(look.unreadable)
    if look.bad_label:
        listing.bad_labels.append(look.bad_label)
    if look.mode:
        listing.modes[look.mode] += 1
        listing.sizes.add(look.size)
        listing.num_turned += look.is_turned
