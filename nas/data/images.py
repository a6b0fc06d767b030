"""The images of a run: decoded once, split by content, and a test split that a search cannot open."""

import hashlib
import math
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor

from nas.base import DataError, plural
from nas.data.samples import Source, data_error, listed
from nas.data.sources import open_source
from nas.data.splits import Decoded, Entry, Listing, carve, decode, list_samples, ordered, split_hash
from nas.settings import DataConfig

_MAX_LISTED = 10
_CHUNK = 1024
_Triple = tuple[float, float, float]

_seal_lock = threading.Lock()
_num_seals = 0


@contextmanager
def sealed_test_split() -> Iterator[None]:
    """Make `ImageData.open_test` raise in this process, whatever the thread. May be nested."""
    global _num_seals
    with _seal_lock:
        _num_seals += 1
    try:
        yield
    finally:
        with _seal_lock:
            _num_seals -= 1


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images of one split, in an order that depends on their content and the seed only.

    Attributes:
        images: [N, 3, S, S], uint8.
        labels: [N], int64.
        mean: Per channel, of pixels scaled to 0..1; what `normalized` subtracts.
        std: Per channel, of pixels scaled to 0..1; what `normalized` divides by.
    """

    images: Tensor
    labels: Tensor
    mean: _Triple = (0.0, 0.0, 0.0)
    std: _Triple = (1.0, 1.0, 1.0)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 over shape, labels and pixels."""
        sha = hashlib.sha256(str(tuple(self.images.shape)).encode())
        sha.update(self.labels.cpu().contiguous().numpy().tobytes())
        sha.update(self.images.cpu().contiguous().numpy().data)
        return sha.hexdigest()[:16]

    def part(self, start: int, stop: int) -> "ImageSet":
        """The images from one number up to another, without a copy."""
        return replace(self, images=self.images[start:stop], labels=self.labels[start:stop])

    def chosen(self, numbers: Tensor) -> "ImageSet":
        """A copy of some images, in the order of their numbers as given."""
        return replace(self, images=self.images[numbers], labels=self.labels[numbers])

    def normalized(self, indices: Tensor | Sequence[int] | slice) -> Tensor:
        """The chosen images, [n, 3, S, S] float32: pixels / 255, minus the mean, divided by the deviation."""
        chosen = self.images[indices if isinstance(indices, slice) else torch.as_tensor(indices)]
        mean, std = (
            chosen.new_tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        return chosen.float().div_(255).sub_(mean).div_(std)


@dataclass(frozen=True, slots=True)
class _SealedTest:
    """How to read the test split again; holds no image."""

    source: Source
    entries: list[Entry]
    config: DataConfig
    image_size: int

    def read(self, mean: _Triple, std: _Triple) -> ImageSet:
        read = self.source.test or self.source.train
        expected = Counter((entry.fingerprint, entry.label) for entry in self.entries)
        listing = list_samples(read(), len(self.source.class_names))
        positions: dict[tuple[bytes, int], list[int]] = {}
        for entry in listing.entries:
            positions.setdefault((entry.fingerprint, entry.label), []).append(entry.position)
        if any(len(positions.get(key, ())) != count for key, count in expected.items()):
            raise DataError(
                f"{self.config.spec}: the test images changed since the splits were made",
                hint="restore the files, or start a new run",
            )
        entries = [
            replace(entry, position=positions[entry.fingerprint, entry.label].pop()) for entry in self.entries
        ]
        (part,), unreadable = decode(read(), [entries], self.image_size)
        if unreadable and not self.config.skip_bad_images:
            raise _problems_error(self.config.spec, [], unreadable)
        return ImageSet(part.images, part.labels, mean, std)


class ImageData:
    """Train, search and test images of a run; the test images are decoded only by `open_test`.

    Pickled copies, such as those that workers get, cannot open the test split.

    Attributes:
        train: For weights.
        search: Ranks candidates; carved from the training images.
        class_names: One a class; the position is the label.
        mean: Per channel of the train split, of pixels scaled to 0..1.
        std: Per channel of the train split, of pixels scaled to 0..1.
        flip_safe: Whether a mirrored image keeps its class; false for digits.
        hashes: Of the splits `train`, `search` and `test`, 16 hex digits over the stored images (encoded
            bytes where the source has them) and labels: the same in every process and for every file order.
    """

    def __init__(
        self,
        *,
        train: ImageSet,
        search: ImageSet,
        class_names: tuple[str, ...],
        flip_safe: bool,
        hashes: dict[str, str],
        summary: list[str],
        test: _SealedTest | None,
    ) -> None:
        self.train = train
        self.search = search
        self.class_names = class_names
        self.mean = train.mean
        self.std = train.std
        self.flip_safe = flip_safe
        self.hashes = hashes
        self._summary = summary
        self._test = test

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def summary(self) -> list[str]:
        """Four lines for people: source, sizes of the splits, class balance, pixels."""
        return list(self._summary)

    def open_test(self) -> ImageSet:
        """Read and decode the test split.

        Raises:
            DataError: During a search, in a worker's copy, where there is no test split, when its images
                changed since the splits were made, or when some are unreadable.
        """
        if _num_seals:
            raise DataError(
                "the test split cannot be opened during a search", hint="rank candidates on the search split"
            )
        if self._test is None:
            raise DataError(
                "these images have no test split: data.test_fraction is 0, or this is a worker's copy",
                hint="open the test split where the images were loaded, with data.test_fraction above 0",
            )
        return self._test.read(self.mean, self.std)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_test": None}


def load_images(config: DataConfig, image_size: int, seed: int) -> ImageData:
    """Read, check, split and decode the images that `config.spec` names. The test split is not decoded.

    Splits go by a seeded hash of each stored image, class by class: neither file names nor their order
    matter, and copies of one image share a split. The test split is the source's own, else `test_fraction` of
    the images; the search split is `search_fraction` of the rest. Training images that are also in the
    source's own test split are left out. Every class gets at least one image in train and in search.

    Args:
        config: Which images, how they are split, and whether unreadable ones are left out.
        image_size: Side of the decoded images, pixels; the shorter side is resized to it, the centre kept.
        seed: Of the splits and of the order within them.

    Raises:
        DataError: Everything that is wrong with the images, at once.
    """
    try:
        return _load(config, open_source(config.spec), image_size, seed)
    except OSError as error:
        raise DataError(f"{config.spec}: cannot be read: {error}") from error


def _load(config: DataConfig, source: Source, image_size: int, seed: int) -> ImageData:
    names = source.class_names
    listing = list_samples(source.train(), len(names))
    own_test = list_samples(source.test(), len(names)) if source.test else Listing()
    unreadable = listing.unreadable + own_test.unreadable
    test_fingerprints = {entry.fingerprint for entry in own_test.entries}
    entries = [entry for entry in listing.entries if entry.fingerprint not in test_fingerprints]
    num_leaked = len(listing.entries) - len(entries)

    test_fraction = 0.0 if source.test else config.test_fraction
    train, search, test, too_small = carve(
        entries, test_fraction=test_fraction, search_fraction=config.search_fraction, seed=seed
    )
    test = ordered(own_test.entries, seed) if source.test else test

    problems = _label_problems(listing.bad_labels + own_test.bad_labels, len(names))
    if config.search_fraction == 0:
        problems.append("data.search_fraction must be above 0: the search split ranks the candidates")
    problems += _class_problems(entries, too_small, names, num_leaked)
    if problems:
        raise _problems_error(config.spec, problems, [] if config.skip_bad_images else unreadable)

    _check_memory(config.spec, len(train) + len(search), image_size)
    parts, damaged = decode(source.train(), [train, search], image_size)
    unreadable += damaged
    if unreadable and not config.skip_bad_images:
        raise _problems_error(config.spec, [], unreadable)
    _check_classes(config.spec, parts, names)

    mean, std = _moments(parts[0].images)
    used = {"train": parts[0].entries, "search": parts[1].entries, "test": test}
    summary = [
        _source_line(source, listing, own_test),
        _splits_line(
            used, "the data's own" if source.test else f"carved, seed {seed}", len(unreadable), num_leaked
        ),
        _balance_line(used, len(names)),
        _pixels_line(listing.modes + own_test.modes, image_size, mean, std),
    ]
    return ImageData(
        train=ImageSet(parts[0].images, parts[0].labels, mean, std),
        search=ImageSet(parts[1].images, parts[1].labels, mean, std),
        class_names=names,
        flip_safe=not (source.named_classes and _are_digits(names)),
        hashes={title: split_hash(split) for title, split in used.items()},
        summary=summary,
        test=_SealedTest(source, test, config, image_size) if test else None,
    )


# --- checks ---


def _label_problems(bad_labels: Sequence[str], num_classes: int) -> list[str]:
    if not bad_labels:
        return []
    return [f"labels must be 0 to {num_classes - 1}; {len(bad_labels):,} are not: {listed(bad_labels)}"]


def _class_problems(
    entries: Sequence[Entry], too_small: Sequence[int], names: Sequence[str], num_leaked: int
) -> list[str]:
    problems = []
    if len(names) < 2:
        problems.append(f"at least 2 classes are needed, found {len(names)}")
    absent = set(range(len(names))) - {entry.label for entry in entries}
    if absent:
        also = f" ({num_leaked:,} are also in test and do not count)" if num_leaked else ""
        problems.append(f"classes without a readable training image: {_named(absent, names)}{also}")
    if too_small:
        problems.append(
            f"classes with too few different images to be in every split: {_named(too_small, names)}"
        )
    return problems


def _check_classes(spec: str, parts: Sequence[Decoded], names: Sequence[str]) -> None:
    problems = []
    for title, part in zip(("train", "search"), parts, strict=True):
        absent = set(range(len(names))) - set(part.labels.tolist())
        if absent:
            problems.append(f"classes without a readable image in the {title} split: {_named(absent, names)}")
    if problems:
        raise data_error(spec, problems, hint="add images of these classes, or take the classes out")


def _check_memory(spec: str, num_images: int, image_size: int) -> None:
    needed, free = num_images * 3 * image_size**2, psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{spec}: {num_images:,} images of {image_size}x{image_size} need {needed / 2**30:.1f} GiB "
            f"decoded, {free / 2**30:.1f} GiB of memory are free",
            hint="use fewer images, or a search space with a smaller image_size",
        )


def _problems_error(spec: str, problems: Sequence[str], unreadable: Sequence[str]) -> DataError:
    hint = "each class needs different images in train and search, and labels count from 0"
    if unreadable:
        hint = "repair or remove them, or leave them out with --skip-bad-images (data.skip_bad_images)"
        lines = [*unreadable[:_MAX_LISTED], "..."] if len(unreadable) > _MAX_LISTED else unreadable
        problems = [*problems, "\n    ".join([f"{plural(len(unreadable), 'unreadable image')}:", *lines])]
    return data_error(spec, problems, hint=hint)


def _named(labels: Iterable[int], names: Sequence[str]) -> str:
    return listed([names[label] for label in sorted(labels)])


def _are_digits(names: Sequence[str]) -> bool:
    """Whether the classes are the ten digits, as in `7` or torchvision's `7 - seven`."""
    return {re.split(r"\W", name)[0] for name in names} == {str(digit) for digit in range(10)}


def _moments(images: Tensor) -> tuple[_Triple, _Triple]:
    """Mean and deviation per channel of pixels scaled to 0..1, from exact sums; deviation 1 where it is 0."""
    total, squares = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        total += chunk.sum(dim=(0, 2, 3), dtype=torch.int64)
        squares += chunk.to(torch.int32).square_().sum(dim=(0, 2, 3), dtype=torch.int64)
    number = images.numel() // 3
    means = [value / number / 255 for value in total.tolist()]
    variances = [
        (number * square - value * value) / (number * number)
        for value, square in zip(total.tolist(), squares.tolist(), strict=True)
    ]
    stds = [math.sqrt(variance) / 255 or 1.0 for variance in variances]
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


# --- summary ---


def _source_line(source: Source, train: Listing, test: Listing) -> str:
    sizes = sorted(train.sizes | test.sizes)
    total = len(train.entries) + len(test.entries)
    if len(sizes) == 1:
        size = f"{sizes[0][0]}x{sizes[0][1]}"
    else:
        widths, heights = zip(*sizes, strict=True)
        size = f"{min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high"
    notes = "".join(f"; {note}" for note in source.notes)
    return f"data     {source.title}: {total:,} images of {size}, {len(source.class_names)} classes{notes}"


def _splits_line(
    splits: Mapping[str, Sequence[Entry]], origin: str, num_unreadable: int, num_leaked: int
) -> str:
    counts = ", ".join(f"{title} {len(entries):,}" for title, entries in splits.items())
    line = f"splits   {counts} (test: {origin if splits['test'] else 'none'})"
    left_out = [f"{num_unreadable:,} unreadable"] * bool(num_unreadable)
    left_out += [f"{num_leaked:,} of train that are also in test"] * bool(num_leaked)
    return line + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _balance_line(splits: Mapping[str, Sequence[Entry]], num_classes: int) -> str:
    ranges = []
    for title, entries in splits.items():
        counts = Counter(entry.label for entry in entries)
        per_class = [counts[label] for label in range(num_classes)]
        ranges.append(f"{title} {min(per_class):,} to {max(per_class):,}")
    return f"balance  images a class: {', '.join(ranges)}"


def _pixels_line(modes: Counter[str], image_size: int, mean: _Triple, std: _Triple) -> str:
    grey = sum(count for mode, count in modes.items() if mode in ("1", "L", "LA"))
    other = sum(count for mode, count in modes.items() if mode not in ("1", "L", "LA", "RGB"))
    kinds = {"RGB": modes["RGB"], "grey": grey, "other": other}
    found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    means, stds = (" ".join(f"{value:.3f}" for value in values) for values in (mean, std))
    size = f"{image_size}x{image_size}"
    return f"pixels   {found}, all as RGB {size}; normalised by mean {means}, deviation {stds}"
