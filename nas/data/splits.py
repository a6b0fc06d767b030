"""Splits by content: what of a source is train, search and test, whatever its files are called."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace


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
    num_samples: int = 0  # all of them

    def without(self, labels: Collection[int]) -> "Listing":
        """The listing without the entries of some classes, the others numbered anew."""
        number = {label: label - sum(gone < label for gone in labels) for label in {e.label for e in self.entries}}
        kept = [entry for entry in self.entries if entry.label not in labels]
        return replace(self, entries=[replace(entry, label=number[entry.label]) for entry in kept])


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
