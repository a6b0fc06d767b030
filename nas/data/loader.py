"""From a data spec to the images of a run: listed, checked, split by content, decoded once."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import psutil
from numpy.typing import NDArray

from nas.base import DataError, plural
from nas.data.images import ImageData, ImageSet, TestSplit
from nas.data.info import DataInfo, Triple
from nas.data.samples import SMALL_CLASSES_HINT, Source, data_error, listed, problems_error
from nas.data.sources import open_source
from nas.data.splits import Decoded, Listing, carve, contradicted, decode, list_samples, ordered, split_hash
from nas.data.summary import balance_line, pixels_line, source_line, splits_line
from nas.data.twins import alike
from nas.settings import DataConfig

_CHUNK = 1024


def load_images(config: DataConfig, image_size: int, seed: int) -> tuple[ImageData, TestSplit | None]:
    """Read, check, split and decode the images that `config.spec` names; the test split stays closed.

    Splits go by a seeded hash of each stored image, class by class: neither file names nor their order matter, and
    images of the same pixels share a split. The test split is the source's own, else `test_fraction` of the images; the
    search split is the source's third one, else `search_fraction` of the rest. Training images whose pixels are also in
    one of the source's other splits are left out, and everywhere what is found under several labels. Every class gets
    at least one image in train and in search. The shorter side is resized to `image_size` pixels, the centre kept. Test
    images are decoded once, to find the damaged ones before hours are spent; none is kept.

    Returns:
        What a search may see; and what opens the test split, None where there is none. Drop the second unless a
        final number is made from it.

    Raises:
        DataError: Everything that is wrong with the images, at once.
    """
    try:
        return _load(config, open_source(config), image_size, seed)
    except OSError as error:
        raise DataError(f"{config.spec}: cannot be read: {error}") from error


def _load(config: DataConfig, source: Source, image_size: int, seed: int) -> tuple[ImageData, TestSplit | None]:
    names = source.class_names
    listing = list_samples(source.train(), len(names))
    own_test = list_samples(source.test(), len(names)) if source.test else Listing()
    read_search = source.validation
    own_search = list_samples(read_search(), len(names)) if read_search else Listing()
    listings = (listing, own_search, own_test)
    unreadable = [text for part in listings for text in part.unreadable]
    clashing = contradicted(entry for part in listings for entry in part.entries if entry.pixels)
    clashes = [entry for part in listings for entry in part.entries if entry.shown in clashing]
    tested = {entry.shown for entry in own_test.entries}
    ranking = [entry for entry in own_search.entries if entry.shown not in tested]
    elsewhere = tested | {entry.shown for entry in own_search.entries}
    entries = [entry for entry in listing.entries if entry.shown not in elsewhere]
    num_leaked = len(listing.entries) - len(entries), len(own_search.entries) - len(ranking)
    entries, ranking, held_out = (
        [entry for entry in part if entry.shown not in clashing] for part in (entries, ranking, own_test.entries)
    )

    train, search, test, too_small = carve(
        entries,
        test_fraction=0.0 if source.test else config.test_fraction,
        search_fraction=0.0 if read_search else config.carved_search,
        seed=seed,
    )
    test = ordered(held_out, seed) if source.test else test
    search = ordered(ranking, seed) if read_search else search
    train, search, test = ([entry for entry in part if entry.pixels] for part in (train, search, test))

    seen = [{entry.label for entry in part if entry.pixels} for part in (entries, ranking)[: 2 if read_search else 1]]
    small = {*too_small, *(label for label in range(len(names)) if any(label not in part for part in seen))}
    if small and config.skip_small_classes and (config.skip_bad_images or not unreadable):
        note = f"left out {plural(len(small), 'class', 'classes')} with too few images: {_named(small, names)}"
        source = replace(source, notes=(*source.notes, note))
        return _load(config, source.without(small), image_size, seed)

    problems = []
    if bad_labels := [text for part in listings for text in part.bad_labels]:
        problems.append(f"labels must be 0 to {len(names) - 1}; {len(bad_labels):,} are not: {listed(bad_labels)}")
    if config.search_fraction == 0:
        problems.append("data.search_fraction must be above 0: the search split ranks the candidates")
    problems += _class_problems(seen, too_small, names, num_leaked[0], len(clashes))
    if problems or (unreadable and not config.skip_bad_images):
        raise problems_error(config.spec, problems, [] if config.skip_bad_images else unreadable)

    _check_memory(config.spec, len(train) + len(search), image_size)
    if read_search:
        (train_part,), damaged = decode(source.train(), [train], image_size)
        (search_part,), damaged_search = decode(read_search(), [search], image_size)
        parts, damaged = [train_part, search_part], [*damaged, *damaged_search]
    else:
        parts, damaged = decode(source.train(), [train, search], image_size)
    if damaged:
        raise problems_error(config.spec, [], damaged)  # since it was listed
    _check_classes(config.spec, parts, names)

    mean, std = _moments(parts[0].images)
    num_alike = len(alike([entry.thumbnail for entry in (*train, *search)], [entry.thumbnail for entry in test]))
    used = {"train": parts[0].entries, "search": parts[1].entries, "test": test}
    info = DataInfo(
        class_names=names,
        mean=mean,
        std=std,
        flip_safe=not (source.named_classes and _are_digits(names)),
        hashes={title: split_hash(split) for title, split in used.items()},
    )
    origins = {"test": "the data's own" if source.test else f"carved, seed {seed}"}
    if read_search:
        origins["search"] = "the data's own validation split"
    summary = (
        source_line(source.title, names, listings, source.notes),
        splits_line(used, origins, len(unreadable), num_leaked, [entry.name for entry in clashes], num_alike),
        balance_line(used, len(names)),
        pixels_line(listings, image_size, mean, std),
    )
    train_set, search_set = (ImageSet(part.images, part.labels, info) for part in parts)
    data = ImageData(train=train_set, search=search_set, summary=summary)
    if not test:
        return data, None
    return data, TestSplit(source=source, entries=test, config=config, image_size=image_size, info=info)


# --- checks ---


def _class_problems(
    seen: Sequence[set[int]], too_small: Sequence[int], names: Sequence[str], num_leaked: int, num_clashes: int
) -> list[str]:
    problems = []
    if len(names) < 2:
        problems.append(f"at least 2 classes are needed, found {len(names)}")
    for title, labels in zip(("training", "search"), seen, strict=False):
        if absent := set(range(len(names))) - labels:
            uncounted = [f"{num_leaked:,} are also in test"] if num_leaked and title == "training" else []
            uncounted += [f"{num_clashes:,} are found under several labels"] if num_clashes else []
            also = f" ({' and '.join(uncounted)}: they do not count)" if uncounted else ""
            problems.append(f"classes without a readable {title} image: {_named(absent, names)}{also}")
    if too_small:
        problems.append(f"classes with too few different images to be in every split: {_named(too_small, names)}")
    return problems


def _check_classes(spec: str, parts: Sequence[Decoded], names: Sequence[str]) -> None:
    problems = [
        f"classes without a readable image in the {title} split: {_named(absent, names)}"
        for title, part in zip(("train", "search"), parts, strict=True)
        if (absent := set(range(len(names))) - set(part.labels.tolist()))
    ]
    if problems:
        raise data_error(spec, problems, hint=SMALL_CLASSES_HINT)


def _check_memory(spec: str, num_images: int, image_size: int) -> None:
    needed, free = num_images * 3 * image_size**2, psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{spec}: {num_images:,} images of {image_size}x{image_size} need {needed / 2**30:.1f} GiB "
            f"decoded, {free / 2**30:.1f} GiB of memory are free",
            hint="use fewer images, or a search space with a smaller image_size",
        )


def _named(labels: Iterable[int], names: Sequence[str]) -> str:
    return listed([names[label] for label in sorted(labels)])


def _are_digits(names: Sequence[str]) -> bool:
    """Whether the classes are the ten digits, as in `7` or torchvision's `7 - seven`."""
    return {re.split(r"\W", name)[0] for name in names} == {str(digit) for digit in range(10)}


def _moments(images: NDArray[np.uint8]) -> tuple[Triple, Triple]:
    """Mean and deviation per channel of pixels scaled to 0..1, from exact sums; deviation 1 where it is 0."""
    total, squares = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        total += chunk.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += np.square(chunk, dtype=np.int32).sum(axis=(0, 2, 3), dtype=np.int64)
    number = images.size // 3
    sums = list(zip(total.tolist(), squares.tolist(), strict=True))
    red, green, blue = (value / number / 255 for value, _ in sums)
    variances = ((number * square - value * value) / (number * number) for value, square in sums)
    red_std, green_std, blue_std = (math.sqrt(variance) / 255 or 1.0 for variance in variances)
    return (red, green, blue), (red_std, green_std, blue_std)
