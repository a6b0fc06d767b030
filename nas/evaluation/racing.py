"""Racing: an architecture that is dominated beyond doubt on some of the images is not shown the others.

Subnets of one supernet answer alike: on most images all are right or all are wrong. The images on which the first
architectures of a search disagreed are shown first, and two architectures are compared image by image (paired), so
that few images decide, and what the rest may still change is known to be little.

Compared with a test on a random sample of the images, at the same recall of the front this needs a third fewer
(results/LOG.md). The idea of racing on paired instances is Maron and Moore's (Hoeffding races, 1994) and irace's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

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


class Race:
    """An architecture against front runners: tell it the answers part by part until all are seen or it has lost.

    A front runner counts if none of the architecture's costs, which have the front runners' names, is lower. It is
    surely better where the images it leads by so far exceed `Z` standard deviations of what the images left may add: on
    these the two are taken to be equally good, and to disagree as often as `doubt` says, corrected by how often they
    did so far. `order` [N] are the numbers of the images as they are to be shown; after each of `stops` answers are
    due. Without a front runner that counts it is not raced: there is one stop, the last image, in their own order. So
    many were `seen`. `verdict` is how the race was lost.
    """

    def __init__(self, num_images: int, costs: Mapping[str, float], plan: RacePlan | None) -> None:
        runners = plan.front_runners if plan else ()
        self._cheaper = [r for r in runners if all(r.costs[name] <= costs[name] for name in r.costs)]
        self.is_raced = plan is not None and len(self._cheaper) > 0
        self.order, self.stops = np.arange(num_images, dtype=np.int32), [num_images]
        if plan is not None and self._cheaper:
            self.order, self.stops, self._doubt = plan.order, [*looks(num_images), num_images], plan.doubt
            self._theirs = np.array([unpack(runner.correct, num_images)[plan.order] for runner in self._cheaper])
        self.verdict: Verdict | None = None
        self._answers = np.zeros(num_images, dtype=bool)
        self.seen = 0

    def tell(self, correct: NDArray[np.bool_]) -> None:
        """Take in which images up to the next stop were classified right."""
        num_images, seen = len(self._answers), self.seen + len(correct)
        self._answers[self.seen : seen] = correct
        self.seen = seen
        if seen == num_images:
            return
        lead, spread = leads(self._theirs[:, :seen], self._answers[:seen], self._doubt)
        best = int((lead / spread).argmax())
        if lead[best] > Z * spread[best]:
            ours = self._theirs[best].sum() - lead[best]  # if the two are equally good from here on
            further = lead[best] * self._doubt[seen:].sum() / self._doubt[:seen].sum()
            ends = (ours - further - 1.96 * spread[best], ours + 1.96 * spread[best])
            low, high = (float(np.clip(100 * end / num_images, 0, 100)) for end in ends)
            self.verdict = Verdict(self._cheaper[best].number, (low, high))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which images were classified right, by number where all were seen, else in the order they were shown."""
        if self.seen < len(self._answers):
            return self._answers[: self.seen]
        natural = np.empty_like(self._answers)
        natural[self.order] = self._answers
        return natural


def race(
    classify: Callable[[NDArray[np.int32]], NDArray[np.bool_]],
    num_images: int,
    costs: Mapping[str, float],
    plan: RacePlan | None,
) -> tuple[NDArray[np.bool_], Verdict | None]:
    """Run a `Race` where `classify` says which of the images of some numbers are classified right.

    Returns its answers, and the verdict if it was lost.
    """
    run = Race(num_images, costs, plan)
    for start, stop in pairwise((0, *run.stops)):
        run.tell(classify(run.order[start:stop]))
        if run.verdict is not None:
            break
    return run.correct, run.verdict


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
