"""What was loaded, in four lines for people."""

from collections import Counter
from collections.abc import Mapping, Sequence

from nas.data.info import Triple
from nas.data.samples import Source
from nas.data.splits import Entry, Listing


def source_line(source: Source, train: Listing, test: Listing) -> str:
    """What was read: how many images of which size, in how many classes, and what the source says besides."""
    sizes = sorted(train.sizes | test.sizes)
    total = len(train.entries) + len(test.entries)
    if len(sizes) == 1:
        size = f"{sizes[0][0]}x{sizes[0][1]}"
    else:
        widths, heights = zip(*sizes, strict=True)
        size = f"{min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high"
    notes = "".join(f"; {note}" for note in source.notes)
    return f"data     {source.title}: {total:,} images of {size}, {len(source.class_names)} classes{notes}"


def splits_line(splits: Mapping[str, Sequence[Entry]], origin: str, num_unreadable: int, num_leaked: int) -> str:
    """How many images each split has, where the test split is from, and what was left out."""
    counts = ", ".join(f"{title} {len(entries):,}" for title, entries in splits.items())
    line = f"splits   {counts} (test: {origin if splits['test'] else 'none'})"
    left_out = [f"{num_unreadable:,} unreadable"] * bool(num_unreadable)
    left_out += [f"{num_leaked:,} of train that are also in test"] * bool(num_leaked)
    return line + (f"; left out: {', '.join(left_out)}" if left_out else "")


def balance_line(splits: Mapping[str, Sequence[Entry]], num_classes: int) -> str:
    """Images of the smallest and of the largest class, split by split."""
    ranges = []
    for title, entries in splits.items():
        counts = Counter(entry.label for entry in entries)
        per_class = [counts[label] for label in range(num_classes)]
        ranges.append(f"{title} {min(per_class):,} to {max(per_class):,}")
    return f"balance  images a class: {', '.join(ranges)}"


def pixels_line(modes: Counter[str], image_size: int, mean: Triple, std: Triple) -> str:
    """Which kinds of images there were, and what they have become."""
    grey = sum(count for mode, count in modes.items() if mode in ("1", "L", "LA"))
    other = sum(count for mode, count in modes.items() if mode not in ("1", "L", "LA", "RGB"))
    kinds = {"RGB": modes["RGB"], "grey": grey, "other": other}
    found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    means, stds = (" ".join(f"{value:.3f}" for value in values) for values in (mean, std))
    size = f"{image_size}x{image_size}"
    return f"pixels   {found}, all as RGB {size}; normalised by mean {means}, deviation {stds}"
