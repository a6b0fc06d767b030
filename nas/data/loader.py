"""From a data spec to the images of a run: listed, checked, split by content, decoded once."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from nas.base import DataError, Reporter, plural
from nas.data.folder_source import UNLABELLED
from nas.data.images import DataInfo, ImageData, ImageSet, TestSplit, Triple, image_set
from nas.data.own_source import own_source
from nas.data.samples import (
    SMALL_CLASSES_HINT,
    Part,
    Source,
    UnreadableImageError,
    data_error,
    listed,
    problems_error,
    size_in_head,
)
from nas.data.sources import open_source
from nas.data.splits import Entry, Listing, carve, contradicted, ordered, split_hash
from nas.data.store.part import Origin, Stored, read_part
from nas.data.summary import balance_line, pixels_line, source_line, splits_line
from nas.data.twins import alike
from nas.settings import DataConfig, is_own


def load_images(
    config: DataConfig, image_size: int, seed: int, reporter: Reporter | None = None, own: Any = None
) -> tuple[ImageData, TestSplit | None]:
    """Read, check, split and decode the images that `config.spec` names, or `own` (`own_source`).

    The test split stays closed.

    Splits go by a seeded hash of each stored image, class by class: neither file names nor their order matter, and
    images of the same pixels share a split. The test split is the source's own, else `test_fraction` of the images; the
    search split is the source's third one, else `search_fraction` of the rest. Training images whose pixels are also in
    one of the source's other splits are left out, and everywhere what is found under several labels. Every class gets
    at least one image in train and in search. The shorter side is resized to `image_size` pixels (`config.stored_size`,
    where it is larger), the centre kept. Images are decoded once, into a file that all runs share (`store`), and read
    where they are needed; a test split of the source's own is decoded to find what is damaged, and not kept.

    Returns:
        What a search may see; and what opens the test split, None where there is none. Drop the second unless a
        final number is made from it.

    Raises:
        DataError: Everything that is wrong with the images, at once.
    """
    try:
        source = open_source(config) if own is None else own_source(own, config)
        return _load(config, source, image_size, seed, reporter or Reporter(quiet=True))
    except OSError as error:
        raise DataError(f"{config.spec}: cannot be read: {error}") from error


def every_image(config: DataConfig, size: int, reporter: Reporter) -> list[ImageSet]:
    """All images of all splits of a source as they are stored, a set each: nothing is carved and no copy left out.

    They see the centre of `size` pixels of images kept at `config.stored_size`. Mean and deviation are 0 and 1.

    Raises:
        DataError: Images cannot be read, or have no class.
    """  # noqa: DOC501 - `problems_error` is a DataError
    try:
        source = open_source(config)
        names, sets = source.class_names, []
        parts = {"train": source.train, "validation": source.validation, "test": source.test}
        for title, part in parts.items():
            if part is None:
                continue
            listing, stored = read_part(part, Origin(config, title, len(names), config.stored_size or size), reporter)
            assert stored is not None, "images are kept"
            problems = [f"without a class: {listed(listing.bad_labels)}"] if listing.bad_labels else []
            if problems or (listing.unreadable and not config.skip_bad_images):
                raise problems_error(config.spec, problems, [] if config.skip_bad_images else listing.unreadable)
            info = DataInfo(class_names=names, mean=(0.0,) * 3, std=(1.0,) * 3, flip_safe=False, hashes={})
            sets.append(image_set(stored, [entry for entry in listing.entries if entry.pixels], size, info))
    except OSError as error:
        raise DataError(f"{config.spec}: cannot be read: {error}") from error
    if not sum(map(len, sets)):
        raise DataError(f"{config.spec}: there is no image", hint="give a folder with a folder for each class")
    return [images for images in sets if len(images)]


def class_names_of(config: DataConfig) -> tuple[str, ...] | None:
    """Names of the classes of a data spec, where they are known before an image is decoded; else None.

    With `skip_small_classes`, splits may lack some of them.

    Raises:
        DataError: The spec, or what it names, is not understood.
    """
    source = open_source(config)
    return source.class_names if source.named_classes else None


def sizes_of_some(config: DataConfig, most: int = 400) -> tuple[list[tuple[int, int]], int]:
    """Width and height, pixels, of up to so many training images, evenly through the source; nothing is decoded.

    Those whose heads cannot be read are left out: `load_images` names them. Second is how many images there are, before
    a split is carved.

    Raises:
        DataError: The spec, or what it names, is not understood.
    """
    part = open_source(config).train
    count = part.count if isinstance(part, Part) else sum(1 for _ in part())
    step = max(1, count // most)
    found: Iterable[bytes | Image.Image | None]
    if isinstance(part, Part) and len(part.files) == count:  # a file an image: only some need be read
        found = map(_content, part.files[::step])
    else:
        found = (sample.content for sample in islice(part(), 0, None, step))
    sizes = []
    for content in found:
        with suppress(UnreadableImageError):
            sizes.append(size_in_head(content or b""))
    return sizes, count


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _load(
    config: DataConfig, source: Source, image_size: int, seed: int, reporter: Reporter
) -> tuple[ImageData, TestSplit | None]:
    side = config.stored_size or image_size
    if side < image_size:
        problem = f"images are kept at {side} px (data.stored_size), and the space's image_size is {image_size}"
        raise DataError(f"{config.spec}: {problem}", hint="leave data.stored_size out, or make it larger")
    origin = Origin(config, "train", len(source.class_names), side)
    listing, stored = read_part(source.train, origin, reporter)
    own_search, stored_search = Listing(), stored
    if source.validation:
        own_search, stored_search = read_part(source.validation, replace(origin, part="validation"), reporter)
    own_test = Listing()
    if source.test:
        own_test, _ = read_part(source.test, replace(origin, part="test"), reporter, keep=False)
    assert stored is not None, "images are kept"
    assert stored_search is not None, "images are kept"
    return _split(config, source, (listing, own_search, own_test), (stored, stored_search), image_size, seed)


def _split(
    config: DataConfig,
    source: Source,
    listings: tuple[Listing, Listing, Listing],
    stored: tuple[Stored, Stored],
    image_size: int,
    seed: int,
) -> tuple[ImageData, TestSplit | None]:
    """Of listings of train, validation and test, and of stored images of the first two."""
    listing, own_search, own_test = listings
    names = source.class_names
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
        search_fraction=0.0 if source.validation else config.carved_search,
        seed=seed,
    )
    test = ordered(held_out, seed) if source.test else test
    search = ordered(ranking, seed) if source.validation else search
    train, search, test = ([entry for entry in part if entry.pixels] for part in (train, search, test))

    seen = [
        {entry.label for entry in part if entry.pixels} for part in (entries, ranking)[: 2 if source.validation else 1]
    ]
    small = {*too_small, *(label for label in range(len(names)) if any(label not in part for part in seen))}
    if small and config.skip_small_classes and (config.skip_bad_images or not unreadable):
        note = f"left out {plural(len(small), 'class', 'classes')} with too few images: {_named(small, names)}"
        kept = tuple(name for label, name in enumerate(names) if label not in small)
        source = replace(source, class_names=kept, notes=(*source.notes, note))
        fewer = listing.without(small), own_search.without(small), own_test.without(small)
        return _split(config, source, fewer, stored, image_size, seed)

    problems = []
    if bad_labels := [text for part in listings for text in part.bad_labels]:
        problems.append(f"labels must be 0 to {len(names) - 1}; {len(bad_labels):,} are not: {listed(bad_labels)}")
    if config.search_fraction == 0:
        problems.append("data.search_fraction must be above 0: the search split ranks the candidates")
    if not (unreadable and is_own(config.spec)) or config.skip_bad_images:  # else their labels are not known
        problems += _class_problems(seen, too_small, names, num_leaked[0], len(clashes))
    if problems or (unreadable and not config.skip_bad_images):
        raise problems_error(config.spec, problems, [] if config.skip_bad_images else unreadable)

    used = {"train": train, "search": search, "test": test}
    _check_classes(config.spec, used, names)
    mean, std = _moments(stored[0].pixels(train, image_size).sums(), len(train) * stored[0].origin.side ** 2)
    num_alike = len(alike([entry.thumbnail for entry in (*train, *search)], [entry.thumbnail for entry in test]))
    info = DataInfo(
        class_names=names,
        mean=mean,
        std=std,
        flip_safe=not (source.named_classes and _are_digits(names)),
        hashes={title: split_hash(split) for title, split in used.items()},
        crop_pct=_crop_pct(image_size, stored[0].origin.side),
    )
    origins = {"test": "the data's own" if source.test else f"carved, seed {seed}"}
    if source.validation:
        origins["search"] = "the data's own validation split"
    summary = (
        source_line(source.title, names, listings, source.notes),
        splits_line(used, origins, len(unreadable), num_leaked, [entry.name for entry in clashes], num_alike),
        balance_line(used, len(names)),
        pixels_line(listings, stored[0].origin.side, image_size, mean, std),
    )
    sets = (image_set(where, part, image_size, info) for where, part in zip(stored, (train, search), strict=True))
    data = ImageData(train=next(sets), search=next(sets), summary=summary)
    if not test:
        return data, None
    key = TestSplit(
        source=source, entries=test, config=config, image_size=image_size, origin=stored[0].origin, info=info
    )
    return data, key


# --- checks ---


def _class_problems(
    seen: Sequence[set[int]], too_small: Sequence[int], names: Sequence[str], num_leaked: int, num_clashes: int
) -> list[str]:
    problems = []
    if len(names) < 2 and tuple(names) != (UNLABELLED,):
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


def _check_classes(spec: str, splits: Mapping[str, Sequence[Entry]], names: Sequence[str]) -> None:
    problems = [
        f"classes without a readable image in the {title} split: {_named(absent, names)}"
        for title in ("train", "search")
        if (absent := set(range(len(names))) - {entry.label for entry in splits[title]})
    ]
    if problems:
        raise data_error(spec, problems, hint=SMALL_CLASSES_HINT)


def _named(labels: Iterable[int], names: Sequence[str]) -> str:
    return listed([names[label] for label in sorted(labels)])


def _crop_pct(image_size: int, side: int) -> float:
    """The share of which timm's transform, which rounds down, makes exactly this side."""
    share = image_size / side
    while math.floor(image_size / share) < side:
        share = math.nextafter(share, 0)
    return share


def _are_digits(names: Sequence[str]) -> bool:
    """Whether the classes are the ten digits, as in `7` or torchvision's `7 - seven`."""
    return {re.split(r"\W", name)[0] for name in names} == {str(digit) for digit in range(10)}


def _moments(sums: Sequence[int], number: int) -> tuple[Triple, Triple]:
    """Mean and deviation per channel of pixels scaled to 0..1, from exact sums; deviation 1 where it is 0.

    The sums are those of `Pixels.sums`, each of so many values.
    """
    red, green, blue = (value / number / 255 for value in sums[:3])
    variances = (
        (number * square - value * value) / (number * number) for value, square in zip(sums[:3], sums[3:], strict=True)
    )
    red_std, green_std, blue_std = (math.sqrt(variance) / 255 or 1.0 for variance in variances)
    return (red, green, blue), (red_std, green_std, blue_std)
