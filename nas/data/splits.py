"""From a source's samples to splits and pixels: list, split by content, decode."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nas.data.samples import DamagedImageError, Sample, UnreadableImageError, decoded, fitted
from nas.data.twins import pixel_hash, thumbnail


@dataclass(frozen=True, slots=True)
class Entry:
    """A sample that is an image with a legal label."""

    position: int  # its place in the source's order
    fingerprint: bytes  # SHA-256 of the stored image
    label: int  # class number
    name: str = ""  # of the sample
    pixels: bytes = b""  # hash of what it shows; empty where it is damaged
    thumbnail: bytes = b""  # of what it shows

    @property
    def shown(self) -> bytes:
        """What is equal for two entries that show the same pixels."""
        return self.pixels or self.fingerprint


@dataclass(slots=True)
class Listing:
    """What one pass over a part of a source found."""

    entries: list[Entry] = field(default_factory=list)  # images with a legal label, also those damaged behind the head
    unreadable: list[str] = field(default_factory=list)  # `name: reason` of each sample that is no usable image
    bad_labels: list[str] = field(default_factory=list)  # `name (label)` of each sample whose label is no class number
    modes: Counter[str] = field(default_factory=Counter)  # images by colour mode (Pillow's names)
    sizes: set[tuple[int, int]] = field(default_factory=set)  # width and height of every size seen, pixels
    num_turned: int = 0  # images that their EXIF orientation turns or mirrors


@dataclass(frozen=True, slots=True)
class Decoded:
    """The images of one split that could be decoded."""

    entries: list[Entry]  # one an image
    images: NDArray[np.uint8]  # [N, 3, S, S], uint8, read-only
    labels: NDArray[np.int64]  # [N], int64, read-only


def list_samples(samples: Iterable[Sample], num_classes: int) -> Listing:
    """Fingerprints, labels and looks of all samples. Every image is decoded, none is kept."""
    listing = Listing()
    with _quiet_pillow():
        for position, sample in enumerate(samples):
            if sample.content is None or sample.problem:
                listing.unreadable.append(f"{sample.name}: {sample.problem}")
                continue
            if not 0 <= sample.label < num_classes:
                label = "no label" if sample.label == -1 else sample.label
                listing.bad_labels.append(f"{sample.name} ({label})")
                continue
            entry = Entry(position, sample.fingerprint(), sample.label, sample.name)
            try:
                image, mode, is_turned = decoded(sample.content)
            except UnreadableImageError as error:
                listing.unreadable.append(f"{sample.name}: {error}")
                if isinstance(error, DamagedImageError):
                    listing.entries.append(entry)  # it has always counted where splits are carved
                continue
            listing.modes[mode] += 1
            listing.sizes.add(image.size)
            listing.num_turned += is_turned
            listing.entries.append(replace(entry, pixels=pixel_hash(image), thumbnail=thumbnail(image)))
    return listing


def contradicted(entries: Iterable[Entry]) -> set[bytes]:
    """What is shown by entries of more than one label."""
    labels: dict[bytes, int] = {}
    return {entry.shown for entry in entries if labels.setdefault(entry.shown, entry.label) != entry.label}


def ordered(entries: Iterable[Entry], seed: int) -> list[Entry]:
    """The entries in an order that depends on the seed and their content only, with the classes mixed."""
    # Not the hash that splits: its thresholds differ from class to class, so it would put some classes first.
    return sorted(entries, key=lambda entry: (_rank(entry.fingerprint, f"order {seed}"), entry.label))


def carve(
    entries: Sequence[Entry], *, test_fraction: float, search_fraction: float, seed: int
) -> tuple[list[Entry], list[Entry], list[Entry], list[int]]:
    """Split into train, search and test, each ordered, by a seeded hash of the content, class by class.

    What shows the same pixels shares a split, which the smallest of the fingerprints decides. `search_fraction` is of
    what `test_fraction` leaves.
    Every class gets at least one image in each split whose fraction is not 0; last come the classes too small for this.
    """
    first: dict[bytes, tuple[bytes, int]] = {}  # the smallest fingerprint and label of what shows the same
    for entry in entries:
        own = entry.fingerprint, entry.label
        first[entry.shown] = min(first.get(entry.shown, own), own)
    by_class: dict[int, list[bytes]] = {}
    for fingerprint, label in first.values():
        by_class.setdefault(label, []).append(fingerprint)
    split_of: dict[bytes, int] = {}
    too_small = []
    for label, fingerprints in sorted(by_class.items()):
        fingerprints.sort(key=lambda fingerprint: _rank(fingerprint, f"split {seed}"))
        num_test = _share(len(fingerprints), test_fraction)
        num_search = _share(len(fingerprints) - num_test, search_fraction)
        if num_test + num_search >= len(fingerprints):
            too_small.append(label)
        for place, fingerprint in enumerate(fingerprints):
            split_of[fingerprint] = 2 if place < num_test else 1 if place < num_test + num_search else 0
    parts: tuple[list[Entry], list[Entry], list[Entry]] = ([], [], [])
    for entry in ordered(entries, seed):
        parts[split_of[first[entry.shown][0]]].append(entry)
    return *parts, too_small


def decode(
    samples: Iterable[Sample], splits: Sequence[Sequence[Entry]], image_size: int
) -> tuple[list[Decoded], list[str]]:
    """Decode the samples of each split in one pass; returns the splits, and `name: reason` where this fails."""
    places = {
        entry.position: (number, row) for number, entries in enumerate(splits) for row, entry in enumerate(entries)
    }
    images = [np.empty((len(entries), 3, image_size, image_size), dtype=np.uint8) for entries in splits]
    is_read = [np.zeros(len(entries), dtype=bool) for entries in splits]
    unreadable = []
    with _quiet_pillow():
        for position, sample in enumerate(samples):
            if position not in places:
                continue
            number, row = places[position]
            if sample.content is None:
                unreadable.append(f"{sample.name}: {sample.problem}")
                continue
            try:
                images[number][row] = fitted(decoded(sample.content).image, image_size).transpose(2, 0, 1)
                is_read[number][row] = True
            except UnreadableImageError as error:
                unreadable.append(f"{sample.name}: {error}")
    parts = []
    for entries, array, kept in zip(splits, images, is_read, strict=True):
        good = [entry for entry, is_good in zip(entries, kept, strict=True) if is_good]
        labels = np.array([entry.label for entry in good], dtype=np.int64)
        part = Decoded(good, array if kept.all() else array[kept], labels)
        part.images.setflags(write=False)
        part.labels.setflags(write=False)
        parts.append(part)
    return parts, unreadable


def split_hash(entries: Iterable[Entry]) -> str:
    """First 16 hex digits of the SHA-256 over the sorted fingerprints and labels of a split."""
    sha = hashlib.sha256()
    for fingerprint, label in sorted((entry.fingerprint, entry.label) for entry in entries):
        sha.update(fingerprint + label.to_bytes(8, "big"))
    return sha.hexdigest()[:16]


def _rank(fingerprint: bytes, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}:".encode() + fingerprint).digest()


def _share(number: int, fraction: float) -> int:
    return max(1, round(number * fraction)) if fraction else 0


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    # Pillow warns of damaged metadata and of large images; neither keeps the pixels from being used.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield
