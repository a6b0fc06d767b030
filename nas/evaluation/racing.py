"""Racing: an architecture that is dominated beyond doubt on some of the images is not shown the others.

The images of a split are ordered by a seeded hash of their content, so the first m of them are a random sample
of it, and two architectures are compared image by image on that sample (paired): what both get right or wrong
says nothing and cancels out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 3.0
"""Standard errors between two architectures that count as sure. Measured: benchmarks/replay_search.py."""

LOOKS = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Shares of the images after which an architecture is compared with its rivals."""

ALIGNMENT = 32  # images; looks come after a multiple of it, so that batches stay whole


@dataclass(frozen=True, slots=True)
class Rival:
    """A completed trial that may dominate what is measured now.

    Attributes:
        number: The trial's.
        costs: Values of the objectives but top-1, all to be minimised, by name.
        correct: Which images of the whole split it got right, packed by `numpy.packbits`.
    """

    number: int
    costs: Mapping[str, float]
    correct: bytes


def race(
    classify: Callable[[int, int], NDArray[np.bool_]],
    num_images: int,
    costs: Mapping[str, float],
    rivals: Sequence[Rival],
) -> tuple[NDArray[np.bool_], int | None]:
    """Classify the images part by part until all are seen or a rival is surely better.

    A rival counts if none of its costs is higher. It is surely better where its lead on the whole split, as
    estimated from the images so far, is more than `Z` standard errors (of a sample without replacement) above 0.

    Args:
        classify: (start, stop) -> which of these images are classified right.
        num_images: Of the split.
        costs: Of the architecture that is measured, with the rivals' names.
        rivals: Completed trials, usually the front.

    Returns:
        Which images were classified right, as many as were seen; and the number of the rival that ended the
        race, if one did.
    """
    cheaper = [rival for rival in rivals if all(rival.costs[name] <= costs[name] for name in rival.costs)]
    theirs = np.array([unpack(rival.correct, num_images) for rival in cheaper]).reshape(-1, num_images)
    correct = np.zeros(num_images, dtype=bool)
    seen = 0
    for stop in looks(num_images) if cheaper else []:
        correct[seen:stop] = classify(seen, stop)
        seen = stop
        lead = leads(theirs[:, :seen], correct[:seen], num_images)
        best = int(lead.argmax())
        if lead[best] > Z:
            return correct[:seen], cheaper[best].number
    correct[seen:] = classify(seen, num_images)
    return correct, None


def looks(num_images: int) -> list[int]:
    """Numbers of images after which to compare, without the last."""
    stops = [ALIGNMENT * max(1, round(share * num_images / ALIGNMENT)) for share in LOOKS]
    return [stop for stop in dict.fromkeys(stops) if stop < num_images]


def leads(theirs: NDArray[np.bool_], correct: NDArray[np.bool_], num_images: int) -> NDArray[np.float64]:
    """How many standard errors each rival is ahead on the whole split.

    Shapes: theirs [r, m], correct [m], m <= num_images -> [r]
    """
    seen = len(correct)
    difference = theirs.astype(np.float64) - correct
    left_out = (num_images - seen) / max(1, num_images - 1)
    error = np.sqrt(np.maximum(difference.var(axis=1), 1 / seen) / seen * left_out)
    lead: NDArray[np.float64] = difference.mean(axis=1) / np.maximum(error, 1e-12)
    return lead


def unpack(bits: bytes, count: int) -> NDArray[np.bool_]:
    """The first `count` bits."""
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).astype(bool)
