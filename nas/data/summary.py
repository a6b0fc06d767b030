"""What was loaded, in four lines for people."""

from collections import Counter
from collections.abc import Mapping, Sequence

from nas.data.images import Triple
from nas.data.samples import listed
from nas.data.splits import Entry, Listing

IMBALANCED = 10  # times the smallest class


def source_line(title: str, class_names: Sequence[str], parts: Sequence[Listing], notes: Sequence[str]) -> str:
    """What was read: how many images of which size, in which classes, and what the source says besides."""
    sizes = sorted(set[tuple[int, int]]().union(*(part.sizes for part in parts)))
    total = sum(len(part.entries) for part in parts)
    if len(sizes) == 1:
        size = f"{sizes[0][0]}x{sizes[0][1]}"
    else:
        widths, heights = zip(*sizes, strict=True)
        size = f"{min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high"
    more = "".join(f"; {note}" for note in notes)
    names = listed(class_names)
    return f"data     {title}: {total:,} images of {size}, {len(class_names)} classes ({names}){more}"


def splits_line(
    splits: Mapping[str, Sequence[Entry]],
    origins: Mapping[str, str],
    num_unreadable: int,
    num_leaked: tuple[int, int],
    clashes: Sequence[str] = (),
    num_alike: int = 0,
) -> str:
    """How many images each split has, where they are from, what was left out, and what was not but looks like it.

    Origins are those of the test split, and of the search split where it is the data's own. Leaked are images of train
    that are also in another split of the data, and images of validation also in test. Clashes are the names of images
    under several labels; alike are test images that nearly look as one of train or search.
    """
    counts = ", ".join(f"{title} {len(entries):,}" for title, entries in splits.items())
    where = ", ".join(f"{split}: {origin if splits[split] else 'none'}" for split, origin in origins.items())
    left_out = [f"{num_unreadable:,} unreadable"] * bool(num_unreadable)
    others = "search or test" if "search" in origins else "test"
    left_out += [f"{num_leaked[0]:,} of train that are also in {others}"] * bool(num_leaked[0])
    left_out += [f"{num_leaked[1]:,} of search that are also in test"] * bool(num_leaked[1])
    if clashes:
        left_out.append(f"{len(clashes):,} whose pixels are found under several labels: {listed(clashes, 4)}")
    line = f"splits   {counts} ({where})" + (f"; left out: {', '.join(left_out)}" if left_out else "")
    share = (
        f"{num_alike:,} of test nearly look like one of train or search, as if resized or encoded again: not left out"
    )
    return f"{line}; {share}" if num_alike else line


def balance_line(splits: Mapping[str, Sequence[Entry]], num_classes: int) -> str:
    """Images of the smallest and of the largest class, split by split; and what helps where they differ by much."""
    ranges, advice = [], ""
    for title, entries in splits.items():
        counts = Counter(entry.label for entry in entries)
        per_class = [counts[label] for label in range(num_classes)]
        ranges.append(f"{title} {min(per_class):,} to {max(per_class):,}")
        if title == "train" and max(per_class) > IMBALANCED * max(min(per_class), 1):
            advice = (
                "; imbalanced, so top-1 is mostly that of the large classes: balanced_top1 in search.objectives ranks "
                "by the mean over classes, train.class_weights=balanced trains for it"
            )
    return f"balance  images a class: {', '.join(ranges)}{advice}"


def pixels_line(parts: Sequence[Listing], side: int, image_size: int, mean: Triple, std: Triple) -> str:
    """Which kinds of images there were, and what they have become."""
    modes = sum((part.modes for part in parts), Counter[str]())
    grey = sum(count for mode, count in modes.items() if mode in ("1", "L", "LA"))
    other = sum(count for mode, count in modes.items() if mode not in ("1", "L", "LA", "RGB"))
    kinds = {"RGB": modes["RGB"], "grey": grey, "other": other}
    found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    means, stds = (" ".join(f"{value:.3f}" for value in values) for values in (mean, std))
    size = f"{side}x{side}" + (f", evaluated by the centre of {image_size}x{image_size}" if side > image_size else "")
    num_turned = sum(part.num_turned for part in parts)
    turned = f", {num_turned:,} turned as EXIF says" if num_turned else ""
    return f"pixels   {found}, all as RGB {size}{turned}; normalised by mean {means}, deviation {stds}"
