"""Racing: an architecture that is dominated beyond doubt on some of the images is not shown the others.

Subnets of one supernet answer alike: on most images all are right or all are wrong. The images on which the first
architectures of a search disagreed are shown first, and two architectures are compared image by image (paired), so
that few images decide, and what the rest may still change is known to be little.

Compared with a test on a random sample of the images, at the same recall of the front this needs a third fewer
(results/LOG.md). The idea of racing on paired instances is Maron and Moore's (Hoeffding races, 1994) and irace's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.evaluation.protocol import RacePlan

Z = 3.0
"""Standard deviations of what the images left may change. Measured: results/reference/replay_racing.csv."""

FIRST = 16  # whole measurements that say on which images architectures disagree

LOOKS = tuple(n / 32 for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28))
"""Shares of the images after which an architecture is compared with the front runners."""

ALIGNMENT = 64  # images; looks come after a multiple of it, so that batches stay whole


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a race was lost.

    Attributes:
        beaten_by: Number of the front runner.
        top1_interval: 95 % interval of the top-1 on the whole split, percent: from a lead that goes on growing
            with the doubt of the images to one that grows no more, and the spread beyond these.
    """

    beaten_by: int
    top1_interval: tuple[float, float]


def race_order(answers: Sequence[bytes], num_images: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Order and doubt of the images from the answers of some architectures; see `RacePlan`."""
    right = np.array([unpack(bits, num_images) for bits in answers]).sum(axis=0)
    share = (right + 0.5) / (len(answers) + 1)
    doubt = 2 * share * (1 - share)
    order = np.argsort(-doubt, kind="stable")
    return order.astype(np.int32), doubt[order].astype(np.float32)


def race(
    classify: Callable[[NDArray[np.int32]], NDArray[np.bool_]],
    num_images: int,
    costs: Mapping[str, float],
    plan: RacePlan | None,
) -> tuple[NDArray[np.bool_], Verdict | None]:
    """Classify the images part by part until all are seen or a front runner is surely better.

    A front runner counts if none of its costs is higher. It is surely better where the images it leads by so far
    exceed `Z` standard deviations of what the images left may add: on these the two are taken to be equally good,
    and to disagree as often as `doubt` says, corrected by how often they did so far.

    Args:
        classify: Numbers of images -> which of them are classified right.
        num_images: Of the split.
        costs: Of the architecture that is measured, with the front runners' names.
        plan: None: every image is seen.

    Returns:
        Which images were classified right, by number where all were seen, else in the order of the plan;
        and the verdict if the race was lost.
    """
    front_runners = plan.front_runners if plan else ()
    cheaper = [runner for runner in front_runners if all(runner.costs[name] <= costs[name] for name in runner.costs)]
    if plan is None or not cheaper:
        return classify(np.arange(num_images, dtype=np.int32)), None
    theirs = np.array([unpack(runner.correct, num_images)[plan.order] for runner in cheaper])
    correct = np.zeros(num_images, dtype=bool)
    seen = 0
    for stop in [*looks(num_images), num_images]:
        correct[seen:stop] = classify(plan.order[seen:stop])
        seen = stop
        if stop < num_images:
            lead, spread = leads(theirs[:, :seen], correct[:seen], plan.doubt)
            best = int((lead / spread).argmax())
            if lead[best] > Z * spread[best]:
                ours = theirs[best].sum() - lead[best]  # if the two are equally good from here on
                further = lead[best] * plan.doubt[seen:].sum() / plan.doubt[:seen].sum()
                ends = (ours - further - 1.96 * spread[best], ours + 1.96 * spread[best])
                low, high = (float(np.clip(100 * end / num_images, 0, 100)) for end in ends)
                return correct[:seen], Verdict(cheaper[best].number, (low, high))
    natural = np.empty_like(correct)
    natural[plan.order] = correct
    return natural, None


def looks(num_images: int) -> list[int]:
    """Numbers of images after which to compare, without the last."""
    stops = [ALIGNMENT * max(1, round(share * num_images / ALIGNMENT)) for share in LOOKS]
    return [stop for stop in dict.fromkeys(stops) if stop < num_images]


def leads(
    theirs: NDArray[np.bool_], correct: NDArray[np.bool_], doubt: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By how many images each front runner leads so far, and the standard deviation of what the rest may add.

    Shapes: theirs [r, m], correct [m], doubt [N], m < N -> [r], [r]
    """
    seen = len(correct)
    difference = theirs.astype(np.int16) - correct
    disagreed = np.maximum(np.abs(difference).sum(axis=1), 1)
    expected = doubt.astype(np.float64)
    left = expected[seen:].sum() * disagreed / expected[:seen].sum()
    return difference.sum(axis=1).astype(np.float64), np.sqrt(left)


def unpack(bits: bytes, count: int) -> NDArray[np.bool_]:
    """The first `count` bits."""
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).astype(bool)
